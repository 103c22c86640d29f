"""Frames that move keep their locks, whoever asks for locks at the same time, and however short new ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import pytest

from holdfast.core import ManualClock, NoProgress
from holdfast.model import Extent
from holdfast.repository import GcSettings, RestorePoint
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import read_moves, write_moves
from holdfast.repository.writing.moving import publish_moves
from holdfast.storage import MemoryStore, ObjectInfo, ObjectLocked, ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper
from tests.support.hand_packs import data, put_pack
from tests.support.repositories import World, block_of, image_of

FIRST = {number: 2 * number + 2 for number in range(9)}
NEWER = {**FIRST, 0: 40, 1: 42, 2: 44, 3: 46, 4: 48}
GC = GcSettings(is_thorough=True, moved_live_part_max=0.7)


class Meanwhile(StoreWrapper):
    """A store that cannot punch, in which something happens right before a name is put or right after, or
    when names were listed."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.listed: dict[str, Callable[[], object]] = {}

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from list(super().list(prefix))
        self.listed.pop(prefix.partition("/")[0], lambda: None)()

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        prefix = key.partition("/")[0]
        self.before.pop(prefix, lambda: None)()
        super().put(key, parts, locked_until=locked_until)
        self.after.pop(prefix, lambda: None)()

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        self._inner.size(key)
        return None


def half_dead() -> tuple[World, Meanwhile, RestorePoint]:
    """Return a repository that nobody holds yet, with a pack of which half is dead."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    store = Meanwhile(memory)
    world = World(store, memory=memory, clock=clock)
    first = world.back_up(image_of(FIRST, count=9), run="r-1")
    kept = world.back_up_changes(image_of(NEWER, count=9), range(5), run="r-2", reference=first.disks[0].stored)
    world.repository.delete_point(first.id)
    return world, store, kept


def lock(world: World, days: int = 20) -> None:
    """Ask for locks, as another machine does."""
    other = World.__new__(World)
    other.__dict__ = {**world.__dict__, "store": world.memory}
    other.reopen().protection.set_days(days, progress=NoProgress(), cancel=world.cancel)


def check_held(world: World, point: RestorePoint) -> None:
    until = world.memory.locked_until(point.key)
    assert until is not None
    moves = read_moves(world.repository._vault)
    assert moves.records
    for key in (*map(pack_key, moves.holders_of(pack for pack, _ in point.packs())), *moves.records):
        held = world.memory.locked_until(key)
        assert held is not None, f"{key} is not held"
        assert held >= until, f"{key} is held less than {point.id}"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["packs", "moved", "index"])
def test_a_policy_that_comes_while_frames_move_holds_them_where_they_are_then(when: str, what: str) -> None:
    world, store, kept = half_dead()
    getattr(store, when)[what] = lambda: lock(world)
    report = world.repository.apply_gc(world.repository.plan_gc(settings=GC), settings=GC, cancel=world.cancel)
    assert report.emptied_packs == 1
    check_held(world, kept)
    with pytest.raises(ObjectLocked):
        world.memory.delete(kept.key)
    assert world.restore(kept) == image_of(NEWER, count=9)


def test_locks_that_are_set_while_a_collector_publishes_and_dies_hold_where_frames_are_then() -> None:
    world, store, kept = half_dead()
    vault = world.repository._vault
    old = min(pack for pack, _ in kept.packs())
    new = put_pack(world.memory, vault.keys, [data(vault.keys, block_of(NEWER[0]))], seed=77)
    store.listed["points"] = lambda: write_moves(vault, {NodeAddress(old, 0): NodeAddress(new, 0)})
    world.repository.protection.set_days(20, progress=NoProgress(), cancel=world.cancel)
    check_held(world, kept)


def test_what_leads_away_from_a_held_pack_is_held_as_long_though_new_locks_are_shorter() -> None:
    clock = ManualClock()
    world = World(memory=MemoryStore(clock=clock), clock=clock)
    lock(world, days=30)
    world.reopen()
    point = world.back_up(image_of(FIRST, count=9), run="r-1")
    lock(world, days=0)
    world.reopen()
    vault = world.repository._vault
    old = min(pack for pack, _ in point.packs())
    new = put_pack(world.store, vault.keys, [data(vault.keys, block_of(FIRST[0]))], seed=77)
    publish_moves(vault, {NodeAddress(old, 0): NodeAddress(new, 0)}, check_before=lambda: None)
    check_held(world, point)


def test_where_nobody_ever_asked_for_locks_none_is_asked_about() -> None:
    world = World()
    vault = world.repository._vault
    asked: list[str] = []
    world.memory.locked_until = asked.append  # type: ignore[method-assign,assignment]
    places = [NodeAddress(PackId(bytes([number]) * 16), 0) for number in (1, 2)]
    publish_moves(vault, {places[0]: places[1]}, check_before=lambda: None)
    assert asked == []
