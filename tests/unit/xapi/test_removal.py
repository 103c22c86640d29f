"""Removing is patient, safe twice, and touches nothing that is not ours."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.core import ManualClock
from holdfast.model import DiskUuid, VmUuid
from holdfast.xapi import DiskInUse, PoolAnswerInvalid, PoolFailure
from holdfast.xapi.attachments import detach_disk
from holdfast.xapi.calls import Calls
from holdfast.xapi.restore import destroy_vm
from holdfast.xapi.snapshots import data_destroy, destroy_disk, destroy_snapshot
from tests.unit.xapi.fake_pool import FakePool, Refusal, fake_pool, logged_in

VANISHED = ("the task is destroyed before it completes",)


class Objects:
    """A pool's database of a few objects, and removals that can be refused."""

    def __init__(self, pool: FakePool) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, list[tuple[str, ...]]] = {}
        """Method to the answers it gives first, one for each attempt."""
        self.done: list[tuple[str, str]] = []
        for kind in ("VM", "VDI", "VBD"):
            pool.methods[f"{kind}.get_by_uuid"] = self._by_uuid
            pool.methods[f"{kind}.get_record"] = self._record
        for method in ("VM.destroy", "VDI.destroy", "VDI.data_destroy", "VBD.unplug", "VBD.destroy"):
            pool.methods[f"Async.{method}"] = self._remover(pool, method)

    def add(self, ref: str, **fields: Any) -> None:
        self.rows[ref] = {"uuid": ref, "VBDs": [], "name_label": ref, **fields}

    def _by_uuid(self, _session: str, uuid: str) -> str:
        if uuid not in self.rows:
            raise Refusal("UUID_INVALID", "x", uuid)
        return uuid

    def _record(self, _session: str, ref: str) -> dict[str, Any]:
        if ref not in self.rows:
            raise Refusal("HANDLE_INVALID", "x", ref)
        return self.rows[ref]

    def _remover(self, pool: FakePool, method: str) -> Any:
        def remove(_session: str, ref: str) -> str:
            waiting = self.refusals.get(method, [])
            if waiting and waiting[0] is VANISHED:
                waiting.pop(0)
                pool.methods["event.from"] = lambda *_: {"events": [], "token": "1,1", "valid_ref_counts": {}}
                pool.methods["task.get_record"] = self._record
            elif waiting:
                pool.task_ends(status="failure", error=waiting.pop(0))
            else:
                pool.task_ends()
                self.done.append((method, ref))
                if method.endswith(".destroy"):
                    self.rows.pop(ref, None)
            return "OpaqueRef:task"

        return remove


@pytest.fixture
def made() -> Any:
    clock = ManualClock()
    with fake_pool() as pool, logged_in(pool, clock=clock) as calls:
        yield Objects(pool), calls, clock


def test_a_disk_that_is_gone_already_is_fine_twice(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    objects.add("disk")
    destroy_disk(calls, DiskUuid("disk"))
    destroy_disk(calls, DiskUuid("disk"))
    data_destroy(calls, DiskUuid("disk"))
    assert objects.done == [("VDI.destroy", "disk")]


def test_a_disk_that_goes_while_we_remove_it_is_fine(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    objects.add("disk")
    objects.refusals["VDI.destroy"] = [("HANDLE_INVALID", "VDI", "disk")]
    destroy_disk(calls, DiskUuid("disk"))
    assert objects.done == []
    assert objects.refusals["VDI.destroy"] == []


def test_a_disk_left_attached_to_the_control_domain_is_taken_away_from_it(
    made: tuple[Objects, Calls, ManualClock],
) -> None:
    objects, calls, clock = made
    objects.add("disk", VBDs=["vbd", "vbd-of-a-vm"])
    objects.add("vbd", VM="dom0", currently_attached=True)
    objects.add("dom0", is_control_domain=True)
    objects.add("vbd-of-a-vm", VM="guest", currently_attached=False)
    objects.add("guest", is_control_domain=False)
    objects.refusals["VDI.data_destroy"] = [("VDI_IN_USE", "disk", "data_destroy")]
    data_destroy(calls, DiskUuid("disk"))
    assert objects.done == [("VBD.unplug", "vbd"), ("VBD.destroy", "vbd"), ("VDI.data_destroy", "disk")]
    assert clock.monotonic_s() == 5


def test_an_attachment_that_is_still_used_is_left_and_waited_for(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, clock = made
    objects.add("disk", VBDs=["vbd"])
    objects.add("vbd", VM="dom0", currently_attached=True)
    objects.add("dom0", is_control_domain=True)
    objects.refusals["VDI.destroy"] = [("VDI_IN_USE", "disk", "destroy")] * 2
    objects.refusals["VBD.unplug"] = [("DEVICE_DETACH_REJECTED", "VBD", "vbd", "busy")] * 2
    destroy_disk(calls, DiskUuid("disk"))
    assert objects.done == [("VDI.destroy", "disk")]
    assert clock.monotonic_s() == 10


@pytest.mark.parametrize("done", [True, False])
def test_a_removal_whose_task_vanished_is_done_or_asked_for_again(
    made: tuple[Objects, Calls, ManualClock], done: bool
) -> None:
    objects, calls, clock = made
    objects.add("disk")
    objects.refusals["VDI.destroy"] = [VANISHED]
    if done:
        objects.refusals["VDI.destroy"].append(("HANDLE_INVALID", "VDI", "disk"))
    destroy_disk(calls, DiskUuid("disk"))
    assert objects.done == ([] if done else [("VDI.destroy", "disk")])
    assert 1 <= clock.monotonic_s() <= 4


def _held_disk(objects: Objects) -> None:
    objects.add("disk", VBDs=["mine", "leaked", "unplugged"])
    objects.add("mine", VM="vm", currently_attached=True)
    objects.add("leaked", VM="dom0", currently_attached=True)
    objects.add("unplugged", VM="dom0", currently_attached=False)
    objects.add("vm", is_control_domain=False)
    objects.add("dom0", is_control_domain=True)


@pytest.mark.parametrize("refusal", [("DEVICE_DETACH_REJECTED", "VBD", "leaked", "busy"), ("VDI_IN_USE", "disk")])
def test_a_restored_disk_is_taken_from_the_control_domain_and_from_nobody_else(
    made: tuple[Objects, Calls, ManualClock], refusal: tuple[str, ...]
) -> None:
    objects, calls, clock = made
    _held_disk(objects)
    objects.refusals["VBD.unplug"] = [refusal] * 2
    for _ in range(2):
        detach_disk(calls, DiskUuid("disk"))
    assert objects.done == [("VBD.unplug", "leaked"), ("VBD.destroy", "leaked"), ("VBD.destroy", "unplugged")]
    assert clock.monotonic_s() == 10
    detach_disk(calls, DiskUuid("gone"))


@pytest.mark.parametrize("method", ["VBD.unplug", "VBD.destroy"])
def test_an_attachment_that_goes_by_itself_meanwhile_is_gone(
    made: tuple[Objects, Calls, ManualClock], method: str
) -> None:
    objects, calls, _ = made
    _held_disk(objects)
    objects.refusals[method] = [("HANDLE_INVALID", "VBD", "leaked")]
    detach_disk(calls, DiskUuid("disk"))
    objects.add("leaked", VM="dom0", currently_attached=True)
    objects.refusals["VBD.unplug"] = [("DEVICE_ALREADY_DETACHED", "leaked")]
    detach_disk(calls, DiskUuid("disk"))
    assert objects.done[-1] == ("VBD.destroy", "leaked")


def test_a_control_domain_that_never_lets_go_is_told(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    _held_disk(objects)
    objects.refusals["VBD.unplug"] = [("DEVICE_DETACH_REJECTED", "VBD", "leaked", "busy")] * 100
    with pytest.raises(PoolFailure, match="DEVICE_DETACH_REJECTED"):
        detach_disk(calls, DiskUuid("disk"))


def test_a_disk_that_stays_busy_is_an_error_after_ten_attempts(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, clock = made
    objects.add("disk")
    objects.refusals["VDI.destroy"] = [("VDI_IN_USE", "disk", "destroy")] * 20
    with pytest.raises(DiskInUse):
        destroy_disk(calls, DiskUuid("disk"))
    assert clock.monotonic_s() == 45


def _snapshot(objects: Objects) -> None:
    objects.add("snap", is_a_snapshot=True, VBDs=["vbd", "cd"])
    objects.add("vbd", type="Disk", VDI="snap-disk", VM="snap")
    objects.add("cd", type="CD", VDI="iso", VM="snap")
    objects.add("snap-disk", VBDs=["vbd"])
    objects.add("iso")


def test_a_snapshot_goes_before_its_disks_and_its_cd_stays(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    _snapshot(objects)
    destroy_snapshot(calls, VmUuid("snap"), keep_disks=False)
    assert objects.done == [("VM.destroy", "snap"), ("VDI.destroy", "snap-disk")]
    destroy_snapshot(calls, VmUuid("snap"), keep_disks=False)
    assert "iso" in objects.rows


def test_kept_disks_are_kept(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    _snapshot(objects)
    destroy_snapshot(calls, VmUuid("snap"), keep_disks=True)
    assert objects.done == [("VM.destroy", "snap")]


def test_a_vm_that_is_no_snapshot_is_never_destroyed_as_one(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    objects.add("web", is_a_snapshot=False)
    with pytest.raises(PoolAnswerInvalid, match="not a snapshot"):
        destroy_snapshot(calls, VmUuid("web"), keep_disks=False)
    assert objects.done == []


def test_a_vm_goes_with_its_own_disks_but_not_with_one_it_shares(made: tuple[Objects, Calls, ManualClock]) -> None:
    objects, calls, _ = made
    objects.add("vm", VBDs=["own", "shared"])
    objects.add("own", type="Disk", VDI="own-disk", VM="vm")
    objects.add("shared", type="Disk", VDI="shared-disk", VM="vm")
    objects.add("own-disk", VBDs=["own"])
    objects.add("shared-disk", VBDs=["shared", "other"])
    destroy_vm(calls, VmUuid("vm"), with_disks=True)
    destroy_vm(calls, VmUuid("vm"), with_disks=True)
    assert objects.done == [("VM.destroy", "vm"), ("VDI.destroy", "own-disk")]
