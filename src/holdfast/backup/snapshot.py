"""The snapshot of one VM: written in the ledger first, taken, found again if the process died in between.

Invariant: whatever exists on the pool because of us has a ledger line that says so, from before it existed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.model import RUN_TAG, JsonObject, OwnedKind, PowerState, RepositoryId, RunId, Vm, VmUuid, save_vm
from holdfast.runs import Ledger
from holdfast.xapi import PoolClient, TaggedKind, VmSnapshot

__all__ = ["SnapshotDisk", "SnapshotFacts", "snapshot_name", "take_snapshot"]


class SnapshotDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the snapshot, beside the live disk it was taken of."""

    live: str
    snapshot: str
    name: str
    position: str
    bootable: bool
    size_bytes: int
    vdi_record: JsonObject
    vbd_record: JsonObject


class SnapshotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and the VM it was taken of, as the steps of a run hand it on."""

    snapshot: str
    taken_at: datetime
    vm: str
    vm_name: str
    running: bool
    tags: tuple[str, ...]
    vm_record: JsonObject
    disks: tuple[SnapshotDisk, ...]
    warnings: tuple[str, ...]


def snapshot_name(vm_name: str, run: RunId) -> str:
    """Return the name of our snapshot; unique, because a process may die before it learns the snapshot's uuid."""
    return f"[holdfast {run}] {vm_name}"


def take_snapshot(
    pool: PoolClient, ledger: Ledger, *, run: RunId, vm_uuid: VmUuid, repository: RepositoryId
) -> SnapshotFacts:
    """Return this run's snapshot of the VM. Safe to run twice: one that was taken already is found by its name."""
    vm = pool.vm(vm_uuid)
    name = snapshot_name(vm.name, run)
    details: JsonObject = {"vm": vm.uuid, "vm_name": vm.name, "repository": repository}
    line = ledger.intend(run=run, kind=OwnedKind.VM_SNAPSHOT.value, pool=pool.pool, name=name, details=details)
    warnings = _track_changes(pool, vm)
    snapshot = next(iter(pool.find_snapshots(vm.uuid, name_label=name)), None)
    if snapshot is None:
        snapshot = pool.snapshot_vm(vm.uuid, name_label=name)
    ledger.made(line, external_id=snapshot.vm)
    for snapshot_disk in snapshot.disks.values():
        disk_line = ledger.intend(
            run=run, kind=OwnedKind.DISK_SNAPSHOT.value, pool=pool.pool, name=snapshot_disk, details=details
        )
        ledger.made(disk_line, external_id=snapshot_disk)
        pool.tag(TaggedKind.DISK, snapshot_disk, RUN_TAG, run)
    pool.tag(TaggedKind.VM, snapshot.vm, RUN_TAG, run)
    saved = save_vm(vm, pool.describe_vm(vm.uuid))
    return _facts(vm, saved, snapshot, warnings=(*warnings, *snapshot.warnings))


def _track_changes(pool: PoolClient, vm: Vm) -> tuple[str, ...]:
    """Switch change tracking on where the storage can; return what a person should know."""
    told = []
    for each in vm.disks:
        if not each.disk.cbt_enabled:
            state = pool.enable_cbt(each.disk.uuid)
            if state.switched_on or not state.enabled:
                told.append(f"disk {each.position}: {state.reason}")
    return tuple(told)


def _facts(vm: Vm, saved: JsonObject, snapshot: VmSnapshot, *, warnings: tuple[str, ...]) -> SnapshotFacts:
    return SnapshotFacts(
        snapshot=snapshot.vm,
        taken_at=snapshot.taken_at,
        vm=vm.uuid,
        vm_name=vm.name,
        running=vm.power_state is not PowerState.HALTED,
        tags=vm.tags,
        vm_record=saved,
        disks=tuple(
            SnapshotDisk(
                live=each.disk.uuid,
                snapshot=snapshot.disks[each.disk.uuid],
                name=each.disk.name,
                position=each.position,
                bootable=each.bootable,
                size_bytes=each.disk.size_bytes,
                vdi_record=each.disk.record,
                vbd_record=each.vbd_record,
            )
            for each in vm.disks
            if each.disk.uuid in snapshot.disks
        ),
        warnings=warnings,
    )
