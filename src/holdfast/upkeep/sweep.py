"""The ledger sweep: whatever a finished or abandoned run left on a pool is found and removed.

Invariant: only what stands in the ledger as ours is touched, and a line is closed only when the pool no longer has the
object. What a run handed over on purpose (a reference, a restored VM) has a kept line and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.core import HoldfastError, limits
from holdfast.model import RUN_TAG, DiskUuid, OwnedKind, PoolUuid, RunId, VmUuid
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.xapi import PoolClient, TaggedKind

__all__ = ["SweepReport", "lines_to_sweep", "sweep_ledger"]

_ORDER = (OwnedKind.VM_SNAPSHOT, OwnedKind.VM, OwnedKind.DISK_SNAPSHOT, OwnedKind.DISK)
"""What holds others goes first: a disk cannot be removed while a VM has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep removed, and what it could not."""

    removed: tuple[str, ...]
    """One phrase per object."""
    left: tuple[tuple[str, HoldfastError], ...]
    """Objects that are still there, each with the reason; the next sweep tries again."""


def lines_to_sweep(
    ledger: Ledger, *, pool: PoolUuid, is_final: Callable[[RunId], bool], now: datetime
) -> list[LedgerLine]:
    """Return the lines of final runs that a sweep has to look at.

    These are the open ones, and those closed lately whose object was never seen: a call that was under way when its
    process died may still make the object afterwards, for as long as the pool keeps its task.
    """
    lines = ledger.open_lines(pool=pool)
    for line in ledger.lines(pool=pool, states=(LedgerState.GONE,)):
        if line.external_id is None and (now - line.updated).total_seconds() < limits.POOL_TASK_LIFE_S:
            lines.append(line)
    return [line for line in lines if is_final(line.run_id)]


def sweep_ledger(pool: PoolClient, ledger: Ledger, lines: Sequence[LedgerLine]) -> SweepReport:
    """Remove from the pool what these lines stand for, and close them. Safe to run twice."""
    removed: list[str] = []
    left: list[tuple[str, HoldfastError]] = []
    kept = {line.external_id for line in ledger.lines(pool=pool.pool, states=(LedgerState.KEPT,))}
    for line in sorted(lines, key=lambda each: _ORDER.index(OwnedKind(each.kind))):
        what = f"{line.kind} {line.name!r}"
        try:
            if _remove(pool, line, kept_disks=kept):
                removed.append(what)
            if line.state.is_open:
                ledger.gone(line.id)
        except HoldfastError as error:
            left.append((what, error))
    return SweepReport(removed=tuple(removed), left=tuple(left))


def _remove(pool: PoolClient, line: LedgerLine, *, kept_disks: set[str | None]) -> bool:
    """Remove one object; return whether there was anything."""
    match OwnedKind(line.kind):
        case OwnedKind.VM_SNAPSHOT:
            return _remove_snapshots(pool, line, kept_disks=kept_disks)
        case OwnedKind.DISK_SNAPSHOT:
            if line.external_id is None or pool.disk(DiskUuid(line.external_id)) is None:
                return False
            pool.destroy_disk(DiskUuid(line.external_id))
            return True
        case OwnedKind.DISK | OwnedKind.VM:
            return _remove_tagged(pool, line)


def _remove_snapshots(pool: PoolClient, line: LedgerLine, *, kept_disks: set[str | None]) -> bool:
    """Remove the snapshot of that unique name, known to us or not; its disks too unless they are kept references."""
    found = pool.find_snapshots(VmUuid(str(line.details["vm"])), name_label=line.name)
    for snapshot in found:
        keeps = any(disk in kept_disks for disk in snapshot.disks.values())
        pool.destroy_snapshot(snapshot.vm, keep_disks=keeps)
    return bool(found)


def _remove_tagged(pool: PoolClient, line: LedgerLine) -> bool:
    """Remove disks and VMs that carry the run's tag, and the one the line names."""
    wanted = TaggedKind.VM if line.kind == OwnedKind.VM.value else TaggedKind.DISK
    uuids = {
        found.uuid
        for found in pool.find_tagged(RUN_TAG)
        if found.kind is wanted and found.value.split(" ")[0] == line.run_id
    }
    if line.external_id is not None:
        uuids.add(line.external_id)
    for uuid in uuids:
        if wanted is TaggedKind.VM:
            pool.destroy_vm(VmUuid(uuid))
        else:
            pool.destroy_disk(DiskUuid(uuid))
    return bool(uuids)
