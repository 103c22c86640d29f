"""What changes by consequence is told to those who read it, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.lab.talk import first_disk, vm_named


def _changed(api: Any, token: str, cls: str) -> tuple[set[str], str]:
    """Return the objects of a class that changed since the token, and the next one."""
    told = getattr(api.event, "from")([cls], token, 0.0)
    return {event["ref"] for event in told["events"]}, told["token"]


def _first_vbd(api: Any, vm: str) -> str:
    return next(str(vbd) for vbd in api.VM.get_VBDs(vm) if api.VBD.get_userdevice(vbd) == "0")


@pytest.fixture
def vm(api: Any) -> Any:
    found = vm_named(api, "alpha")
    yield found
    if api.VM.get_power_state(found) == "Halted":
        api.VM.start(found, False, False)


def test_a_disk_that_was_read_is_told_when_its_machine_goes_down(api: Any, vm: str) -> None:
    vbd, disk = _first_vbd(api, vm), first_disk(api, vm)
    before = api.VDI.get_record(disk)["allowed_operations"], api.VBD.get_record(vbd)["allowed_operations"]
    _, disks_token = _changed(api, "", "VDI")
    _, vbds_token = _changed(api, "", "VBD")
    api.VM.hard_shutdown(vm)
    disks, _ = _changed(api, disks_token, "VDI")
    vbds, _ = _changed(api, vbds_token, "VBD")
    after = api.VDI.get_record(disk)["allowed_operations"], api.VBD.get_record(vbd)["allowed_operations"]
    assert disk in disks and vbd in vbds
    assert after[0] != before[0] and after[1] != before[1]


def test_the_last_event_carries_what_a_reader_sees_now(api: Any, vm: str) -> None:
    api.VBD.get_all_records()
    _, token = _changed(api, "", "VBD")
    api.VM.hard_shutdown(vm)
    api.VM.start(vm, False, False)
    told = getattr(api.event, "from")(["VBD"], token, 0.0)["events"]
    for event in told:
        assert event["snapshot"]["allowed_operations"] == api.VBD.get_record(event["ref"])["allowed_operations"]


def test_what_offers_the_same_as_before_is_not_told_again(api: Any, vm: str) -> None:
    api.VBD.get_all_records()
    _, token = _changed(api, "", "VBD")
    api.VM.set_name_description(vm, "another one")
    assert _changed(api, token, "VBD")[0] == set()
