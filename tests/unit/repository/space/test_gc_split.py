"""Frames that are mostly dead: what is needed of them is copied, so that the rest comes back; nobody notices."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, ManualClock
from holdfast.model import VmUuid
from holdfast.repository import DiskNoLongerStored, GcReport, GcSettings, RestorePoint
from holdfast.repository.care.verify_maps import MapWalk
from holdfast.repository.layout import TRAILER_ROW, PackId, pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.packs.pack_table import PackTable
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import Trailer, TrailerNotes
from holdfast.repository.records.condemned import write_condemned
from holdfast.repository.records.holes import read_holes
from holdfast.repository.records.moved import read_moves
from holdfast.repository.space.gc_geometry import carve, dead_frames, slots_to_split
from holdfast.storage import Fault, FaultEffect, FaultyStore, MemoryStore, ObjectStore, Parts, SimulatedCrash, StoreFull
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import World, disk_facts, image_of, write_changes, write_whole
from tests.unit.repository.space.test_gc_frames import Full, NoHoles, collect, packs_of, vault_of


class FullOfRecords(StoreWrapper):
    """A store that is full when a moved record comes."""

    is_full = True

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        if self.is_full and key.startswith("moved/"):
            raise StoreFull(store="full", key=key)
        super().put(key, parts, locked_until=locked_until)


BLOCKS = 12
FIRST = {number: 2 * number + 2 for number in range(BLOCKS)}
CHANGED = (0, 1, 4, 5, 6, 8)
NEWER = {**FIRST, **{number: 2 * number + 40 for number in CHANGED}}
"""Of the first frame of four two blocks are dead, of the second three, of the third one."""

ANY = GcSettings(is_thorough=True)
"""Split wherever more comes back than is copied."""

POOREST = GcSettings(is_thorough=True, moved_live_part_max=0.6)
"""Where nothing can be punched, half of the pack is live."""


def world_with_shared_frames(store: type[StoreWrapper] | None = None) -> tuple[World, RestorePoint]:
    """Return a world in which only a frame as a whole could be given back, and none is dead as a whole."""
    memory = MemoryStore()
    world = World(store(memory) if store else memory, memory=memory)
    first = world.back_up(image_of(FIRST, count=BLOCKS), run="r-1")
    newer = world.back_up_changes(image_of(NEWER, count=BLOCKS), CHANGED, run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    return world, newer


def oldest_pack(point: RestorePoint) -> PackId:
    """Return the pack of a disk that most of its first backup lies in."""
    return max(point.disks[0].stored.packs.items(), key=lambda each: each[1].length_bytes)[0]


def assert_whole(world: World, point: RestorePoint, image: bytes) -> None:
    world.reopen()
    assert world.restore(point) == image
    report = world.verify()
    assert report.is_sound
    assert report.damage == ()


def test_blocks_move_out_of_frames_that_are_mostly_dead_and_the_frames_are_punched() -> None:
    world, newer = world_with_shared_frames()
    before = world.memory.get(newer.key)
    plan = world.repository.plan_gc(settings=ANY)
    report = world.repository.apply_gc(plan, settings=ANY, cancel=world.cancel)
    assert 3 * BLOCK_BYTES <= report.moved_bytes < 3 * BLOCK_BYTES + 1000 <= plan.copied_bytes_max
    # Two frames side by side, but for a part of the block of the file system at their end.
    assert 8 * BLOCK_BYTES - 8192 <= report.punched_bytes <= 8 * BLOCK_BYTES
    assert report.punched_packs == 1
    assert world.memory.get(newer.key) == before
    assert oldest_pack(newer) not in read_moves(vault_of(world)).emptied
    assert_whole(world, newer, image_of(NEWER, count=BLOCKS))


def test_the_plan_says_how_much_is_copied_at_most() -> None:
    world, _ = world_with_shared_frames()
    assert "are copied" in world.repository.plan_gc(settings=ANY).explain()


def test_a_second_collection_finds_nothing_left_and_leaves_the_record_of_moves_alone() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    objects = {key: world.memory.get(key) for key in world.keys("packs/") + world.keys("moved/")}
    report = collect(world, ANY)
    assert (report.punched_bytes, report.moved_bytes, report.deleted_packs) == (0, 0, 0)
    assert {key: world.memory.get(key) for key in world.keys("packs/") + world.keys("moved/")} == objects
    assert_whole(world, newer, image_of(NEWER, count=BLOCKS))


@pytest.mark.parametrize(
    "settings",
    [GcSettings(), GcSettings(split_bytes_min=0, split_part_min=0.9), GcSettings(is_thorough=True, split_rows_max=2)],
)
def test_what_gives_back_little_is_left_to_die_together(settings: GcSettings) -> None:
    world, _ = world_with_shared_frames()
    report = collect(world, settings)
    assert (report.moved_bytes, report.punched_bytes) == (0, 0)
    assert world.keys("moved/") == []


def test_an_increment_inherits_what_has_moved_and_stores_only_what_changed() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    world.reopen()
    content = {**NEWER, 2: 90, 9: 92}
    point = world.back_up_changes(
        image_of(content, count=BLOCKS), [2, 3, 9], run="r-3", reference=newer.disks[0].stored
    )
    assert point.sizes.new_bytes == 2 * BLOCK_BYTES, "block 3 is the same as it was, although it has moved"
    world.repository.delete_point(newer.id)
    for _ in range(3):
        collect(world, ANY)
    assert_whole(world, point, image_of(content, count=BLOCKS))


def test_a_whole_reading_finds_again_what_has_moved() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    world.reopen()
    image = image_of(NEWER, count=BLOCKS)
    with world.begin("r-3") as writer:
        stored = write_whole(writer, image, reference=newer.disks[0].stored)
        again = writer.publish(world.facts("r-3"), [(disk_facts(len(image)), stored)])
    assert again.sizes.new_bytes == 0
    assert_whole(world, again, image)


def test_another_disk_refers_to_the_new_place_only() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    world.reopen()
    other = world.back_up(image_of(FIRST, count=BLOCKS), run="r-3", vm=VmUuid("other"))
    # Block 8 is dead and lies in a frame that is there still; the others were punched.
    assert other.sizes.new_bytes == 5 * BLOCK_BYTES
    moves = read_moves(vault_of(world))
    copies = {PackId(bytes(row["new_pack"])) for row in moves.rows}
    assert copies < set(other.disks[0].stored.packs.packs)
    world.repository.delete_point(newer.id)
    for _ in range(3):
        collect(world, ANY)
    assert_whole(world, other, image_of(FIRST, count=BLOCKS))


def test_a_block_that_died_where_it_moved_to_is_not_found_at_its_old_place() -> None:
    world, newer = world_with_shared_frames()
    writer = world.begin("r-8")
    collect(world, ANY)
    assert len(read_moves(vault_of(world))) == 3, "it has moved, but its old frame waits for the backup"
    content = {**NEWER, 2: 90, 3: 92, 7: 94}
    point = world.back_up_changes(
        image_of(content, count=BLOCKS), [2, 3, 7], run="r-3", reference=newer.disks[0].stored
    )
    world.repository.delete_point(newer.id)
    writer.close()
    collect(world, ANY)
    world.reopen()
    other = world.back_up(image_of(NEWER, count=BLOCKS), run="r-4", vm=VmUuid("other"))
    collect(world, ANY)
    assert_whole(world, other, image_of(NEWER, count=BLOCKS))
    assert_whole(world, point, image_of(content, count=BLOCKS))


def test_a_running_backup_is_not_disturbed_and_what_it_inherits_is_found() -> None:
    world, newer = world_with_shared_frames()
    writer = world.begin("r-9")
    report = collect(world, ANY)
    assert (report.punched_bytes, report.poor_waiting_packs) == (0, 1)
    assert report.moved_bytes > 0
    changed = image_of({**NEWER, 11: 60}, count=BLOCKS)
    stored = write_changes(writer, changed, [11], reference=newer.disks[0].stored)
    world.repository.delete_point(newer.id)
    assert collect(world, ANY).punched_bytes == 0
    point = writer.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    writer.close()
    report = collect(world, ANY)
    assert report.punched_bytes > 0
    assert report.moved_bytes <= BLOCK_BYTES * 2 + 200, "only what died meanwhile is new"
    collect(world, ANY)
    assert_whole(world, point, changed)


def test_a_backup_that_was_there_when_blocks_moved_reads_the_bases_of_its_patches() -> None:
    world, newer = world_with_shared_frames()
    writer = world.begin("r-9")
    collect(world, ANY)
    changed = bytearray(image_of(NEWER, count=BLOCKS))
    for block in (2, 3, 7):
        changed[block * BLOCK_BYTES + 5 : block * BLOCK_BYTES + 9] = b"page"
    stored = write_changes(writer, bytes(changed), [2, 3, 7], reference=newer.disks[0].stored)
    point = writer.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    writer.close()
    assert point.sizes.stored_bytes < BLOCK_BYTES, "they were stored as patches"
    world.repository.delete_point(newer.id)
    collect(world, ANY)
    assert_whole(world, point, bytes(changed))
    again = bytearray(changed)
    again[2 * BLOCK_BYTES + 9 : 2 * BLOCK_BYTES + 13] = b"edit"
    after = world.back_up_changes(bytes(again), [2], run="r-10", reference=point.disks[0].stored)
    assert after.sizes.stored_bytes < BLOCK_BYTES, "it was made a patch of a block that has moved"
    world.repository.delete_point(point.id)
    for _ in range(2):
        collect(world, ANY)
    assert_whole(world, after, bytes(again))


@pytest.mark.parametrize("store", [None, NoHoles])
def test_a_disk_that_is_being_read_finds_what_moves_meanwhile(store: type[StoreWrapper] | None) -> None:
    world, newer = world_with_shared_frames(store)
    source = world.repository.source(newer.disks[0].stored, cancel=world.cancel)
    assert source.read(0, 512) == image_of(NEWER, count=BLOCKS)[:512]
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    other.reopen()
    assert collect(other, POOREST).moved_bytes > 0
    collect(other, POOREST)
    assert source.read(0, BLOCKS * BLOCK_BYTES) == image_of(NEWER, count=BLOCKS)


def test_what_has_moved_may_move_again_and_the_way_stays_short() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    world.reopen()
    content = {**NEWER, 2: 90, 9: 92, 10: 94}
    point = world.back_up_changes(
        image_of(content, count=BLOCKS), [2, 9, 10], run="r-3", reference=newer.disks[0].stored
    )
    world.repository.delete_point(newer.id)
    report = collect(world, ANY)
    # Block 3 leaves the frame that it shared with block 2, block 11 that of 8 to 10.
    assert 2 * BLOCK_BYTES <= report.moved_bytes < 2 * BLOCK_BYTES + 1000
    collect(world, ANY)
    moves = read_moves(vault_of(world))
    assert len(moves.records) == 1
    ends = [NodeAddress(PackId(bytes(row["new_pack"])), int(row["new_slot"])) for row in moves.rows]
    assert all(moves.resolve(end) == end for end in ends)
    records = world.keys("moved/")
    collect(world, ANY)
    assert world.keys("moved/") == records, "it is tidy"
    assert_whole(world, point, image_of(content, count=BLOCKS))


def test_a_disk_is_not_inherited_when_a_pack_may_not_be_used_to_which_it_moved() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    moved_to = {PackId(bytes(row["new_pack"])) for row in read_moves(vault_of(world)).rows}
    write_condemned(vault_of(world), PackSet(moved_to))
    with pytest.raises(DiskNoLongerStored), world.begin("r-9") as writer:
        write_changes(writer, image_of(NEWER, count=BLOCKS), [8], reference=newer.disks[0].stored)


@pytest.mark.parametrize("store", [None, NoHoles])
def test_a_table_that_does_not_agree_with_the_map_is_found_after_a_move_too(store: type[StoreWrapper] | None) -> None:
    world, newer = world_with_shared_frames(store)
    assert collect(world, POOREST).moved_bytes > 0
    stored = newer.disks[0].stored
    uses = dict(stored.packs.items())
    pack = oldest_pack(newer)
    for change in (
        {pack: dataclasses.replace(uses[pack], references=uses[pack].references + 1)},
        {
            other: dataclasses.replace(use, live_bytes=use.live_bytes + 1)
            for other, use in uses.items()
            if other != pack
        },
    ):
        wrong = dataclasses.replace(stored, packs=PackTable({**uses, **change}))
        walk = MapWalk(vault_of(world), moves=read_moves(vault_of(world)))
        walk.add(stored)
        assert not walk.broken
        walk.add(wrong)
        assert list(walk.broken.tables) == [stored.root]


def test_moves_are_forgotten_with_the_last_point_that_needs_them() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    world.repository.delete_point(newer.id)
    for _ in range(2):
        collect(world, ANY)
    assert (packs_of(world), world.keys("moved/"), world.keys("condemned/")) == (set(), [], [])


def test_a_locked_pack_is_left_alone() -> None:
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    world = World(memory=memory)
    world.clock = clock
    world.reopen()
    first = world.back_up(image_of(FIRST, count=BLOCKS), run="r-1")
    world.back_up_changes(image_of(NEWER, count=BLOCKS), CHANGED, run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    until = world.clock.now().replace(year=2030)
    for key in world.keys("packs/"):
        memory.try_lock(key, until)
    report = collect(world, ANY)
    assert (report.moved_bytes, report.punched_bytes) == (0, 0)
    assert (report.locked_packs, report.locked_until) == (1, until)


def test_a_full_store_is_left_as_it_is_but_for_what_can_be_punched_at_once() -> None:
    world, newer = world_with_shared_frames()
    world.store = Full(world.memory)
    world.reopen()
    report = collect(world, ANY)
    assert (report.moved_bytes, report.punched_bytes, report.is_complete) == (0, 0, False)
    assert world.keys("leases/") == []
    assert_whole(world, newer, image_of(NEWER, count=BLOCKS))


def test_copies_for_which_there_was_no_room_go_with_the_next_collection() -> None:
    world, newer = world_with_shared_frames()
    packs = packs_of(world)
    full = FullOfRecords(world.memory)
    world.store = full
    world.reopen()
    report = collect(world, ANY)
    assert (report.moved_bytes, report.is_complete) == (0, False)
    assert len(packs_of(world)) == len(packs) + 1
    assert (world.keys("leases/"), world.keys("moved/")) == ([], [])
    full.is_full = False
    report = collect(world, ANY)
    assert (report.deleted_packs, report.is_complete) == (1, True)
    assert report.punched_bytes > 0
    assert_whole(world, newer, image_of(NEWER, count=BLOCKS))


def test_no_more_is_copied_than_the_budget_allows() -> None:
    world, _ = world_with_shared_frames()
    report = collect(world, GcSettings(is_thorough=True, budget_bytes=10))
    assert (report.moved_bytes, report.punched_bytes, report.is_complete) == (0, 0, False)
    assert collect(world, ANY).punched_bytes > 0


def test_a_damaged_frame_is_not_spread() -> None:
    world, newer = world_with_shared_frames()
    key = pack_key(oldest_pack(newer))
    content = bytearray(world.memory.get(key))
    content[100_000] ^= 1
    world.memory.restore({**world.memory.snapshot(), key: bytes(content)})
    world.reopen()
    report = collect(world, ANY)
    assert (report.moved_bytes, report.punched_bytes) == (0, 0)
    assert world.memory.get(key) == bytes(content)
    assert read_holes(vault_of(world)).plans == ()


def test_what_is_damaged_where_it_moved_to_is_told_and_heals() -> None:
    world, newer = world_with_shared_frames()
    collect(world, ANY)
    (copies,) = {PackId(bytes(row["new_pack"])) for row in read_moves(vault_of(world)).rows}
    content = bytearray(world.memory.get(pack_key(copies)))
    content[100] ^= 1
    world.memory.restore({**world.memory.snapshot(), pack_key(copies): bytes(content)})
    world.reopen()
    (found,) = world.verify().damage
    assert found.object == pack_key(copies)
    assert [hit.point for hit in found.hits] == [newer.id]
    image = image_of(NEWER, count=BLOCKS)
    again = world.back_up(image, run="r-3")
    # Blocks 2 and 3 share their new frame, as they did before.
    assert again.sizes.new_bytes == 2 * BLOCK_BYTES
    world.reopen()
    assert world.restore(newer) == world.restore(again) == image
    assert not any(each.hits for each in world.verify().damage)


def test_an_emptied_pack_leaves_dead_blocks_behind() -> None:
    world, newer = world_with_shared_frames(NoHoles)
    report = collect(world, POOREST)
    # Six blocks of three frames, and nodes of the map.
    assert (report.emptied_packs, report.punched_packs) == (1, 0)
    assert 6 * BLOCK_BYTES <= report.moved_bytes < 6 * BLOCK_BYTES + 2000
    assert collect(world, POOREST).deleted_packs == 1
    assert_whole(world, newer, image_of(NEWER, count=BLOCKS))
    content = {number: 2 * number + 200 for number in range(BLOCKS)}
    content[11] = NEWER[11]
    point = world.back_up_changes(
        image_of(content, count=BLOCKS), range(BLOCKS), run="r-3", reference=newer.disks[0].stored
    )
    assert point.sizes.new_bytes == 11 * BLOCK_BYTES
    assert all(use.live_bytes >= 0 for _, use in point.disks[0].stored.packs.items())
    assert_whole(world, point, image_of(content, count=BLOCKS))


def operations_of_collections(store: type[StoreWrapper] | None) -> int:
    world, _ = world_with_shared_frames(store)
    counted = FaultyStore(world.store)
    world.store = counted
    world.reopen()
    collect(world, POOREST)
    collect(world, POOREST)
    return counted.operations


@pytest.mark.slow(reason="two collections for each of some two hundred operations")
@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
@pytest.mark.parametrize("store", [None, NoHoles])
def test_a_crash_at_any_operation_loses_nothing_and_the_next_collection_finishes(
    store: type[StoreWrapper] | None, effect: FaultEffect
) -> None:
    for at in range(6, operations_of_collections(store) + 1):
        world, newer = world_with_shared_frames(store)
        plain: ObjectStore = world.store
        world.store = FaultyStore(plain, [Fault(at=at, effect=effect)])
        with pytest.raises(SimulatedCrash):
            world.reopen()
            collect(world, POOREST)
            collect(world, POOREST)
            world.keys("")
        world.store = plain
        world.reopen()
        assert world.restore(newer) == image_of(NEWER, count=BLOCKS), at
        world.clock.advance(5000)
        for _ in range(3):
            report: GcReport = collect(world, POOREST)
        assert (report.punched_bytes, report.moved_bytes, report.deleted_packs) == (0, 0, 0), at
        assert_whole(world, newer, image_of(NEWER, count=BLOCKS))
        assert len(packs_of(world)) == (3 if store is None else 2), at
        assert read_holes(vault_of(world)).plans == (), at
        assert world.keys("leases/") == [], at


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 15)), min_size=1, max_size=20))
def test_splitting_gives_back_no_less_than_it_copies(frames: list[tuple[int, int]]) -> None:
    rows = np.zeros(sum(count for count, _ in frames), dtype=TRAILER_ROW)
    live = np.zeros(len(rows), dtype=np.bool_)
    offsets = np.zeros(len(rows), dtype=np.int64)
    slot, offset = 0, 40
    for count, bits in frames:
        rows["length"][slot], rows["count"][slot : slot + count] = 4096 * count, count
        rows["index"][slot : slot + count] = range(count)
        live[slot : slot + count] = [bool(bits >> each & 1) for each in range(count)]
        offsets[slot : slot + count] = offset
        slot, offset = slot + count, offset + 4096 * count
    trailer = Trailer(PackId(bytes(16)), rows, offsets, TrailerNotes(run="r-1"))
    split = slots_to_split(trailer, live)
    assert not (split & ~live).any()
    came_back = carve(trailer, dead_frames(trailer, live & ~split), 1).freed_bytes
    came_back -= carve(trailer, dead_frames(trailer, live), 1).freed_bytes
    copied = int(trailer.shares(np.flatnonzero(split)).sum())
    assert came_back >= 2 * copied, "the old place of what is copied, and at least as much that is dead"
