"""A seeded world: actors back up, delete, collect, scrub, mirror and restore, and crash wherever chance says.

Each world has traits of its own: a store that can punch holes or not, that is nearly full, that locks, that lists late;
clocks that jump; packs that rot; a data key that is rotated; a second repository that mirrors the first. What must hold
is in ``site``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from holdfast.core import Cancellation, ManualClock, NoProgress, SeededEntropy
from holdfast.model import RunId, VmUuid
from holdfast.repository import (
    CannotTellLivePacks,
    Damage,
    DiskNoLongerStored,
    KeyOutdated,
    LeaseLost,
    PointUnknown,
    Repository,
    RepositoryDonor,
    RestorePoint,
    RotatedMeanwhile,
    RunWriter,
    ScrubBudget,
    StoredDisk,
)
from holdfast.storage import ObjectLocked, ObjectStore, RetryStore, SimulatedCrash, StoreFull, StoreUnreachable
from holdfast.upkeep import apply_mirror, plan_mirror
from tests.sim.disks import SIZE_BYTES, Content, changed_places, mutate, write_content
from tests.sim.process import Effect, Process, ProcessClock
from tests.sim.site import GC, Ground, Site, Traits
from tests.sim.turns import Stage
from tests.support.repositories import TEST_SAFETY, disk_facts, point_facts

__all__ = ["World"]

_VMS = [VmUuid(f"vm-{number}") for number in range(3)]
_DELAY_S_MAX = 35.0
_SKEW_S_MAX = 5.0
_WILD_SKEW_S_MAX = 3000.0
"""Sixty times the margin: the store's own clock has to keep collectors from living writers."""

_PACK_BYTES = (60_000, 60_000, 200_000)
"""Two blocks, so that a disk takes several packs; or more, so that packs are often partly needed."""

_NAP_CHANCES = (0.1, 0.5)
"""How often a machine sleeps between storing a disk and publishing it; in most worlds, and in restless ones."""

_OPERATIONS_MAX = 60
"""Within how many operations of an actor its fault falls; a whole backup has about thirty."""

_DAY_S = 24 * 60 * 60
_LOCKS_END_S = 8 * _DAY_S
"""By then every lock of a day is over: they are rounded up to days, and what is needed is held a little longer."""

assert TEST_SAFETY.clock_skew_s > _DELAY_S_MAX + 2 * _SKEW_S_MAX

Work = Callable[[Repository, "Actor"], None]


@dataclass(slots=True)
class _Run:
    """One run that backs up one VM: what a durable run would remember of it."""

    id: RunId
    vm: VmUuid
    content: Content
    taken_at: datetime
    stored: StoredDisk | None = None
    is_active: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: the process it runs in, and how it opens repositories."""

    process: Process
    clock: ProcessClock
    retries: bool


class World:
    """One history. ``log`` tells what happened, for whoever reads a failing seed."""

    def __init__(self, seed: int) -> None:
        self.log: list[str] = []
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.entropy = SeededEntropy(seed)
        self.stage = Stage(self.chance, self.clock, delay_s_max=_DELAY_S_MAX)
        self.guests: dict[VmUuid, Content] = {vm: mutate({}, self.chance) for vm in _VMS}
        self.expected: dict[RunId, Content] = {}
        self.unfinished: list[_Run] = []
        self.runs = 0
        self.published = 0
        self.crashes = 0
        self.has_rot = self._is_so(0.2)
        self.has_locks = self._is_so(0.15)
        self.is_late = self._is_so(0.2)
        self.is_small = self._is_so(0.15)
        self.is_restless = self._is_so(0.3)
        self.has_wild_clocks = self._is_so(0.15)
        self.is_timed = seed % 4 != 3
        ground = Ground(clock=self.clock, entropy=self.entropy, expected=self.expected)
        self.main = Site(self._traits(is_small=self.is_small), ground)
        self.mirror: Site | None = None
        if self._is_so(0.4):
            self.mirror = Site(self._traits(is_small=False), ground, palette=self.main.palette)
        self._works = self._choose_works()

    def play(self, rounds: int) -> None:
        """Play some rounds and the end; AssertionError when an invariant does not hold."""
        for number in range(rounds):
            self.log.append(f"round {number}, {self.clock.now():%H:%M:%S}")
            self._round()
            for site in self._sites():
                site.check_points(fully=False)
            self._pass_time()
        self._end()

    def _is_so(self, chance: float) -> bool:
        return self.chance.random() < chance

    def _traits(self, *, is_small: bool) -> Traits:
        return Traits(
            pack_bytes_max=self.chance.choice(_PACK_BYTES),
            can_punch=self._is_so(0.6),
            seems_able_to_punch=self._is_so(0.3),
            is_keyed=self._is_so(0.25),
            late_changes=self.chance.randint(1, 12) if self.is_late else 0,
            capacity_bytes=self.chance.randint(100_000, 300_000) if is_small else None,
            is_timed=self.is_timed,
        )

    def _sites(self) -> list[Site]:
        return [self.main] if self.mirror is None else [self.main, self.mirror]

    def _choose_works(self) -> list[tuple[Work, int]]:
        """Return what actors do here, and how often."""
        works: list[tuple[Work, int]] = [
            (self._back_up, 10),
            (self._delete, 8 if self.is_restless else 4),
            (self._collect, 16 if self.is_restless else 8),
            (self._restore, 2),
            (self._resume, 4),
            (self._lose_index, 1),
            (self._scrub, 2),
            (self._verify, 1),
        ]
        if self.main.traits.is_keyed:
            works.append((self._rotate, 2))
        if self.has_locks:
            works.append((self._lock, 2))
        if self.mirror is not None:
            works += [(self._mirror, 6), (self._thin_mirror, 4)]
        if self.mirror is not None and self.has_rot:
            works.append((self._heal, 3))
        return works

    def _round(self) -> None:
        if self.has_rot and self._is_so(0.3):
            self.log.append(f"  rot: {self.main.plant_damage(self.chance)}")
        works, weights = zip(*self._works, strict=True)
        actors = []
        for number in range(self.chance.randint(1, 7 if self.is_restless else 5)):
            work = self.chance.choices(works, weights=weights)[0]
            actors.append((f"{number}", self._act(f"{number} {work.__name__[1:]}", work)))
        self.stage.run(actors)

    def _act(self, name: str, work: Work) -> Callable[[], None]:
        """Return an actor: a process of its own that opens the repository, works, and may meet faults."""
        # Where the store has no clock, nobody may be behind, and who collects not ahead either.
        may_be_ahead = self.has_wild_clocks and (self.is_timed or work not in (self._collect, self._thin_mirror))
        ahead_s = _WILD_SKEW_S_MAX if may_be_ahead else _SKEW_S_MAX
        behind_s = ahead_s if self.is_timed else _SKEW_S_MAX
        skew_s, jump_s = (self.chance.uniform(-behind_s, ahead_s) for _ in range(2))
        clock = ProcessClock(
            self.clock, self.stage, skew_s=skew_s, jump_at_s=self.chance.uniform(0, 200), skew_after_s=jump_s
        )
        process = Process(self.stage, self._plan())
        actor = Actor(process, clock, retries=self._is_so(0.3))

        def act() -> None:
            try:
                work(self._open(self.main, actor), actor)
                self.log.append(f"  {name}: done after {process.operations} operations")
            except SimulatedCrash:
                self.crashes += 1
                self.log.append(f"  {name}: crashed at operation {process.operations}")
            except (StoreUnreachable, StoreFull, LeaseLost, DiskNoLongerStored, KeyOutdated, RotatedMeanwhile) as error:
                self.log.append(f"  {name}: {error}")
            except CannotTellLivePacks as error:
                raise AssertionError("no point is ever damaged here") from error
            except Damage as damage:
                self.main.excuse(damage)
                self.log.append(f"  {name}: {damage}")

        return act

    def _plan(self) -> dict[int, Effect]:
        if self._is_so(0.5):
            return {}
        at = self.chance.randint(3, _OPERATIONS_MAX)
        effect = self.chance.choice(list(Effect))
        return {at + more: effect for more in range(1 if effect.is_crash else self.chance.choice([1, 1, 3]))}

    def _open(self, site: Site, actor: Actor) -> Repository:
        store: ObjectStore = site.seen_by(actor.process)
        if actor.retries:
            store = RetryStore(store, clock=actor.clock, entropy=self.entropy, cancel=Cancellation())
        return site.open(store, actor.clock)

    # What actors do.

    def _back_up(self, repository: Repository, _: Actor) -> None:
        vm = self.chance.choice(_VMS)
        self.guests[vm] = mutate(self.guests[vm], self.chance)
        self.runs += 1
        run = _Run(RunId(f"r-{self.runs}"), vm, self.guests[vm], self.clock.now())
        self.expected[run.id] = run.content
        self.unfinished.append(run)
        self._execute(repository, run)

    def _resume(self, repository: Repository, _: Actor) -> None:
        waiting = [run for run in self.unfinished if not run.is_active]
        if not waiting:
            return
        run = self.chance.choice(waiting)
        if self._is_so(0.2):
            self.log.append(f"  {run.id} is given up")
            self.unfinished.remove(run)
            repository.end_run(run.id)
        else:
            self._execute(repository, run)

    def _execute(self, repository: Repository, run: _Run) -> None:
        run.is_active = True
        try:
            reference = self._reference(repository, run.vm)
            known, is_new = self.main.known_damage(), run.stored is None
            with repository.begin_run(run.id, cancel=Cancellation()) as writer:
                self._store(writer, run, reference)
                assert run.stored is not None
                if self._is_so(_NAP_CHANCES[self.is_restless]):
                    self.stage.nap()
                facts = point_facts(run.id, vm=run.vm, taken_at=run.taken_at)
                try:
                    point = writer.publish(facts, [(disk_facts(SIZE_BYTES), run.stored)])
                except (DiskNoLongerStored, Damage):
                    run.stored = None
                    raise
                self.published += 1
                if is_new:
                    self.main.check_avoids(point, known)
                self.log.append(f"  {run.id} published {point.id}")
            self.unfinished.remove(run)
        finally:
            run.is_active = False

    def _store(self, writer: RunWriter, run: _Run, reference: RestorePoint | None) -> None:
        """Store the disk unless an earlier execution has; read it whole when its changes cannot be relied on."""
        if run.stored is not None:
            return
        if reference is not None and self._is_so(0.8):
            before = self.expected[reference.facts.run]
            changes = changed_places(before, run.content, self.chance)
            try:
                run.stored = write_content(
                    writer, self.main.palette, run.content, changes=changes, reference=reference.disks[0].stored
                )
                return
            except DiskNoLongerStored:
                self.log.append(f"  {run.id} reads the disk whole")
            except Damage as damage:
                self.main.excuse(damage)
                self.log.append(f"  {run.id} reads the disk whole: {damage}")
        whole_reference = None if reference is None or self.main.rotten else reference.disks[0].stored
        run.stored = write_content(writer, self.main.palette, run.content, changes=None, reference=whole_reference)

    def _reference(self, repository: Repository, vm: VmUuid) -> RestorePoint | None:
        points = repository.points(vm=vm)
        return self.chance.choice(points) if points else None

    def _delete(self, repository: Repository, _: Actor) -> None:
        points = repository.points()
        for point in self.chance.sample(points, min(len(points), self.chance.randint(1, 6))):
            try:
                repository.delete_point(point.id)
            except (PointUnknown, ObjectLocked):
                continue
            self.log.append(f"  deleted {point.id}")

    def _collect(self, repository: Repository, _: Actor) -> None:
        report = repository.apply_gc(repository.plan_gc(settings=GC), cancel=Cancellation(), settings=GC)
        self.log.append(f"  collected: {report}")

    def _restore(self, repository: Repository, _: Actor) -> None:
        points = repository.points()
        if points:
            self.main.check_point(repository, self.chance.choice(points))

    def _lose_index(self, _: Repository, __: Actor) -> None:
        for key in self.main.names("index/"):
            if self._is_so(0.5):
                self.main.store.delete(key)

    def _scrub(self, repository: Repository, _: Actor) -> None:
        budget = ScrubBudget(read_bytes=self.chance.choice([None, 1, 100_000]))
        report = repository.care.scrub(budget, progress=NoProgress(), cancel=Cancellation())
        self.main.check_told(report.damage)

    def _verify(self, repository: Repository, _: Actor) -> None:
        report = repository.verify(None, progress=NoProgress(), cancel=Cancellation())
        self.main.check_told(report.damage)

    def _rotate(self, repository: Repository, _: Actor) -> None:
        rotation = repository.keys.rotate(self.main.unlock, goes_on=[], leave_out=[])
        self.log.append(f"  epoch {rotation.epoch}")

    def _lock(self, repository: Repository, _: Actor) -> None:
        days = self.chance.choice([0, 1, 1])
        repository.protection.set_days(days, progress=NoProgress(), cancel=Cancellation())

    def _mirror(self, repository: Repository, actor: Actor) -> None:
        assert self.mirror is not None
        target = self._open(self.mirror, actor)
        report = apply_mirror(
            repository, target, plan_mirror(repository, target), progress=NoProgress(), cancel=Cancellation()
        )
        assert not report.failed or self.main.rotten, report.failed
        self.log.append(f"  mirrored {', '.join(report.sent)}")

    def _thin_mirror(self, _: Repository, actor: Actor) -> None:
        """Delete and collect in the mirror."""
        assert self.mirror is not None
        target = self._open(self.mirror, actor)
        self._delete(target, actor)
        self._collect(target, actor)

    def _heal(self, repository: Repository, actor: Actor) -> None:
        assert self.mirror is not None
        donor = RepositoryDonor(self._open(self.mirror, actor), cancel=Cancellation())
        done = repository.care.heal(donor, progress=NoProgress(), cancel=Cancellation())
        self.log.append(f"  healed: {done.healed}")

    # The end.

    def _end(self) -> None:
        """Let every run be resumed to its end, everything expire, and look at what is left."""
        self.main.lift_the_cap()
        repository = self.main.truth()
        for run in list(self.unfinished):
            self._finish(repository, run)
        self.clock.advance(3600)
        if self.has_locks:
            repository.protection.set_days(0, progress=NoProgress(), cancel=Cancellation())
            self.clock.advance(_LOCKS_END_S)
        for site in self._sites():
            site.check_points()
            site.heal()
            self.clock.advance(3600)
            site.check_end()

    def _finish(self, repository: Repository, run: _Run) -> None:
        for _ in range(3):
            try:
                self._execute(repository, run)
            except (DiskNoLongerStored, Damage) as failure:
                if isinstance(failure, Damage):
                    self.main.excuse(failure)
                continue
            return
        raise AssertionError(f"{run.id} does not come to its end")

    def _pass_time(self) -> None:
        self.clock.advance(self.chance.choice([0, 1, 60, 200, 2000, *([_DAY_S] if self.has_locks else [])]))
