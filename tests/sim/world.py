"""A seeded world: actors back up, delete, collect and restore on one repository, and crash wherever chance says.

In some worlds the store can punch holes into packs, in others it cannot and live frames are moved. Invariants, checked
while it happens and after each round: a pack that a point needs is never deleted, a frame that one needs is never
punched; every published point restores what was backed up; nothing but what points need stays in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from holdfast.core import Cancellation, Clock, ManualClock, NoProgress, SeededEntropy
from holdfast.model import Extent, RunId, VmUuid
from holdfast.repository import (
    CannotTellLivePacks,
    Damage,
    DiskNoLongerStored,
    GcSettings,
    LeaseLost,
    OpenHolder,
    OpenUnlock,
    PointUnknown,
    Repository,
    RestorePoint,
    RunWriter,
    StoredDisk,
    create_repository,
    open_repository,
)
from holdfast.repository.layout import PACKS_PREFIX, POINTS_PREFIX, PackId, pack_key, parse_pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.records.moved import read_moves
from holdfast.repository.space.gc_geometry import carve, dead_frames, live_frame_bytes
from holdfast.repository.space.gc_look import SlotLook
from holdfast.repository.vault import Vault
from holdfast.storage import Fault, FaultEffect, FaultyStore, MemoryStore, ObjectStore, SimulatedCrash, StoreUnreachable
from holdfast.storage.wrapper import StoreWrapper
from tests.sim.disks import SIZE_BYTES, Content, Palette, changed_places, mutate, read_content, write_content
from tests.sim.turns import Stage, TurnStore
from tests.support.repositories import TEST_SAFETY, disk_facts, key_ring, point_facts

__all__ = ["World"]

_VMS = [VmUuid(f"vm-{number}") for number in range(3)]
_DELAY_S_MAX = 35.0
_SKEW_S_MAX = 5.0
_PACK_BYTES = (60_000, 60_000, 200_000)
"""Two blocks, so that a disk takes several packs; or more, so that packs are often partly needed."""

_PUNCH_CHANCE = 0.6

_GC = GcSettings(is_thorough=True, moved_live_part_max=0.6, hole_bytes=512, batch_slots_max=40)
"""Every pack is worth a look, a few at a time."""

_NAP_CHANCE = 0.1
"""How often a machine sleeps between storing a disk and publishing it."""

_OPERATIONS_MAX = 60
"""Within how many operations of an actor its fault falls; a whole backup has about thirty."""

assert TEST_SAFETY.clock_skew_s > _DELAY_S_MAX + 2 * _SKEW_S_MAX


class _NoHoles(StoreWrapper):
    """A store that cannot give back a part of an object, and may tell so only when it is tried."""

    def __init__(self, inner: ObjectStore, *, seems_able: bool) -> None:
        super().__init__(inner)
        self._seems_able = seems_able

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        self._inner.size(key)
        return 0 if self._seems_able and not extents else None


class _SkewedClock:
    """A clock that is a little wrong."""

    def __init__(self, true: ManualClock, skew_s: float) -> None:
        self._true = true
        self._skew = timedelta(seconds=skew_s)

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return self._true.now() + self._skew

    def monotonic_s(self) -> float:
        """See ``Clock.monotonic_s``."""
        return self._true.monotonic_s()

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """See ``Clock.sleep``."""
        self._true.sleep(duration_s, cancel=cancel)


@dataclass(slots=True)
class _Run:
    """One run that backs up one VM: what a durable run would remember of it."""

    id: RunId
    vm: VmUuid
    content: Content
    stored: StoredDisk | None = None
    is_active: bool = False


class World:
    """One history. ``log`` tells what happened, for whoever reads a failing seed."""

    def __init__(self, seed: int) -> None:
        self.log: list[str] = []
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.entropy = SeededEntropy(seed)
        self.memory = MemoryStore()
        self.store: ObjectStore = self.memory
        if self.chance.random() >= _PUNCH_CHANCE:
            self.store = _NoHoles(self.memory, seems_able=self.chance.random() < 0.3)
        self.stage = Stage(self.chance, self.clock, delay_s_max=_DELAY_S_MAX)
        self.guests: dict[VmUuid, Content] = {vm: mutate({}, self.chance) for vm in _VMS}
        self.expected: dict[RunId, Content] = {}
        self.unfinished: list[_Run] = []
        self.runs = 0
        self.published = 0
        self.crashes = 0
        create_repository(
            self.store,
            holders=[OpenHolder()],
            clock=self.clock,
            entropy=self.entropy,
            pack_bytes_max=self.chance.choice(_PACK_BYTES),
            workers=0,
            safety=TEST_SAFETY,
        )
        self.palette = Palette(key_ring(self.store))

    def play(self, rounds: int) -> None:
        """Play some rounds and the end; AssertionError when an invariant does not hold."""
        for number in range(rounds):
            self.log.append(f"round {number}, {self.clock.now():%H:%M:%S}")
            self._round()
            self._check_points(fully=False)
            self._pass_time()
        self._end()

    def _round(self) -> None:
        actors = []
        for number in range(self.chance.randint(1, 5)):
            work = self.chance.choices(
                [self._back_up, self._delete, self._collect, self._restore, self._resume, self._lose_index],
                weights=[10, 4, 8, 2, 4, 1],
            )[0]
            actors.append((f"{number}", self._actor(f"{number} {work.__name__[1:]}", work)))
        self.stage.run(actors)

    def _actor(self, name: str, work: Callable[[Repository], None]) -> Callable[[], None]:
        """Return an actor: a process of its own that opens the repository, works, and may meet one fault."""
        clock = _SkewedClock(self.clock, self.chance.uniform(-_SKEW_S_MAX, _SKEW_S_MAX))
        faults = []
        if self.chance.random() < 0.5:
            effect = self.chance.choice(
                [
                    FaultEffect.CRASH_BEFORE,
                    FaultEffect.CRASH_AFTER,
                    FaultEffect.CRASH_AFTER,
                    FaultEffect.FAIL_BEFORE,
                    FaultEffect.FAIL_AFTER,
                ]
            )
            faults = [Fault(at=self.chance.randint(3, _OPERATIONS_MAX), effect=effect)]
        turns = TurnStore(self.store, self.stage, on_delete=self._check_delete, on_punch=self._check_punch)
        store = FaultyStore(turns, faults)

        def act() -> None:
            try:
                work(self._open(store, clock))
                self.log.append(f"  {name}: done after {store.operations} operations")
            except SimulatedCrash:
                self.crashes += 1
                self.log.append(f"  {name}: crashed at operation {store.operations}")
            except (StoreUnreachable, LeaseLost, DiskNoLongerStored) as error:
                self.log.append(f"  {name}: {error}")

        return act

    def _open(self, store: ObjectStore, clock: Clock) -> Repository:
        return open_repository(
            store, unlock=OpenUnlock(), clock=clock, entropy=self.entropy, workers=0, safety=TEST_SAFETY
        )

    # What actors do.

    def _back_up(self, repository: Repository) -> None:
        vm = self.chance.choice(_VMS)
        self.guests[vm] = mutate(self.guests[vm], self.chance)
        self.runs += 1
        run = _Run(RunId(f"r-{self.runs}"), vm, self.guests[vm])
        self.expected[run.id] = run.content
        self.unfinished.append(run)
        self._execute(repository, run)

    def _resume(self, repository: Repository) -> None:
        waiting = [run for run in self.unfinished if not run.is_active]
        if not waiting:
            return
        run = self.chance.choice(waiting)
        if self.chance.random() < 0.2:
            self.log.append(f"  {run.id} is given up")
            self.unfinished.remove(run)
            repository.end_run(run.id)
        else:
            self._execute(repository, run)

    def _execute(self, repository: Repository, run: _Run) -> None:
        run.is_active = True
        try:
            reference = self._reference(repository, run.vm)
            with repository.begin_run(run.id, cancel=Cancellation()) as writer:
                self._store(writer, run, reference)
                assert run.stored is not None
                if self.chance.random() < _NAP_CHANCE:
                    self.stage.nap()
                facts = point_facts(run.id, vm=run.vm, taken_at=self.clock.now())
                try:
                    point = writer.publish(facts, [(disk_facts(SIZE_BYTES), run.stored)])
                except DiskNoLongerStored:
                    run.stored = None
                    raise
                self.published += 1
                self.log.append(f"  {run.id} published {point.id}")
            self.unfinished.remove(run)
        finally:
            run.is_active = False

    def _store(self, writer: RunWriter, run: _Run, reference: RestorePoint | None) -> None:
        """Store the disk unless an earlier execution has; read it whole when its changes cannot be relied on."""
        if run.stored is not None:
            return
        if reference is not None and self.chance.random() < 0.8:
            before = self.expected[reference.facts.run]
            changes = changed_places(before, run.content, self.chance)
            try:
                run.stored = write_content(
                    writer, self.palette, run.content, changes=changes, reference=reference.disks[0].stored
                )
                return
            except DiskNoLongerStored:
                self.log.append(f"  {run.id} reads the disk whole")
        whole_reference = None if reference is None else reference.disks[0].stored
        run.stored = write_content(writer, self.palette, run.content, changes=None, reference=whole_reference)

    def _reference(self, repository: Repository, vm: VmUuid) -> RestorePoint | None:
        points = repository.points(vm=vm)
        return self.chance.choice(points) if points else None

    def _delete(self, repository: Repository) -> None:
        points = repository.points()
        for point in self.chance.sample(points, min(len(points), self.chance.randint(1, 6))):
            try:
                repository.delete_point(point.id)
            except PointUnknown:
                continue
            self.log.append(f"  deleted {point.id}")

    def _collect(self, repository: Repository) -> None:
        try:
            plan = repository.plan_gc(settings=_GC)
            report = repository.apply_gc(plan, cancel=Cancellation(), settings=_GC)
        except CannotTellLivePacks as error:
            raise AssertionError("no point is ever damaged here") from error
        self.log.append(f"  collected: {report}")

    def _restore(self, repository: Repository) -> None:
        points = repository.points()
        if not points:
            return
        point = self.chance.choice(points)
        try:
            found = read_content(repository, self.palette, point.disks[0].stored, Cancellation())
        except Damage as damage:
            assert point.key not in self._keys(POINTS_PREFIX), f"{point.id} is published but {damage}"
            return
        assert found == self.expected[point.facts.run]

    def _lose_index(self, repository: Repository) -> None:
        for key in self._keys("index/"):
            if self.chance.random() < 0.5:
                self.store.delete(key)

    # What must hold.

    def _check_delete(self, key: str) -> None:
        pack = parse_pack_key(key)
        if pack is not None:
            moves = read_moves(self._vault())
            for point in self._truth().points():
                needed = moves.holders_of(each for each, _ in point.packs())
                assert pack not in needed, f"{key} is deleted, but {point.id} needs it"

    def _check_punch(self, key: str, extents: Sequence[Extent]) -> None:
        pack = parse_pack_key(key)
        assert pack is not None
        if not extents or not self._keys(key):
            return
        trailer, look = self._vault().shelf.open(pack).trailer, self._look([pack])
        for slot in np.flatnonzero(look.live[0]).tolist():
            start = int(trailer.offsets[slot])
            end = start + int(trailer.rows["length"][slot - int(trailer.rows["index"][slot])])
            hit = any(extent.offset_bytes < end and start < extent.end_bytes for extent in extents)
            assert not hit, f"slot {slot} of {key} is punched, but needed"

    def _look(self, packs: Iterable[PackId]) -> SlotLook:
        """Return which slots of packs the points need now."""
        vault, wanted = self._vault(), PackSet(packs)
        counts = [len(vault.shelf.open(pack).trailer) for pack in wanted]
        look = SlotLook(vault, wanted, counts, workers=0, cancel=Cancellation())
        look.look(read_moves(vault))
        return look

    def _check_points(self, *, fully: bool = True) -> None:
        repository = self._truth()
        assert repository.damaged_points() == []
        seen = set()
        for point in repository.points():
            identity = (point.facts.run, point.facts.vm.uuid)
            assert identity not in seen, f"{identity} was published twice"
            seen.add(identity)
            assert (
                read_content(repository, self.palette, point.disks[0].stored, Cancellation())
                == self.expected[point.facts.run]
            )
        if not fully:
            return
        report = repository.verify(None, progress=NoProgress(), cancel=Cancellation())
        assert report.is_sound, report.damage

    def _end(self) -> None:
        """Let every run be resumed to its end, everything expire, and look at what is left."""
        repository = self._truth()
        for run in list(self.unfinished):
            for _ in range(3):
                try:
                    self._execute(repository, run)
                    break
                except DiskNoLongerStored:
                    continue
        assert self.unfinished == []
        self.clock.advance(3600)
        self._check_points()
        for _ in range(3):
            repository.apply_gc(repository.plan_gc(settings=_GC), cancel=Cancellation(), settings=_GC)
        self._check_points()
        self._check_space(repository)
        assert self._keys("leases/") == []
        assert self._keys("condemned/") == []

    def _check_space(self, repository: Repository) -> None:
        """Nothing is left that no point needs: no pack, no frame that can be punched, no pack that should be moved."""
        named = {pack for point in repository.points() for pack, _ in point.packs()}
        needed = read_moves(self._vault()).holders_of(named)
        assert {parse_pack_key(key) for key in self._keys(PACKS_PREFIX)} == needed
        vault, look = self._vault(), self._look(needed)
        for place, pack in enumerate(look.packs):
            trailer = vault.shelf.open(pack).trailer
            dead = dead_frames(trailer, look.live[place])
            if self.store is not self.memory:
                live_bytes = live_frame_bytes(trailer, dead)
                assert live_bytes > _GC.moved_live_part_max * int(trailer.rows["length"].sum())
                continue
            content = self.memory.get(pack_key(pack))
            for extent in carve(trailer, dead, _GC.hole_bytes).extents:
                assert not any(content[extent.offset_bytes : extent.end_bytes]), f"{pack_key(pack)} has dead frames"

    def _vault(self) -> Vault:
        return Vault(self.store, key_ring(self.store), clock=self.clock, entropy=self.entropy)

    def _truth(self) -> Repository:
        """Return the repository as it is, outside of all turns and faults."""
        return self._open(self.store, self.clock)

    def _keys(self, prefix: str) -> list[str]:
        return [info.key for info in self.store.list(prefix)]

    def _pass_time(self) -> None:
        self.clock.advance(self.chance.choice([0, 1, 60, 200, 2000]))
