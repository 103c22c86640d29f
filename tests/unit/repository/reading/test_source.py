"""Reading a stored disk: at random and as a whole, always the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES
from holdfast.model import DiskSource
from holdfast.repository import ObjectDamaged, PackDamaged
from holdfast.repository.layout import LEAF_BYTES, PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import Moves, write_moves
from holdfast.repository.vault import Vault
from tests.sim.disks import PLACES, SIZE_BYTES, Palette, write_content
from tests.support.hand_packs import data, put_pack
from tests.support.repositories import World, block_of, image_of, key_ring

WORLD = World()
IMAGE = image_of({0: 1, 1: 2, 4: 3, 5: 1, 9: 4}, count=11, tail_bytes=1536)
STORED = WORLD.back_up(IMAGE, run="r-1").disks[0].stored


def opened(world: World = WORLD) -> DiskSource:
    return world.repository.source(STORED, cancel=world.cancel)


@given(offset=st.integers(0, len(IMAGE)), length=st.integers(0, 3 * BLOCK_BYTES))
def test_any_range_reads_as_it_was(offset: int, length: int) -> None:
    length = min(length, len(IMAGE) - offset)
    assert opened().read(offset, length) == IMAGE[offset : offset + length]


def test_reading_again_is_served_from_memory() -> None:
    world = World()
    point = world.back_up(IMAGE, run="r-1")
    source = world.repository.source(point.disks[0].stored, cancel=world.cancel)
    first = source.read(0, 2 * BLOCK_BYTES)
    for key in world.keys("packs/"):
        world.store.delete(key)
    assert source.read(0, 2 * BLOCK_BYTES) == first


def test_extents_are_merged_and_end_with_the_disk() -> None:
    found = [(extent.offset_bytes // BLOCK_BYTES, extent.length_bytes) for extent in opened().data_extents()]
    assert found == [(0, 2 * BLOCK_BYTES), (4, 2 * BLOCK_BYTES), (9, BLOCK_BYTES)]
    world = World()
    image = image_of({1: 1, 2: 3}, count=2, tail_bytes=512)
    disk = world.back_up(image, run="r-1").disks[0].stored
    (extent,) = world.repository.source(disk, cancel=world.cancel).data_extents()
    assert extent.end_bytes == len(image)


def test_extents_are_merged_across_leaves_and_runs_are_bounded() -> None:
    world = World()
    palette = Palette(key_ring(world.store))
    content = dict.fromkeys(PLACES, 3)
    with world.begin("r-1") as writer:
        disk = write_content(writer, palette, content, changes=None, reference=None)
    source = world.repository.source(disk, cancel=world.cancel)
    assert source.size_bytes == SIZE_BYTES
    extents = {
        extent.offset_bytes // BLOCK_BYTES: extent.length_bytes // BLOCK_BYTES for extent in source.data_extents()
    }
    assert extents[4094] == 4
    assert source.read(LEAF_BYTES - 100, 200) == palette.blocks[3][-100:] + palette.blocks[3][:100]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_runs_come_in_order_whatever_the_number_of_workers(workers: int) -> None:
    world = World(workers=workers)
    image = image_of({number: 1 + number % 5 for number in range(0, 300, 2)}, count=300)
    point = world.back_up(image, run="r-1")
    source = world.repository.source(point.disks[0].stored, cancel=world.cancel)
    offsets = [run.offset_bytes for run in source.runs()]
    assert offsets == sorted(offsets)
    assert len(offsets) == 150
    assert world.restore(point) == image


def test_a_consumer_that_stops_early_leaves_no_thread_waiting() -> None:
    world = World(workers=2)
    image = image_of(dict.fromkeys(range(0, 100, 2), 1), count=100)
    point = world.back_up(image, run="r-1")
    runs = iter(world.repository.source(point.disks[0].stored, cancel=world.cancel).runs())
    assert next(runs).offset_bytes == 0
    runs.close()  # type: ignore[attr-defined]


def vault_of(world: World) -> Vault:
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def test_a_frame_that_was_moved_is_read_where_it_is_now() -> None:
    world = World()
    point = world.back_up(image_of({0: 1, 1: 2}, count=2), run="r-1")
    vault = vault_of(world)
    (old,) = point.disks[0].stored.packs.packs
    new = put_pack(world.store, vault.keys, [data(vault.keys, block_of(2))])
    write_moves(vault, {NodeAddress(old, 1): NodeAddress(new, 0)})
    # The old frame is spoiled: only whoever follows the move gets the block.
    spoiled = bytearray(world.store.get(pack_key(old)))
    spoiled[40 + 900] ^= 1
    spoiled[-1000] ^= 1
    world.memory.restore({**world.memory.snapshot(), pack_key(old): bytes(spoiled)})
    world.reopen()
    source = world.repository.source(point.disks[0].stored, cancel=world.cancel)
    assert source.read(BLOCK_BYTES, BLOCK_BYTES) == block_of(2)


def test_a_moved_record_that_cannot_be_read_is_an_error() -> None:
    world = World()
    point = world.back_up(IMAGE, run="r-1")
    world.store.put("moved/20260101T000000Z-00000000", b"garbage")
    with pytest.raises(ObjectDamaged, match="moved/"):
        world.repository.source(point.disks[0].stored, cancel=world.cancel)


def test_moves_in_a_circle_are_refused() -> None:
    first, second = (NodeAddress(PackId(bytes([number]) * 16), 0) for number in (1, 2))
    with pytest.raises(ObjectDamaged, match="circle"):
        Moves({first: second, second: first}).resolve(first)


def test_damage_in_one_block_lets_the_others_be_read() -> None:
    world = World()
    point = world.back_up(image_of({0: 2, 2: 4, 4: 6}, count=5), run="r-1")
    (key,) = world.keys("packs/")
    spoiled = bytearray(world.store.get(key))
    spoiled[40 + BLOCK_BYTES + 100] ^= 1
    world.memory.restore({**world.memory.snapshot(), key: bytes(spoiled)})
    world.reopen()
    source = world.repository.source(point.disks[0].stored, cancel=world.cancel)
    assert source.read(0, 10) == block_of(2)[:10]
    assert source.read(4 * BLOCK_BYTES, 10) == block_of(6)[:10]
    with pytest.raises(PackDamaged) as caught:
        source.read(2 * BLOCK_BYTES, 10)
    assert (caught.value.object, caught.value.slot) == (key, 1)


def test_a_pack_whose_trailer_is_lost_is_read_by_the_copy_in_an_index() -> None:
    world = World()
    image = image_of({0: 1, 1: 2, 2: 4}, count=3)
    point = world.back_up(image, run="r-1")
    (key,) = world.keys("packs/")
    content = world.store.get(key)
    world.memory.restore({**world.memory.snapshot(), key: content[:-60]})
    world.reopen()
    assert world.restore(point) == image
    report = world.verify()
    assert [damage.object for damage in report.damage] == [key]
    assert not report.is_sound


def test_without_a_copy_the_damage_is_told() -> None:
    world = World()
    point = world.back_up(image_of({0: 1}, count=1), run="r-1")
    (key,) = world.keys("packs/")
    (index,) = world.keys("index/")
    world.memory.restore({**world.memory.snapshot(), key: world.store.get(key)[:-60], index: b"garbage"})
    world.reopen()
    with pytest.raises(PackDamaged, match=key):
        world.restore(point)
