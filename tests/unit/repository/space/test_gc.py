"""Garbage collection: frees what nobody needs, waits for whoever might, and can be interrupted anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from holdfast.core import Cancellation, Cancelled
from holdfast.model import VmUuid
from holdfast.repository import CannotTellLivePacks
from holdfast.repository.layout import PackId, parse_pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.condemned import write_condemned
from holdfast.repository.records.moved import write_moves
from holdfast.repository.vault import Vault
from holdfast.storage import (
    Fault,
    FaultEffect,
    FaultyStore,
    MemoryStore,
    ObjectInfo,
    Parts,
    SimulatedCrash,
    StoreFull,
)
from holdfast.storage.store import as_views
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import TEST_SAFETY, World, disk_facts, image_of, key_ring, write_whole

FIRST = image_of({0: 2, 1: 4}, count=3)
SECOND = image_of({0: 6, 1: 8}, count=3)


def world_with_garbage() -> World:
    """Return a world in which one of two points was deleted."""
    world = World()
    point = world.back_up(FIRST, run="r-1")
    world.back_up(SECOND, run="r-2", vm=VmUuid("other"))
    world.repository.delete_point(point.id)
    return world


def test_packs_of_deleted_points_go_and_the_others_stay() -> None:
    world = world_with_garbage()
    plan = world.repository.plan_gc()
    assert len(plan.dead) == 1
    before = sum(info.length_bytes for info in world.store.list("packs/"))
    report = world.repository.apply_gc(plan, cancel=world.cancel)
    after = sum(info.length_bytes for info in world.store.list("packs/"))
    assert report.freed_bytes == plan.dead_bytes == before - after
    assert (report.deleted_packs, report.waiting_packs, report.rescued_packs) == (1, 0, 0)
    (left,) = world.repository.points()
    assert world.restore(left) == SECOND
    assert world.verify().is_sound


def test_a_plan_changes_nothing_and_explains_itself() -> None:
    world = world_with_garbage()
    before = world.memory.snapshot()
    text = world.repository.plan_gc().explain()
    assert world.memory.snapshot() == before
    assert text.splitlines()[0].startswith("delete 1 packs that no restore point needs: ")
    assert text.splitlines()[1].startswith("keep 1 packs: ")


def test_collecting_twice_does_nothing_the_second_time() -> None:
    world = world_with_garbage()
    world.collect()
    before = world.memory.snapshot()
    assert world.collect() == 0
    assert world.memory.snapshot() == before


def test_blocks_that_another_point_shares_stay() -> None:
    world = World()
    point = world.back_up(FIRST, run="r-1")
    changed = image_of({0: 2, 1: 10}, count=3)
    after = world.back_up_changes(changed, [1], run="r-2", reference=point.disks[0].stored)
    world.repository.delete_point(point.id)
    assert world.collect() == 0
    assert world.restore(after) == changed


def test_a_running_backup_is_waited_for_and_named() -> None:
    world = world_with_garbage()
    writer = world.begin("r-3")
    plan = world.repository.plan_gc()
    assert any("wait for run r-3" in line for line in plan.explain().splitlines())
    report = world.repository.apply_gc(plan, cancel=world.cancel)
    assert (report.deleted_packs, report.waiting_packs) == (0, 1)
    assert "r-3" in report.waits_for[0]
    writer.close()
    assert world.collect() == 1
    assert world.keys("condemned/") == []


def test_a_backup_that_began_after_the_list_is_not_waited_for() -> None:
    world = world_with_garbage()
    before = world.begin("r-3")
    world.collect()
    after = world.begin("r-4")
    before.close()
    assert world.collect() == 1
    disk = write_whole(after, FIRST)
    point = after.publish(world.facts("r-4"), [(disk_facts(len(FIRST)), disk)])
    after.close()
    assert world.restore(point) == FIRST


def test_a_pack_that_was_found_again_meanwhile_is_rescued() -> None:
    world = World()
    point = world.back_up(FIRST, run="r-1")
    disk = point.disks[0].stored
    world.repository.delete_point(point.id)
    plan = world.repository.plan_gc()
    assert len(plan.dead) == 1
    with world.begin("r-2") as writer:
        again = writer.publish(world.facts("r-2"), [(disk_facts(len(FIRST)), disk)])
    report = world.repository.apply_gc(plan, cancel=world.cancel)
    assert (report.deleted_packs, report.rescued_packs) == (0, 1)
    assert world.restore(again) == FIRST
    assert world.keys("condemned/") == []


def test_the_packs_of_a_resumable_run_are_kept_for_a_while() -> None:
    world = World()
    writer = world.begin("r-1")
    write_whole(writer, FIRST)
    writer.leave()
    world.clock.advance(TEST_SAFETY.lease_s + TEST_SAFETY.clock_skew_s + 1)
    assert "resumable" in world.repository.plan_gc().explain()
    assert world.collect() == 0
    world.clock.advance(TEST_SAFETY.resume_grace_s)
    # The first collection forgets the lease, or already collects; after two nothing is left.
    assert world.collect() + world.collect() == 1
    assert world.keys("leases/") == []
    assert world.keys("packs/") == []


def test_a_damaged_point_stops_collection() -> None:
    world = world_with_garbage()
    (key,) = world.keys("points/")
    world.memory.restore({**world.memory.snapshot(), key: b"garbage"})
    before = world.memory.snapshot()
    with pytest.raises(CannotTellLivePacks, match=key):
        world.repository.plan_gc()
    assert world.memory.snapshot() == before


def test_a_lease_that_cannot_be_read_holds_deleting_back_and_is_named() -> None:
    world = world_with_garbage()
    world.store.put(f"leases/{'ab' * 16}/00000000", b"garbage")
    plan = world.repository.plan_gc()
    assert f"leases/{'ab' * 16}" in plan.explain()
    assert world.repository.apply_gc(plan, cancel=world.cancel).waiting_packs == 1
    world.store.delete(f"leases/{'ab' * 16}/00000000")
    assert world.collect() == 1


def test_a_cancelled_collection_stops_and_the_next_finishes() -> None:
    world = world_with_garbage()
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        world.repository.apply_gc(world.repository.plan_gc(), cancel=cancel)
    assert world.verify().is_sound
    assert world.collect() == 1
    assert world.keys("condemned/") == []


def operations_of_a_collection() -> int:
    world = world_with_garbage()
    store = FaultyStore(world.memory)
    world.store = store
    world.reopen()
    world.collect()
    return store.operations


@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
@pytest.mark.parametrize("at", range(4, operations_of_a_collection() + 1))
def test_a_crash_at_any_operation_of_a_collection_loses_nothing(at: int, effect: FaultEffect) -> None:
    world = world_with_garbage()
    world.store = FaultyStore(world.memory, [Fault(at=at, effect=effect)])
    with pytest.raises(SimulatedCrash):
        world.reopen()
        world.collect()
        world.keys("")
    world.store = world.memory
    world.reopen()
    assert world.verify().is_sound
    world.collect()
    assert len(world.keys("packs/")) == 1
    assert world.keys("condemned/") == []


def test_a_collector_stops_when_its_list_may_be_gone() -> None:
    world = world_with_garbage()
    plan = world.repository.plan_gc()
    store = _Slow(world)
    world.store = store
    world.reopen()
    report = world.repository.apply_gc(plan, cancel=world.cancel)
    assert report.deleted_packs == 0
    assert world.verify().is_sound


class _Slow(FaultyStore):
    """A store on which a listing of leases takes longer than a collection may."""

    def __init__(self, world: World) -> None:
        super().__init__(world.memory)
        self._clock = world.clock

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix == "leases/":
            self._clock.advance(TEST_SAFETY.collection_s + 1)
        return super().list(prefix)


def vault_of(world: World) -> Vault:
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def packs_of(world: World) -> set[PackId]:
    return {pack for key in world.keys("packs/") if (pack := parse_pack_key(key)) is not None}


def test_the_list_of_a_collector_that_died_stands_until_nobody_can_act_by_it() -> None:
    world = World()
    world.back_up(FIRST, run="r-1")
    write_condemned(vault_of(world), packs_of(world))
    world.clock.advance(TEST_SAFETY.collection_s)
    world.collect()
    assert len(world.keys("condemned/")) == 1
    world.clock.advance(TEST_SAFETY.clock_skew_s + 1)
    world.collect()
    assert world.keys("condemned/") == []
    assert world.verify().is_sound


def test_a_pack_that_frames_were_moved_into_is_kept() -> None:
    world = World()
    point = world.back_up(FIRST, run="r-1")
    extra = world.back_up(SECOND, run="r-2", vm=VmUuid("other"))
    world.repository.delete_point(extra.id)
    (old,), (new,) = point.disks[0].stored.packs.packs, extra.disks[0].stored.packs.packs
    write_moves(vault_of(world), {NodeAddress(old, 0): NodeAddress(new, 0)})
    assert world.collect() == 0
    assert packs_of(world) == {old, new}


def test_many_indexes_become_one_that_finds_as_much() -> None:
    world = World()
    for number in range(40):
        world.back_up(image_of({0: 2 * number + 2}, count=1), run=f"r-{number}", vm=VmUuid(f"vm-{number}"))
    assert len(world.keys("index/")) == 40
    world.collect()
    assert len(world.keys("index/")) == 1
    assert world.verify().is_sound


def test_packs_without_an_index_are_indexed_again() -> None:
    world = World()
    image = image_of({number: number + 1 for number in range(200)}, count=200)
    world.back_up(image, run="r-1")
    for key in world.keys("index/"):
        world.store.delete(key)
    world.collect()
    assert len(world.keys("index/")) == 1
    world.reopen()
    with world.begin("r-2") as writer:
        assert write_whole(writer, image).sizes.new_bytes < 150 * 65536


def test_indexes_of_packs_that_are_gone_go_too() -> None:
    world = world_with_garbage()
    assert len(world.keys("index/")) == 2
    world.collect()
    assert len(world.keys("index/")) == 1


class Full(StoreWrapper):
    """A store without a byte left: what is put must fit into what was deleted."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.room_bytes = 0

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        length_bytes = sum(len(view) for view in as_views(parts))
        if length_bytes > self.room_bytes:
            raise StoreFull(store="full", key=key)
        self.room_bytes -= length_bytes
        super().put(key, parts, locked_until=locked_until)

    def delete(self, key: str) -> None:
        self.room_bytes += sum(info.length_bytes for info in self.list(key))
        super().delete(key)


def test_a_store_without_a_byte_left_is_collected() -> None:
    world = world_with_garbage()
    world.store = Full(world.memory)
    world.reopen()
    assert world.collect() == 1
    assert world.keys("condemned/") == []
    assert len(world.keys("index/")) == 1, "the index that made room is written again"
    assert world.verify().is_sound


def test_a_full_store_with_nothing_to_give_up_says_so_and_loses_nothing() -> None:
    world = world_with_garbage()
    for key in world.keys("index/"):
        world.store.delete(key)
    world.store = Full(world.memory)
    world.reopen()
    before = world.memory.snapshot()
    with pytest.raises(StoreFull):
        world.collect()
    assert world.memory.snapshot() == before
