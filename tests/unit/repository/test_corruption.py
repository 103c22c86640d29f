"""Whatever happens to an object in the store, it is refused and named, and what does not need it is unharmed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import HoldfastError
from holdfast.model import VmUuid
from holdfast.repository import (
    ConfigDamaged,
    Damage,
    NeedsNewerHoldfast,
    NotARepository,
    WrongKey,
)
from tests.support.repositories import World, image_of

OTHER = VmUuid("22222222-aaaa-bbbb-cccc-000000000002")
FIRST = image_of({0: 1, 1: 2, 2: 3}, count=4)
SECOND = image_of({0: 1, 1: 4, 2: 3}, count=4)
OTHERS = image_of({0: 6, 3: 8}, count=4)
EXPECTED = {"r-1": FIRST, "r-2": SECOND, "r-3": OTHERS}


def small_world() -> World:
    """Return a repository with an increment and a VM that shares nothing with it."""
    world = World()
    point = world.back_up(FIRST, run="r-1")
    world.back_up_changes(SECOND, [1], run="r-2", reference=point.disks[0].stored)
    world.back_up(OTHERS, run="r-3", vm=OTHER)
    return world


WORLD = small_world()
SOUND = WORLD.memory.snapshot()
KEYS = sorted(SOUND)


def restorable(objects: Mapping[str, bytes]) -> dict[str, bool]:
    """Return for each run whether its point restores; what it restores to must be right."""
    world = World()
    world.memory.restore(objects)
    world.reopen()
    found = dict.fromkeys(EXPECTED, False)
    for point in world.repository.points():
        try:
            image = world.restore(point)
        except Damage as damage:
            assert "object " in str(damage) or "disk map in object" in str(damage)
            continue
        assert image == EXPECTED[point.facts.run], "wrong data was restored as if it were right"
        found[point.facts.run] = True
    return found


def needed_by(key: str) -> set[str]:
    """Return the runs whose points need an object."""
    runs: set[str] = set()
    for point in WORLD.repository.points():
        packs = {f"packs/{pack.hex()[:2]}/{pack.hex()}" for pack, _ in point.packs()}
        if key in packs or key == point.key:
            runs.add(point.facts.run)
    return runs


def check(key: str, objects: Mapping[str, bytes]) -> None:
    """Check that only points that need the object suffer, and that opening fails with a typed error otherwise."""
    try:
        found = restorable(objects)
    except (ConfigDamaged, WrongKey, NotARepository, NeedsNewerHoldfast):
        assert key in ("holdfast.json", "keys/open.json")
        return
    for run, is_restorable in found.items():
        assert is_restorable or run in needed_by(key), f"{run} suffers from damage to {key}"


@pytest.mark.slow(reason="each example opens and restores a repository")
@given(key=st.sampled_from(KEYS), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_never_restores_wrong_data(key: str, place: float, bit: int) -> None:
    spoiled = bytearray(SOUND[key])
    spoiled[int(place * len(spoiled))] ^= 1 << bit
    check(key, {**SOUND, key: bytes(spoiled)})


@pytest.mark.slow(reason="each example opens and restores a repository")
@given(key=st.sampled_from(KEYS), place=st.floats(0, 1, exclude_max=True))
def test_an_object_cut_short_is_refused(key: str, place: float) -> None:
    check(key, {**SOUND, key: SOUND[key][: int(place * len(SOUND[key]))]})


@pytest.mark.slow(reason="each example opens and restores a repository")
@given(key=st.sampled_from(KEYS), other=st.sampled_from(KEYS))
def test_an_object_under_another_name_is_refused(key: str, other: str) -> None:
    check(key, {**SOUND, key: SOUND[other]})


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_object_costs_only_what_needs_it(key: str) -> None:
    check(key, {name: content for name, content in SOUND.items() if name != key})


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith("packs/")])
@pytest.mark.parametrize("place", [5, 20, 30, 44, -30, -7, -1])
def test_verification_finds_every_flipped_byte_of_a_pack(key: str, place: int) -> None:
    spoiled = bytearray(SOUND[key])
    spoiled[place] ^= 0x10
    report = verified({**SOUND, key: bytes(spoiled)})
    assert {each.object for each in report} == {key}
    assert {hit for each in report for hit in each.hits} == needed_by(key)


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith("packs/")])
def test_verification_finds_a_missing_pack(key: str) -> None:
    (damage,) = verified({name: content for name, content in SOUND.items() if name != key})
    assert damage.object == key
    assert damage.reason == "it is missing"
    assert set(damage.hits) == needed_by(key)


def test_verification_names_the_slot_and_everything_it_hits() -> None:
    point = WORLD.repository.points()[0]
    key = f"packs/{point.disks[0].stored.root.pack.hex()[:2]}/{point.disks[0].stored.root.pack.hex()}"
    spoiled = bytearray(SOUND[key])
    spoiled[45] ^= 1
    world = World()
    world.memory.restore({**SOUND, key: bytes(spoiled)})
    world.reopen()
    (damage,) = world.verify().damage
    assert damage.slots == (0, 1, 2), "every block of the frame"
    assert [(hit.vm_name, hit.disk_name, hit.position) for hit in damage.hits] == [
        ("web-frontend", "system-volume", "0")
    ] * 2
    assert not world.verify().is_sound


def test_a_damaged_point_is_listed_apart_and_named() -> None:
    key = WORLD.repository.points()[0].key
    world = World()
    world.memory.restore({**SOUND, key: SOUND[key][:-1]})
    world.reopen()
    assert [point.facts.run for point in world.repository.points()] == ["r-2", "r-3"]
    assert [damage.object for damage in world.repository.damaged_points()] == [key]
    assert [damage.object for damage in world.verify().damaged_points] == [key]


def test_a_deleted_point_that_comes_back_restores_or_is_refused() -> None:
    world = World()
    world.memory.restore(SOUND)
    world.reopen()
    point = world.repository.points()[2]
    world.repository.delete_point(point.id)
    world.clock.advance(10_000)
    world.collect()
    world.store.put(point.key, SOUND[point.key])
    (back,) = world.repository.points(vm=OTHER)
    with pytest.raises(Damage, match="is missing"):
        world.restore(back)


class Found:
    """Damage and the runs it hits."""

    def __init__(self, object: str, reason: str, hits: list[str]) -> None:
        self.object, self.reason, self.hits = object, reason, hits


def verified(objects: Mapping[str, bytes]) -> list[Found]:
    """Return what verification finds."""
    world = World()
    world.memory.restore(objects)
    world.reopen()
    runs = {point.id: str(point.facts.run) for point in world.repository.points()}
    return [Found(each.object, each.reason, [runs[hit.point] for hit in each.hits]) for each in world.verify().damage]


def test_every_error_tells_what_to_do() -> None:
    key = next(key for key in KEYS if key.startswith("packs/"))
    world = World()
    world.memory.restore({**SOUND, key: SOUND[key][:45] + b"!" + SOUND[key][46:]})
    world.reopen()
    told = []
    for point in world.repository.points():
        try:
            world.restore(point)
        except HoldfastError as error:
            told.append((str(error), error.effect, error.next_step()))
    assert told
    assert all(key in message and effect and "point verify" in step for message, effect, step in told)
