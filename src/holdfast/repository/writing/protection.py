"""Whether a repository is protected against deletion, found out by trying: with a canary that anybody may delete.

Invariant: nothing is called protected that was not tried just now, with the credentials that a thief of this machine
would have. The canary holds nothing that anybody needs.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.core import Cancellation, Progress, ProgressTask, format_minute
from holdfast.model import PointId
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import CANARY_PREFIX, CONFIG_KEY, POINTS_PREFIX, pack_key
from holdfast.repository.points.catalogue import list_summaries
from holdfast.repository.points.point import RestorePoint, read_point
from holdfast.repository.records.immutability import LockPolicy, read_lock_policy, refresh_terms, write_lock_policy
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.vault import Vault, stamped_at
from holdfast.repository.writing.locking import PackLocks, hold_fixtures, lasting_keys
from holdfast.storage import ObjectLocked, ObjectMissing

__all__ = ["HeldPoint", "LockingReport", "Protection", "ProtectionReport", "Verdict"]

_CANARY = b"Nobody needs this object. Holdfast tries to delete it, and expects to be refused.\n"
_CANARY_HELD = timedelta(days=2)
_PATIENCE = timedelta(hours=1)
"""A keeper looks about once a minute; what it has not locked after an hour it will not."""

_POINTS_LOOKED_AT_MAX = 20
"""Newest points, one for each VM, whose locks a status asks for: some hundred requests."""
_PACKS_LOOKED_AT_MAX = 3
"""Packs of each such point: locks are set for all packs of a point or for none."""


class Verdict(enum.Enum):
    """What a trial has shown."""

    PROTECTED = "protected"
    PENDING = "pending"
    """Somebody promises to lock, and has not had the time to."""
    NOT_PROTECTED = "not-protected"
    NOT_ASKED_FOR = "not-asked-for"
    NOT_TRIED = "not-tried"
    """The trial itself failed, so nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPoint:
    """A restore point, and until when the store holds it and the packs of it that were looked at; None: it does not."""

    point: PointId
    vm_name: str
    published_at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionReport:
    """What a trial has shown, and when."""

    verdict: Verdict
    reason: str
    next_step: str
    tried_at: datetime
    days: int
    newest: tuple[HeldPoint, ...]
    """The newest points of some VMs."""

    @property
    def held_until(self) -> datetime | None:
        """Until when all those points are held; None when one is not, or there is none."""
        times = [each.until for each in self.newest]
        held = [until for until in times if until is not None]
        return min(held) if held and len(held) == len(times) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockingReport:
    """What became of the points that were there when a policy was set."""

    policy: LockPolicy
    held_points: int
    not_held: tuple[str, ...]
    """Names of point objects that could not be held: damaged, or with a pack that is gone."""


class Protection:
    """The locks of an open repository, as its owner sees them. Thread-safe."""

    def __init__(self, vault: Vault, *, workers: int) -> None:
        self._vault = vault
        self._workers = workers

    def policy(self) -> LockPolicy | None:
        """Return what the repository's owner asked for; None when nothing. ``ObjectDamaged``."""
        return read_lock_policy(self._vault)

    def set_days(self, days: int, *, progress: Progress, cancel: Cancellation) -> LockingReport:
        """Hold everything for so many days: what is there from now on, what comes from its publication on.

        With 0 nothing new is locked; what is locked stays so. Interrupted, it can be run again. ``LockDaysInvalid``.
        """
        policy = write_lock_policy(self._vault, days=days)
        if policy.terms is None:
            return LockingReport(policy=policy, held_points=0, not_held=())
        hold_fixtures(self._vault, policy.terms)
        moves = read_moves(self._vault)
        while True:
            locks = PackLocks(self._vault, workers=self._workers, cancel=cancel)
            with progress.start("locking what is there") as task:
                held, not_held = self._hold_points(locks, moves, task)
            # A collection that began before may have moved frames out of packs that were held just now.
            before, moves = moves, read_moves(self._vault)
            if set(moves.records) <= set(before.records):
                return LockingReport(policy=policy, held_points=held, not_held=not_held)

    def prove(self) -> ProtectionReport:
        """Return whether the repository is protected, after trying to delete a canary."""
        policy = read_lock_policy(self._vault)
        refresh_terms(self._vault)
        now = self._vault.clock.now()
        days = 0 if policy is None else policy.days
        newest = tuple(self._held(point) for point in self._newest_points()) if days else ()
        verdict, reason, next_step = self._try_canary(now) if days else _not_asked_for()
        if verdict is Verdict.PROTECTED:
            judged = _judge_newest(newest, now, days) or self._judge_keys(days)
            verdict, reason, next_step = judged or (verdict, reason, next_step)
        return ProtectionReport(
            verdict=verdict, reason=reason, next_step=next_step, tried_at=now, days=days, newest=newest
        )

    def held_until(self, point: RestorePoint) -> datetime | None:
        """Return until when the store says that it holds a point, and a few packs of it that are looked at."""
        return self._held(point).until

    def not_tried(self, *, reason: str, next_step: str) -> ProtectionReport:
        """Return the report of a trial that could not be made."""
        return ProtectionReport(
            verdict=Verdict.NOT_TRIED,
            reason=f"it could not be tried: {reason}",
            next_step=next_step,
            tried_at=self._vault.clock.now(),
            days=0,
            newest=(),
        )

    def _hold_points(self, locks: PackLocks, moves: Moves, task: ProgressTask) -> tuple[int, tuple[str, ...]]:
        """Hold every point that is there; return how many were, and the names of those that could not be."""
        held, not_held = 0, []
        for info in list(self._vault.names(POINTS_PREFIX)):
            try:
                length_bytes = self._hold_point(locks, moves, info.key)
            except (PointDamaged, ObjectMissing):
                length_bytes = None
            if length_bytes is None:
                not_held.append(info.key)
            else:
                held += 1
                task.advance(length_bytes)
        return held, tuple(not_held)

    def _hold_point(self, locks: PackLocks, moves: Moves, key: str) -> int | None:
        """Hold a point that is there, its packs first; return their length, None where the store does not lock."""
        point = read_point(self._vault, key)
        if point is None:
            return 0  # deleted meanwhile
        packs = {pack: use.length_bytes for pack, use in point.packs()}
        hold = locks.hold(packs, moves=moves)
        if hold.point_until is None or self._vault.store.try_lock(key, hold.point_until) is None:
            return None
        return sum(packs.values())

    def _newest_points(self) -> list[RestorePoint]:
        """Return the newest point of each of some VMs, those with the newest points first."""
        newest = {each.vm_uuid: each for each in list_summaries(self._vault).points}
        latest = sorted(newest.values(), key=lambda each: each.published_at, reverse=True)[:_POINTS_LOOKED_AT_MAX]
        found = []
        for each in latest:
            with contextlib.suppress(PointDamaged):
                point = read_point(self._vault, each.key)
                if point is not None:
                    found.append(point)
        return found

    def _held(self, point: RestorePoint) -> HeldPoint:
        """Return until when a point is held: it, and those of its packs that are looked at."""
        packs = sorted({pack for pack, _ in point.packs()})
        step = max(1, len(packs) // _PACKS_LOOKED_AT_MAX)
        times = [self._locked_until(key) for key in (point.key, *map(pack_key, packs[::step][:_PACKS_LOOKED_AT_MAX]))]
        held = [until for until in times if until is not None]
        until = min(held) if len(held) == len(times) else None
        return HeldPoint(point=point.id, vm_name=point.facts.vm.name, published_at=point.published_at, until=until)

    def _judge_keys(self, days: int) -> tuple[Verdict, str, str] | None:
        """Say what it means that points would stay and nothing could open them; None when something could."""
        keys = [key for key in lasting_keys(self._vault) if self._locked_until(key) is not None]
        if keys and self._locked_until(CONFIG_KEY) is not None:
            return None
        reason = f"points are held, but {'not the description' if keys else 'no key'} that opens them"
        return Verdict.NOT_PROTECTED, reason, f"Lock what is there: holdfast repository lock NAME --days {days}"

    def _try_canary(self, now: datetime) -> tuple[Verdict, str, str]:
        """Try to delete a canary that the store says it holds; put one where there is none yet."""
        waiting: datetime | None = None
        for info in list(self._vault.names(CANARY_PREFIX)):
            if self._locked_until(info.key) is not None:
                return self._try_delete(info.key)
            put_at = _put_at(info.key, otherwise=now)
            waiting = put_at if waiting is None else min(waiting, put_at)
        if waiting is None:
            key, waiting = self._vault.fresh_name(CANARY_PREFIX), now
            self._vault.store.put(key, _CANARY, locked_until=now + _CANARY_HELD)
            if self._locked_until(key) is not None:
                return self._try_delete(key)
        return self._judge_waiting(now, waiting)

    def _judge_waiting(self, now: datetime, waiting: datetime) -> tuple[Verdict, str, str]:
        """Say what it means that no canary is held; remove those that nobody will lock."""
        keys = [info.key for info in self._vault.names(CANARY_PREFIX)]
        is_promised = any(self._vault.store.try_lock(key, now + _CANARY_HELD) is not None for key in keys)
        if is_promised and now - waiting < _PATIENCE:
            return Verdict.PENDING, "the keeper has not locked the canary yet", "Ask again in a few minutes."
        if is_promised:
            reason = f"no keeper has locked the canary that was put at {format_minute(waiting)}"
            return Verdict.NOT_PROTECTED, reason, "Look at the keeper on the file server: holdfast keeper status."
        for key in keys:
            self._vault.store.delete(key)
        reason = f"the store cannot hold anything against deletion ({self._vault.store.describe()})"
        return Verdict.NOT_PROTECTED, reason, _CANNOT_NEXT_STEP

    def _try_delete(self, key: str) -> tuple[Verdict, str, str]:
        try:
            self._vault.store.delete(key)
        except ObjectLocked as refusal:
            until = "" if refusal.until is None else f", which holds until {format_minute(refusal.until)}"
            return Verdict.PROTECTED, f"the store refused to delete a canary{until}", "Nothing is to be done."
        reason = "the store said that it held a canary, and deleted it when asked to"
        return Verdict.NOT_PROTECTED, reason, "Take away this machine's right to lift locks; see docs/immutability.md."

    def _locked_until(self, key: str) -> datetime | None:
        with contextlib.suppress(ObjectMissing):
            return self._vault.store.locked_until(key)
        return None


_CANNOT_NEXT_STEP = (
    "On a folder, run 'holdfast keeper run' on its file server; on an object store, use a bucket with Object Lock."
)


def _judge_newest(newest: Sequence[HeldPoint], now: datetime, days: int) -> tuple[Verdict, str, str] | None:
    """Say what it means that newest points are not held; None when all are."""
    bare = [each for each in newest if each.until is None]
    late = [each for each in bare if now - each.published_at > _PATIENCE]
    if late:
        reason = f"{len(late)} of {len(newest)} newest points, or packs of theirs, are not held, e.g. {late[0].point}"
        return Verdict.NOT_PROTECTED, reason, f"Lock what is there: holdfast repository lock NAME --days {days}"
    if bare:
        return Verdict.PENDING, "the newest points are not locked yet", "Ask again in a few minutes."
    return None


def _not_asked_for() -> tuple[Verdict, str, str]:
    return (
        Verdict.NOT_ASKED_FOR,
        "nobody has asked for locks, so whoever may write here may delete everything",
        "Lock it: holdfast repository lock NAME --days 30",
    )


def _put_at(key: str, *, otherwise: datetime) -> datetime:
    """Return when a canary was put, by its name."""
    return stamped_at(key) or otherwise
