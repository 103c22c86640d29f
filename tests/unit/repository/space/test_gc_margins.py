"""Collectors that sleep, and lists that cannot be read: nobody deletes by what others have stopped to respect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from holdfast.core import ManualClock, NoProgress
from holdfast.model import Extent, VmUuid
from holdfast.repository import GcSettings, ScrubBudget, ScrubReport, VerifyReport
from holdfast.repository.records.holes import read_holes
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore, ObjectInfo, ObjectStore
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import TEST_SAFETY, World, image_of, key_ring

FIRST = {number: 2 * number + 2 for number in range(9)}
NEWER = {**FIRST, 0: 40, 1: 42, 2: 44, 3: 46, 4: 48}
LONG_S = TEST_SAFETY.collection_s + TEST_SAFETY.clock_skew_s + 1
THOROUGH = GcSettings(is_thorough=True, moved_live_part_max=0.7)
OTHER = VmUuid("other")


class SleepyClock(ManualClock):
    """The clock of a machine that can be put to sleep, which its monotonic clock does not see."""

    def __init__(self) -> None:
        super().__init__()
        self._asleep = timedelta()

    def now(self) -> datetime:
        return super().now() + self._asleep

    def put_to_sleep(self, duration_s: float) -> None:
        self._asleep += timedelta(seconds=duration_s)


class Eventful(StoreWrapper):
    """A store on which something happens right after some names were listed, as often as told."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.waiting: list[tuple[str, Callable[[], None]]] = []

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from list(super().list(prefix))
        if self.waiting and self.waiting[0][0] == prefix:
            self.waiting.pop(0)[1]()


class WithoutHoles(Eventful):
    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        self._inner.size(key)
        return None


def sleepy_world(store: type[Eventful] = Eventful) -> tuple[World, Eventful, SleepyClock]:
    memory, clock = MemoryStore(), SleepyClock()
    wrapped = store(memory)
    return World(wrapped, memory=memory, clock=clock), wrapped, clock


def another_machine(world: World) -> World:
    """Return the same repository as another process has it open."""
    other = copy.copy(world)
    other.store = world.memory
    other.reopen()
    return other


def test_a_collector_that_was_asleep_deletes_nothing_when_it_wakes() -> None:
    world, store, clock = sleepy_world()
    image = image_of(FIRST, count=9)
    world.repository.delete_point(world.back_up(image, run="r-1").id)

    def meanwhile() -> None:
        clock.put_to_sleep(LONG_S)
        other = another_machine(world)
        # The list is too old for its collector to be at work, so another one may remove it; then nothing is condemned.
        (spent,) = world.keys("condemned/")
        world.memory.delete(spent)
        assert other.back_up(image, run="r-2", vm=OTHER).sizes.new_bytes == 0

    plan = world.repository.plan_gc()
    store.waiting = [("points/", meanwhile)]
    assert world.repository.apply_gc(plan, cancel=world.cancel).deleted_packs == 0
    (left,) = world.reopen().points()
    assert world.restore(left) == image


@pytest.mark.parametrize("kind", [Eventful, WithoutHoles])
def test_a_collector_that_was_asleep_gives_no_frames_back_when_it_wakes(kind: type[Eventful]) -> None:
    world, store, clock = sleepy_world(kind)
    image, newer = image_of(FIRST, count=9), image_of(NEWER, count=9)
    first = world.back_up(image, run="r-1")
    kept = world.back_up_changes(newer, [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)

    def meanwhile() -> None:
        clock.put_to_sleep(LONG_S)
        vault = Vault(world.memory, key_ring(world.memory), clock=clock, entropy=world.entropy)
        (spent,) = read_holes(vault).plans
        world.memory.delete(spent.key)
        assert another_machine(world).back_up(image, run="r-3", vm=OTHER).sizes.new_bytes == 0

    plan = world.repository.plan_gc(settings=THOROUGH)
    # Points are looked at for the plan of holes, and again when leases were waited for.
    store.waiting = [("points/", lambda: None), ("points/", meanwhile)]
    report = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert store.waiting == []
    assert (report.punched_packs, report.emptied_packs) == (0, 0)
    world.reopen()
    for point in world.repository.points():
        assert world.restore(point) == (newer if point.id == kept.id else image)


class MeanwhileReading(StoreWrapper):
    """A store on which something happens when the first byte of a pack is read after records of holes were."""

    def __init__(self, inner: ObjectStore, event: Callable[[], object]) -> None:
        super().__init__(inner)
        self._event = event
        self._is_armed = self._has_happened = False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._is_armed = self._is_armed or prefix == "holes/"
        return super().list(prefix)

    def size(self, key: str) -> int:
        if self._is_armed and not self._has_happened and key.startswith("packs/"):
            self._has_happened = True
            self._event()
        return super().size(key)


@pytest.mark.parametrize(
    "look",
    [
        lambda world: world.verify(),
        lambda world: world.repository.care.scrub(ScrubBudget(), progress=NoProgress(), cancel=world.cancel),
    ],
    ids=["verification", "scrub"],
)
def test_what_is_punched_while_packs_are_checked_is_no_damage(
    look: Callable[[World], VerifyReport | ScrubReport],
) -> None:
    world, _, _ = sleepy_world()
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    world.back_up_changes(image_of(NEWER, count=9), [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    other = another_machine(world)
    punched = []

    def collect() -> None:
        plan = other.repository.plan_gc(settings=THOROUGH)
        punched.append(other.repository.apply_gc(plan, settings=THOROUGH, cancel=other.cancel).punched_packs)

    world.store = MeanwhileReading(world.memory, collect)
    world.reopen()
    report = look(world)
    assert punched == [1]
    assert (report.is_sound, report.damage) == (True, ())
    assert world.keys("quarantine/") == []


def test_a_list_that_cannot_be_read_stands_as_long_as_its_collector_may_be_at_work() -> None:
    world = World()
    world.back_up(image_of(FIRST, count=9), run="r-1")
    name = f"condemned/{world.clock.now():%Y%m%dT%H%M%SZ}-00000000"
    world.memory.put(name, b"sealed with a key that this collector did not get")
    world.clock.advance(TEST_SAFETY.collection_s)
    world.collect()
    assert world.keys("condemned/") == [name]
    world.clock.advance(TEST_SAFETY.clock_skew_s + 1)
    world.collect()
    assert world.keys("condemned/") == []


@pytest.mark.parametrize("name", ["condemned/of-nobody", "condemned/29990101T000000Z-00000000"])
def test_a_list_that_no_collector_can_have_named_goes_at_once(name: str) -> None:
    world = World()
    world.memory.put(name, b"garbage")
    world.collect()
    assert world.keys("condemned/") == []
