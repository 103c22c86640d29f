"""Faults of changed block tracking: it is lost, cannot start, has no log, or cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.unit.lab.talk import new_disk, refusal


@pytest.fixture
def disk(api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def test_a_change_log_can_be_found_inconsistent(lab: RunningLab, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    one = api.VDI.snapshot(disk)
    uuid = api.VDI.get_uuid(disk)
    lab.control.arm_fault("cbt-lost", disk=uuid)
    two = api.VDI.snapshot(disk)
    assert (api.VDI.get_cbt_enabled(disk), api.VDI.get_cbt_enabled(two)) == (False, False)
    assert refusal(lambda: api.VDI.list_changed_blocks(one, two))[0] == "SR_BACKEND_FAILURE_460"
    told = [m for m in api.message.get_all_records().values() if m["obj_uuid"] == uuid]
    assert [m["name"] for m in told] == ["VDI_CBT_METADATA_INCONSISTENT"]
    assert uuid in told[0]["body"]


def test_tracking_can_fail_to_start_and_may_be_tried_again(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("cbt-cannot-start")
    assert refusal(lambda: api.VDI.enable_cbt(disk))[0] == "SR_BACKEND_FAILURE_457"
    assert not api.VDI.get_cbt_enabled(disk)
    api.VDI.enable_cbt(disk)
    assert api.VDI.get_cbt_enabled(disk)


@pytest.mark.parametrize("call", ["data_destroy", "list_changed_blocks"])
def test_a_snapshot_can_have_no_change_log(lab: RunningLab, api: Any, disk: str, call: str) -> None:
    api.VDI.enable_cbt(disk)
    one, two = api.VDI.snapshot(disk), api.VDI.snapshot(disk)
    lab.control.arm_fault("cbt-metadata-missing", disk=api.VDI.get_uuid(two))
    doing = {"data_destroy": lambda: api.VDI.data_destroy(two)}
    doing["list_changed_blocks"] = lambda: api.VDI.list_changed_blocks(one, two)
    assert refusal(doing[call]) == ["VDI_NO_CBT_METADATA", two]
    assert api.VDI.get_type(two) == "user"


@pytest.mark.parametrize("code", ["SR_BACKEND_FAILURE_459", "SR_BACKEND_FAILURE_460"])
def test_the_storage_driver_can_fail_to_compare(lab: RunningLab, api: Any, disk: str, code: str) -> None:
    api.VDI.enable_cbt(disk)
    one, two = api.VDI.snapshot(disk), api.VDI.snapshot(disk)
    lab.control.arm_fault("changed-blocks-fail", code=code)
    assert refusal(lambda: api.VDI.list_changed_blocks(one, two))[0] == code
    assert api.VDI.list_changed_blocks(one, two)
