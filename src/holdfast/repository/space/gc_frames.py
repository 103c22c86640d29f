"""Giving back the space of dead frames in packs that are still needed: in place, or by moving what is live.

Which slots are dead is found out by walking maps, for a batch of packs at a time. Then the dead slots are planned in a
record of holes, leases are waited for, and the points are looked at again, exactly as for whole packs; the argument is
in ``docs/formats/holes.md``. Invariant: a frame is punched, or left behind in an emptied pack, only while the
collector's own plan names it, after a look at the points that was taken when no writer was left that might use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, Progress, ProgressTask
from holdfast.repository.crew import in_order
from holdfast.repository.damage import Damage
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.records.holes import (
    Dead,
    HolesBook,
    HolesRecord,
    PackHoles,
    merge_plan_bits,
    read_holes,
    require_holes,
    write_holes,
)
from holdfast.repository.records.lease import Lease, list_leases
from holdfast.repository.records.moved import read_moves
from holdfast.repository.safety import Safety, Since
from holdfast.repository.space.gc_census import list_packs
from holdfast.repository.space.gc_geometry import Carving, carve, dead_frames, live_frame_bytes, slots_to_split
from holdfast.repository.space.gc_look import SlotLook
from holdfast.repository.space.gc_plan import FrameWay, GcPlan
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.space.gc_tidy import with_room
from holdfast.repository.space.repack import MovedFrames, MoveJob, move_frames
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectLocked, ObjectMissing, StoreFull

__all__ = ["FrameReport", "give_back_frames"]


@dataclass(slots=True)
class FrameReport:
    """What came back of packs that are still needed."""

    punched: set[PackId] = field(default_factory=set)
    punched_bytes: int = 0
    emptied: PackSet = field(default_factory=PackSet)
    moved_bytes: int = 0
    waiting_packs: int = 0
    locked: set[PackId] = field(default_factory=set)
    locked_until: datetime | None = None
    is_complete: bool = True

    def note_lock(self, pack: PackId, until: datetime | None) -> None:
        """Count a pack that the store holds as it is."""
        self.locked.add(pack)
        if until is not None:
            self.locked_until = until if self.locked_until is None else max(self.locked_until, until)


def give_back_frames(
    vault: Vault,
    plan: GcPlan,
    *,
    witness: Callable[[], str],
    safety: Safety,
    settings: GcSettings,
    progress: Progress,
    cancel: Cancellation,
) -> FrameReport:
    """Look at the packs that a plan calls poor, batch by batch, and give back what can be given back of them.

    ``witness`` returns the name of an object that this collection has stored.
    """
    # What is copied is given back at its old place, too.
    total_bytes = plan.poor_bytes_max + plan.copied_bytes_max
    with progress.start("giving back dead frames", total_bytes=total_bytes or None) as task:
        collector = _Collector(vault, plan, witness=witness, safety=safety, settings=settings, task=task, cancel=cancel)
        for batch in collector.batches():
            cancel.check()
            if collector.is_over_time():
                break
            collector.collect(batch)
    if len(plan.poor):
        collector.finish()
    return collector.report


@dataclass(slots=True)
class _Work:
    """What is to be done with one pack of a batch."""

    place: int
    dead: Dead
    """The slots that the plan names."""
    is_moved: bool = False
    is_repair: bool = False
    """All of them are to be named, whether their frames can go or not: a damaged record may have named them."""


class _Collector:
    """Works on batches. Everything that a crash may interrupt is in the order of ``docs/formats/holes.md``."""

    def __init__(
        self,
        vault: Vault,
        plan: GcPlan,
        *,
        witness: Callable[[], str],
        safety: Safety,
        settings: GcSettings,
        task: ProgressTask,
        cancel: Cancellation,
    ) -> None:
        self._vault = vault
        self._plan = plan
        self._witness = witness
        self._safety = safety
        self._settings = settings
        self._task = task
        self._cancel = cancel
        self._way = plan.poor_way
        self._handled: list[PackId] = []
        self._began = Since(vault.clock)
        self.report = FrameReport()

    def is_over_time(self) -> bool:
        """Return whether nothing new may be begun, and note it."""
        budget_s = self._settings.budget_s
        is_over = budget_s is not None and self._began.age_s() >= budget_s
        self.report.is_complete = self.report.is_complete and not is_over
        return is_over

    def batches(self) -> Iterator[tuple[PackSet, list[int]]]:
        """Yield packs, and how many slots each has, by what fits into memory at once."""
        packs: list[PackId] = []
        counts: list[int] = []
        workers = self._settings.workers
        for pack, slots in in_order(self._slots, iter(self._plan.poor), workers=workers, ahead=4 * workers):
            if slots is None:
                continue
            if packs and sum(counts) + slots > self._settings.batch_slots_max:
                yield PackSet(packs), counts
                packs, counts = [], []
            packs.append(pack)
            counts.append(slots)
        if packs:
            yield PackSet(packs), counts

    def _slots(self, pack: PackId) -> tuple[PackId, int | None]:
        """Return how many slots a pack has; None when its trailer cannot be read, which verification reports."""
        try:
            return pack, len(self._vault.shelf.open(pack).trailer)
        except Damage:
            return pack, None

    def collect(self, batch: tuple[PackSet, list[int]]) -> None:
        """Do everything for one batch."""
        vault = self._vault
        look = SlotLook(vault, *batch, workers=self._settings.workers, cancel=self._cancel)
        look.look(read_moves(vault))
        way, places = self._way, range(len(look.packs))
        self._decide_and_carry_out(look, places)
        if self._way is FrameWay.PUNCH:
            self._split(look)
        if self._way is not way:
            # The store seemed to be able to punch, and cannot.
            self._decide_and_carry_out(look, places)

    def _decide_and_carry_out(self, look: SlotLook, places: Sequence[int]) -> None:
        book = read_holes(self._vault)
        works = self._decide(look, places, book)
        if works:
            self._carry_out(look, works, book)

    def _split(self, look: SlotLook) -> None:
        """Copy blocks out of frames that are mostly dead, and punch those, a portion of it after the other."""
        found = (self._split_job(pack, look.live[place]) for place, pack in enumerate(look.packs))
        jobs = sorted(filter(None, found), key=lambda each: each[0], reverse=True)
        rows_left = self._settings.split_rows_max - len(read_moves(self._vault))
        rows = np.cumsum([np.count_nonzero(job.keep) for _, job in jobs])
        fitting = [job for (_, job), count in zip(jobs, rows.tolist(), strict=True) if count <= rows_left]
        for portion in self._portions(fitting):
            waiting = self.report.waiting_packs
            moved = self._copy(portion, began=Since(self._vault.clock))
            self._decide_and_carry_out(look, look.moved_away(moved.rows))
            if self._way is FrameWay.MOVE or self.report.waiting_packs > waiting:
                # Copies take space, and what they are to give back has to wait.
                break

    def _split_job(self, pack: PackId, live: npt.NDArray[np.bool_]) -> tuple[float, MoveJob] | None:
        """Return how well splitting a pack's frames pays, and what is to be copied; None when it does not."""
        trailer = self._trailer(pack)
        if trailer is None:
            return None
        settings, chosen = self._settings, slots_to_split(trailer, live)
        length_bytes = int(trailer.shares(np.flatnonzero(chosen)).sum())
        freed_bytes = (
            carve(trailer, dead_frames(trailer, live & ~chosen), settings.hole_bytes).freed_bytes
            - carve(trailer, dead_frames(trailer, live), settings.hole_bytes).freed_bytes
        )
        least_bytes = max(settings.split_bytes_min, settings.split_part_min * int(trailer.rows["length"].sum()))
        if settings.is_thorough:
            least_bytes = settings.hole_bytes
        if not chosen.any() or freed_bytes - length_bytes < least_bytes or self._is_locked(pack):
            return None
        return freed_bytes / length_bytes, MoveJob(pack, chosen, length_bytes, is_emptied=False)

    def finish(self) -> None:
        """Remove plans of collectors that are gone, and damaged records, once newer records say what they said."""
        elapsed, book = Elapsed(self._vault, witness=self._witness), read_holes(self._vault)
        handled, present = PackSet(self._handled), list_packs(self._vault).packs
        for record in book.plans:
            if record.is_abandoned(elapsed, self._safety) and not record.packs().common(present).without(handled):
                self._vault.store.delete(record.key)
        unknown = present.without(handled).without(self._plan.dead.packs).without(self._plan.emptied)
        if book.damaged and self.report.is_complete and not unknown:
            for key in book.damaged:
                self._vault.store.delete(key)

    def _decide(self, look: SlotLook, places: Sequence[int], book: HolesBook) -> list[_Work]:
        """Return what pays; note what does not, so that it is not looked at again soon."""
        packs = PackSet(look.packs.ids[list(places)])
        gone = book.gone(packs)
        claimed = merge_plan_bits(
            (each for each in book.plans if each.seems_abandoned(self._vault.clock.now(), self._safety)), packs
        )
        works, idle = [], []
        for place in places:
            pack = look.packs.pack(place)
            trailer = self._trailer(pack)
            if trailer is None:
                continue
            live, before = look.live[place], gone.get(pack)
            named = before.dead if before is not None else np.zeros(len(trailer), dtype=np.bool_)
            # What an abandoned plan meant may have been punched by it. What was not, a writer that is older than that
            # plan may still use: so it counts as gone only after it was planned anew and leases were waited for.
            meant = claimed.get(pack, named) & dead_frames(trailer, live)
            work = self._work(place, trailer, ~live, before, named=named, meant=meant, is_repair=bool(book.damaged))
            if work is not None:
                works.append(work)
            else:
                freed_bytes = carve(trailer, dead_frames(trailer, ~named), self._settings.hole_bytes).freed_bytes
                idle.append(PackHoles(pack, named, freed_bytes, look.estimates[place]))
        self._write_done(idle)
        return works

    def _work(
        self,
        place: int,
        trailer: Trailer,
        dead: Dead,
        before: PackHoles | None,
        *,
        named: Dead,
        meant: Dead,
        is_repair: bool,
    ) -> _Work | None:
        if self._way is FrameWay.MOVE:
            length_bytes = int(trailer.rows["length"].sum())
            is_poor = live_frame_bytes(trailer, dead) <= self._settings.moved_live_part_max * length_bytes
            if is_poor and dead.any():
                return _Work(place, dead, is_moved=True)
            unnamed = (dead if is_repair else meant) & ~named
            return _Work(place, named | unnamed, is_repair=True) if unnamed.any() else None
        carving = carve(trailer, dead_frames(trailer, ~dead), self._settings.hole_bytes)
        freed_before_bytes = 0 if before is None else before.freed_bytes
        wanted = carving.slots | named | (dead if is_repair else meant)
        if carving.freed_bytes > freed_before_bytes or (wanted & ~named).any():
            return _Work(place, wanted, is_repair=is_repair)
        return None

    def _carry_out(self, look: SlotLook, works: Sequence[_Work], book: HolesBook) -> None:
        vault, way = self._vault, self._way
        with_room(vault, lambda: require_holes(vault))
        began = Since(vault.clock)
        planned = [PackHoles(look.packs.pack(work.place), work.dead, 0, look.estimates[work.place]) for work in works]
        own = with_room(vault, lambda: write_holes(vault, planned, punched=False))
        # Leases are looked at after the plan is durable: a writer that is not seen here sees the plan.
        elapsed = Elapsed(vault, witness=lambda: own.key)
        running = [lease for lease in list_leases(vault) if not lease.has_ended(elapsed, self._safety)]
        # And points after the leases: what a writer that is gone has published shows.
        look.look_again(read_moves(vault))
        free = [work for work in works if self._is_free(look, work, running, own, book)]
        self.report.waiting_packs += len(works) - len(free)
        done = self._punch(look, [work for work in free if not work.is_moved], began=began)
        done += self._move(look, [work for work in free if work.is_moved], began=began)
        if done == len(works) or self._way is not way:
            # All of it was done, or none of it can be: what was not punched may be used again.
            vault.store.delete(own.key)

    def _is_free(
        self, look: SlotLook, work: _Work, running: Sequence[Lease], own: HolesRecord, book: HolesBook
    ) -> bool:
        """Return whether every running writer has seen plans that name all the slots."""
        others = [lease for lease in running if not lease.has_seen(own.key)]
        pack = PackSet([look.packs.pack(work.place)])
        for lease in others:
            seen = (each for each in book.plans if lease.has_seen(each.key))
            named = merge_plan_bits(seen, pack).get(look.packs.pack(work.place))
            if named is None or bool((work.dead & ~named).any()):
                return False
        return True

    def _punch(self, look: SlotLook, works: Sequence[_Work], *, began: Since) -> int:
        """Punch what is still dead; return how many packs are done with."""
        gone = read_holes(self._vault).gone(look.packs) if works else {}
        holes: list[PackHoles] = []
        for work in works:
            self._cancel.check()
            pack = look.packs.pack(work.place)
            trailer = self._trailer(pack)
            if trailer is None or began.age_s() > self._safety.collection_s:
                self.report.is_complete = False
                continue
            can_punch = self._way is FrameWay.PUNCH
            if not can_punch and not work.is_repair:
                break
            before = gone.get(pack)
            still = work.dead & ~look.live[work.place]
            if not work.is_repair:
                still = dead_frames(trailer, ~still)
            if before is not None:
                still = still | before.dead
            # Whatever records say, what a point needs is never punched.
            spared = ~still | look.live[work.place]
            carving = carve(trailer, dead_frames(trailer, spared), self._settings.hole_bytes)
            freed_bytes = self._try_punch(pack, carving) if can_punch else 0
            if freed_bytes is None:
                continue
            if can_punch:
                more_bytes = freed_bytes - (0 if before is None else before.freed_bytes)
                self.report.punched.add(pack)
                self.report.punched_bytes += more_bytes
                self._task.advance(more_bytes)
            holes.append(PackHoles(pack, still, freed_bytes, look.estimates[work.place]))
        self._write_done(holes)
        return len(holes)

    def _try_punch(self, pack: PackId, carving: Carving) -> int | None:
        """Return how many bytes of a pack are given back now; None when that is not possible yet, or never here."""
        if not carving.extents:
            return 0
        try:
            freed_bytes = self._vault.store.try_punch(pack_key(pack), carving.extents)
        except ObjectLocked as locked:
            self.report.note_lock(pack, locked.until)
            return None
        except ObjectMissing:
            return None
        if freed_bytes is None:
            self._way = FrameWay.MOVE
            return None
        return carving.freed_bytes

    def _move(self, look: SlotLook, works: Sequence[_Work], *, began: Since) -> int:
        """Move what is not proven dead out of packs; return how many are emptied."""
        jobs = []
        for work in works:
            pack = look.packs.pack(work.place)
            trailer = self._trailer(pack)
            if trailer is None or self._is_locked(pack):
                continue
            keep = ~work.dead | look.live[work.place]
            jobs.append(MoveJob(pack, keep, live_frame_bytes(trailer, ~keep), is_emptied=True))
        jobs.sort(key=lambda job: job.length_bytes)
        emptied = 0
        for portion in self._portions(jobs):
            if began.age_s() > self._safety.collection_s:
                self.report.is_complete = False
                break
            moved = self._copy(portion, began=began)
            emptied += len(moved.emptied)
            self._task.advance(moved.copied_bytes)
        return emptied

    def _copy(self, jobs: Sequence[MoveJob], *, began: Since) -> MovedFrames:
        """Copy what is kept of some packs, and count it."""
        try:
            moved = move_frames(
                self._vault,
                jobs,
                safety=self._safety,
                settings=self._settings,
                began=began,
                cancel=self._cancel,
            )
        except StoreFull:
            self.report.is_complete = False
            return MovedFrames()
        self._handled += moved.emptied
        self.report.emptied = self.report.emptied.joined(PackSet(moved.emptied))
        self.report.moved_bytes += moved.copied_bytes
        return moved

    def _portions(self, jobs: Sequence[MoveJob]) -> Iterator[list[MoveJob]]:
        """Yield jobs, in their order, by what may be copied at once, as far as the budget goes."""
        budget_bytes, waiting = self._settings.budget_bytes, deque(jobs)
        while waiting and not self.is_over_time():
            self._cancel.check()
            left_bytes = self._settings.portion_bytes_max
            free_bytes = self._vault.store.free_bytes()
            if free_bytes is not None:
                left_bytes = min(left_bytes, free_bytes // 2)
            if budget_bytes is not None:
                left_bytes = min(left_bytes, budget_bytes - self.report.moved_bytes)
            portion: list[MoveJob] = []
            while waiting and waiting[0].length_bytes <= left_bytes:
                portion.append(waiting.popleft())
                left_bytes -= portion[-1].length_bytes
            if not portion:
                self.report.is_complete = False
                return
            yield portion

    def _is_locked(self, pack: PackId) -> bool:
        """Return whether a pack is held as it is, so that copying its frames would give nothing back."""
        try:
            until = self._vault.store.locked_until(pack_key(pack))
        except ObjectMissing:
            return True
        if until is not None:
            self.report.note_lock(pack, until)
        return until is not None

    def _write_done(self, holes: Sequence[PackHoles]) -> None:
        if holes:
            with_room(self._vault, lambda: write_holes(self._vault, holes, punched=True))
            self._handled += [each.pack for each in holes]

    def _trailer(self, pack: PackId) -> Trailer | None:
        try:
            return self._vault.shelf.open(pack).trailer
        except Damage:
            return None
