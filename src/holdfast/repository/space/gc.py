"""Garbage collection: deletes packs that no restore point needs, while backups and other collections may be running.

Dead packs are first condemned in a published list. A writer either sees the list and keeps clear of its packs, or its
lease is seen here and waited for; then the points are looked at again. The argument is in ``docs/formats/leases.md``.
Invariant: a pack is deleted only while the collector's own list condemns it, after a look at the points that was taken
when no writer was left that might use it; or when every frame of it that is needed has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, NoProgress, Progress, format_bytes, format_minute
from holdfast.repository.crew import in_order
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.records.condemned import CondemnedList, list_condemned, write_condemned
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.records.holes import HolesBook, read_holes
from holdfast.repository.records.lease import Lease, list_leases
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.safety import Safety, Since
from holdfast.repository.space.gc_census import Census, ListedPacks, held_packs, list_packs, take_census
from holdfast.repository.space.gc_frames import give_back_frames
from holdfast.repository.space.gc_plan import DeadPacks, FrameWay, GcPlan, GcReport, Wait, WaitKind
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.space.gc_tidy import tidy, with_room
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectLocked, ObjectMissing, StoreError

__all__ = ["apply_gc", "plan_gc"]

_LOCKS_ASKED_MAX = 64
"""How many dead packs a plan asks for their locks: one request each; they were mostly stored on the same days."""

Chosen = npt.NDArray[np.bool_]


def plan_gc(vault: Vault, *, safety: Safety, settings: GcSettings | None = None) -> GcPlan:
    """Return the plan. ``CannotTellLivePacks`` when a restore point is damaged."""
    settings = settings or GcSettings()
    now = vault.clock.now()
    # Packs first, then leases, then moves and points: a pack that is seen was announced in a lease, and a writer whose
    # lease is gone has published before.
    listed = list_packs(vault)
    leases = list_leases(vault)
    held = held_packs(lease for lease in leases if not lease.seems_forgotten(now, safety))
    moves = read_moves(vault)
    census = take_census(vault, listed, moves=moves, workers=settings.workers)
    is_held = listed.packs.find(held.ids)
    unheld = np.ones(len(listed.packs), dtype=np.bool_)
    unheld[is_held[is_held >= 0]] = False
    is_dead = ~census.is_needed & ~census.is_emptied & unheld
    running = [lease for lease in leases if not lease.seems_ended(now, safety)]
    dead = DeadPacks(PackSet(listed.packs.ids[is_dead]), listed.lengths[is_dead])
    is_free = _avoided_by(dead.packs, running, list_condemned(vault))
    waits, locked_bytes = _waits(vault, census, leases, dead, is_free, unheld=unheld, safety=safety)
    now_bytes = max(0, int(dead.lengths[is_free].sum()) - locked_bytes)
    holes = read_holes(vault)
    way = _way(vault, listed)
    is_poor, spare = _poor(census, holes, moves, unheld, way, settings=settings, now=now, safety=safety)
    return GcPlan(
        made_at=now,
        dead=dead,
        now_bytes=now_bytes,
        later_bytes=dead.length_bytes - now_bytes,
        waits=(*waits, *_damaged_records(holes)),
        kept_packs=len(listed.packs) - len(dead),
        kept_bytes=int(listed.lengths.sum()) - dead.length_bytes,
        poor=PackSet(listed.packs.ids[is_poor]),
        poor_bytes_max=int(spare[is_poor].sum()),
        copied_bytes_max=_copied_bytes_max(census, is_poor, spare, way),
        poor_way=way,
        forgotten=census.forgotten.without(held),
        emptied=PackSet(listed.packs.ids[census.is_emptied]),
        held=held,
    )


def apply_gc(
    vault: Vault,
    plan: GcPlan,
    *,
    safety: Safety,
    cancel: Cancellation,
    settings: GcSettings | None = None,
    progress: Progress | None = None,
) -> GcReport:
    """Condemn what the plan names, delete what is safe to delete now, leave the rest to the next collection.

    Then give back the space of dead frames in packs that are still needed, as far as the settings' budget goes.
    """
    settings = settings or GcSettings()
    progress = progress or NoProgress()
    removal = _Removal(vault, plan, safety=safety, settings=settings, progress=progress, cancel=cancel)
    removal.run()
    frames = give_back_frames(
        vault, plan, witness=removal.witness, safety=safety, settings=settings, progress=progress, cancel=cancel
    )
    tidy(
        vault,
        removal.leases,
        removal.lists,
        elapsed=Elapsed(vault, witness=removal.witness),
        own=removal.own,
        needed=removal.needed,
        forget=removal.forgettable,
        spared=plan.held.joined(plan.dead.packs).joined(plan.emptied).joined(frames.emptied),
        safety=safety,
    )
    return GcReport(
        deleted_packs=len(removal.deleted_bytes),
        freed_bytes=sum(removal.deleted_bytes),
        waiting_packs=removal.waiting,
        rescued_packs=removal.rescued,
        waits_for=tuple(_wait_for(lease) + _doubt(lease, vault, safety) for lease in removal.running)
        if removal.waiting or frames.waiting_packs
        else (),
        locked_packs=removal.locks.packs + len(frames.locked),
        locked_until=max((each for each in (removal.locks.until, frames.locked_until) if each), default=None),
        punched_packs=len(frames.punched),
        punched_bytes=frames.punched_bytes,
        emptied_packs=len(frames.emptied),
        moved_bytes=frames.moved_bytes,
        poor_waiting_packs=frames.waiting_packs,
        is_complete=frames.is_complete,
    )


@dataclass(slots=True)
class _Locks:
    packs: int = 0
    until: datetime | None = None

    def note(self, locked: ObjectLocked) -> None:
        """Count an object that is held."""
        self.packs += 1
        if locked.until is not None:
            self.until = locked.until if self.until is None else max(self.until, locked.until)


class _Removal:
    """Deleting whole packs."""

    def __init__(
        self,
        vault: Vault,
        plan: GcPlan,
        *,
        safety: Safety,
        settings: GcSettings,
        progress: Progress,
        cancel: Cancellation,
    ) -> None:
        self._vault = vault
        self._plan = plan
        self._safety = safety
        self._settings = settings
        self._progress = progress
        self._cancel = cancel
        self.own: CondemnedList | None = None
        self.lists: list[CondemnedList] = []
        self.leases: list[Lease] = []
        self.running: list[Lease] = []
        self.needed = PackSet()
        """Packs that were condemned, but are needed again."""
        self.forgettable = PackSet()
        self.deleted_bytes: list[int] = []
        self.waiting = 0
        self.rescued = 0
        self.locks = _Locks()

    def witness(self) -> str:
        """Return the name of our own list, so that the store tells now; an empty one when nothing was planned."""
        if self.own is None:
            self.own = with_room(self._vault, lambda: write_condemned(self._vault, PackSet()))
            self.lists.append(self.own)
        return self.own.key

    def run(self) -> None:
        """Condemn, look again, delete."""
        vault, plan = self._vault, self._plan
        began = Since(vault.clock)
        planned = PackSet(np.concatenate([plan.dead.packs.ids, plan.forgotten.ids]))
        if planned:
            self.own = with_room(vault, lambda: write_condemned(vault, planned))
        self.lists = list_condemned(vault)
        # Leases are looked at after the list is durable: a writer that is not seen here sees the list.
        self.leases = list_leases(vault)
        elapsed = Elapsed(vault, witness=self.witness)
        self.running = [lease for lease in self.leases if not lease.has_ended(elapsed, self._safety)]
        moves = read_moves(vault)
        # And points after the leases: what a writer that is gone has published shows.
        looked = ListedPacks(planned, np.zeros(len(planned), dtype=np.int64))
        again = take_census(vault, looked, moves=moves, workers=self._settings.workers) if planned else None
        if again is not None:
            self._delete_dead(planned, again, began=began)
        self._delete_emptied(moves)

    def _delete_dead(self, planned: PackSet, again: Census, *, began: Since) -> None:
        is_free = _avoided_by(planned, self.running, self.lists)
        self.needed = PackSet(planned.ids[again.is_needed])
        free = PackSet(planned.ids[is_free])
        self.forgettable = self._plan.forgotten.common(again.forgotten).common(free)
        at = planned.find(self._plan.dead.packs.ids)
        is_dead = ~again.is_needed[at]
        deletable = is_dead & is_free[at]
        dead = self._plan.dead
        gone = self._delete(dead.packs, dead.lengths, np.flatnonzero(deletable).tolist(), began=began)
        self.rescued = int((~is_dead).sum())
        self.waiting = int(is_dead.sum()) - gone - self.locks.packs

    def _delete_emptied(self, moves: Moves) -> None:
        """Delete packs whose frames have all moved, once every running writer knows where to."""
        emptied = self._plan.emptied.common(moves.emptied)
        if not emptied:
            return
        if any(not all(lease.has_seen(record) for record in moves.records) for lease in self.running):
            self.waiting += len(emptied)
            return
        lengths = np.array([_size(self._vault, pack) for pack in emptied], dtype=np.int64)
        self._delete(emptied, lengths, range(len(emptied)), began=None)

    def _delete(
        self, packs: PackSet, lengths: npt.NDArray[np.int64], places: Sequence[int], *, began: Since | None
    ) -> int:
        """Delete packs for as long as our own list is sure to be respected; return how many are gone."""
        vault, gone = self._vault, 0

        def delete(place: int) -> int | ObjectLocked | None:
            self._cancel.check()
            if began is not None and began.age_s() > self._safety.collection_s:
                return None
            pack = packs.pack(place)
            try:
                vault.store.delete(pack_key(pack))
            except ObjectLocked as locked:
                return locked
            vault.shelf.forget(pack)
            return int(lengths[place])

        workers = self._settings.workers
        total = int(lengths[list(places)].sum()) if places else 0
        with self._progress.start("deleting packs", total_bytes=total) as task:
            for result in in_order(delete, places, workers=workers, ahead=4 * workers):
                if isinstance(result, ObjectLocked):
                    self.locks.note(result)
                elif result is not None:
                    gone += 1
                    self.deleted_bytes.append(result)
                    task.advance(result)
        return gone


def _avoided_by(packs: PackSet, running: Iterable[Lease], lists: Sequence[CondemnedList]) -> Chosen:
    """Return for each pack whether every running writer has seen a list that condemns it."""
    is_free = np.ones(len(packs), dtype=np.bool_)
    for lease in running:
        seen = np.zeros(len(packs), dtype=np.bool_)
        for each in lists:
            if each.packs is not None and lease.has_seen(each.key):
                places = packs.find(each.packs.ids)
                seen[places[places >= 0]] = True
        is_free &= seen
    return is_free


def _waits(
    vault: Vault,
    census: Census,
    leases: Sequence[Lease],
    dead: DeadPacks,
    is_free: Chosen,
    *,
    unheld: Chosen,
    safety: Safety,
) -> tuple[list[Wait], int]:
    """Return what holds dead packs back, and how many bytes of those that are free otherwise are locked."""
    now = vault.clock.now()
    waits = []
    held_back = ~is_free
    for lease in leases:
        if lease.seems_ended(now, safety):
            continue
        waits.append(
            Wait(
                kind=WaitKind.LEASE if lease.record is None else WaitKind.RUN,
                what=_wait_for(lease),
                until=None if lease.ends_at is None else lease.ends_at + timedelta(seconds=safety.clock_skew_s),
                packs=int(held_back.sum()),
                length_bytes=int(dead.lengths[held_back].sum()),
            )
        )
    is_spared = ~census.is_needed & ~census.is_emptied & ~unheld
    if is_spared.any():
        waits.append(_spared(census, leases, is_spared, now=now, safety=safety))
    lock, locked_bytes = _locked(vault, dead, is_free)
    return [*waits, *lock], locked_bytes


def _spared(census: Census, leases: Sequence[Lease], is_spared: Chosen, *, now: datetime, safety: Safety) -> Wait:
    count, length_bytes = int(is_spared.sum()), census.listed.bytes_of(is_spared)
    margin = timedelta(seconds=safety.clock_skew_s + safety.resume_grace_s)
    ends = [lease.ends_at for lease in leases if lease.ends_at is not None and not lease.seems_forgotten(now, safety)]
    until = max(ends) + margin if ends else None
    when = "" if until is None else f", until {format_minute(until)} at the latest"
    what = f"keep {count} of them ({format_bytes(length_bytes)}) that a running or resumable backup has stored{when}"
    return Wait(kind=WaitKind.INTERRUPTED, what=what, until=until, packs=count, length_bytes=length_bytes)


def _locked(vault: Vault, dead: DeadPacks, is_free: Chosen) -> tuple[list[Wait], int]:
    """Ask some of the packs that could go now for their locks."""
    places = np.flatnonzero(is_free)
    asked = places[:: max(1, len(places) // _LOCKS_ASKED_MAX)]
    untils, packs, length_bytes = [], 0, 0
    for place in asked.tolist():
        try:
            until = vault.store.locked_until(pack_key(dead.packs.pack(place)))
        except ObjectMissing:
            continue
        if until is not None:
            untils.append(until)
            packs += 1
            length_bytes += int(dead.lengths[place])
    if not untils:
        return [], 0
    if len(asked) < len(places):
        packs = round(packs * len(places) / len(asked))
        length_bytes = round(length_bytes * len(places) / len(asked))
    what = (
        f"{packs} of them ({format_bytes(length_bytes)}) are locked against deletion, "
        f"from {format_minute(min(untils))} on they come back, the last at {format_minute(max(untils))}"
    )
    lock = Wait(kind=WaitKind.LOCK, what=what, until=max(untils), packs=packs, length_bytes=length_bytes)
    return [lock], length_bytes


def _damaged_records(holes: HolesBook) -> Iterator[Wait]:
    for key in holes.damaged:
        what = f"{key} cannot be read: until a collection has made it anew, backups store everything that they read"
        yield Wait(kind=WaitKind.RECORD, what=what, until=None, packs=0, length_bytes=0)


def _way(vault: Vault, listed: ListedPacks) -> FrameWay:
    """Return how the store gives back the space of dead frames; asked with a punch of nothing."""
    for place in range(min(len(listed.packs), 2)):
        try:
            return (
                FrameWay.MOVE
                if vault.store.try_punch(pack_key(listed.packs.pack(place)), []) is None
                else FrameWay.PUNCH
            )
        except ObjectMissing:
            continue
        except StoreError:
            # A store that may only be read, or a locked pack: what happens there is told when it is tried.
            return FrameWay.PUNCH
    return FrameWay.PUNCH


def _poor(
    census: Census,
    holes: HolesBook,
    moves: Moves,
    unheld: Chosen,
    way: FrameWay,
    *,
    settings: GcSettings,
    now: datetime,
    safety: Safety,
) -> tuple[Chosen, npt.NDArray[np.int64]]:
    """Return which packs are worth a look at their slots, and how much at most may be dead in each pack."""
    listed = census.listed
    spare = np.maximum(listed.lengths - census.live_bytes - holes.freed_bytes(listed.packs), 0)
    candidates = census.is_needed & ~census.is_emptied & unheld
    if holes.damaged or settings.is_thorough:
        return candidates, spare
    least = np.maximum(settings.poor_bytes_min, settings.poor_part_min * listed.lengths)
    before = holes.estimates(listed.packs, not_before=now - settings.looked_again_after)
    is_poor = candidates & (spare >= least) & ((before < 0) | (census.named_bytes < before))
    for place in np.flatnonzero(is_poor).tolist() if len(moves) else ():
        # What has moved out of a poor pack may be dead where it lies now; tables name the old place only.
        into = listed.packs.find(PackSet(moves.targets(listed.packs.pack(place))).ids)
        is_poor[into[into >= 0]] = candidates[into[into >= 0]]
    if way is FrameWay.MOVE:
        is_poor &= census.live_bytes <= settings.moved_live_part_max * listed.lengths
    for plan in holes.plans:
        if plan.seems_abandoned(now, safety):
            places = listed.packs.find(plan.packs().ids)
            taken_up = places[places >= 0]
            is_poor[taken_up] = candidates[taken_up]
    return is_poor, spare


def _copied_bytes_max(census: Census, is_poor: Chosen, spare: npt.NDArray[np.int64], way: FrameWay) -> int:
    """Return how much may be stored anew to give back what is dead in poor packs."""
    live = census.live_bytes[is_poor]
    # Frames are split only where that gives back as much as is copied.
    return int(live.sum() if way is FrameWay.MOVE else np.minimum(live, spare[is_poor]).sum())


def _size(vault: Vault, pack: PackId) -> int:
    try:
        return vault.store.size(pack_key(pack))
    except ObjectMissing:
        return 0


def _doubt(lease: Lease, vault: Vault, safety: Safety) -> str:
    """Return what is to be said of a lease that only the store's clock keeps."""
    if not lease.seems_ended(vault.clock.now(), safety):
        return ""
    return ": long ago by this machine's clock, not by the store's; check the clocks of both machines"


def _wait_for(lease: Lease) -> str:
    if lease.record is None:
        return f"wait for lease {lease.id}, which cannot be read; delete leases/{lease.id} when no backup is running"
    return f"wait for run {lease.record.run} on {lease.record.owner}, whose lease ends at {lease.record.ends_at}"
