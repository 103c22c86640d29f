"""Writing a disk: what is stored, what is found instead, and what it says about itself."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.model import Coverage, DataRun, RunId, ZeroRun
from holdfast.repository import PackDamaged, ReferenceTooLarge, RepositoryDiskWriter, RunWriter, StoredDisk
from holdfast.repository.layout import LEAF_BLOCKS
from holdfast.storage import (
    CappedStore,
    Fault,
    FaultEffect,
    FaultyStore,
    MemoryStore,
    StoreFull,
    StoreUnreachable,
    Verb,
)
from tests.support.repositories import (
    World,
    block_of,
    disk_facts,
    image_of,
    read_all,
    write_changes,
    write_whole,
)


def pack_bytes(world: World) -> int:
    return sum(info.length_bytes for info in world.store.list("packs/"))


def stored(world: World, image: bytes, *, run: str) -> StoredDisk:
    return world.back_up(image, run=run).disks[0].stored


def test_zero_blocks_are_not_stored() -> None:
    world = World()
    disk = stored(world, image_of({}, count=40), run="r-1")
    assert disk.sizes.new_bytes == 0
    assert pack_bytes(world) < 1000
    assert world.restore(world.repository.points()[0]) == bytes(40 * BLOCK_BYTES)


def test_the_four_sizes_say_what_happened() -> None:
    world = World()
    first = stored(world, image_of({0: 1, 1: 2, 2: 1}, count=8), run="r-1").sizes
    assert first.provisioned_bytes == first.read_bytes == 8 * BLOCK_BYTES
    assert first.new_bytes == 2 * BLOCK_BYTES, "the block that comes twice is stored once"
    assert first.stored_bytes == pack_bytes(world)
    reference = world.repository.points()[0].disks[0].stored
    image = image_of({0: 3, 1: 2, 2: 1}, count=8)
    before = pack_bytes(world)
    second = world.back_up_changes(image, [0, 1], run="r-2", reference=reference).sizes
    assert (second.read_bytes, second.new_bytes) == (2 * BLOCK_BYTES, BLOCK_BYTES)
    assert second.stored_bytes == pack_bytes(world) - before


def test_blocks_that_a_source_calls_changed_but_are_not_cost_nothing() -> None:
    world = World()
    image = image_of({number: number + 1 for number in range(6)}, count=6)
    reference = stored(world, image, run="r-1")
    disk = world.back_up_changes(image, range(6), run="r-2", reference=reference).disks[0].stored
    assert disk.sizes.new_bytes == 0
    assert disk.sizes.stored_bytes < 500


def test_an_unchanged_leaf_is_shared() -> None:
    world = World()
    image = image_of({0: 1, 1: 2}, count=3)
    reference = stored(world, image, run="r-1")
    same = world.back_up_changes(image, [0], run="r-2", reference=reference).disks[0].stored
    assert {use.references for pack, use in same.packs.items() if pack == same.root.pack} == {1}, "only its own root"


def sparse(writer: RunWriter, blocks: dict[int, int], *, count: int, reference: StoredDisk | None = None) -> StoredDisk:
    coverage = Coverage.WHOLE if reference is None else Coverage.CHANGES
    disk = writer.open_disk(count * BLOCK_BYTES, coverage=coverage, reference=reference)
    for block, content in sorted(blocks.items()):
        data = block_of(content)
        disk.write(DataRun(block * BLOCK_BYTES, data) if content else ZeroRun(block * BLOCK_BYTES, BLOCK_BYTES))
    return disk.finish()


def test_an_increment_stores_only_the_leaves_it_touches() -> None:
    world = World()
    count = 20 * LEAF_BLOCKS
    blocks = {leaf * LEAF_BLOCKS + 5: leaf + 1 for leaf in range(20)}
    with world.begin("r-1") as writer:
        reference = sparse(writer, blocks, count=count)
    with world.begin("r-2") as writer:
        disk = sparse(writer, {7 * LEAF_BLOCKS + 1: 51}, count=count, reference=reference)
    own = [use for pack, use in disk.packs.items() if pack not in reference.packs]
    assert [use.references for use in own] == [3], "one block, one leaf, one root"
    source = world.repository.source(disk, cancel=world.cancel)
    assert source.read((7 * LEAF_BLOCKS + 1) * BLOCK_BYTES, BLOCK_BYTES) == block_of(51)
    assert source.read((19 * LEAF_BLOCKS + 5) * BLOCK_BYTES, BLOCK_BYTES) == block_of(20)


def test_a_range_that_became_zero_is_zero_and_its_leaf_goes() -> None:
    world = World()
    count = 3 * LEAF_BLOCKS
    with world.begin("r-1") as writer:
        reference = sparse(writer, {1: 1, LEAF_BLOCKS + 1: 2, 2 * LEAF_BLOCKS + 1: 3}, count=count)
    with world.begin("r-2") as writer:
        disk = writer.open_disk(count * BLOCK_BYTES, coverage=Coverage.CHANGES, reference=reference)
        disk.write(ZeroRun(2 * BLOCK_BYTES, (2 * LEAF_BLOCKS - 2) * BLOCK_BYTES))
        result = disk.finish()
    source = world.repository.source(result, cancel=world.cancel)
    found = [(extent.offset_bytes // BLOCK_BYTES, extent.length_bytes) for extent in source.data_extents()]
    assert found == [(1, BLOCK_BYTES), (2 * LEAF_BLOCKS + 1, BLOCK_BYTES)]


def test_a_disk_that_has_grown_keeps_what_it_had() -> None:
    world = World()
    small = image_of({0: 1, 1: 2}, count=2, tail_bytes=512)
    reference = stored(world, small, run="r-1")
    large = image_of({0: 1, 1: 2, 4: 3}, count=5)
    point = world.back_up_changes(large, [4], run="r-2", reference=reference)
    assert world.restore(point) == large
    assert world.verify().damage == ()


def test_a_whole_read_beside_a_reference_stores_only_what_changed() -> None:
    world = World()
    image = image_of({0: 1, 1: 2, 2: 3}, count=4)
    reference = stored(world, image, run="r-1")
    changed = image_of({0: 1, 1: 5, 2: 3}, count=4)
    with world.begin("r-2") as writer:
        disk = write_whole(writer, changed, reference=reference)
        writer.publish(world.facts("r-2"), [(disk_facts(len(changed)), disk)])
    assert disk.sizes.new_bytes == BLOCK_BYTES
    assert read_all(world.repository, disk, world.cancel) == changed
    assert world.verify().damage == ()


def test_changes_against_a_damaged_reference_are_refused_and_a_whole_read_is_not() -> None:
    world = World()
    image = image_of({0: 1, 1: 2}, count=2)
    reference = stored(world, image, run="r-1")
    (key,) = world.keys("packs/")
    spoiled = world.store.get(key)[:-9] + b"x" + world.store.get(key)[-8:]
    world.memory.restore({**world.memory.snapshot(), key: spoiled})
    world.reopen()
    writer = world.begin("r-2")
    with pytest.raises(PackDamaged):
        write_changes(writer, image, [0], reference=reference)
    whole = write_whole(writer, image)
    writer.close()
    assert read_all(world.repository, whole, world.cancel) == image


def test_a_clone_of_a_known_vm_is_found_through_the_index() -> None:
    world = World()
    image = image_of({number: number + 1 for number in range(200)}, count=200)
    reference = stored(world, image, run="r-1")
    assert reference.sizes.new_bytes == 200 * BLOCK_BYTES
    world.reopen()
    with world.begin("r-2") as writer:
        disk = writer.open_disk(len(image), coverage=Coverage.WHOLE, reference=None)
        for start in range(0, len(image), 64 * BLOCK_BYTES):
            disk.write(DataRun(start, image[start : start + 64 * BLOCK_BYTES]))
        clone = disk.finish()
    # A run without a sampled block is stored before a later one leads to the pack: at most a few runs of 64.
    assert clone.sizes.new_bytes < 130 * BLOCK_BYTES
    assert read_all(world.repository, clone, world.cancel) == image


def test_a_lost_index_costs_space_and_nothing_else() -> None:
    world = World()
    image = image_of({number: number + 1 for number in range(100)}, count=100)
    stored(world, image, run="r-1")
    for key in world.keys("index/"):
        world.store.delete(key)
    world.reopen()
    with world.begin("r-2") as writer:
        again = write_whole(writer, image)
    assert again.sizes.new_bytes == 100 * BLOCK_BYTES
    assert read_all(world.repository, again, world.cancel) == image
    assert world.verify().damage == ()


def test_a_damaged_index_is_passed_over() -> None:
    world = World()
    image = image_of({number: number + 1 for number in range(20)}, count=20)
    stored(world, image, run="r-1")
    for key in world.keys("index/"):
        content = bytearray(world.store.get(key))
        content[-40] ^= 1
        world.memory.restore({**world.memory.snapshot(), key: bytes(content)})
    with world.begin("r-2") as writer:
        assert read_all(world.repository, write_whole(writer, image), world.cancel) == image


def test_data_may_be_used_again_after_write_returned() -> None:
    world = World(workers=2)
    buffer = bytearray(BLOCK_BYTES)
    with world.begin("r-1") as writer:
        disk = writer.open_disk(8 * BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        for number in range(8):
            buffer[:] = block_of(number + 1)
            disk.write(DataRun(number * BLOCK_BYTES, memoryview(buffer)))
        result = disk.finish()
    expected = b"".join(block_of(number + 1) for number in range(8))
    assert read_all(world.repository, result, world.cancel) == expected


@pytest.mark.slow(reason="eight disks of 4 MiB through real threads")
def test_disks_written_at_once_share_threads_and_do_not_mix() -> None:
    world = World(workers=2)
    images = [image_of({number: 100 * disk + number * 2 for number in range(1, 64)}, count=64) for disk in range(8)]
    results: dict[int, StoredDisk] = {}
    with world.begin("r-1") as writer:

        def work(number: int) -> None:
            results[number] = write_whole(writer, images[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [read_all(world.repository, results[number], world.cancel) for number in range(8)] == images


def test_an_aborted_disk_leaves_others_alone() -> None:
    world = World()
    image = image_of({0: 1, 1: 2}, count=2)
    with world.begin("r-1") as writer:
        given_up = writer.open_disk(len(image), coverage=Coverage.WHOLE, reference=None)
        given_up.write(DataRun(0, image))
        given_up.abort()
        given_up.abort()
        kept = write_whole(writer, image)
    assert kept.sizes.new_bytes == 2 * BLOCK_BYTES
    assert read_all(world.repository, kept, world.cancel) == image


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_store_stops_the_run_and_leaves_old_points_whole(workers: int) -> None:
    memory = MemoryStore()
    capped = CappedStore(memory, capacity_bytes=3 * MIB)
    world = World(capped, memory=memory, workers=workers)
    small = image_of({0: 2}, count=1)
    point = world.back_up(small, run="r-1")
    large = image_of({number: 2 * number for number in range(1, 60)}, count=60)
    with pytest.raises(StoreFull):
        world.back_up(large, run="r-2")
    assert [each.id for each in world.repository.points()] == [point.id]
    assert world.restore(point) == small
    assert world.verify().damage == ()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_put_surfaces_at_the_next_call(workers: int) -> None:
    memory = MemoryStore()
    world = World(memory=memory, workers=workers)
    image = image_of({0: 2}, count=1)
    world.store = FaultyStore(memory, [Fault(at=2, verb=Verb.PUT, effect=FaultEffect.FAIL_BEFORE)])
    world.reopen()
    writer = world.begin("r-1")
    with pytest.raises(StoreUnreachable):
        write_whole(writer, image)
    writer.leave()
    with world.begin("r-1") as resumed:
        assert read_all(world.repository, write_whole(resumed, image), world.cancel) == image


@given(cuts=st.sets(st.integers(1, 11), max_size=6))
def test_the_size_of_runs_changes_nothing(cuts: set[int]) -> None:
    image = image_of({0: 1, 1: 2, 5: 3, 6: 1, 11: 4}, count=12)
    world = World()
    with world.begin("r-1") as writer:
        disk = writer.open_disk(len(image), coverage=Coverage.WHOLE, reference=None)
        borders = [0, *sorted(cuts), 12]
        for start, end in itertools.pairwise(borders):
            disk.write(DataRun(start * BLOCK_BYTES, image[start * BLOCK_BYTES : end * BLOCK_BYTES]))
        result = disk.finish()
    assert result.sizes.new_bytes == 4 * BLOCK_BYTES
    assert read_all(world.repository, result, world.cancel) == image


def test_a_writer_is_a_disk_writer_of_the_model() -> None:
    world = World()
    with world.repository.begin_run(RunId("r-1"), cancel=world.cancel) as writer:
        disk = writer.open_disk(512, coverage=Coverage.WHOLE, reference=None)
        assert isinstance(disk, RepositoryDiskWriter)
        disk.abort()
    assert world.keys("points/") == []


def test_a_disk_that_has_shrunk_is_read_whole() -> None:
    world = World()
    reference = stored(world, image_of({0: 1, 3: 2}, count=4), run="r-1")
    small = image_of({0: 1}, count=2)
    with world.begin("r-2") as writer:
        with pytest.raises(ReferenceTooLarge):
            write_changes(writer, small, [0], reference=reference)
        disk = write_whole(writer, small, reference=reference)
    assert read_all(world.repository, disk, world.cancel) == small


def test_a_whole_read_leaves_a_damaged_reference_aside() -> None:
    world = World()
    image = image_of({0: 1, 1: 2}, count=2)
    reference = stored(world, image, run="r-1")
    (key,) = world.keys("packs/")
    spoiled = bytearray(world.store.get(key))
    spoiled[-40] ^= 1
    world.memory.restore({**world.memory.snapshot(), key: bytes(spoiled)})
    world.reopen()
    with world.begin("r-2") as writer:
        disk = write_whole(writer, image, reference=reference)
    assert read_all(world.repository, disk, world.cancel) == image
    assert reference.root.pack not in disk.packs
