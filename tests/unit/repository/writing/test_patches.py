"""Patches: small changes cost little, every point stays complete in itself, what cannot be patched is stored whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, SeededEntropy
from holdfast.model import Coverage, DataRun
from holdfast.repository import Repository, RepositoryDiskWriter, RestorePoint, StoredDisk
from holdfast.repository.layout import LEAF_BLOCKS, Encoding, FrameKind, pack_key, parse_pack_key
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.packs.pack import parse_patch
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.moved import read_moves, write_moves
from holdfast.repository.vault import Vault
from tests.support.hand_packs import HandFrame, data, put_pack
from tests.support.repositories import World, block_of, disk_facts, image_of, read_all, write_changes, write_whole

SECTOR = 512


def poke(image: bytes, block: int, sectors: Iterable[int], *, mark: int = 1) -> bytes:
    """Return the disk after some sectors of a block were written."""
    changed = bytearray(image)
    for sector in sectors:
        start = block * BLOCK_BYTES + sector * SECTOR
        changed[start : start + SECTOR] = SeededEntropy(1000 * mark + sector).token_bytes(SECTOR)
    return bytes(changed)


def vault_of(world: World) -> Vault:
    return world.repository._vault


def slots_of_disk(repository: Repository, disk: StoredDisk, *, leaf: int = 0) -> dict[int, NodeAddress]:
    """Return where each block of a leaf lies."""
    vault = repository._vault
    found = MapReader(vault, disk, moves=read_moves(vault)).leaf(leaf)
    assert found is not None
    return {
        block: NodeAddress(found.packs[place - 1], int(found.slots[block]))
        for block, place in enumerate(found.places.tolist())
        if place
    }


def kind_of(vault: Vault, place: NodeAddress) -> FrameKind:
    return FrameKind(int(vault.shelf.open(place.pack).trailer.rows["kind"][place.slot]))


def base_of(vault: Vault, place: NodeAddress) -> NodeAddress:
    plain = vault.shelf.open(place.pack).fetch(place.slot, kind=FrameKind.PATCH)
    patch = parse_patch(plain, pack=place.pack, slot=place.slot)
    return NodeAddress(patch.base_pack, patch.base_slot)


def kinds(world: World, disk: StoredDisk, *, leaf: int = 0) -> dict[int, FrameKind]:
    vault = vault_of(world)
    places = slots_of_disk(world.repository, disk, leaf=leaf)
    return {block: kind_of(vault, place) for block, place in places.items()}


def spoil(world: World, place: NodeAddress) -> None:
    """Change a bit in the frame of a slot."""
    offset, _ = vault_of(world).shelf.open(place.pack).frame_extent(place.slot)
    key = pack_key(place.pack)
    content = bytearray(world.store.get(key))
    content[offset + 20] ^= 1
    world.memory.restore({**world.memory.snapshot(), key: bytes(content)})
    world.reopen()


def increment(world: World, image: bytes, blocks: Iterable[int], *, run: str, before: RestorePoint) -> RestorePoint:
    point = world.back_up_changes(image, blocks, run=run, reference=before.disks[0].stored)
    assert world.restore(point) == image
    assert world.verify().is_sound
    return point


IMAGE = image_of({0: 2, 2: 4, 4: 6}, count=6)


def test_a_block_of_which_few_sectors_changed_is_stored_as_those() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    changed = poke(IMAGE, 2, [0, 9, 127])
    point = increment(world, changed, [2], run="r-2", before=first)
    assert kinds(world, point.disks[0].stored)[2] is FrameKind.PATCH
    assert point.sizes.new_bytes == BLOCK_BYTES
    assert point.sizes.stored_bytes < 3 * SECTOR + 1000


def test_the_table_of_packs_counts_the_base_of_a_patch() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    point = increment(world, poke(IMAGE, 2, [5]), [2], run="r-2", before=first)
    vault, old = vault_of(world), first.disks[0].stored
    place = slots_of_disk(world.repository, point.disks[0].stored)[2]
    assert base_of(vault, place) == slots_of_disk(world.repository, old)[2]
    before, after = old.packs.get(old.root.pack), point.disks[0].stored.packs.get(old.root.pack)
    assert before is not None
    assert after is not None
    assert after.references == before.references - 2, "leaf and root are new; the block is named by the patch instead"


def test_patch_after_patch_is_made_against_the_whole_block() -> None:
    world = World()
    image = IMAGE
    points = [world.back_up(image, run="r-0")]
    whole = slots_of_disk(world.repository, points[0].disks[0].stored)[4]
    for number in range(1, 6):
        image = poke(image, 4, [10 * number], mark=number)
        points.append(increment(world, image, [4], run=f"r-{number}", before=points[-1]))
        place = slots_of_disk(world.repository, points[-1].disks[0].stored)[4]
        assert base_of(vault_of(world), place) == whole
    for point in points[:-1]:
        world.repository.delete_point(point.id)
    while world.collect():
        world.clock.advance(1000)
    assert world.restore(points[-1]) == image, "the last point needs no point before it"
    assert world.verify().is_sound


def test_when_half_of_a_block_has_changed_it_is_stored_whole_again() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    second = increment(world, poke(IMAGE, 2, range(60)), [2], run="r-2", before=first)
    third = increment(world, poke(IMAGE, 2, range(70)), [2], run="r-3", before=second)
    assert kinds(world, second.disks[0].stored)[2] is FrameKind.PATCH
    assert kinds(world, third.disks[0].stored)[2] is FrameKind.DATA
    fourth = increment(world, poke(poke(IMAGE, 2, range(70)), 2, [100]), [2], run="r-4", before=third)
    patch = slots_of_disk(world.repository, fourth.disks[0].stored)[2]
    assert base_of(vault_of(world), patch) == slots_of_disk(world.repository, third.disks[0].stored)[2]


def test_a_block_of_which_most_was_overwritten_is_stored_whole_however_small_a_patch_were() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = IMAGE[: 2 * BLOCK_BYTES] + b"-" * (40 * 1024) + IMAGE[2 * BLOCK_BYTES + 40 * 1024 :]
    point = increment(world, image, [2], run="r-2", before=first)
    assert kinds(world, point.disks[0].stored)[2] is FrameKind.DATA


def test_a_block_that_compresses_better_than_its_patch_is_stored_whole() -> None:
    world = World()
    image = image_of({0: 1}, count=2)
    first = world.back_up(image, run="r-1")
    point = increment(world, poke(image, 0, [3]), [0], run="r-2", before=first)
    assert kinds(world, point.disks[0].stored)[0] is FrameKind.DATA


def test_a_block_that_is_its_base_again_stores_nothing() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    second = increment(world, poke(IMAGE, 2, [1]), [2], run="r-2", before=first)
    third = increment(world, IMAGE, [2], run="r-3", before=second)
    assert third.sizes.new_bytes == 0
    old, new = (slots_of_disk(world.repository, point.disks[0].stored) for point in (first, third))
    assert new == old


@pytest.mark.parametrize("content", [0, 8])
def test_a_patch_that_is_replaced_lets_go_of_its_base(content: int) -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    second = increment(world, poke(IMAGE, 2, [1]), [2], run="r-2", before=first)
    image = IMAGE[: 2 * BLOCK_BYTES] + block_of(content) + IMAGE[3 * BLOCK_BYTES :]
    third = increment(world, image, [2], run="r-3", before=second)
    pack = first.disks[0].stored.root.pack
    uses = [point.disks[0].stored.packs.get(pack) for point in (second, third)]
    assert [use.references for use in uses if use is not None] == [3, 2]


def test_a_whole_read_of_a_disk_with_patches_stores_almost_nothing() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(IMAGE, 2, [1, 2])
    second = increment(world, image, [2], run="r-2", before=first)
    for run, expected, new_bytes in (("r-3", image, 0), ("r-4", poke(image, 4, [77]), BLOCK_BYTES)):
        with world.begin(run) as writer:
            disk = write_whole(writer, expected, reference=second.disks[0].stored)
            writer.publish(world.facts(run), [(disk_facts(len(expected)), disk)])
        assert disk.sizes.new_bytes == new_bytes
        assert disk.sizes.stored_bytes < 2000
        assert read_all(world.repository, disk, world.cancel) == expected
        assert world.verify().is_sound


def test_a_patched_block_that_comes_twice_counts_its_base_twice() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    patched = poke(IMAGE, 2, [1])
    block = patched[2 * BLOCK_BYTES : 3 * BLOCK_BYTES]
    image = patched[: 3 * BLOCK_BYTES] + block + patched[4 * BLOCK_BYTES :]
    point = increment(world, image, [2, 3], run="r-2", before=first)
    slots = slots_of_disk(world.repository, point.disks[0].stored)
    assert slots[2] == slots[3]
    assert kind_of(vault_of(world), slots[2]) is FrameKind.PATCH


def test_a_patch_is_no_place_for_the_same_block_elsewhere() -> None:
    world = World()
    size_bytes = (LEAF_BLOCKS + 4) * BLOCK_BYTES
    patched = poke(block_of(4), 0, [1])
    with world.begin("r-1") as writer:
        disk = writer.open_disk(size_bytes, coverage=Coverage.WHOLE, reference=None)
        disk.write(DataRun(2 * BLOCK_BYTES, block_of(4)))
        reference = disk.finish()
        disk = writer.open_disk(size_bytes, coverage=Coverage.CHANGES, reference=reference)
        for block in (2, LEAF_BLOCKS + 2):
            disk.write(DataRun(block * BLOCK_BYTES, patched))
        stored = disk.finish()
    assert kinds(world, stored)[2] is FrameKind.PATCH
    assert kinds(world, stored, leaf=1)[2] is FrameKind.DATA
    source = world.repository.source(stored, cancel=world.cancel)
    assert source.read((LEAF_BLOCKS + 2) * BLOCK_BYTES, BLOCK_BYTES) == patched


@pytest.mark.parametrize("coverage", list(Coverage))
def test_nothing_new_refers_to_a_base_that_is_to_be_avoided(coverage: Coverage) -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(IMAGE, 2, [1])
    second = increment(world, image, [2], run="r-2", before=first)
    base = slots_of_disk(world.repository, first.disks[0].stored)[2]
    again = image if coverage is Coverage.WHOLE else poke(image, 2, [2])
    with world.begin("r-3") as writer:
        writer._session.avoided = AvoidedSlots({base.pack: [base.slot]})
        reference = second.disks[0].stored
        disk = RepositoryDiskWriter(writer._session, size_bytes=len(again), coverage=coverage, reference=reference)
        disk.write(DataRun(0, again))
        stored = disk.finish()
    assert kinds(world, stored)[2] is FrameKind.DATA
    assert slots_of_disk(world.repository, stored)[2] != base


def test_a_block_that_is_known_is_not_patched() -> None:
    world = World()
    changed = poke(IMAGE, 2, [1])
    with world.begin("r-0") as writer:
        first = write_whole(writer, IMAGE)
        other = write_whole(writer, changed)
        point = write_changes(writer, changed, [2], reference=first)
    place = slots_of_disk(world.repository, point)[2]
    assert place == slots_of_disk(world.repository, other)[2]


@pytest.mark.parametrize("coverage", list(Coverage))
def test_against_a_damaged_block_nothing_is_patched(coverage: Coverage) -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    reference = first.disks[0].stored
    spoil(world, slots_of_disk(world.repository, reference)[2])
    image = poke(IMAGE, 2, [1])
    with world.begin("r-2") as writer:
        if coverage is Coverage.WHOLE:
            disk = write_whole(writer, image, reference=reference)
        else:
            disk = write_changes(writer, image, [2], reference=reference)
    assert kinds(world, disk)[2] is FrameKind.DATA
    assert read_all(world.repository, disk, world.cancel) == image


def test_a_whole_read_heals_a_patch_whose_base_is_damaged() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(IMAGE, 2, [1])
    second = increment(world, image, [2], run="r-2", before=first)
    spoil(world, slots_of_disk(world.repository, first.disks[0].stored)[2])
    assert not world.verify().is_sound
    with world.begin("r-3") as writer:
        disk = write_whole(writer, image, reference=second.disks[0].stored)
    assert kinds(world, disk)[2] is FrameKind.DATA
    assert read_all(world.repository, disk, world.cancel) == image


def test_a_whole_read_beside_an_unreadable_patch_stores_the_block() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(IMAGE, 2, [1])
    second = increment(world, image, [2], run="r-2", before=first)
    spoil(world, slots_of_disk(world.repository, second.disks[0].stored)[2])
    with world.begin("r-3") as writer:
        disk = write_whole(writer, image, reference=second.disks[0].stored)
    assert kinds(world, disk) == {0: FrameKind.DATA, 2: FrameKind.DATA, 4: FrameKind.DATA}
    assert read_all(world.repository, disk, world.cancel) == image


def test_a_base_that_has_moved_is_read_where_it_is_now() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    old = slots_of_disk(world.repository, first.disks[0].stored)[2]
    vault = vault_of(world)
    new = NodeAddress(put_pack(world.store, vault.keys, [data(vault.keys, block_of(4))], seed=77), 0)
    write_moves(vault, {old: new})
    spoil(world, old)
    image = poke(IMAGE, 2, [1])
    point = world.back_up_changes(image, [2], run="r-2", reference=first.disks[0].stored)
    place = slots_of_disk(world.repository, point.disks[0].stored)[2]
    assert base_of(vault_of(world), place) == old, "named as the reference names it; the move leads on"
    assert world.restore(point) == image


def empty_packs(world: World) -> None:
    """Copy all that is in packs into new ones, slot by slot, say so, and delete the old packs."""
    vault = vault_of(world)
    moves: dict[NodeAddress, NodeAddress] = {}
    packs = [pack for key in world.keys("packs/") if (pack := parse_pack_key(key)) is not None]
    for number, pack in enumerate(packs):
        opened = vault.shelf.open(pack)
        rows, frames = opened.trailer.rows, []
        for slot in np.flatnonzero(rows["index"] == 0).tolist():
            kind, encoding, count = (int(rows[field][slot]) for field in ("kind", "encoding", "count"))
            sealed = opened.read_range(*opened.frame_extent(slot))
            body = opened._cipher.open(sealed, slot, kind=kind, encoding=encoding, count=count)
            ids = [bytes(id) for id in rows["id"][slot : slot + count]]
            frame = HandFrame(
                ids=ids, plain=bytes(body), kind=FrameKind(kind), encoding=Encoding(encoding), is_packed=True
            )
            frames.append(frame)
        new = put_pack(world.store, vault.keys, frames, seed=700 + number)
        moves.update({NodeAddress(pack, slot): NodeAddress(new, slot) for slot in range(len(rows))})
    write_moves(vault, moves, emptied=packs)
    for pack in packs:
        world.store.delete(pack_key(pack))
    world.reopen()


@pytest.mark.parametrize("is_whole", [False, True])
def test_patches_outlive_the_packs_that_were_emptied(*, is_whole: bool) -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(poke(IMAGE, 2, [1]), 4, [9])
    second = increment(world, image, [2, 4], run="r-2", before=first)
    empty_packs(world)
    image = poke(image, 2, [5])
    with world.begin("r-3") as writer:
        reference = second.disks[0].stored
        if is_whole:
            disk = write_whole(writer, image, reference=reference)
        else:
            disk = write_changes(writer, image, [2], reference=reference)
        writer.publish(world.facts("r-3"), [(disk_facts(len(image)), disk)])
    assert read_all(world.repository, disk, world.cancel) == image
    assert world.verify().is_sound


def test_a_resumed_run_stores_patches_again_and_all_else_once() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    image = poke(image_of({0: 2, 2: 4, 4: 10}, count=6), 2, [1])
    writer = world.begin("r-2")
    write_changes(writer, image, [2, 4], reference=first.disks[0].stored)
    writer.leave()
    world.reopen()
    point = increment(world, image, [2, 4], run="r-2", before=first)
    places = slots_of_disk(world.repository, point.disks[0].stored)
    assert kind_of(vault_of(world), places[2]) is FrameKind.PATCH
    assert places[4].pack != places[2].pack, "the whole block was found in what the interrupted run had stored"


def test_a_disk_written_anew_does_not_read_all_of_what_was_there() -> None:
    world = World()
    first = world.back_up(image_of({block: 2 * block + 2 for block in range(64)}, count=64), run="r-1")
    anew = image_of({block: 2 * block + 1002 for block in range(64)}, count=64)
    with world.begin("r-2") as writer:
        disk = writer.open_disk(len(anew), coverage=Coverage.CHANGES, reference=first.disks[0].stored)
        reads = []
        inner = world.memory.get_range

        def noted(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            reads.append(length_bytes)
            return inner(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(world.memory, "get_range", noted)
            disk.write(DataRun(0, anew))
            stored = disk.finish()
    assert sum(reads) < 12 * BLOCK_BYTES
    assert read_all(world.repository, stored, world.cancel) == anew


def test_a_change_in_the_middle_of_what_was_written_anew_is_noticed() -> None:
    world = World()
    first = world.back_up(image_of({block: 2 * block + 2 for block in range(40)}, count=40), run="r-1")
    kept = {block: 2 * block + 2 for block in range(20, 40)}
    image = image_of({**{block: 2 * block + 1002 for block in range(20)}, **kept}, count=40)
    for block in range(20, 40):
        image = poke(image, block, [7])
    with world.begin("r-2") as writer:
        disk = writer.open_disk(len(image), coverage=Coverage.CHANGES, reference=first.disks[0].stored)
        disk.write(DataRun(0, image))
        found = kinds(world, disk.finish())
    assert [kind for _, kind in sorted(found.items())] == [FrameKind.DATA] * 20 + [FrameKind.PATCH] * 20


def test_threads_make_the_same_patches() -> None:
    world = World(workers=2)
    image = image_of({block: 2 * block + 2 for block in range(0, 80, 2)}, count=80)
    point = world.back_up(image, run="r-0")
    for number in (1, 2):
        written = range(4 * number, 80, 10)
        for block in written:
            image = poke(image, block, [number, 100], mark=number)
        point = increment(world, image, written, run=f"r-{number}", before=point)
        found = kinds(world, point.disks[0].stored)
        assert {found[block] for block in written if block % 2 == 0} == {FrameKind.PATCH}


CONTENT = st.tuples(st.sampled_from([0, 1, 2, 2, 4, 4]), st.frozensets(st.sampled_from([0, 1, 64, 127]), max_size=3))
"""A block's content, and the sectors in which it differs from that."""

STEP = st.tuples(st.dictionaries(st.integers(0, 9), CONTENT, max_size=5), st.booleans(), st.integers(0, 3))
"""What is written; whether the disk is read whole; how many points back the reference is."""


def pictured(blocks: Mapping[int, tuple[int, frozenset[int]]]) -> bytes:
    image = image_of({block: content for block, (content, _) in blocks.items()}, count=10)
    for block, (_, sectors) in blocks.items():
        image = poke(image, block, sectors)
    return image


@settings(max_examples=40)
@given(st.lists(STEP, min_size=1, max_size=6))
def test_any_history_restores_and_its_tables_agree(
    steps: list[tuple[dict[int, tuple[int, frozenset[int]]], bool, int]],
) -> None:
    world = World()
    blocks: dict[int, tuple[int, frozenset[int]]] = {0: (2, frozenset()), 1: (4, frozenset()), 5: (2, frozenset())}
    history = [(pictured(blocks), world.back_up(pictured(blocks), run="r-0"))]
    for number, (written, is_whole, back) in enumerate(steps, start=1):
        blocks = {**blocks, **written}
        image = pictured(blocks)
        old, reference = history[max(0, len(history) - 1 - back)]
        with world.begin(f"r-{number}") as writer:
            if is_whole:
                disk = write_whole(writer, image, reference=reference.disks[0].stored)
            else:
                differs = [at for at in range(10) if block_at(old, at) != block_at(image, at)]
                disk = write_changes(writer, image, differs, reference=reference.disks[0].stored)
            facts = world.facts(f"r-{number}")
            history.append((image, writer.publish(facts, [(disk_facts(len(image)), disk)])))
    world.reopen()
    assert [world.restore(point) == image for image, point in history] == [True] * len(history)
    assert world.verify().is_sound


def block_at(image: bytes, block: int) -> bytes:
    return image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
