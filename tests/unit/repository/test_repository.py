"""The engine as its users see it: what goes in comes out, whole, from any point."""

from __future__ import annotations

from tests.support.repositories import World, image_of


def test_a_disk_comes_back_bit_identical() -> None:
    world = World()
    image = image_of({0: 1, 1: 2, 3: 1, 7: 4}, count=9, tail_bytes=512)
    point = world.back_up(image, run="r-1")
    world.reopen()
    assert world.restore(world.repository.point(point.id)) == image
    assert world.verify().is_sound


def test_an_increment_restores_alone_and_its_reference_too() -> None:
    world = World()
    first = image_of({0: 1, 1: 2, 3: 1, 7: 4}, count=9, tail_bytes=512)
    second = image_of({0: 1, 1: 6, 4: 3, 7: 4}, count=9, tail_bytes=512)
    before = world.back_up(first, run="r-1")
    after = world.back_up_changes(second, [1, 3, 4], run="r-2", reference=before.disks[0].stored)
    world.reopen()
    assert [world.restore(point) for point in world.repository.points()] == [first, second]
    world.repository.delete_point(before.id)
    assert world.verify().is_sound
    world.collect()
    assert world.restore(after) == second
    assert world.verify().is_sound
