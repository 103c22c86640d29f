"""Dead frames of packs that are still needed: punched where the store can, moved out elsewhere, never a live one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import pytest

from holdfast.core import Cancellation, ManualClock
from holdfast.model import Extent, VmUuid
from holdfast.repository import DiskNoLongerStored, FrameWay, GcReport, GcSettings, RestorePoint
from holdfast.repository.layout import FrameKind, PackId, pack_key, parse_pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.records.holes import PackHoles, read_holes, write_holes
from holdfast.repository.records.moved import read_moves
from holdfast.repository.space.gc_geometry import carve, dead_frames
from holdfast.repository.space.gc_look import SlotLook
from holdfast.repository.vault import Vault
from holdfast.storage import (
    Fault,
    FaultEffect,
    FaultyStore,
    MemoryStore,
    ObjectInfo,
    ObjectStore,
    Parts,
    SimulatedCrash,
    StoreFull,
)
from holdfast.storage.store import as_views
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import TEST_SAFETY, World, disk_facts, image_of, key_ring, write_changes, write_whole

THOROUGH = GcSettings(is_thorough=True, moved_live_part_max=0.7)
FIRST = {number: 2 * number + 2 for number in range(9)}
NEWER = {**FIRST, 0: 40, 1: 42, 2: 44, 3: 46, 4: 48}
"""What the first point alone needs are five blocks; four of them share one frame."""


class NoHoles(StoreWrapper):
    """A store that cannot give back a part of an object."""

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        self._inner.size(key)
        return None


class SeemsToPunch(StoreWrapper):
    """A store that finds out only when it is tried that it cannot, as a mount of an old server."""

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        return None if extents else 0


def world_with_dead_frames(store: type[StoreWrapper] | None = None) -> tuple[World, RestorePoint]:
    """Return a world whose oldest pack is needed in part, and the point that needs it."""
    memory = MemoryStore()
    world = World(store(memory) if store else memory, memory=memory)
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    newer = world.back_up_changes(image_of(NEWER, count=9), [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    return world, newer


def collect(world: World, settings: GcSettings = THOROUGH) -> GcReport:
    plan = world.repository.plan_gc(settings=settings)
    return world.repository.apply_gc(plan, settings=settings, cancel=world.cancel)


def vault_of(world: World) -> Vault:
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def packs_of(world: World) -> set[PackId]:
    return {pack for key in world.keys("packs/") if (pack := parse_pack_key(key)) is not None}


def dead_bytes(world: World) -> int:
    """Return what of the packs nobody needs, could be punched, and is not."""
    vault, packs = vault_of(world), PackSet(packs_of(world))
    look = SlotLook(
        vault, packs, [len(vault.shelf.open(pack).trailer) for pack in packs], workers=0, cancel=Cancellation()
    )
    look.look(read_moves(vault))
    left = 0
    for place, pack in enumerate(packs):
        trailer = vault.shelf.open(pack).trailer
        content = world.memory.get(pack_key(pack))
        for extent in carve(trailer, dead_frames(trailer, look.live[place]), 4096).extents:
            left += extent.length_bytes if any(content[extent.offset_bytes : extent.end_bytes]) else 0
    return left


def test_dead_frames_are_punched_and_what_is_needed_restores() -> None:
    world, newer = world_with_dead_frames()
    expected = dead_bytes(world)
    plan = world.repository.plan_gc(settings=THOROUGH)
    assert plan.poor_way is FrameWay.PUNCH
    report = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert report.punched_bytes == expected > 3 * 65536
    assert dead_bytes(world) == 0
    assert world.restore(newer) == image_of(NEWER, count=9)
    assert world.verify().is_sound
    assert world.verify().damage == ()


def test_punching_twice_gives_nothing_back_and_leaves_things_as_they_are() -> None:
    world, _ = world_with_dead_frames()
    collect(world)
    packs = {key: world.memory.get(key) for key in world.keys("packs/")}
    assert collect(world).punched_bytes == 0
    assert {key: world.memory.get(key) for key in world.keys("packs/")} == packs


def test_a_punched_block_is_not_known_any_more() -> None:
    world, _ = world_with_dead_frames()
    collect(world)
    world.reopen()
    again = world.back_up(image_of(FIRST, count=9), run="r-3", vm=VmUuid("other"))
    # Block 4 shares a frame with blocks that are needed, so it is there still.
    assert again.sizes.new_bytes == 4 * 65536, "what was punched is stored anew, the rest is known"
    assert world.restore(again) == image_of(FIRST, count=9)
    collect(world)
    assert world.restore(again) == image_of(FIRST, count=9)
    assert world.verify().is_sound


def world_without_the_first_point() -> tuple[World, StoredDisk]:
    """Return a world with dead frames, and the disk of the point that was deleted."""
    world = World()
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    world.back_up_changes(image_of(NEWER, count=9), [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    return world, first.disks[0].stored


def test_a_map_that_leads_into_holes_is_not_inherited() -> None:
    world, disk = world_without_the_first_point()
    collect(world)
    changed = image_of({**FIRST, 8: 60}, count=9)
    with pytest.raises(DiskNoLongerStored), world.begin("r-9") as writer:
        write_changes(writer, changed, [8], reference=disk)
    with world.begin("r-9") as writer:
        stored = write_whole(writer, changed, reference=disk)
        point = writer.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    assert world.restore(point) == changed


def test_a_running_backup_is_waited_for_and_what_it_publishes_is_spared() -> None:
    world, disk = world_without_the_first_point()
    writer = world.begin("r-9")
    changed = image_of({**FIRST, 8: 60}, count=9)
    stored = write_changes(writer, changed, [8], reference=disk)
    report = collect(world)
    assert (report.punched_bytes, report.poor_waiting_packs) == (0, 1)
    assert "r-9" in report.waits_for[0]
    point = writer.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    writer.close()
    assert collect(world).punched_bytes == 0, "all of it is needed again"
    assert world.restore(point) == changed
    world.repository.delete_point(point.id)
    assert collect(world).punched_bytes > 0


class BeforeLeases(StoreWrapper):
    """A store on which something happens once after a plan of holes is there, right before leases are listed."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.happens: Callable[[], None] | None = None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix == "leases/" and self.happens is not None and list(self._inner.list("holes/")):
            act, self.happens = self.happens, None
            act()
        return self._inner.list(prefix)


@pytest.mark.parametrize("wrapper", [None, NoHoles])
def test_what_was_published_between_the_first_look_and_the_leases_is_spared(wrapper: type[StoreWrapper] | None) -> None:
    world, disk = world_without_the_first_point()
    plain = world.store
    store = BeforeLeases(wrapper(plain) if wrapper else plain)
    world.store = store
    world.reopen()
    changed = image_of({**FIRST, 8: 60}, count=9)
    writer = world.begin("r-9")
    stored = write_changes(writer, changed, [8], reference=disk)

    def publish() -> None:
        writer.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
        writer.close()

    plan = world.repository.plan_gc(settings=THOROUGH)
    store.happens = publish
    report = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert store.happens is None
    assert report.poor_waiting_packs == 0, "its lease has ended"
    collect(world)
    world.reopen()
    (point,) = [each for each in world.repository.points() if each.facts.run == "r-9"]
    assert world.restore(point) == changed
    assert world.verify().damage == ()


def test_a_backup_that_began_after_the_plan_is_not_waited_for() -> None:
    world, _ = world_without_the_first_point()
    before = world.begin("r-8")
    assert collect(world).poor_waiting_packs == 1
    after = world.begin("r-9")
    before.close()
    assert collect(world).punched_bytes > 0
    changed = image_of(FIRST, count=9)
    stored = write_whole(after, changed)
    point = after.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    after.close()
    assert world.restore(point) == changed


def test_a_disk_that_an_earlier_execution_stored_is_not_published_over_holes() -> None:
    world, disk = world_without_the_first_point()
    changed = image_of({**FIRST, 8: 60}, count=9)
    writer = world.begin("r-9")
    stored = write_changes(writer, changed, [8], reference=disk)
    writer.leave()
    world.clock.advance(TEST_SAFETY.lease_s + TEST_SAFETY.clock_skew_s + 1)
    assert collect(world).punched_bytes > 0
    with pytest.raises(DiskNoLongerStored), world.begin("r-9") as resumed:
        resumed.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])


def test_no_writer_begins_that_does_not_know_holes() -> None:
    world, _ = world_with_dead_frames()
    assert world.keys("features/") == []
    collect(world)
    assert world.keys("features/") == ["features/write/holes"]


def test_a_plan_whose_collector_died_is_taken_up() -> None:
    world, _ = world_with_dead_frames()
    vault = vault_of(world)
    (poor,) = [pack for pack in packs_of(world) if pack in world.repository.plan_gc(settings=GcSettings()).poor]
    slots = len(vault.shelf.open(poor).trailer)
    dead = np.zeros(slots, dtype=np.bool_)
    dead[-1] = True
    write_holes(vault, [PackHoles(poor, dead, 0, 0)], punched=False)
    collect(world)
    assert len(read_holes(vault).plans) == 1, "its collector may still be at work"
    world.clock.advance(TEST_SAFETY.collection_s + TEST_SAFETY.clock_skew_s + 1)
    collect(world)
    book = read_holes(vault)
    assert book.plans == ()
    assert dead_bytes(world) == 0
    assert slots - 1 in book.avoided().of_pack(poor)


def test_a_damaged_record_stops_sharing_until_a_collection_knows_again_what_it_said() -> None:
    world, newer = world_with_dead_frames()
    collect(world)
    avoided = read_holes(vault_of(world)).avoided()
    world.memory.restore({**world.memory.snapshot(), **dict.fromkeys(world.keys("holes/"), b"garbage")})
    world.reopen()
    other = world.back_up(image_of(NEWER, count=9), run="r-3", vm=VmUuid("other"))
    assert other.sizes.new_bytes == 9 * 65536, "any slot may be meant, so none is used"
    assert "cannot be read" in world.repository.plan_gc().explain()
    collect(world, GcSettings())
    book = read_holes(vault_of(world))
    assert book.damaged == ()
    for pack in packs_of(world):
        assert avoided.of_pack(pack) <= book.avoided().of_pack(pack)
    assert world.restore(newer) == world.restore(other) == image_of(NEWER, count=9)


def test_a_locked_pack_keeps_its_dead_frames_until_the_lock_ends() -> None:
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    world = World(memory=memory)
    world.clock = clock
    world.reopen()
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    world.back_up_changes(image_of(NEWER, count=9), [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    until = clock.now() + timedelta(days=1)
    for key in world.keys("packs/"):
        memory.try_lock(key, until)
    report = collect(world)
    assert (report.punched_bytes, report.locked_packs, report.locked_until) == (0, 1, until)
    clock.advance(2 * 86400)
    assert collect(world).punched_bytes > 0


class Full(StoreWrapper):
    """A store without a byte left: what is put must fit into what was deleted."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.room_bytes = 0

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        length_bytes = 1 + sum(len(view) for view in as_views(parts))
        if length_bytes > self.room_bytes:
            raise StoreFull(store="full", key=key)
        self.room_bytes -= length_bytes
        super().put(key, parts, locked_until=locked_until)

    def delete(self, key: str) -> None:
        self.room_bytes += sum(info.length_bytes for info in self.list(key))
        super().delete(key)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        freed_bytes = super().try_punch(key, extents)
        self.room_bytes += freed_bytes or 0
        return freed_bytes


def test_holes_are_punched_on_a_store_without_a_byte_left() -> None:
    world, newer = world_with_dead_frames()
    world.store = Full(world.memory)
    world.reopen()
    assert collect(world).punched_bytes > 0
    assert world.restore(newer) == image_of(NEWER, count=9)
    assert world.verify().is_sound


def test_live_frames_are_moved_where_holes_cannot_be_punched() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    before = packs_of(world)
    plan = world.repository.plan_gc(settings=THOROUGH)
    assert plan.poor_way is FrameWay.MOVE
    report = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert (report.emptied_packs, report.punched_packs) == (1, 0)
    assert report.moved_bytes < 6 * 65536, "the frame that was needed in part, the one that was needed whole, the map"
    world.reopen()
    assert world.restore(newer) == image_of(NEWER, count=9)
    assert collect(world).deleted_packs == 1, "the emptied pack goes, although the point's table names it"
    assert not before <= packs_of(world)
    world.reopen()
    assert world.restore(newer) == image_of(NEWER, count=9)
    assert world.verify().is_sound
    assert world.verify().damage == ()


def test_a_store_that_only_seems_to_punch_is_found_out_and_frames_move() -> None:
    world, newer = world_with_dead_frames(SeemsToPunch)
    plan = world.repository.plan_gc(settings=THOROUGH)
    assert plan.poor_way is FrameWay.PUNCH
    report = world.repository.apply_gc(plan, settings=THOROUGH, cancel=world.cancel)
    assert (report.emptied_packs, report.punched_packs, report.punched_bytes) == (1, 0, 0)
    assert collect(world).deleted_packs == 1
    assert read_holes(vault_of(world)).plans == ()
    world.reopen()
    assert world.restore(newer) == image_of(NEWER, count=9)


def test_an_increment_builds_upon_a_point_whose_frames_have_moved() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    collect(world)
    collect(world)
    world.reopen()
    changed = image_of({**NEWER, 8: 60}, count=9)
    point = world.back_up_changes(changed, [8], run="r-3", reference=newer.disks[0].stored)
    assert point.sizes.new_bytes == 65536
    assert world.restore(point) == changed
    world.repository.delete_point(newer.id)
    collect(world)
    assert world.restore(point) == changed
    assert world.verify().is_sound


def test_a_disk_of_a_deleted_point_is_not_inherited_from_an_emptied_pack() -> None:
    memory = MemoryStore()
    world = World(NoHoles(memory), memory=memory)
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    world.back_up_changes(image_of(NEWER, count=9), [0, 1, 2, 3, 4], run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    assert collect(world).emptied_packs == 1
    with pytest.raises(DiskNoLongerStored), world.begin("r-9") as writer:
        write_changes(writer, image_of({**FIRST, 8: 60}, count=9), [8], reference=first.disks[0].stored)


def test_moves_that_nobody_follows_are_forgotten_with_their_packs() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    collect(world)
    collect(world)
    assert len(read_moves(vault_of(world))) > 0
    world.repository.delete_point(newer.id)
    collect(world)
    assert packs_of(world) == set()
    assert world.keys("moved/") == []
    assert world.keys("condemned/") == []


def test_frames_move_again_and_the_way_to_them_stays_short() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    collect(world)
    collect(world)
    newest = {**NEWER, 5: 70, 6: 72, 7: 74}
    point = world.back_up_changes(image_of(newest, count=9), [5, 6, 7], run="r-3", reference=newer.disks[0].stored)
    world.repository.delete_point(newer.id)
    for _ in range(3):
        collect(world, GcSettings(is_thorough=True, moved_live_part_max=0.99))
    moves = read_moves(vault_of(world))
    assert len(moves.records) == 1
    assert PackSet(moves.next_ids()).isdisjoint(moves.moved_packs())
    world.reopen()
    assert world.restore(point) == image_of(newest, count=9)
    assert world.verify().is_sound


def test_an_emptied_pack_stays_while_a_backup_runs_that_does_not_know_it() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    writer = world.begin("r-8")
    assert collect(world).emptied_packs == 0, "it might use the dead slots"
    knows_the_plan = world.begin("r-9")
    writer.close()
    assert collect(world).emptied_packs == 1
    changed = image_of({**NEWER, 8: 60}, count=9)
    assert collect(world).deleted_packs == 0, "the other one would look for frames in the old place"
    stored = write_changes(knows_the_plan, changed, [8], reference=newer.disks[0].stored)
    point = knows_the_plan.publish(world.facts("r-9"), [(disk_facts(len(changed)), stored)])
    knows_the_plan.close()
    with world.begin("r-10"):
        assert collect(world).deleted_packs == 1, "a backup that knows the moves is not disturbed"
    world.reopen()
    assert world.restore(point) == changed


def test_no_more_is_copied_than_the_budget_allows() -> None:
    world, _ = world_with_dead_frames(NoHoles)
    report = collect(world, GcSettings(is_thorough=True, moved_live_part_max=0.7, budget_bytes=10))
    assert (report.emptied_packs, report.moved_bytes, report.is_complete) == (0, 0, False)
    report = collect(world, GcSettings(is_thorough=True, moved_live_part_max=0.7, budget_s=0.0))
    assert (report.emptied_packs, report.is_complete) == (0, False)
    assert collect(world).emptied_packs == 1


def operations_of_a_collection(store: type[StoreWrapper] | None) -> int:
    world, _ = world_with_dead_frames(store)
    counted = FaultyStore(world.store)
    world.store = counted
    world.reopen()
    collect(world)
    collect(world)
    return counted.operations


@pytest.mark.slow(reason="two collections for each of some two hundred operations")
@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
@pytest.mark.parametrize("store", [None, NoHoles])
def test_a_crash_at_any_operation_loses_nothing_and_the_next_collection_finishes(
    store: type[StoreWrapper] | None, effect: FaultEffect
) -> None:
    for at in range(6, operations_of_a_collection(store) + 1):
        world, newer = world_with_dead_frames(store)
        plain: ObjectStore = world.store
        world.store = FaultyStore(plain, [Fault(at=at, effect=effect)])
        with pytest.raises(SimulatedCrash):
            world.reopen()
            collect(world)
            collect(world)
            world.keys("")
        world.store = plain
        world.reopen()
        assert world.restore(newer) == image_of(NEWER, count=9), at
        world.clock.advance(5000)
        for _ in range(3):
            collect(world)
        assert world.restore(newer) == image_of(NEWER, count=9), at
        assert world.verify().is_sound, at
        if store is None:
            assert dead_bytes(world) == 0, at
        assert len(packs_of(world)) == 2, at
        assert read_holes(vault_of(world)).plans == (), at
        assert world.keys("leases/") == [], at


def test_frames_that_moved_while_a_disk_is_read_are_found() -> None:
    world, newer = world_with_dead_frames(NoHoles)
    source = world.repository.source(newer.disks[0].stored, cancel=world.cancel)
    other = World.__new__(World)
    other.__dict__.update(world.__dict__)
    other.reopen()
    collect(other)
    collect(other)
    assert source.read(0, 9 * 65536) == image_of(NEWER, count=9)


def test_a_collectors_lease_does_not_hold_the_next_collection_up() -> None:
    world, _ = world_with_dead_frames(NoHoles)
    collect(world)
    assert world.keys("leases/") == []


@pytest.mark.parametrize("store", [None, NoHoles])
def test_the_block_that_a_patch_is_made_against_lives_as_long_as_the_patch(store: type[StoreWrapper] | None) -> None:
    memory = MemoryStore()
    world = World(store(memory) if store else memory, memory=memory)
    image = image_of(FIRST, count=9)
    first = world.back_up(image, run="r-1")
    changed = bytearray(image)
    for block in range(4):
        changed[block * 65536 + 5 : block * 65536 + 9] = b"page"
    # All others change whole, so that nothing but bases is needed of the first pack.
    changed[4 * 65536 :] = image_of({number: 2 * number + 60 for number in range(9)}, count=9)[4 * 65536 :]
    point = world.back_up_changes(bytes(changed), range(9), run="r-2", reference=first.disks[0].stored)
    vault = vault_of(world)
    kinds = [kind for pack in packs_of(world) for kind in vault.shelf.open(pack).trailer.rows["kind"].tolist()]
    assert kinds.count(FrameKind.PATCH) == 4
    world.repository.delete_point(first.id)
    report = collect(world)
    assert report.punched_packs + report.emptied_packs == 1
    collect(world)
    world.reopen()
    assert world.restore(point) == bytes(changed)
    assert world.verify().damage == ()
    newest = bytearray(changed)
    newest[9:13] = b"edit"
    after = world.back_up_changes(bytes(newest), [0], run="r-3", reference=point.disks[0].stored)
    world.repository.delete_point(point.id)
    collect(world)
    collect(world)
    world.reopen()
    assert world.restore(after) == bytes(newest)
    assert world.verify().damage == ()


def test_a_slot_that_an_abandoned_plan_named_is_planned_anew_before_it_counts_as_gone() -> None:
    world = World()
    # In the pack lie a large block, a small one and a large one; the small one alone gives nothing back.
    first = world.back_up(image_of({0: 4, 2: 1, 4: 6}, count=5), run="r-1")
    newer = world.back_up_changes(
        image_of({0: 4, 2: 3, 4: 6}, count=5), [2], run="r-2", reference=first.disks[0].stored
    )
    (pack,) = set(first.disks[0].stored.packs.packs)
    world.repository.delete_point(first.id)
    running = world.begin("r-3")
    vault = vault_of(world)
    trailer = vault.shelf.open(pack).trailer
    plan = write_holes(vault, [PackHoles(pack, trailer.rows["length"] < 4096, 0, 0)], punched=False)
    # Its collector dies; the run goes on for longer than any collector acts by a plan.
    for _ in range(10):
        world.clock.advance(TEST_SAFETY.lease_renewal_s)
        running.session.keeper.renew_if_due()
    assert plan.seems_abandoned(world.clock.now(), TEST_SAFETY)
    collect(world)
    changed = image_of({2: 1, 4: 8}, count=5)
    stored = write_whole(running, changed)
    assert pack in stored.packs.packs
    point = running.publish(world.facts("r-3", vm=VmUuid("other")), [(disk_facts(len(changed)), stored)])
    running.close()
    world.repository.delete_point(newer.id)
    collect(world)
    collect(world)
    assert world.restore(point) == changed
    assert world.verify().damage == ()


def test_a_plan_that_waits_beside_holes_does_not_make_them_look_like_damage() -> None:
    world, newer = world_with_dead_frames()
    collect(world)
    vault = vault_of(world)
    for pack in packs_of(world):
        every = np.ones(len(vault.shelf.open(pack).trailer), dtype=np.bool_)
        write_holes(vault, [PackHoles(pack, every, 0, 0)], punched=False)
    assert world.verify().damage == ()
    assert world.restore(newer) == image_of(NEWER, count=9)
