"""Nothing new is built on what a verification found damaged; what is found whole again is used again."""

from __future__ import annotations

from collections.abc import Set

import pytest

from holdfast.core import BLOCK_BYTES, NoProgress
from holdfast.repository import DiskNoLongerStored, NodeAddress, RestorePoint
from holdfast.repository.layout import QUARANTINE_PREFIX, ObjectKind, PackId, pack_key, parse_pack_key
from holdfast.repository.records.quarantine import BrokenSlots, read_quarantine, settle_quarantine, spare_in_quarantine
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from tests.support.repositories import World, image_of, key_ring, read_all, write_whole

A, B, C = (PackId(bytes([n]) * 16) for n in (1, 2, 3))


def _vault(world: World) -> Vault:
    return Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)


def _flip(world: World) -> tuple[str, bytes]:
    """Damage a frame of the only pack; return the pack's name and what it was."""
    (key,) = world.keys("packs/")
    sound = world.memory.get(key)
    broken = bytearray(sound)
    broken[60] ^= 1
    world.memory.delete(key)
    world.memory.put(key, bytes(broken))
    world.reopen()
    return key, sound


def _settle(
    vault: Vault,
    *,
    checked: Set[PackId],
    broken: BrokenSlots,
    harmless: Set[PackId] = frozenset(),
    forgotten: Set[PackId] = frozenset(),
) -> None:
    settle_quarantine(vault, checked=checked, broken=broken, harmless=harmless, forgotten=forgotten)


def _packs(point: RestorePoint) -> set[str]:
    return {pack_key(pack) for pack, _ in point.packs()}


def test_a_full_read_after_a_verification_stores_new_copies() -> None:
    world = World()
    image = image_of({0: 1, 1: 2}, count=3)
    world.back_up(image, run="r-1")
    key, _ = _flip(world)
    report = world.verify()
    assert not report.is_sound
    assert report.not_quarantined == ""
    healed = world.back_up(image, run="r-2")
    assert _packs(healed) != {key}
    assert world.repository.verify([healed], progress=NoProgress(), cancel=world.cancel).is_sound
    assert world.restore(healed) == image


def test_changes_are_not_stored_against_a_disk_that_is_known_to_be_damaged() -> None:
    world = World()
    point = world.back_up(image_of({0: 1, 1: 2}, count=3), run="r-1")
    _flip(world)
    world.verify()
    with pytest.raises(DiskNoLongerStored):
        world.back_up_changes(image_of({0: 1, 1: 3}, count=3), [1], run="r-2", reference=point.disks[0].stored)


def test_a_pack_that_is_whole_again_is_used_again() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    world.back_up(image, run="r-1")
    key, sound = _flip(world)
    world.verify()
    assert read_quarantine(_vault(world)).broken.keys() == {parse_pack_key(key)}
    world.memory.delete(key)
    world.memory.put(key, sound)
    world.reopen()
    assert world.verify().is_sound
    assert world.keys(QUARANTINE_PREFIX) == []
    assert world.back_up(image, run="r-2").sizes.new_bytes == 0


def test_a_missing_pack_is_remembered_until_it_is_back() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    world.back_up(image, run="r-1")
    (key,) = world.keys("packs/")
    sound = world.memory.get(key)
    world.memory.delete(key)
    world.reopen()
    assert not world.verify().is_sound
    pack = parse_pack_key(key)
    assert pack is not None
    assert dict(read_quarantine(_vault(world)).broken) == {pack: None}
    world.memory.put(key, sound)
    world.reopen()
    assert world.verify().is_sound
    assert world.keys(QUARANTINE_PREFIX) == []


@pytest.mark.parametrize("is_referred_to", [False, True])
def test_only_the_damaged_slots_of_a_pack_are_kept_from_use(*, is_referred_to: bool) -> None:
    world = World()
    image = image_of({0: 1, 2: 2, 4: 3}, count=5)
    point = world.back_up(image, run="r-1")
    key, _ = _flip(world)
    world.verify()
    quarantine = read_quarantine(_vault(world))
    pack = parse_pack_key(key)
    assert pack is not None
    assert quarantine.packs == frozenset()
    (slots,) = quarantine.broken.values()
    assert slots is not None
    assert len(slots) == 1
    assert NodeAddress(pack, *slots) in quarantine
    with world.begin("r-2") as writer:
        stored = write_whole(writer, image, reference=point.disks[0].stored if is_referred_to else None)
    assert stored.sizes.new_bytes == BLOCK_BYTES, "one block is stored again, the others are known"
    assert pack in stored.packs
    assert read_all(world.repository, stored, world.cancel) == image


def test_packs_enter_and_leave_and_the_rest_stays() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A, B}, broken={A: None, B: frozenset({1, 4})})
    _settle(vault, checked={B, C}, broken={C: frozenset({2})})
    assert dict(read_quarantine(vault).broken) == {A: None, C: frozenset({2})}
    assert len(world.keys(QUARANTINE_PREFIX)) == 1
    _settle(vault, checked={A, C}, broken={})
    assert world.keys(QUARANTINE_PREFIX) == []


def test_of_two_notes_the_worse_counts() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A, B, C}, broken={A: frozenset({1}), B: None, C: frozenset({3})}, harmless={B})
    (first,) = world.keys(QUARANTINE_PREFIX)
    kept = world.memory.get(first)
    _settle(vault, checked={A, B, C}, broken={A: None, B: None, C: frozenset({4})})
    world.memory.put(first, kept)
    found = read_quarantine(vault)
    assert dict(found.broken) == {A: None, B: None, C: frozenset({3, 4})}
    assert found.harmless == frozenset()


def test_a_harmless_pack_stays_so_until_something_else_is_found() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A}, broken={A: None, B: None}, harmless={A})
    _settle(vault, checked={B}, broken={})
    assert read_quarantine(vault).harmless == {A}
    _settle(vault, checked={A}, broken={A: None})
    assert read_quarantine(vault).harmless == frozenset()


def test_what_was_healed_is_harmless_but_stays_out_of_use() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A, B}, broken={A: frozenset({1, 2}), B: None})
    spare_in_quarantine(vault, {A, C})
    found = read_quarantine(vault)
    assert found.harmful == {B}
    assert NodeAddress(A, 1) in found
    assert NodeAddress(A, 3) not in found


def test_a_pack_that_is_gone_and_named_by_nobody_is_forgotten() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A, B}, broken={A: None, B: None})
    _settle(vault, checked=set(), broken={}, forgotten={A})
    assert dict(read_quarantine(vault).broken) == {B: None}


def test_a_note_that_cannot_be_read_is_passed_over_and_renewed() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A}, broken={A: None})
    (key,) = world.keys(QUARANTINE_PREFIX)
    world.memory.delete(key)
    world.memory.put(key, b"nonsense")
    assert not read_quarantine(vault)
    _settle(vault, checked={A}, broken={A: None})
    assert dict(read_quarantine(vault).broken) == {A: None}
    assert key not in world.keys(QUARANTINE_PREFIX)


def test_a_note_opens_as_nothing_else() -> None:
    world = World()
    vault = _vault(world)
    _settle(vault, checked={A}, broken={A: None})
    (key,) = world.keys(QUARANTINE_PREFIX)
    assert vault.read(key, kind=ObjectKind.QUARANTINE)
    with pytest.raises(SealBroken):
        vault.read(key, kind=ObjectKind.CONDEMNED)
