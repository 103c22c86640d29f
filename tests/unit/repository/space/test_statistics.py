"""Whose space it is: the sums add up to what the store lists, and what a deletion promises comes back."""

from __future__ import annotations

import pytest

from holdfast.core import NoProgress
from holdfast.model import VmUuid
from holdfast.repository import GcSettings, RestorePoint, SpaceReport
from tests.support.repositories import World, image_of

THOROUGH = GcSettings(is_thorough=True)
OTHER = VmUuid("other")


def world_of_two_vms() -> tuple[World, list[RestorePoint]]:
    """Return a world in which two VMs share blocks, one has three points, and something is dead."""
    world = World()
    shared = {0: 2, 1: 4, 2: 6, 3: 8, 4: 30}
    first = world.back_up(image_of(shared, count=8), run="r-1")
    changed = image_of({**shared, 0: 10}, count=8)
    second = world.back_up_changes(changed, [0], run="r-2", reference=first.disks[0].stored)
    # Blocks 0 to 3 are one frame of the first point, which nobody needs when the first two points are gone.
    changed = image_of({**shared, 0: 12, 1: 14, 2: 32, 3: 34}, count=8)
    third = world.back_up_changes(changed, [0, 1, 2, 3], run="r-3", reference=second.disks[0].stored)
    other = world.back_up(image_of({5: 30, 6: 14, 7: 16}, count=8), run="r-4", vm=OTHER)
    gone = world.back_up(image_of({0: 18, 1: 20}, count=8), run="r-5", vm=VmUuid("gone"))
    world.repository.delete_point(gone.id)
    return world, [first, second, third, other]


def space(world: World, *, is_exact: bool) -> SpaceReport:
    return world.repository.space(is_exact=is_exact, progress=NoProgress(), cancel=world.cancel)


def listed_bytes(world: World) -> int:
    return sum(info.length_bytes for info in world.store.list("packs/"))


@pytest.mark.parametrize("is_exact", [False, True])
def test_every_byte_of_every_pack_is_in_one_sum(is_exact: bool) -> None:
    world, _ = world_of_two_vms()
    report = space(world, is_exact=is_exact)
    assert report.pack_bytes == listed_bytes(world)
    parts = report.unique_bytes + report.shared_bytes + report.dead_bytes + report.overhead_bytes
    assert parts == report.pack_bytes
    assert report.unique_bytes == sum(vm.unique_bytes for vm in report.vms)
    assert report.dead_bytes > 0
    assert report.shared_bytes > 0


def test_frames_that_two_vms_need_are_unique_to_neither() -> None:
    world, _ = world_of_two_vms()
    by_name = {vm.vm_uuid: vm for vm in space(world, is_exact=True).vms}
    assert by_name[OTHER].points == 1
    assert 65536 < by_name[OTHER].unique_bytes < 2 * 65536, "one block of its own, and its map"
    assert 2 * 65536 < by_name[OTHER].shared_bytes < 2 * 65536 + 64, "two blocks that the first VM stored"


@pytest.mark.parametrize("number", range(4))
def test_what_deleting_a_point_is_said_to_free_is_dead_afterwards(number: int) -> None:
    world, points = world_of_two_vms()
    world.collect()
    plan = world.repository.plan_deletion(points[number], cancel=world.cancel)
    before = space(world, is_exact=True)
    world.repository.delete_point(points[number].id)
    after = space(world, is_exact=True)
    gone = (after.dead_bytes - after.hindered_bytes) - (before.dead_bytes - before.hindered_bytes)
    # Headers and trailers of packs that are dead now count as dead, too.
    assert plan.frees_bytes == gone - (before.overhead_bytes - after.overhead_bytes)
    assert plan.waits == ()
    assert plan.explain().startswith("frees ")


def test_a_dead_block_in_a_frame_that_is_needed_is_told_apart() -> None:
    world, points = world_of_two_vms()
    world.repository.delete_point(points[0].id)
    report = space(world, is_exact=True)
    # Block 0 of the first point; its neighbours are needed by the second.
    assert 65536 <= report.hindered_bytes < 65536 + 16


def test_a_deletion_names_the_backup_that_it_has_to_wait_for() -> None:
    world, points = world_of_two_vms()
    with world.begin("r-9"):
        plan = world.repository.plan_deletion(points[0], cancel=world.cancel)
    assert "run r-9" in plan.explain()
    assert plan.waits[0].until is not None


def test_punched_space_is_told_apart_from_what_is_still_taken() -> None:
    world, points = world_of_two_vms()
    for point in points[:2]:
        world.repository.delete_point(point.id)
    plan = world.repository.plan_gc(settings=THOROUGH)
    done = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert done.punched_bytes > 0
    report = space(world, is_exact=True)
    assert report.punched_bytes == done.punched_bytes
    assert report.punched_bytes <= report.dead_bytes
    assert report.pack_bytes == listed_bytes(world)
