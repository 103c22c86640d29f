"""What deleting a restore point would give back, and when.

Invariant: nothing is changed; what is promised is what only this point needs at this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.core import Cancellation, format_bytes, format_minute
from holdfast.model import PointId
from holdfast.repository.layout import pack_key
from holdfast.repository.points.point import RestorePoint
from holdfast.repository.records.lease import list_leases
from holdfast.repository.records.moved import read_moves
from holdfast.repository.safety import Safety
from holdfast.repository.space.gc_plan import Wait, WaitKind
from holdfast.repository.space.statistics import freed_by_deleting
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["DeletionPlan", "plan_deletion"]

_LOCKS_ASKED_MAX = 16
"""Packs of a point were mostly stored, or locked anew, on the same day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionPlan:
    """What comes back with the garbage collection that follows. A value; it changes nothing."""

    point: PointId
    frees_bytes: int
    """Frames that no other point needs. A store that cannot punch holes gives some of it back later than the rest."""
    waits: tuple[Wait, ...]

    def explain(self) -> str:
        """Return the plan for people, a few lines."""
        when = "after the next garbage collection" if not self.waits else "later than the next garbage collection:"
        return "\n".join([f"frees {format_bytes(self.frees_bytes)}, {when}", *(each.what for each in self.waits)])


def plan_deletion(
    vault: Vault, point: RestorePoint, *, safety: Safety, workers: int, cancel: Cancellation
) -> DeletionPlan:
    """Return the plan, from a walk over the maps of the points that share packs with this one."""
    frees_bytes = freed_by_deleting(vault, point.id, workers=workers, cancel=cancel)
    waits = [*_running(vault, safety, frees_bytes), *_locks(vault, point, frees_bytes)]
    return DeletionPlan(point=point.id, frees_bytes=frees_bytes, waits=tuple(waits))


def _running(vault: Vault, safety: Safety, length_bytes: int) -> list[Wait]:
    now = vault.clock.now()
    waits = []
    for lease in list_leases(vault):
        if lease.seems_ended(now, safety):
            continue
        ends_at = lease.ends_at
        until = None if ends_at is None else ends_at + timedelta(seconds=safety.clock_skew_s)
        name = f"run {lease.run}" if lease.run else f"lease {lease.id}, which cannot be read"
        kind = WaitKind.RUN if lease.run else WaitKind.LEASE
        what = f"waits for {name}, which is writing now"
        waits.append(Wait(kind=kind, what=what, until=until, packs=0, length_bytes=length_bytes))
    return waits


def _locks(vault: Vault, point: RestorePoint, length_bytes: int) -> list[Wait]:
    """Return until when the point itself is held, and until when some of its packs are."""
    waits = []
    held = _locked_until(vault, point.key)
    if held is not None:
        what = f"the point itself is held until {format_minute(held)} and cannot be deleted before"
        waits.append(Wait(kind=WaitKind.LOCK, what=what, until=held, packs=0, length_bytes=length_bytes))
    packs = sorted(read_moves(vault).holders_of(pack for pack, _ in point.packs()))
    asked = packs[:: max(1, len(packs) // _LOCKS_ASKED_MAX)]
    untils = [until for pack in asked if (until := _locked_until(vault, pack_key(pack))) is not None]
    if untils:
        what = f"its packs are locked against deletion, until {format_minute(max(untils))} as far as was asked"
        waits.append(
            Wait(kind=WaitKind.LOCK, what=what, until=max(untils), packs=len(packs), length_bytes=length_bytes)
        )
    return waits


def _locked_until(vault: Vault, key: str) -> datetime | None:
    try:
        return vault.store.locked_until(key)
    except ObjectMissing:
        return None
