"""Snapshots of VMs and disks: what they hold, what they share, and how they go away."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import LabDelays, RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import discard, first_disk, new_disk, refusal, vm_named


def _write(lab: RunningLab, api: Any, disk: str, offset: int, data: bytes) -> None:
    lab.pool.disks.write(api.VDI.get_uuid(disk), offset, data)


def _hash(lab: RunningLab, api: Any, disk: str) -> str:
    return lab.control.sha256(api.VDI.get_uuid(disk))


def test_a_snapshot_keeps_every_disk_while_the_vm_writes_on(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "beta")
    disk = first_disk(api, vm)
    before = _hash(lab, api, disk)
    snapshot = api.VM.snapshot(vm, "kept")
    frozen = first_disk(api, snapshot)
    _write(lab, api, disk, 5 * MIB, b"later" * 1000)
    assert _hash(lab, api, frozen) == before != _hash(lab, api, disk)
    assert len(api.VM.get_VBDs(snapshot)) == len(api.VM.get_VBDs(vm))
    discard(api, snapshot)


def test_a_snapshots_record_tells_where_it_came_from(api: Any) -> None:
    vm = vm_named(api, "beta")
    api.VM.add_to_blocked_operations(vm, "start", "no")
    snapshot = api.VM.snapshot(vm, "told")
    record, source = api.VM.get_record(snapshot), api.VM.get_record(vm)
    assert (record["is_a_snapshot"], record["is_a_template"], record["power_state"]) == (True, True, "Halted")
    assert (record["snapshot_of"], record["parent"]) == (vm, "OpaqueRef:NULL")
    assert record["snapshot_info"] == {
        "disk-snapshot-type": "crash_consistent",
        "power-state-at-snapshot": "Running",
    }
    assert record["blocked_operations"] == {}
    for name in ("other_config", "tags", "platform", "NVRAM", "memory_static_max", "affinity"):
        assert record[name] == source[name]
    assert record["generation_id"] != source["generation_id"]
    assert record["snapshot_metadata"].startswith("(")
    assert source["parent"] == snapshot
    assert source["snapshots"] == [snapshot]
    macs = [{api.VIF.get_MAC(vif) for vif in api.VM.get_VIFs(each)} for each in (vm, snapshot)]
    assert macs[0] == macs[1]
    api.VM.remove_from_blocked_operations(vm, "start")
    discard(api, snapshot)
    assert api.VM.get_parent(vm) == "OpaqueRef:NULL"


def test_snapshots_stand_on_a_hidden_base_copy_that_is_collected_later(lab: RunningLab, api: Any) -> None:
    disk = new_disk(api, 4 * MIB)
    one, two = api.VDI.snapshot(disk), api.VDI.snapshot(disk)
    parents = {api.VDI.get_sm_config(each).get("vhd-parent") for each in (disk, one, two)}
    assert len(parents) == 1
    base = api.VDI.get_record(api.VDI.get_by_uuid(parents.pop()))
    assert (base["managed"], base["read_only"], base["name_label"]) == (False, True, "base copy")
    assert refusal(lambda: api.VDI.destroy(api.VDI.get_by_uuid(base["uuid"])))[0] == "VDI_NOT_MANAGED"
    for each in (one, two, disk):
        api.VDI.destroy(each)
    assert not api.VDI.get_managed(api.VDI.get_by_uuid(base["uuid"]))
    lab.control.advance(301)
    assert refusal(lambda: api.VDI.get_by_uuid(base["uuid"])) == ["UUID_INVALID", "VDI", base["uuid"]]


def test_disks_that_shall_be_left_out_are(api: Any) -> None:
    vm = vm_named(api, "beta")
    skipped = first_disk(api, vm)
    snapshot = api.VM.snapshot(vm, "partial", [skipped])
    copied = [
        api.VDI.get_snapshot_of(api.VBD.get_VDI(vbd)) for vbd in api.VM.get_VBDs(snapshot) if not api.VBD.get_empty(vbd)
    ]
    assert len(copied) == 1
    assert skipped not in copied
    discard(api, snapshot)


def test_reverting_gives_the_vm_new_disks_with_the_old_content(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    disk = first_disk(api, vm)
    before = _hash(lab, api, disk)
    snapshot = api.VM.snapshot(vm, "back to here")
    _write(lab, api, disk, 0, b"regretted")
    api.VM.revert(snapshot)
    fresh = first_disk(api, vm)
    assert fresh != disk
    assert refusal(lambda: api.VDI.get_uuid(disk)) == ["HANDLE_INVALID", "VDI", disk]
    assert _hash(lab, api, fresh) == before
    assert api.VDI.get_snapshot_of(first_disk(api, snapshot)) == fresh
    assert api.VM.get_power_state(vm) == "Halted"
    api.VDI.enable_cbt(fresh)
    api.VM.start(vm, False, False)
    discard(api, snapshot)


def test_a_checkpoint_keeps_the_memory_and_the_vm_runs_on(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.advance(1)  # the guest must have said that it can be suspended
    made = api.VM.checkpoint(vm, "with memory")
    assert (api.VM.get_power_state(made), api.VM.get_power_state(vm)) == ("Suspended", "Running")
    image = api.VM.get_suspend_VDI(made)
    assert api.VDI.get_type(image) == "suspend"
    discard(api, made)
    api.VDI.destroy(image)


def test_a_vm_that_does_not_run_cannot_be_checkpointed(api: Any) -> None:
    vm = vm_named(api, "alpha")
    api.VM.hard_shutdown(vm)
    wanted = ["VM_BAD_POWER_STATE", vm, "paused, suspended, running", "halted"]
    assert refusal(lambda: api.VM.checkpoint(vm, "x")) == wanted
    api.VM.start(vm, False, False)


def test_a_clone_is_a_vm_of_its_own(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    snapshot = api.VM.snapshot(vm, "source")
    clone = api.VM.clone(snapshot, "clone")
    assert api.VM.get_other_config(clone)["mac_seed"] != api.VM.get_other_config(vm)["mac_seed"]
    assert _hash(lab, api, first_disk(api, clone)) == _hash(lab, api, first_disk(api, snapshot))
    assert api.VM.get_VIFs(clone) != api.VM.get_VIFs(vm)
    discard(api, clone)
    discard(api, snapshot)


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [("snapshot", "VM_IS_SNAPSHOT"), ("start", "VM_IS_SNAPSHOT"), ("suspend", "VM_BAD_POWER_STATE")],
)
def test_what_cannot_be_done_with_a_snapshot_is_refused_and_not_offered(api: Any, operation: str, wanted: str) -> None:
    snapshot = api.VM.snapshot(vm_named(api, "alpha"), "frozen")
    arguments = {"snapshot": ("x",), "start": (False, False), "suspend": ()}[operation]
    assert refusal(lambda: getattr(api.VM, operation)(snapshot, *arguments))[:2] == [wanted, snapshot]
    assert operation not in api.VM.get_allowed_operations(snapshot)
    discard(api, snapshot)


def test_an_operation_that_someone_blocked_is_refused_with_the_reason(api: Any) -> None:
    vm = vm_named(api, "alpha")
    api.VM.add_to_blocked_operations(vm, "snapshot", "not tonight")
    assert refusal(lambda: api.VM.snapshot(vm, "x")) == ["OPERATION_BLOCKED", vm, "not tonight"]
    api.VM.remove_from_blocked_operations(vm, "snapshot")


def _managed(api: Any) -> set[str]:
    return {ref for ref, record in api.VDI.get_all_records().items() if record["managed"]}


def test_a_snapshot_that_fails_on_its_second_disk_leaves_nothing(lab: RunningLab, api: Any) -> None:
    before = _managed(api), set(api.VM.get_all())
    lab.control.arm_fault("snapshot-fails", disk=1)
    assert refusal(lambda: api.VM.snapshot(vm_named(api, "beta"), "x"))[0] == "SR_BACKEND_FAILURE_44"
    assert (_managed(api), set(api.VM.get_all())) == before


def test_a_running_vms_disk_is_in_use_and_its_power_decides_what_may_be_done(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.advance(1)  # the guest must have said that it can be suspended
    disk = first_disk(api, vm)
    assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    assert refusal(lambda: api.VM.start(vm, False, False)) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    assert {"suspend", "hard_shutdown", "snapshot", "checkpoint"} <= set(api.VM.get_allowed_operations(vm))
    api.VM.suspend(vm)
    assert api.VDI.get_type(api.VM.get_suspend_VDI(vm)) == "suspend"
    api.VM.resume(vm, False, False)
    assert (api.VM.get_power_state(vm), api.VM.get_suspend_VDI(vm)) == ("Running", "OpaqueRef:NULL")


def test_sizes_are_rounded_up_to_whole_blocks_and_too_large_is_refused(api: Any) -> None:
    odd = new_disk(api, 5 * MIB + 512)
    assert api.VDI.get_virtual_size(odd) == str(6 * MIB)
    api.VDI.destroy(odd)
    assert refusal(lambda: new_disk(api, 2041 << 30))[0] == "SR_BACKEND_FAILURE_79"


def test_the_thirtieth_layer_is_the_last(api: Any, lab: RunningLab) -> None:
    disk, made = new_disk(api, 4 * MIB), []
    with pytest.raises(Exception, match="SR_BACKEND_FAILURE_109"):
        for number in range(40):
            _write(lab, api, disk, 0, bytes([number]) * 512)
            made.append(api.VDI.snapshot(disk))
    assert 25 <= len(made) <= 30
    for each in [*made, disk]:
        api.VDI.destroy(each)


def test_a_slow_pool_takes_its_time() -> None:
    with tiny_lab(delays=LabDelays(snapshot_s=0.05), scenario="empty") as lab, logged_in(lab) as session:
        api = session.xenapi
        disk = new_disk(api, 4 * MIB)
        began_s = lab.pool.clock.monotonic_s()
        api.VDI.snapshot(disk)
        assert lab.pool.clock.monotonic_s() - began_s >= 0.05
