"""Nothing new is built on what a verification found damaged; what is found whole again is used again."""

from __future__ import annotations

import pytest

from holdfast.core import NoProgress
from holdfast.repository import DiskNoLongerStored, RestorePoint
from holdfast.repository.layout import QUARANTINE_PREFIX, ObjectKind, PackId, pack_key, parse_pack_key
from holdfast.repository.quarantine import read_quarantine, settle_quarantine
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from tests.support.repositories import World, image_of, key_ring

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
    assert key not in _packs(healed)
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
    assert read_quarantine(_vault(world)) == {parse_pack_key(key)}
    world.memory.delete(key)
    world.memory.put(key, sound)
    world.reopen()
    assert world.verify().is_sound
    assert world.keys(QUARANTINE_PREFIX) == []
    assert world.back_up(image, run="r-2").sizes.new_bytes == 0


def test_a_missing_pack_needs_no_quarantine() -> None:
    world = World()
    world.back_up(image_of({0: 1}, count=1), run="r-1")
    world.memory.delete(world.keys("packs/")[0])
    world.reopen()
    assert not world.verify().is_sound
    assert world.keys(QUARANTINE_PREFIX) == []


def test_packs_enter_and_leave_and_the_rest_stays() -> None:
    world = World()
    vault = _vault(world)
    settle_quarantine(vault, checked={A, B}, broken={A, B})
    settle_quarantine(vault, checked={B, C}, broken={C})
    assert read_quarantine(vault) == {A, C}
    assert len(world.keys(QUARANTINE_PREFIX)) == 1
    settle_quarantine(vault, checked={A, C}, broken=set())
    assert world.keys(QUARANTINE_PREFIX) == []


def test_a_note_that_cannot_be_read_is_passed_over_and_renewed() -> None:
    world = World()
    vault = _vault(world)
    settle_quarantine(vault, checked={A}, broken={A})
    (key,) = world.keys(QUARANTINE_PREFIX)
    world.memory.delete(key)
    world.memory.put(key, b"nonsense")
    assert read_quarantine(vault) == frozenset()
    settle_quarantine(vault, checked={A}, broken={A})
    assert read_quarantine(vault) == {A}
    assert key not in world.keys(QUARANTINE_PREFIX)


def test_a_note_opens_as_nothing_else() -> None:
    world = World()
    vault = _vault(world)
    settle_quarantine(vault, checked={A}, broken={A})
    (key,) = world.keys(QUARANTINE_PREFIX)
    assert vault.read(key, kind=ObjectKind.QUARANTINE)
    with pytest.raises(SealBroken):
        vault.read(key, kind=ObjectKind.CONDEMNED)
