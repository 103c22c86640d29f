"""Backups into a repository that holds its points: retention waits and says so, and missing protection is told."""

from __future__ import annotations

import pytest

from holdfast.core import ManualClock, NoProgress
from holdfast.storage import MemoryStore
from tests.support.flows import NOW, blocks
from tests.support.repositories import World
from tests.unit.backup.runner import Runner


@pytest.fixture
def runner() -> Runner:
    made = Runner()
    clock = ManualClock(NOW)
    made.world = World(memory=MemoryStore(clock=clock), clock=clock)
    made.pool.clock = clock
    return made


def lock(world: World) -> None:
    world.repository.protection.set_days(30, progress=NoProgress(), cancel=world.cancel)


def test_retention_waits_for_a_held_point_and_says_until_when(runner: Runner) -> None:
    lock(runner.world)
    web = runner.pool.add_vm("web", blocks(1))
    runner.run("r-1", web.uuid, keep_points=1)
    result = runner.run("r-2", web.uuid, keep_points=1)
    assert result.vms[0].dropped_points == ()
    assert runner.findings == [], "a point that is still held is no trouble"
    (note,) = [note for note in runner.notes if "held" in note]
    assert note.startswith("web: 1 restore point is due and held, the last until 20")
    runner.world.clock.advance(31 * 24 * 3600)
    assert len(runner.run("r-3", web.uuid, keep_points=1).vms[0].dropped_points) == 2


def test_a_vm_without_disks_is_held_too(runner: Runner) -> None:
    lock(runner.world)
    runner.run("r-1", runner.pool.add_vm("empty").uuid)
    (point,) = runner.world.repository.points()
    assert runner.world.memory.locked_until(point.key) is not None


def test_a_store_that_holds_nothing_is_told_by_every_run() -> None:
    runner = Runner()
    lock(runner.world)
    web = runner.pool.add_vm("web", blocks(1))
    assert runner.run("r-1", web.uuid).vms[0].point is not None
    assert "should be held for 30 days, but the store holds nothing" in runner.told()
