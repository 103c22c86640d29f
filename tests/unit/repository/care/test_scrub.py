"""Scrub: oldest first, within its budget, resumable at any moment; what it finds is named and kept from use."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from holdfast.core import BLOCK_BYTES, Cancelled, NoProgress
from holdfast.model import Extent, VmUuid
from holdfast.repository import Repository, RestorePoint, ScrubBudget, ScrubReport
from holdfast.repository.layout import PROOFS_PREFIX, QUARANTINE_PREFIX, pack_key, parse_pack_key
from holdfast.repository.records.holes import PackHoles, write_holes
from holdfast.repository.records.proofs import read_proofs
from holdfast.repository.records.quarantine import read_quarantine
from holdfast.repository.vault import Vault
from holdfast.storage import Fault, FaultEffect, FaultyStore, MemoryStore, Parts, SimulatedCrash, StoreFull
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import World, image_of, key_ring

EVERYTHING = ScrubBudget()


class _Watched(StoreWrapper):
    """Notes which packs are read whole."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.read: list[str] = []

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        if key.startswith("packs/") and offset_bytes == 0 and length_bytes == 40:
            self.read.append(key)
        return super().get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)


def _scrub(world: World, budget: ScrubBudget = EVERYTHING) -> ScrubReport:
    return world.repository.care.scrub(budget, progress=NoProgress(), cancel=world.cancel)


def _packs(*points: RestorePoint) -> list[str]:
    return sorted({pack_key(pack) for point in points for pack, _ in point.packs()})


def _five(world: World) -> list[RestorePoint]:
    return [
        world.back_up(image_of({0: 2 * number + 2}, count=1), run=f"r-{number}", vm=VmUuid(f"vm-{number}"))
        for number in range(5)
    ]


def test_everything_is_read_once_and_the_status_says_so() -> None:
    world = World()
    points = _five(world)
    before = world.repository.care.scrub_status(cancel=world.cancel)
    assert (before.status.packs, before.status.never_packs, before.status.oldest_at) == (5, 5, None)
    assert before.packs == 0
    world.clock.advance(3600)
    began = world.clock.now()
    report = _scrub(world)
    assert report.is_sound
    assert report.is_round_complete
    assert report.packs == 5
    assert report.read_bytes == sum(world.memory.size(key) for key in _packs(*points))
    assert (report.status.never_packs, report.status.missing_packs) == (0, 0)
    assert report.status.oldest_at == began.replace(microsecond=0)
    assert report.status.recent_bytes == report.status.length_bytes == report.read_bytes
    assert report.status.round_scrubs(report.read_bytes // 2) == 3
    assert report.status.round_scrubs(1) == 5, "a pack at a time, whatever the budget"
    world.clock.advance(31 * 86400)
    assert world.repository.care.scrub_status(cancel=world.cancel).status.recent_bytes == 0


def test_what_was_never_read_comes_first_and_then_the_oldest() -> None:
    memory = MemoryStore()
    watched = _Watched(memory)
    world = World(watched, memory=memory)
    points = _five(world)
    one = ScrubBudget(read_bytes=1)
    order: list[str] = []
    for number in range(5):
        world.clock.advance(60)
        if number == 3:
            points.append(world.back_up(image_of({0: 100}, count=1), run="r-late", vm=VmUuid("vm-late")))
        watched.read.clear()
        world.reopen()
        assert _scrub(world, one).packs == 1, "one pack is read whatever the budget is"
        order += watched.read
    world.clock.advance(60)
    watched.read.clear()
    _scrub(world, one)
    order += watched.read
    assert sorted(order) == _packs(*points), "each once, before any is read twice"
    for _ in range(3):
        world.clock.advance(60)
        watched.read.clear()
        _scrub(world, one)
        assert watched.read == [order.pop(0)], "the one that was read the longest time ago"


def test_a_budget_of_bytes_is_kept() -> None:
    world = World()
    _five(world)
    length_bytes = max(world.memory.size(key) for key in world.keys("packs/"))
    report = _scrub(world, ScrubBudget(read_bytes=2 * length_bytes))
    assert report.packs == 2
    assert report.read_bytes <= 2 * length_bytes
    assert not report.is_round_complete
    assert report.status.never_packs == 3


def test_a_budget_of_time_is_kept() -> None:
    class Slow(_Watched):
        def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            if key.startswith("packs/") and offset_bytes == 0:
                world.clock.advance(10)
            return super().get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    memory = MemoryStore()
    slow = Slow(memory)
    world = World(memory=memory)
    _five(world)
    world.store = slow
    world.reopen()
    report = _scrub(world, ScrubBudget(duration_s=25))
    assert 1 <= report.packs <= 3
    assert not report.is_round_complete


def test_only_what_points_need_is_read() -> None:
    world = World()
    points = _five(world)
    world.repository.delete_point(points[0].id)
    report = _scrub(world)
    assert report.packs == 4


@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
def test_killed_anywhere_the_next_scrub_continues(effect: FaultEffect) -> None:
    world = World()
    _five(world)
    (bad, *_) = world.keys("packs/")
    _flip(world, bad)
    counter = FaultyStore(world.memory)
    frozen = {key: world.memory.get(key) for key in world.keys("")}
    world.store = counter
    _scrub_of(world.reopen(), world)
    for at in range(1, counter.operations + 1):
        memory = MemoryStore()
        for key, content in frozen.items():
            memory.put(key, content)
        world.memory = memory
        world.store = FaultyStore(memory, [Fault(at=at, effect=effect)])
        with pytest.raises(SimulatedCrash):
            _scrub_of(world.reopen(), world)
        world.store = memory
        _check_that_no_proof_says_more_than_the_quarantine(world, bad)
        report = _scrub_of(world.reopen(), world)
        assert [each.object for each in report.damage] == [bad]
        assert report.status.never_packs == 0


def test_a_scrub_that_is_stopped_keeps_what_it_has_read() -> None:
    class Stopping(_Watched):
        def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            found = super().get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
            if len(self.read) == 3:
                world.cancel.cancel()
            return found

    memory = MemoryStore()
    world = World(memory=memory)
    _five(world)
    world.store = Stopping(memory)
    world.reopen()
    with pytest.raises(Cancelled):
        _scrub(world)
    world = _again(world)
    assert world.repository.care.scrub_status(cancel=world.cancel).status.never_packs == 3


def test_two_scrubs_at_once_harm_nothing() -> None:
    world = World()
    _five(world)
    (bad, *_) = world.keys("packs/")
    _flip(world, bad)
    other = world.reopen()
    begun: list[ScrubReport] = []

    class Meanwhile(_Watched):
        def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            if len(self.read) == 2 and not begun:
                begun.append(_scrub_of(other, world))
            return super().get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    world.store = Meanwhile(world.memory)
    report = _scrub_of(world.reopen(), world)
    for each in (report, *begun):
        assert [damage.object for damage in each.damage] == [bad]
        assert each.status.never_packs == 0
    assert len(begun) == 1


def test_damage_is_named_with_the_exact_extents_it_costs() -> None:
    world = World()
    image = image_of({0: 2, 2: 4, 4: 4, 6: 4}, count=6, tail_bytes=512)
    point = world.back_up(image, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key, at_byte=60 + BLOCK_BYTES + 100)
    world.reopen()
    report = _scrub(world)
    assert not report.is_sound
    (damage,) = report.damage
    assert damage.object == key
    assert damage.slots == (1,)
    (hit,) = damage.hits
    assert hit.point == point.id
    assert [(each.offset_bytes, each.length_bytes) for each in hit.extents] == [
        (2 * BLOCK_BYTES, BLOCK_BYTES),
        (4 * BLOCK_BYTES, BLOCK_BYTES),
    ]
    assert hit.lost_bytes == 2 * BLOCK_BYTES
    status = world.repository.care.scrub_status(cancel=world.cancel)
    assert [each.hits for each in status.damage] == [damage.hits], "the status still knows it"


def test_a_missing_pack_is_told_by_the_smallest_scrub() -> None:
    world = World()
    points = _five(world)
    (lost,) = _packs(points[2])
    world.memory.delete(lost)
    world.reopen()
    report = _scrub(world, ScrubBudget(read_bytes=1))
    (damage,) = report.damage
    assert (damage.object, damage.reason) == (lost, "it is missing")
    assert [hit.point for hit in damage.hits] == [points[2].id]
    assert report.status.missing_packs == 1


def test_a_pack_that_was_brought_back_is_noticed_at_once() -> None:
    world = World()
    points = _five(world)
    keys = _packs(points[1], points[2])
    sound = {key: world.memory.get(key) for key in keys}
    _flip(world, keys[0])
    world.memory.delete(keys[1])
    world.reopen()
    assert len(_scrub(world).damage) == 2
    assert len(world.keys(QUARANTINE_PREFIX)) == 1
    for key, content in sound.items():
        world.memory.delete(key)
        world.memory.put(key, content)
    world.reopen()
    world.clock.advance(60)
    report = _scrub(world, ScrubBudget(read_bytes=sum(map(len, sound.values()))))
    assert report.is_sound
    assert report.damage == ()
    assert world.keys(QUARANTINE_PREFIX) == []


def test_a_damaged_pack_that_nobody_needs_any_more_is_forgotten() -> None:
    world = World()
    points = _five(world)
    _flip(world, *_packs(points[0]))
    world.reopen()
    _scrub(world)
    world.repository.delete_point(points[0].id)
    world.clock.advance(100_000)
    assert world.collect() == 1
    _scrub(world)
    assert world.keys(QUARANTINE_PREFIX) == []


def test_a_point_whose_object_is_damaged_is_told_and_others_are_read() -> None:
    world = World()
    points = _five(world)
    world.memory.delete(points[0].key)
    world.memory.put(points[0].key, b"nonsense")
    report = _scrub(world)
    assert not report.is_sound
    assert [each.object for each in report.damaged_points] == [points[0].key]
    assert report.packs == 4


def test_each_point_says_since_when_its_data_is_checked() -> None:
    world = World(workers=2)
    old, new = world.back_up(image_of({0: 2}, count=1), run="r-1"), None
    world.clock.advance(3600)
    first = world.clock.now().replace(microsecond=0)
    _scrub(world)
    new = world.back_up_changes(image_of({0: 2, 1: 4}, count=2), [1], run="r-2", reference=old.disks[0].stored)
    grades = world.repository.care.grades([old.key, new.key])
    assert grades[old.id].checked_at == first
    assert grades[new.id].checked_at is None
    assert (grades[new.id].packs, grades[new.id].unread_packs) == (2, 1)
    assert "1 of 2 packs not read yet" in grades[new.id].explain()
    world.clock.advance(3600)
    assert world.verify().is_sound
    grades = world.repository.care.grades([old.key, new.key])
    assert grades[new.id].checked_at == grades[old.id].checked_at
    later = grades[new.id].checked_at
    assert later is not None
    assert later - first >= timedelta(hours=1)
    assert "data checked 20" in grades[new.id].explain()
    _flip(world, pack_key(new.disks[0].stored.root.pack))
    world.reopen()
    _scrub(world)
    grades = world.repository.care.grades([old.key, new.key])
    assert grades[old.id].checked_at is not None
    assert grades[new.id].checked_at is None
    assert "1 of 2 packs damaged" in grades[new.id].explain()


def test_a_point_that_damage_does_not_hit_is_not_in_doubt_because_of_its_neighbour() -> None:
    world = World()
    old = world.back_up(image_of({0: 2, 5: 4}, count=7), run="r-1")
    new = world.back_up_changes(image_of({0: 2, 5: 6}, count=7), [5], run="r-2", reference=old.disks[0].stored)
    pack = old.disks[0].stored.root.pack
    vault = Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)
    offset_bytes, _ = vault.shelf.open(pack).frame_extent(1)
    _flip(world, pack_key(pack), at_byte=offset_bytes + 20)
    world.reopen()
    _scrub(world)
    grades = world.repository.care.grades([old.key, new.key])
    assert "in doubt" in grades[old.id].explain()
    assert "data checked" in grades[new.id].explain()
    assert world.restore(new) == image_of({0: 2, 5: 6}, count=7)


def test_a_punched_hole_is_no_damage_unless_somebody_needs_it() -> None:
    world = World()
    point = world.back_up(image_of({0: 2, 2: 4, 4: 6}, count=6), run="r-1")
    vault = Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)
    opened = vault.shelf.open(point.disks[0].stored.root.pack)
    offset_bytes, length_bytes = opened.frame_extent(1)
    dead = np.zeros(len(opened.trailer), dtype=np.bool_)
    dead[1] = True
    hole = PackHoles(opened.pack, dead, length_bytes, length_bytes)
    write_holes(vault, [hole], punched=True)
    assert world.memory.try_punch(pack_key(opened.pack), [Extent(offset_bytes=offset_bytes, length_bytes=length_bytes)])
    assert _scrub_of(world.reopen(), world).damage == (), "a scrub walks no maps, and takes it for what it is called"
    assert world.keys(QUARANTINE_PREFIX) == []
    report = world.reopen().verify(None, progress=NoProgress(), cancel=world.cancel)
    assert [damage.slots for damage in report.damage] == [(1,)], "a verification sees that a map leads there"
    world.repository.delete_point(point.id)
    other = world.back_up(image_of({0: 2, 4: 6}, count=6), run="r-3")
    assert opened.pack in {pack for pack, _ in other.packs()}
    report = world.reopen().verify(None, progress=NoProgress(), cancel=world.cancel)
    assert report.damage == ()


def test_proofs_of_a_verification_count_for_the_scrub() -> None:
    world = World()
    _five(world)
    assert world.verify().is_sound
    assert len(world.keys(PROOFS_PREFIX)) == 1
    assert world.repository.care.scrub_status(cancel=world.cancel).status.never_packs == 0


def _check_that_no_proof_says_more_than_the_quarantine(world: World, bad: str) -> None:
    vault = Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)
    pack = parse_pack_key(bad)
    assert pack is not None
    is_proven = bool(read_proofs(vault).checked_s(np.array([pack], dtype="V16"))[0])
    assert not is_proven or pack in read_quarantine(vault).harmful


def _again(world: World) -> World:
    """Return the world as another process sees it, which nobody has asked to stop."""
    world.store = world.memory
    world.cancel = type(world.cancel)()
    world.reopen()
    return world


def _scrub_of(repository: Repository, world: World) -> ScrubReport:
    return repository.care.scrub(EVERYTHING, progress=NoProgress(), cancel=world.cancel)


def _flip(world: World, key: str, *, at_byte: int = 60) -> None:
    """Damage a frame of a pack; the next process to open the repository sees it."""
    broken = bytearray(world.memory.get(key))
    broken[at_byte] ^= 1
    world.memory.delete(key)
    world.memory.put(key, bytes(broken))


class _Full(StoreWrapper):
    """Has no room for notes, as soon as it is told."""

    is_full = False

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        if self.is_full:
            raise StoreFull(store="memory", key=key)
        super().put(key, parts, locked_until=locked_until)


def test_damage_is_told_also_where_nothing_can_be_noted() -> None:
    memory = MemoryStore()
    store = _Full(memory)
    world = World(store, memory=memory)
    points = _five(world)
    (damaged,) = _packs(points[2])
    _flip(world, damaged, at_byte=60)
    world.reopen()
    store.is_full = True
    report = _scrub(world)
    assert [each.object for each in report.damage] == [damaged]
    assert [hit.point for hit in report.damage[0].hits] == [points[2].id]
    assert "no space" in report.not_noted
    assert not report.is_sound
    store.is_full = False
    again = _scrub(world)
    assert [each.object for each in again.damage] == [damaged]
    assert again.not_noted == ""


def test_a_missing_pack_is_told_also_where_nothing_can_be_noted() -> None:
    memory = MemoryStore()
    store = _Full(memory)
    world = World(store, memory=memory)
    points = _five(world)
    (lost,) = _packs(points[2])
    memory.delete(lost)
    world.reopen()
    store.is_full = True
    report = _scrub(world)
    assert [hit.point for each in report.damage for hit in each.hits] == [points[2].id]
    assert report.not_noted


def test_a_scrub_that_finds_nothing_and_can_note_nothing_says_that_it_did_not_come_forward() -> None:
    memory = MemoryStore()
    store = _Full(memory)
    world = World(store, memory=memory)
    _five(world)
    store.is_full = True
    with pytest.raises(StoreFull):
        _scrub(world)
