"""Faults of storage drivers: what they refuse, with which code, and that nothing was changed by a refusal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.unit.lab.talk import ended, get_raw, new_disk, refusal, vm_named, wait_until
from tests.unit.lab.test_nbd_service import _reading


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    yield made
    lab.control.clear_faults()
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def test_a_driver_can_refuse_one_operation_with_any_code(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("storage-fails", operation="snapshot", code="SR_BACKEND_FAILURE_81", text="no snapshot")
    assert api.VDI.clone(disk)
    assert refusal(lambda: api.VDI.snapshot(disk)) == ["SR_BACKEND_FAILURE_81", "", "no snapshot", ""]
    assert api.VDI.get_snapshots(disk) == []


@pytest.mark.parametrize("call", ["create", "snapshot", "clone", "resize"])
def test_a_full_sr_refuses_whatever_needs_space(lab: RunningLab, api: Any, disk: str, call: str) -> None:
    lab.control.arm_fault("storage-full")
    doing = {
        "create": lambda: new_disk(api, MIB),
        "snapshot": lambda: api.VDI.snapshot(disk),
        "clone": lambda: api.VDI.clone(disk),
        "resize": lambda: api.VDI.resize(disk, str(16 * MIB)),
    }
    assert refusal(doing[call]) == ["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""]


def test_an_unreachable_sr_fails_everything_until_it_is_back(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    sr = api.SR.get_name_label(api.VDI.get_SR(disk))
    lab.control.arm_fault("storage-unreachable", sr=sr)
    for _ in range(2):
        assert refusal(lambda: api.VDI.snapshot(disk))[0] == "SR_BACKEND_FAILURE_47"
    assert b"SR_BACKEND_FAILURE_47" in get_raw(lab, session, disk).body
    assert refusal(lambda: api.VDI.destroy(disk))[0] == "SR_BACKEND_FAILURE_47"
    lab.control.clear_faults(name="storage-unreachable")
    assert api.VDI.snapshot(disk)


@pytest.mark.parametrize("name", ["storage-unreachable", "storage-detached"])
def test_an_sr_that_goes_away_ends_what_reads_from_it(
    lab: RunningLab, session: Any, api: Any, disk: str, name: str
) -> None:
    lab.pool.disks.write(api.VDI.get_uuid(disk), 0, b"kept")
    with _reading(lab, session, disk) as client:
        assert client.read(0, 512).startswith(b"kept")
        lab.control.arm_fault(name)
        with pytest.raises(OSError):
            client.read(0, 512)
    lab.control.clear_faults()
    wait_until(lab, lambda: lab.control.attachments() == [])
    assert get_raw(lab, session, disk).body.startswith(b"kept")


def test_an_export_that_loses_its_sr_fails_with_an_error_of_the_device(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    lab.pool.disks.write(api.VDI.get_uuid(disk), 0, b"kept")
    task = api.task.create("export", "")
    lab.control.arm_fault("export-stalls", after_bytes=0, seconds=3600)
    reader = threading.Thread(target=lambda: get_raw(lab, session, disk, task_id=task))
    reader.start()
    wait_until(lab, lambda: lab.control.faults() == [])
    lab.control.arm_fault("storage-unreachable")
    lab.control.advance(3600)
    reader.join(10)
    assert ended(lab, task)["error_info"][0] == "VDI_IO_ERROR"


def test_a_detached_sr_has_no_pbds_and_comes_back_when_cleared(lab: RunningLab, api: Any, disk: str) -> None:
    sr = api.VDI.get_SR(disk)
    lab.control.arm_fault("storage-detached", sr=api.SR.get_uuid(sr))
    assert [api.PBD.get_currently_attached(pbd) for pbd in api.SR.get_PBDs(sr)] == [False]
    assert refusal(lambda: new_disk(api, MIB))[0] == "SR_HAS_NO_PBDS"
    lab.control.clear_faults()
    assert [api.PBD.get_currently_attached(pbd) for pbd in api.SR.get_PBDs(sr)] == [True]
    api.VDI.destroy(new_disk(api, MIB))


def test_a_disk_can_be_unavailable_while_its_chain_is_merged(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("disk-unavailable", disk=api.VDI.get_uuid(disk))
    other = new_disk(api, MIB)
    api.VDI.destroy(other)
    assert refusal(lambda: api.VDI.destroy(disk))[0] == "SR_BACKEND_FAILURE_46"
    assert api.VDI.snapshot(disk)


def test_a_chain_can_be_too_long_for_a_snapshot(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("chain-too-long")
    assert refusal(lambda: api.VDI.snapshot(disk)) == [
        "SR_BACKEND_FAILURE_109",
        "",
        "The snapshot chain is too long",
        "",
    ]


def test_a_busy_garbage_collector_leaves_the_chain_as_it_is(lab: RunningLab, api: Any, disk: str) -> None:
    snapshot = api.VDI.snapshot(disk)
    base = api.VDI.get_sm_config(disk)["vhd-parent"]
    lab.control.arm_fault("coalesce-busy", sr=api.SR.get_uuid(api.VDI.get_SR(disk)))
    api.VDI.destroy(snapshot)
    lab.control.advance(3600)
    assert api.VDI.get_sm_config(disk)["vhd-parent"] == base
    lab.control.clear_faults()
    api.SR.scan(api.VDI.get_SR(disk))
    lab.control.advance(3600)
    assert "vhd-parent" not in api.VDI.get_sm_config(disk)


def test_the_second_disk_of_a_vm_can_fail_to_be_snapshotted(lab: RunningLab, api: Any) -> None:
    before = set(api.VM.get_all())
    lab.control.arm_fault("snapshot-fails", disk=1, code="SR_BACKEND_FAILURE_82", text="VDI snapshot failed")
    assert refusal(lambda: api.VM.snapshot(vm_named(api, "beta"), "x"))[0] == "SR_BACKEND_FAILURE_82"
    assert set(api.VM.get_all()) == before


def test_a_disk_can_stay_in_use_after_a_transfer(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("disk-stays-in-use", seconds=3600)
    with _reading(lab, session, disk) as client:
        client.read(0, 512)
    wait_until(lab, lambda: lab.control.faults() == [])
    assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    lab.control.advance(3600)
    wait_until(lab, lambda: lab.pool.db.texts("VDI", disk, "VBDs") == [])


@pytest.mark.slow(reason="data_destroy waits for the disk in real time")
def test_a_snapshot_that_stays_in_use_keeps_its_data(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    snapshot = api.VDI.snapshot(disk)
    lab.control.arm_fault("disk-stays-in-use", seconds=3600)
    with _reading(lab, session, snapshot) as client:
        client.read(0, 512)
    wait_until(lab, lambda: lab.control.faults() == [])
    assert refusal(lambda: api.VDI.data_destroy(snapshot)) == ["VDI_IN_USE", snapshot, "data_destroy"]
    assert api.VDI.get_type(snapshot) == "user"
    lab.control.advance(3600)
    wait_until(lab, lambda: lab.pool.db.texts("VDI", snapshot, "VBDs") == [])
    api.VDI.data_destroy(snapshot)
    assert api.VDI.get_type(snapshot) == "cbt_metadata"


def test_an_attachment_can_leak(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("vbd-leaks")
    assert get_raw(lab, session, disk).status == 200
    assert lab.control.attachments() == [api.VDI.get_uuid(disk)]
    assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    api.VBD.unplug(api.VDI.get_VBDs(disk)[0])
