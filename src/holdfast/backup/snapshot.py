"""The snapshot of one VM: written in the ledger first, taken, and described from what was really frozen.

Invariant: whatever exists on the pool because of us has a ledger line that says so, from before it existed. Every
attempt has a name of its own, so what a dead process's call makes later is never mistaken for this one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from holdfast.core import (
    Cancellation,
    Clock,
    Entropy,
    HoldfastError,
    format_bytes,
    format_duration,
    limits,
    repeat_patiently,
)
from holdfast.model import (
    RUN_TAG,
    DiskUuid,
    JsonObject,
    OwnedKind,
    PowerState,
    RepositoryId,
    RunId,
    Vm,
    VmDisk,
    VmUuid,
    save_vm,
)
from holdfast.runs import Ledger, LedgerLine
from holdfast.xapi import (
    DiskInUse,
    DiskUnavailable,
    PoolClient,
    PoolConnectionLost,
    PoolFailure,
    PoolUnreachable,
    SnapshotFailed,
    TaggedKind,
    TaskVanished,
    VmSnapshot,
)

__all__ = ["LineRemover", "SnapshotDisk", "SnapshotFacts", "SnapshotTaker", "snapshot_name"]

LineRemover = Callable[[PoolClient, Ledger, LedgerLine], bool]
"""Removes from the pool what a ledger line stands for and closes the line; see ``holdfast.upkeep.remove_line``."""

_TOKEN_BYTES = 3

_MAY_PASS = (DiskInUse, DiskUnavailable, PoolConnectionLost, PoolUnreachable, SnapshotFailed, TaskVanished)
"""What another attempt may overcome soon: an answer that was lost, a chain that is being merged. A full SR stays full,
and a chain that is too long takes hours."""


class SnapshotDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the snapshot, beside the live disk it was taken of."""

    live: str
    """The snapshot's own uuid where the live disk is gone: it matches no later disk, which is then read in full."""
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
    vm_metadata: bytes
    disks: tuple[SnapshotDisk, ...]
    warnings: tuple[str, ...]


def snapshot_name(vm_name: str, run: RunId, token: str) -> str:
    """Return the name of one attempt's snapshot; unique, because its process may die before it learns the uuid."""
    return f"[holdfast {run} {token}] {vm_name}"


class SnapshotTaker:
    """Takes the snapshots of one run."""

    def __init__(
        self,
        pool: PoolClient,
        ledger: Ledger,
        *,
        run: RunId,
        repository: RepositoryId,
        remove_line: LineRemover,
        clock: Clock,
        entropy: Entropy,
        cancel: Cancellation,
        tell: Callable[[str], None],
    ) -> None:
        self._pool, self._ledger, self._run, self._repository = pool, ledger, run, repository
        self._remove_line, self._clock, self._entropy, self._cancel = remove_line, clock, entropy, cancel
        self._tell = tell

    def take(self, vm_uuid: VmUuid) -> SnapshotFacts:
        """Return a fresh snapshot of the VM. Safe to run twice: what an earlier attempt left is removed first.

        An earlier attempt's snapshot is not adopted. The call that makes it may still be at work, and a snapshot that
        is half made lacks disks without saying so. Trouble that may pass is waited for and told.
        """
        return repeat_patiently(
            lambda: self._take(vm_uuid),
            may_pass=lambda error: isinstance(error, _MAY_PASS),
            attempts_max=limits.MAKING_ATTEMPTS_MAX,
            wait_s=limits.MAKING_WAIT_S,
            tell=self._tell,
            clock=self._clock,
            cancel=self._cancel,
        )

    def _take(self, vm_uuid: VmUuid) -> SnapshotFacts:
        self._remove_earlier_attempts(vm_uuid)
        vm = self._pool.vm(vm_uuid)
        warnings = self._track_changes(vm)
        metadata, refusal = self._export_metadata(vm)
        saved = save_vm(vm, self._pool.describe_vm(vm.uuid))
        snapshot = self._make(vm)
        frozen = self._pool.vm(snapshot.vm)
        self._write_down_disks(vm, frozen)
        self._pool.tag(TaggedKind.VM, snapshot.vm, RUN_TAG, self._run)
        return SnapshotFacts(
            snapshot=snapshot.vm,
            taken_at=snapshot.taken_at,
            vm=vm.uuid,
            vm_name=vm.name,
            running=vm.power_state is not PowerState.HALTED,
            tags=vm.tags,
            vm_record=saved,
            vm_metadata=metadata,
            disks=_frozen_disks(vm, frozen),
            warnings=(*warnings, *refusal, *snapshot.warnings, *_missing(vm, frozen), *self._clock_warning(snapshot)),
        )

    def _remove_earlier_attempts(self, vm: VmUuid) -> None:
        for line in self._ledger.open_lines(run=self._run):
            is_vm_snapshot = line.kind == OwnedKind.VM_SNAPSHOT.value
            if line.details.get("vm") == vm and is_vm_snapshot:
                self._remove_line(self._pool, self._ledger, line)

    def _make(self, vm: Vm) -> VmSnapshot:
        name = snapshot_name(vm.name, self._run, self._entropy.token_bytes(_TOKEN_BYTES).hex())
        line = self._ledger.intend(
            run=self._run,
            kind=OwnedKind.VM_SNAPSHOT.value,
            pool=self._pool.pool,
            name=name,
            details=self._details(vm),
        )
        snapshot = self._pool.snapshot_vm(vm.uuid, name_label=name)
        self._ledger.made(line, external_id=snapshot.vm)
        return snapshot

    def _write_down_disks(self, vm: Vm, frozen: Vm) -> None:
        for each in frozen.disks:
            line = self._ledger.intend(
                run=self._run,
                kind=OwnedKind.DISK_SNAPSHOT.value,
                pool=self._pool.pool,
                name=each.disk.uuid,
                details=self._details(vm),
            )
            self._ledger.made(line, external_id=each.disk.uuid)
            self._pool.tag(TaggedKind.DISK, each.disk.uuid, RUN_TAG, self._run)

    def _details(self, vm: Vm) -> JsonObject:
        return {"vm": vm.uuid, "vm_name": vm.name, "repository": self._repository}

    def _track_changes(self, vm: Vm) -> list[str]:
        """Switch change tracking on where the storage can; return what a person should know."""
        told = []
        for each in vm.disks:
            if each.disk.cbt_enabled:
                continue
            try:
                state = self._pool.enable_cbt(each.disk.uuid)
            except PoolFailure as failure:
                # Without it the backup reads more. That is no reason to have none.
                self._cancel.check()
                told.append(f"disk {each.position}: changed block tracking could not be switched on: {failure}")
            else:
                if state.switched_on or not state.enabled:
                    told.append(f"disk {each.position}: {state.reason}")
        return told

    def _export_metadata(self, vm: Vm) -> tuple[bytes, list[str]]:
        """Return the pool's own description of the VM, or why there is none in the point."""
        try:
            metadata = self._pool.export_metadata(vm.uuid)
        except HoldfastError as error:
            self._cancel.check()
            return b"", [f"the pool's own description could not be exported, so a virtual TPM is not saved: {error}"]
        if len(metadata) > limits.VM_METADATA_BYTES_MAX:
            size = format_bytes(len(metadata))
            return b"", [f"the pool's own description is too large to be kept ({size}); a virtual TPM is not saved"]
        return metadata, []

    def _clock_warning(self, snapshot: VmSnapshot) -> list[str]:
        apart_s = abs((snapshot.taken_at - self._clock.now()).total_seconds())
        if apart_s <= limits.CLOCKS_APART_S_MAX:
            return []
        apart = format_duration(apart_s)
        return [f"the pool's clock and this machine's are {apart} apart; restore points carry the pool's time"]


def _frozen_disks(vm: Vm, frozen: Vm) -> tuple[SnapshotDisk, ...]:
    """Return the disks that the snapshot has, which may be others than the VM had a moment before or has now."""
    live = {each.disk.uuid: each for each in vm.disks}
    return tuple(_frozen_disk(each, live) for each in frozen.disks)


def _frozen_disk(frozen: VmDisk, live: dict[DiskUuid, VmDisk]) -> SnapshotDisk:
    origin = frozen.disk.snapshot_of
    # The live disk's own records say more; the snapshot's serve where it came or went at this very moment.
    described = live.get(origin, frozen) if origin is not None else frozen
    return SnapshotDisk(
        live=origin or frozen.disk.uuid,
        snapshot=frozen.disk.uuid,
        name=frozen.disk.name,
        position=frozen.position,
        bootable=frozen.bootable,
        size_bytes=frozen.disk.size_bytes,
        vdi_record=described.disk.record,
        vbd_record=described.vbd_record,
    )


def _missing(vm: Vm, frozen: Vm) -> list[str]:
    held = {each.disk.snapshot_of for each in frozen.disks}
    return [
        f"disk {each.position} {each.disk.name!r} was detached at this moment and is not in the restore point"
        for each in vm.disks
        if each.disk.uuid not in held
    ]
