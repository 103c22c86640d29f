"""Clocks that are hours wrong: what the store says of its own time keeps a collector from a living writer's packs."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.core import ManualClock
from holdfast.model import VmUuid
from holdfast.storage import MemoryStore
from tests.support.repositories import TEST_SAFETY, World, disk_facts, image_of, write_whole

FIRST = {number: 2 * number + 2 for number in range(9)}
OTHER = VmUuid("other")
HOURS_S = 30 * (TEST_SAFETY.lease_s + TEST_SAFETY.clock_skew_s)
LEASE_OVER_S = TEST_SAFETY.lease_s + TEST_SAFETY.clock_skew_s + 1


class WrongClock(ManualClock):
    """A clock that is wrong by as much as was said, and goes with the right one."""

    def __init__(self, right: ManualClock, *, ahead_s: float) -> None:
        super().__init__()
        self._right = right
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._right.now() + self._ahead

    def monotonic_s(self) -> float:
        return self._right.monotonic_s()


class StampingStore(MemoryStore):
    """A store that says of every object that it came at one moment."""

    moment: datetime | None = datetime(1970, 1, 1, tzinfo=UTC)

    def stored_at(self, key: str) -> datetime | None:
        super().stored_at(key)
        return self.moment


def world_of(memory: MemoryStore, clock: ManualClock) -> World:
    return World(memory=memory, clock=clock)


def machine(world: World, *, ahead_s: float) -> World:
    """Return the same repository as a machine with a wrong clock has it open."""
    other = copy.copy(world)
    other.clock = WrongClock(world.clock, ahead_s=ahead_s)
    other.reopen()
    return other


@pytest.mark.parametrize(("writer_s", "collector_s"), [(-HOURS_S, 0), (0, HOURS_S), (-HOURS_S, HOURS_S)])
def test_a_point_keeps_its_packs_however_wrong_the_clocks_are(writer_s: float, collector_s: float) -> None:
    clock = ManualClock()
    world = world_of(MemoryStore(clock=clock), clock)
    image = image_of(FIRST, count=9)
    first = world.back_up(image, run="r-1")
    late = machine(world, ahead_s=writer_s)
    with late.begin("r-2") as writer:
        stored = write_whole(writer, image)
        world.repository.delete_point(first.id)
        collector = machine(world, ahead_s=collector_s)
        report = collector.repository.apply_gc(collector.repository.plan_gc(), cancel=collector.cancel)
        assert report.deleted_packs == 0
        (wait,) = report.waits_for
        assert wait.endswith("check the clocks of both machines")
        facts = late.facts("r-2", vm=OTHER)
        point = writer.publish(facts, [(disk_facts(len(image)), stored)])
    world.reopen()
    assert world.restore(point) == image
    assert world.verify().is_sound


def test_an_ended_lease_is_waited_for_by_both_clocks_and_no_longer() -> None:
    clock = ManualClock()
    world = world_of(MemoryStore(clock=clock), clock)
    image = image_of(FIRST, count=9)
    first = world.back_up(image, run="r-1")
    crashed = machine(world, ahead_s=-HOURS_S).begin("r-2")
    write_whole(crashed, image)
    crashed.leave()
    world.repository.delete_point(first.id)
    assert world.collect() == 0
    clock.advance(LEASE_OVER_S)
    assert world.collect() > 0
    assert world.keys("condemned/") == []


def test_a_run_is_resumable_for_as_long_by_the_stores_clock() -> None:
    clock = ManualClock()
    world = world_of(MemoryStore(clock=clock), clock)
    crashed = machine(world, ahead_s=-1e6).begin("r-1")
    write_whole(crashed, image_of(FIRST, count=9))
    crashed.leave()
    world.collect()
    assert world.keys("leases/")
    assert world.keys("condemned/"), "what waits for the lease"
    clock.advance(LEASE_OVER_S + TEST_SAFETY.resume_grace_s)
    world.collect()
    assert world.keys("leases/") == world.keys("packs/") == world.keys("condemned/") == []


def test_a_collection_with_nothing_to_condemn_asks_the_store_for_its_time_and_leaves_nothing() -> None:
    clock = ManualClock()
    world = world_of(MemoryStore(clock=clock), clock)
    world.begin("r-1").leave()
    clock.advance(LEASE_OVER_S + TEST_SAFETY.resume_grace_s)
    world.collect()
    assert world.keys("leases/") == world.keys("condemned/") == []


def test_a_list_of_a_collector_that_is_behind_stands_until_the_store_says_that_it_is_old() -> None:
    clock = ManualClock()
    world = world_of(MemoryStore(clock=clock), clock)
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    behind = machine(world, ahead_s=-HOURS_S)
    with world.begin("r-2"):  # has not seen the list, so that its packs wait
        world.repository.delete_point(first.id)
        behind.collect()
        (waiting,) = world.keys("condemned/")
        world.collect()
        assert waiting in world.keys("condemned/")
        clock.advance(TEST_SAFETY.collection_s + TEST_SAFETY.clock_skew_s + 1)
        world.collect()
        assert waiting not in world.keys("condemned/")


@pytest.mark.parametrize("moment", [None, datetime(1970, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)])
def test_a_store_without_a_clock_has_no_say(moment: datetime | None) -> None:
    clock = ManualClock()
    memory = StampingStore(clock=clock)
    memory.moment = moment
    world = world_of(memory, clock)
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    world.begin("r-2").leave()
    world.repository.delete_point(first.id)
    assert world.collect() == 0
    clock.advance(LEASE_OVER_S)
    assert world.collect() > 0
