"""The ledger sweep: whatever a finished or abandoned run left on a pool is found and removed.

Invariant: only what stands in the ledger as ours is touched, and only of runs that are over. What a run handed over on
purpose (a reference, a restored VM) has a kept line and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.core import HoldfastError, limits
from holdfast.model import OwnedKind, PoolUuid, RunId
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.upkeep.removal import remove_line
from holdfast.xapi import PoolClient

__all__ = ["NOTHING_SWEPT", "LeftOnPool", "SweepReport", "describe_line", "lines_to_sweep", "sweep_ledger"]

_ORDER = (OwnedKind.VM_SNAPSHOT, OwnedKind.VM, OwnedKind.DISK_SNAPSHOT, OwnedKind.DISK)
"""What holds others goes first: a disk cannot be removed while a VM has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOnPool:
    """Something of ours that is still there, or may be, and why."""

    what: str
    error: HoldfastError


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep removed, and what it could not; the next sweep tries again."""

    removed: tuple[str, ...]
    """One phrase per object."""
    left: tuple[LeftOnPool, ...]


NOTHING_SWEPT = SweepReport(removed=(), left=())


def lines_to_sweep(
    ledger: Ledger, *, pool: PoolUuid, is_final: Callable[[RunId], bool], now: datetime
) -> list[LedgerLine]:
    """Return the lines of final runs that a sweep has to look at.

    These are the open ones, and those closed lately whose object was never seen: a call that was under way when its
    process died may still make the object afterwards, for as long as the pool keeps its task.

    The lines are read before ``is_final`` is asked. The other way round, a run that begins in between would be taken
    for one that is over, and lose its snapshot.
    """
    lines = ledger.open_lines(pool=pool)
    for line in ledger.lines(pool=pool, states=(LedgerState.GONE,)):
        if line.external_id is None and (now - line.updated).total_seconds() < limits.POOL_TASK_LIFE_S:
            lines.append(line)
    return [line for line in lines if is_final(line.run_id)]


def sweep_ledger(pool: PoolClient, ledger: Ledger, lines: Sequence[LedgerLine]) -> SweepReport:
    """Remove from the pool what these lines stand for, and close them. Safe to run twice."""
    removed: list[str] = []
    left: list[LeftOnPool] = []
    for line in sorted(lines, key=lambda each: _ORDER.index(OwnedKind(each.kind))):
        try:
            if _sweep_line(pool, ledger, line):
                removed.append(describe_line(line))
        except HoldfastError as error:
            left.append(LeftOnPool(what=describe_line(line), error=error))
    return SweepReport(removed=tuple(removed), left=tuple(left))


def describe_line(line: LedgerLine) -> str:
    """Return a phrase for people."""
    return f"{line.kind} {line.name!r}"


def _sweep_line(pool: PoolClient, ledger: Ledger, line: LedgerLine) -> bool:
    now = ledger.get(line.id)
    if now.state is LedgerState.KEPT or (now.state is LedgerState.GONE and now.external_id is not None):
        return False  # dealt with meanwhile, with another line or by another process
    if now.kind == OwnedKind.DISK.value and _vm_was_handed_over(ledger, now):
        # The run died between the two lines of one handing over; the VM has this disk.
        ledger.keep(now.id, why="handed over with its VM")
        return False
    return remove_line(pool, ledger, now)


def _vm_was_handed_over(ledger: Ledger, disk: LedgerLine) -> bool:
    lines = ledger.lines(run=disk.run_id, states=(LedgerState.KEPT,))
    return disk.external_id is not None and any(line.kind == OwnedKind.VM.value for line in lines)
