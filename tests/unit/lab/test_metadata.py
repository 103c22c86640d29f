"""A VM described by one pool and made again from its description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.unit.lab.talk import converse, discard, ended, fetch, first_disk, new_disk, vm_named

Export = Callable[..., bytes]
Import = Callable[..., dict[str, Any]]


@pytest.fixture
def export(lab: RunningLab, session: Any) -> Export:
    """Return the description of a VM."""

    def get(vm: str, **query: str) -> bytes:
        pairs = "".join(f"&{key}={value}" for key, value in query.items())
        answer = fetch(lab, "GET", f"/export_metadata?session_id={session._session}&ref={vm}{pairs}")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) == len(answer.body)
        return answer.body

    return get


@pytest.fixture
def put(lab: RunningLab, session: Any, api: Any) -> Import:
    """Import a description; return the task's record."""

    def send(body: bytes, *pairs: str) -> dict[str, Any]:
        task = api.task.create("import", "")
        query = "&".join([f"session_id={session._session}", f"task_id={task}", *pairs])
        head = f"PUT /import_metadata?{query} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        converse(lab, head + body, half_close=True)
        return ended(lab, task)

    return send


def _made(record: dict[str, Any]) -> str:
    assert record["status"] == "success", record["error_info"]
    ref: str = record["result"].partition("<data><value>")[2].partition("</value>")[0]
    return ref


def _mapping(api: Any, vm: str) -> tuple[list[str], list[str]]:
    """Return new disks and the query that puts them in the place of the VM's own."""
    made, pairs = [], []
    for vbd in api.VM.get_VBDs(vm):
        if api.VBD.get_type(vbd) == "Disk":
            old = api.VBD.get_VDI(vbd)
            new = new_disk(api, int(api.VDI.get_virtual_size(old)))
            made.append(new)
            pairs.append(f"vdi:{api.VDI.get_uuid(old)}={api.VDI.get_uuid(new)}")
    return made, pairs


def test_a_copy_has_the_settings_but_its_own_identity(api: Any, export: Export, put: Import) -> None:
    vm = vm_named(api, "beta")
    disks, pairs = _mapping(api, vm)
    copy = _made(put(export(vm), *pairs))
    old, new = api.VM.get_record(vm), api.VM.get_record(copy)
    for name in (
        "name_label",
        "name_description",
        "memory_static_max",
        "VCPUs_max",
        "HVM_boot_params",
        "NVRAM",
        "tags",
    ):
        assert new[name] == old[name]
    assert new["uuid"] != old["uuid"]
    assert new["other_config"]["mac_seed"] != old["other_config"]["mac_seed"]
    assert new["power_state"] == "Halted"
    assert {api.VBD.get_VDI(vbd) for vbd in new["VBDs"] if not api.VBD.get_empty(vbd)} == set(disks)
    macs = [{api.VIF.get_MAC(vif) for vif in record["VIFs"]} for record in (old, new)]
    assert macs[0].isdisjoint(macs[1])
    discard(api, copy)


def test_a_restore_keeps_uuid_cards_and_seed(api: Any, export: Export, put: Import) -> None:
    original = api.VM.clone(_halted(api), "to be lost")
    body = export(original)
    before = api.VM.get_record(original)
    mac = api.VIF.get_MAC(before["VIFs"][0])
    disks, pairs = _mapping(api, original)
    discard(api, original)
    restored = _made(put(body, "restore=true", *pairs))
    after = api.VM.get_record(restored)
    assert after["uuid"] == before["uuid"]
    assert after["other_config"]["mac_seed"] == before["other_config"]["mac_seed"]
    assert api.VIF.get_MAC(after["VIFs"][0]) == mac
    assert int(after["version"]) == int(before["version"]) + 1
    assert first_disk(api, restored) in disks
    discard(api, restored)


def _halted(api: Any) -> str:
    snapshot: str = api.VM.snapshot(vm_named(api, "alpha"), "source of clones")
    return snapshot


def test_a_restore_over_a_vm_that_runs_or_is_as_new_is_refused(api: Any, export: Export, put: Import) -> None:
    running = vm_named(api, "alpha")
    assert put(export(running), "restore=true")["error_info"] == ["VM_BAD_POWER_STATE", running, "Halted", "Running"]
    halted = api.VM.clone(_halted(api), "as new")
    record = put(export(halted), "restore=true")
    assert record["error_info"] == ["VM_TO_IMPORT_IS_NOT_NEWER_VERSION", halted, "0", "0"]
    discard(api, halted)


def test_a_missing_disk_refuses_the_import_and_changes_nothing(api: Any, export: Export, put: Import) -> None:
    clone = api.VM.clone(_halted(api), "diskless")
    body, disk = export(clone), first_disk(api, clone)
    location, sr = api.VDI.get_location(disk), api.VDI.get_SR(disk)
    discard(api, clone)
    before = set(api.VM.get_all())
    assert put(body)["error_info"] == ["VDI_LOCATION_MISSING", sr, location]
    assert set(api.VM.get_all()) == before
    forced = _made(put(body, "force=true"))
    assert all(api.VBD.get_type(vbd) == "CD" for vbd in api.VM.get_VBDs(forced))
    api.VM.destroy(forced)


def test_a_dry_run_makes_nothing(api: Any, export: Export, put: Import) -> None:
    before = set(api.VM.get_all())
    record = put(export(vm_named(api, "alpha")), "dry_run=true")
    assert record["result"] == "<value><array><data></data></array></value>"
    assert set(api.VM.get_all()) == before


def test_snapshots_travel_when_wanted(api: Any, export: Export) -> None:
    vm = vm_named(api, "alpha")
    snapshot = api.VM.snapshot(vm, "comes along")
    assert b"comes along" in export(vm)
    assert b"comes along" not in export(vm, export_snapshots="false")
    assert b"<value>VIF</value>" not in export(vm, excluded_device_types="vif")
    discard(api, snapshot)


@pytest.mark.parametrize("body", [b"", b"garbage", bytes(512), b"ova.xml".ljust(512, b"\0")])
def test_what_is_no_description_fails_the_task(put: Import, body: bytes) -> None:
    assert put(body)["status"] == "failure"


def test_a_hostile_description_fails_the_task(api: Any, export: Export, put: Import) -> None:
    clone = api.VM.clone(_halted(api), "described")
    body = export(clone)
    before = set(api.VM.get_all())
    for old, new in (
        (b"<name>memory_static_max</name>", b"<name>memory_static_mux</name>"),
        (b"<name>userdevice</name>", b"<name>userdevics</name>"),
        (b"<value>Halted</value>", b"<value>Hovers</value>"),
        (b"objects", b"objekts"),
        (b"<struct>", b"<strukt>"),
    ):
        assert old in body
        assert put(body.replace(old, new))["status"] == "failure"
    assert set(api.VM.get_all()) == before
    huge = bytearray(body[:512])
    huge[124:136] = b"77777777777\0"
    assert put(bytes(huge))["error_info"] == ["INTERNAL_ERROR", "End_of_file"]
    assert len(body) < MIB


def test_a_guest_that_goes_on_needs_a_processor_that_is_as_good(api: Any, export: Export, put: Import) -> None:
    vm = vm_named(api, "alpha")
    api.VM.suspend(vm)
    try:
        host = api.pool.get_master(api.pool.get_all()[0])
        body = export(vm)
        vendor = api.host.get_cpu_info(host)["vendor"].encode()
        assert vendor in body
        alien = body.replace(b"<value>" + vendor + b"</value>", b"<value>" + vendor[::-1] + b"</value>")
        refused = put(alien, "check_cpu=true")["error_info"]
        assert refused[:3] == ["VM_INCOMPATIBLE_WITH_THIS_HOST", "OpaqueRef:NULL", host]
        api.VM.destroy(_made(put(alien)))
        api.VM.destroy(_made(put(body, "check_cpu=true")))
    finally:
        api.VM.resume(vm, False, False)
