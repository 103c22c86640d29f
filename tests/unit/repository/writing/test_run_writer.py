"""Runs: what an interrupted one stored is used again, and nothing is published without a lease."""

from __future__ import annotations

import pytest

from holdfast.core import BLOCK_BYTES
from holdfast.model import RunId
from holdfast.repository import DiskNoLongerStored, LeaseLost, Repository, StoredDisk
from holdfast.storage import CappedStore, Fault, FaultEffect, FaultyStore, SimulatedCrash
from tests.support.repositories import (
    TEST_SAFETY,
    World,
    disk_facts,
    image_of,
    read_all,
    write_changes,
    write_whole,
)

IMAGE = image_of({number: number + 1 for number in range(12)}, count=12)
LONG_S = TEST_SAFETY.lease_s + TEST_SAFETY.clock_skew_s + 1


def crash_after_storing(world: World, run: str, image: bytes = IMAGE) -> StoredDisk:
    """Store a disk, then die: the lease and the packs stay."""
    writer = world.begin(run)
    disk = write_whole(writer, image)
    writer.leave()
    return disk


def test_a_resumed_run_uses_what_it_had_stored() -> None:
    world = World()
    crash_after_storing(world, "r-1")
    packs = world.keys("packs/")
    world.reopen()
    with world.begin("r-1") as writer:
        disk = write_whole(writer, IMAGE)
        writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
    stored_again = [key for key in world.keys("packs/") if key not in packs]
    assert sum(world.store.size(key) for key in stored_again) < 3 * BLOCK_BYTES / 2, "only the map is stored again"
    assert disk.sizes.new_bytes == 12 * BLOCK_BYTES, "the run did store them, if not this time"
    assert disk.sizes.stored_bytes > 6 * BLOCK_BYTES
    assert world.verify().damage == ()


def test_a_disk_that_an_earlier_execution_finished_is_published_as_it_is() -> None:
    world = World()
    disk = crash_after_storing(world, "r-1")
    world.reopen()
    before = world.keys("packs/")
    with world.begin("r-1") as writer:
        point = writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
    assert world.keys("packs/") == before
    assert world.restore(point) == IMAGE


def test_an_ended_run_leaves_no_lease_and_a_failed_one_does() -> None:
    world = World()
    with world.begin("r-1"):
        assert len(world.keys("leases/")) == 1
    assert world.keys("leases/") == []
    with pytest.raises(ZeroDivisionError), world.begin("r-2"):
        raise ZeroDivisionError
    assert len(world.keys("leases/")) == 1


def test_a_resumed_run_that_ends_takes_its_old_leases_away() -> None:
    world = World()
    crash_after_storing(world, "r-1")
    crash_after_storing(world, "r-1")
    assert len(world.keys("leases/")) == 2
    with world.begin("r-1"):
        pass
    assert world.keys("leases/") == []


def test_a_run_that_is_given_up_frees_what_it_stored() -> None:
    world = World()
    crash_after_storing(world, "r-1")
    assert world.collect() == 0
    world.repository.end_run(RunId("r-1"))
    assert world.collect() == 1
    assert world.keys("packs/") == []


def test_another_run_uses_what_a_dead_one_left() -> None:
    world = World()
    crash_after_storing(world, "r-1")
    world.clock.advance(LONG_S)
    with world.begin("r-2") as writer:
        disk = write_whole(writer, IMAGE)
    assert disk.sizes.stored_bytes > 6 * BLOCK_BYTES, "it counts as this run's, because no other point has it"
    assert len(world.keys("packs/")) == 2
    assert world.store.size(f"packs/{disk.root.pack.hex()[:2]}/{disk.root.pack.hex()}") < 2000


def test_an_heir_uses_what_a_run_left_that_is_known_to_be_over() -> None:
    world = World()
    crash_after_storing(world, "r-1")
    with world.repository.begin_run(RunId("r-2"), cancel=world.cancel, heir_of=[RunId("r-1")]) as writer:
        disk = write_whole(writer, IMAGE)
    assert world.store.size(f"packs/{disk.root.pack.hex()[:2]}/{disk.root.pack.hex()}") < 2000
    assert world.keys("leases/") == []


def test_a_writer_that_slept_too_long_publishes_nothing() -> None:
    world = World()
    writer = world.begin("r-1")
    disk = write_whole(writer, IMAGE)
    world.clock.advance(TEST_SAFETY.lease_s - TEST_SAFETY.lease_fence_s + 1)
    with pytest.raises(LeaseLost, match="not renewed for"):
        writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
    with pytest.raises(LeaseLost):
        write_whole(writer, IMAGE)
    assert world.keys("points/") == []


def test_a_writer_whose_lease_was_taken_away_publishes_nothing() -> None:
    world = World()
    writer = world.begin("r-1")
    disk = write_whole(writer, IMAGE)
    for key in world.keys("leases/"):
        world.store.delete(key)
    with pytest.raises(LeaseLost, match="removed"):
        writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])


def test_a_writer_that_works_renews_its_lease() -> None:
    world = World()
    with world.begin("r-1") as writer:
        for _ in range(6):
            world.clock.advance(TEST_SAFETY.lease_renewal_s + 1)
            disk = write_whole(writer, IMAGE)
        # Making up the facts takes a minute here, which the lease outlasts.
        assert writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
        assert len(world.keys("leases/")) == 1


def test_a_reference_that_was_collected_asks_for_a_whole_read() -> None:
    world = World()
    point = world.back_up(IMAGE, run="r-1")
    world.repository.delete_point(point.id)
    world.collect()
    writer = world.begin("r-2")
    with pytest.raises(DiskNoLongerStored, match=r"1 packs .* packs/"):
        write_changes(writer, IMAGE, [0], reference=point.disks[0].stored)
    disk = write_whole(writer, IMAGE, reference=point.disks[0].stored)
    writer.close()
    assert read_all(world.repository, disk, world.cancel) == IMAGE


def condemn_while_a_run_waits(world: World) -> StoredDisk:
    """Return a disk whose packs are condemned but not deleted, because another run was active meanwhile."""
    point = world.back_up(IMAGE, run="r-1")
    waiting = world.begin("r-active")
    world.repository.delete_point(point.id)
    assert world.collect() == 0
    assert len(world.keys("condemned/")) == 1
    waiting.leave()
    return point.disks[0].stored


def test_condemned_packs_are_neither_referred_to_nor_found() -> None:
    world = World()
    reference = condemn_while_a_run_waits(world)
    world.reopen()
    writer = world.begin("r-2")
    with pytest.raises(DiskNoLongerStored):
        write_changes(writer, IMAGE, [0], reference=reference)
    with pytest.raises(DiskNoLongerStored):
        writer.publish(world.facts("r-2"), [(disk_facts(len(IMAGE)), reference)])
    disk = write_whole(writer, IMAGE)
    assert not set(disk.packs.packs) & set(reference.packs.packs)


def test_a_condemned_list_that_cannot_be_read_makes_every_old_pack_unusable() -> None:
    world = World()
    kept = world.back_up(IMAGE, run="r-1").disks[0].stored
    world.store.put("condemned/20260101T000000Z-00000000", b"garbage")
    with world.begin("r-2") as writer:
        with pytest.raises(DiskNoLongerStored):
            write_changes(writer, IMAGE, [0], reference=kept)
        assert not set(write_whole(writer, IMAGE).packs.packs) & set(kept.packs.packs)
    world.clock.advance(TEST_SAFETY.collection_s + TEST_SAFETY.clock_skew_s + 1)
    world.collect()
    with world.begin("r-3") as writer:
        assert write_changes(writer, IMAGE, [0], reference=kept).content_hash


def operations_of_a_backup() -> int:
    world = World()
    store = FaultyStore(world.memory)
    world.store = store
    world.reopen()
    world.back_up(IMAGE, run="r-2")
    return store.operations


@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
@pytest.mark.parametrize("at", range(4, operations_of_a_backup() + 1))
def test_a_crash_at_any_operation_loses_no_point_and_the_run_resumes(at: int, effect: FaultEffect) -> None:
    world = World()
    first = world.back_up(image_of({0: 9}, count=12), run="r-1")
    world.store = FaultyStore(world.memory, [Fault(at=at, effect=effect)])
    with pytest.raises(SimulatedCrash):
        world.reopen()
        world.back_up(IMAGE, run="r-2")
        world.store.free_bytes()
        world.keys("")
    world.store = world.memory
    repository = world.reopen()
    assert world.verify().is_sound
    resumed = world.back_up(IMAGE, run="r-2")
    assert [world.restore(point) for point in repository.points()] == [world.restore(first), IMAGE]
    assert repository.points()[1] == resumed
    world.clock.advance(10_000)
    world.collect()
    needed = {pack for point in repository.points() for pack, _ in point.packs()}
    assert len(world.keys("packs/")) == len(needed)
    assert world.verify().is_sound


@pytest.mark.parametrize("at", range(4, operations_of_a_backup() + 1))
def test_an_answer_that_got_lost_is_no_loss(at: int) -> None:
    world = World()
    world.store = FaultyStore(world.memory, [Fault(at=at, effect=FaultEffect.FAIL_AFTER)])
    try:
        world.reopen()
        world.back_up(IMAGE, run="r-1")
    except Exception as failure:
        assert "planned fault" in str(failure)
    world.store = world.memory
    world.reopen()
    point = world.back_up(IMAGE, run="r-1")
    assert published_ids(world.repository) == [point.id]
    assert world.restore(point) == IMAGE


def published_ids(repository: Repository) -> list[str]:
    return [point.id for point in repository.points()]


def test_a_store_that_fills_up_at_the_very_end_fails_no_published_point() -> None:
    world = World()
    writer = world.begin("r-1")
    disk = write_whole(writer, IMAGE)
    point = writer.publish(world.facts("r-1"), [(disk_facts(len(IMAGE)), disk)])
    writer._vault.store = CappedStore(world.memory, capacity_bytes=0)
    writer.close()
    assert world.keys("index/") == world.keys("leases/") == []
    assert world.restore(point) == IMAGE
