"""Leases that somebody else removes: whoever took them publishes nothing that was unprotected for a moment."""

from __future__ import annotations

import pytest

from holdfast.repository import LeaseLost
from tests.support.repositories import TEST_SAFETY, World, disk_facts, image_of, write_whole

IMAGE = image_of({0: 2, 1: 4}, count=3)
OTHER_IMAGE = image_of({0: 6, 1: 8}, count=3)


def test_a_lease_that_was_removed_is_not_renewed_as_if_it_had_gone_on() -> None:
    world = World()
    writer = world.begin("r-1")
    disk = write_whole(writer, IMAGE)
    # Another execution of the same run takes the first one for dead, and ends.
    world.begin("r-1").close()
    assert world.keys("leases/") == []
    assert world.collect() == 1
    world.clock.advance(TEST_SAFETY.lease_renewal_s + 1)
    with pytest.raises(LeaseLost, match="removed"):
        writer.session.keeper.renew_if_due()
    with pytest.raises(LeaseLost, match="removed"):
        writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
    assert world.keys("points/") == world.keys("leases/") == []


def test_a_lease_that_was_removed_announces_no_more_packs() -> None:
    world = World()
    writer = world.begin("r-1")
    world.begin("r-1").close()
    with pytest.raises(LeaseLost, match="removed"):
        for _ in range(TEST_SAFETY.packs_announced + 1):
            writer.session.keeper.next_pack()
    assert world.keys("leases/") == []


def test_a_writer_that_turns_out_to_be_alive_keeps_its_lease() -> None:
    world = World()
    alive = world.begin("r-1")
    disk = write_whole(alive, IMAGE)
    other = world.begin("r-1")
    world.clock.advance(TEST_SAFETY.lease_renewal_s + 1)
    again = write_whole(alive, OTHER_IMAGE)
    other.close()
    assert world.collect() == 0
    disks = [(disk_facts(len(IMAGE)), disk), (disk_facts(len(OTHER_IMAGE)), again)]
    point = alive.publish(world.facts("r-1"), disks)
    alive.close()
    assert (world.restore(point), world.restore(point, disk=1)) == (IMAGE, OTHER_IMAGE)
    assert world.keys("leases/") == []
