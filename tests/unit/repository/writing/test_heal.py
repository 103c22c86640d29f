"""Healing: what was damaged is read whole again, from what later backups store, a donor, or a pack brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from holdfast.core import BLOCK_BYTES, NoProgress
from holdfast.model import Extent, RunId, VmUuid
from holdfast.repository import (
    Damage,
    DiskNoLongerStored,
    Donor,
    HealingDone,
    RestorePoint,
    ScrubBudget,
    ScrubReport,
    VerifyReport,
    Witness,
)
from holdfast.repository.donors import ImageDonor, RepositoryDonor
from holdfast.repository.layout import MOVED_PREFIX, QUARANTINE_PREFIX, FrameKind, pack_key
from holdfast.repository.records.quarantine import read_quarantine
from holdfast.repository.vault import Vault
from holdfast.storage import Fault, FaultEffect, FaultyStore, MemoryStore, SimulatedCrash
from tests.support.repositories import World, disk_facts, image_of, key_ring, write_changes, write_whole

IMAGE = image_of({0: 2, 2: 4, 4: 6, 6: 8}, count=8)


class _CannotPunch(MemoryStore):
    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        return None


def _flip(world: World, key: str) -> None:
    broken = bytearray(world.memory.get(key))
    broken[60] ^= 1
    _replace(world, key, bytes(broken))


def _truncate(world: World, key: str) -> None:
    _replace(world, key, world.memory.get(key)[:-200_000])


def _remove(world: World, key: str) -> None:
    world.memory.delete(key)
    world.reopen()


def _replace(world: World, key: str, content: bytes) -> None:
    world.memory.delete(key)
    world.memory.put(key, content)
    world.reopen()


def _scrub(world: World) -> ScrubReport:
    return world.repository.care.scrub(ScrubBudget(), progress=NoProgress(), cancel=world.cancel)


def _heal(world: World, donor: Donor | None = None) -> HealingDone:
    return world.repository.care.heal(donor, progress=NoProgress(), cancel=world.cancel)


def _vault(world: World) -> Vault:
    return Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)


def _image_donor(image: bytes) -> Donor:
    def donor(witness: Witness) -> Iterator[bytes]:
        start = witness.extent.offset_bytes
        yield image[start : start + witness.extent.length_bytes]

    return donor


def _is_clean(world: World, points: list[RestorePoint], image: bytes) -> bool:
    report = world.reopen().verify(None, progress=NoProgress(), cancel=world.cancel)
    return report.is_sound and all(world.restore(point) == image for point in points)


@pytest.mark.parametrize("find", [lambda world: world.verify(), _scrub])
def test_the_next_backup_heals_a_flipped_block(find: Callable[[World], ScrubReport | VerifyReport]) -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not find(world).is_sound
    with pytest.raises(Damage):
        world.restore(old)
    new = world.back_up(IMAGE, run="r-2")
    assert world.keys(MOVED_PREFIX), "the end of the backup heals"
    assert _is_clean(world, [old, new], IMAGE)
    assert world.verify().damage == ()
    assert _scrub(world).damage == ()
    assert not read_quarantine(_vault(world)).harmful


def test_a_map_that_is_lost_with_its_pack_is_told_and_the_next_backup_is_whole() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _truncate(world, key)
    assert not world.verify().is_sound
    new = world.back_up(IMAGE, run="r-2")
    assert world.restore(new) == IMAGE
    report = world.verify()
    assert [hit.point for damage in report.damage for hit in damage.hits] == [old.id]
    assert [hit.lost_bytes for damage in report.damage for hit in damage.hits] == [len(IMAGE)]


@pytest.mark.parametrize("harm", [_truncate, _remove])
def test_blocks_of_a_lost_pack_are_healed_while_maps_lie_elsewhere(harm: Callable[[World, str], None]) -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    changed = image_of({0: 2, 2: 4, 4: 6, 6: 10}, count=8)
    second = world.back_up_changes(changed, [6], run="r-2", reference=first.disks[0].stored)
    lost = pack_key(first.disks[0].stored.root.pack)
    harm(world, lost)
    report = _scrub(world)
    assert [damage.object for damage in report.damage] == [lost]
    assert {hit.point for damage in report.damage for hit in damage.hits} == {first.id, second.id}
    world.back_up(changed, run="r-3")
    world.reopen()
    assert world.restore(second) == changed, "its map was whole, its blocks are again"
    report = _scrub(world)
    assert {hit.point for damage in report.damage for hit in damage.hits} == {first.id}, "its root is lost"
    assert world.verify().damage[0].hits[0].point == first.id


def test_what_the_repository_has_already_heals_without_a_backup() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not world.verify().is_sound
    # Stored again by a run that publishes nothing, and so does not heal.
    with world.begin("r-2") as writer:
        write_whole(writer, IMAGE)
    assert world.keys(MOVED_PREFIX) == []
    report = _scrub(world)
    assert report.healed is not None
    assert report.healed.healed_slots == 1
    assert report.is_sound
    assert _is_clean(world, [old], IMAGE)


def test_a_block_that_changed_since_heals_from_an_image_of_the_disk() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not world.verify().is_sound
    assert not _heal(world).is_sound, "nobody has the block"
    wrong = _heal(world, _image_donor(image_of({0: 12}, count=8)))
    assert (wrong.healed.healed_slots, wrong.is_sound) == (0, False), "another content is not taken"
    done = _heal(world, _image_donor(IMAGE))
    assert done.is_sound
    assert done.damage == ()
    assert done.healed.healed_slots == 1
    assert done.healed.stored_bytes > BLOCK_BYTES
    assert _is_clean(world, [old], IMAGE)


def test_the_short_last_block_of_a_disk_heals_from_an_image() -> None:
    world = World()
    image = image_of({0: 2}, count=0, tail_bytes=1024)
    old = world.back_up(image, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not world.verify().is_sound
    assert _heal(world, _image_donor(image)).is_sound
    assert _is_clean(world, [old], image)


def test_what_a_donor_gave_outlives_garbage_collection() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    world.verify()
    assert _heal(world, _image_donor(IMAGE)).is_sound
    world.clock.advance(1_000_000)
    world.collect()
    assert _is_clean(world, [old], IMAGE)


def test_a_healed_pack_that_is_damaged_again_heals_again() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (first,) = world.keys("packs/")
    _flip(world, first)
    world.verify()
    assert _heal(world, _image_donor(IMAGE)).is_sound
    (second,) = set(world.keys("packs/")) - {first}
    _flip(world, second)
    assert not world.verify().is_sound
    assert _heal(world, _image_donor(IMAGE)).is_sound
    assert _is_clean(world, [old], IMAGE)


def test_moves_never_go_in_a_circle() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (first,) = world.keys("packs/")
    sound = world.memory.get(first)
    _flip(world, first)
    world.verify()
    assert _heal(world, _image_donor(IMAGE)).is_sound
    (second,) = set(world.keys("packs/")) - {first}
    _replace(world, first, sound)
    assert world.verify().is_sound
    _flip(world, second)
    report = world.verify()
    assert not report.is_sound, "the first pack has the block, but a move leads from there to the second"
    assert _heal(world, _image_donor(IMAGE)).is_sound
    assert _is_clean(world, [old], IMAGE)


def test_a_pack_that_is_copied_back_heals_by_itself() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    sound = world.memory.get(key)
    _remove(world, key)
    assert not world.verify().is_sound
    world.memory.put(key, sound)
    world.reopen()
    assert _is_clean(world, [old], IMAGE)
    assert world.keys(QUARANTINE_PREFIX) == []
    assert world.keys(MOVED_PREFIX) == []


def test_nothing_is_inherited_from_a_healed_slot_and_the_backup_after_that_is_small_again() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    world.verify()
    assert _heal(world, _image_donor(IMAGE)).is_sound
    changed = image_of({0: 2, 2: 4, 4: 6, 6: 10}, count=8)
    with pytest.raises(DiskNoLongerStored):
        world.back_up_changes(changed, [6], run="r-2", reference=old.disks[0].stored)
    world.repository.end_run(RunId("r-2"))
    whole = world.back_up(changed, run="r-3")
    assert whole.sizes.new_bytes == BLOCK_BYTES, "reading it whole costs reading only"
    again = world.back_up_changes(IMAGE, [6], run="r-4", reference=whole.disks[0].stored)
    assert world.restore(again) == IMAGE
    assert world.verify().damage == ()


def test_a_disk_that_an_earlier_execution_stored_is_not_published_over_damage() -> None:
    world = World()
    first = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    changed = image_of({0: 2, 1: 10, 2: 4, 4: 6, 6: 8}, count=8)
    writer = world.begin("r-2")
    stored = write_changes(writer, changed, [1], reference=first.disks[0].stored)
    writer.leave()
    _flip(world, key)
    assert not world.verify().is_sound
    with world.begin("r-2") as resumed:
        with pytest.raises(DiskNoLongerStored):
            resumed.publish(world.facts("r-2"), [(disk_facts(len(changed)), stored)])
        disks = [(disk_facts(len(changed)), write_whole(resumed, changed))]
        point = resumed.publish(world.facts("r-2"), disks)
    assert _is_clean(world, [point], changed)


def test_a_damaged_base_hits_the_disks_that_patch_it_and_healing_it_heals_them() -> None:
    world = World()
    base = bytearray(IMAGE)
    first = world.back_up(bytes(base), run="r-1")
    base[100:108] = b"patched!"
    patched = bytes(base)
    second = world.back_up_changes(patched, [0], run="r-2", reference=first.disks[0].stored)
    vault = _vault(world)
    kinds = [kind for pack, _ in second.packs() for kind in vault.shelf.open(pack).trailer.rows["kind"].tolist()]
    assert FrameKind.PATCH in kinds, "this test is about a patch"
    key = pack_key(first.disks[0].stored.root.pack)
    _flip(world, key)
    report = _scrub(world)
    assert {hit.point for damage in report.damage for hit in damage.hits} == {first.id, second.id}
    assert all(
        hit.extents[0].offset_bytes == 0 and hit.lost_bytes == BLOCK_BYTES
        for damage in report.damage
        for hit in damage.hits
    )
    assert _heal(world, _image_donor(IMAGE)).is_sound
    world.reopen()
    assert world.restore(first) == IMAGE
    assert world.restore(second) == patched
    assert world.verify().is_sound
    assert _scrub(world).damage == ()


def test_a_damaged_leaf_heals_when_the_same_leaf_is_stored_again() -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    vault = _vault(world)
    pack = old.disks[0].stored.root.pack
    opened = vault.shelf.open(pack)
    slots = np.flatnonzero(opened.trailer.rows["kind"] == FrameKind.MAP).tolist()
    (leaf,) = set(slots) - {old.disks[0].stored.root.slot}
    broken = bytearray(world.memory.get(pack_key(pack)))
    broken[opened.frame_extent(leaf)[0] + 3] ^= 1
    _replace(world, pack_key(pack), bytes(broken))
    report = world.verify()
    assert [hit.lost_bytes for damage in report.damage for hit in damage.hits] == [len(IMAGE)]
    assert not _heal(world, _image_donor(IMAGE)).is_sound, "a donor has no maps"
    world.back_up(IMAGE, run="r-2")
    assert _is_clean(world, [old], IMAGE)


def test_another_repository_with_the_same_vms_heals() -> None:
    world, mirror = World(), World(seed=2)
    old = world.back_up(IMAGE, run="r-1")
    changed = image_of({0: 2, 2: 4, 4: 6, 6: 10}, count=8)
    for run, image in (("m-1", changed), ("m-2", IMAGE), ("m-3", changed)):
        mirror.back_up(image, run=run)
    (key,) = world.keys("packs/")
    broken = bytearray(world.memory.get(key))
    broken[60 + 3 * BLOCK_BYTES + 100] ^= 1
    _replace(world, key, bytes(broken))
    assert not world.verify().is_sound
    assert not _heal(world, RepositoryDonor(World(seed=3).repository, cancel=world.cancel)).is_sound
    done = _heal(world, RepositoryDonor(mirror.repository, cancel=world.cancel))
    assert done.is_sound, "of the points nearest in time one has the content"
    assert done.healed.healed_slots == 1
    assert _is_clean(world, [old], IMAGE)


def test_a_donor_that_is_damaged_itself_is_asked_for_what_it_has() -> None:
    world, mirror = World(), World(seed=2)
    old = world.back_up(IMAGE, run="r-1")
    mirror.back_up(IMAGE, run="m-1")
    mirror.back_up(IMAGE, run="m-2")
    _flip(mirror, mirror.keys("packs/")[0])
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not world.verify().is_sound
    done = _heal(world, RepositoryDonor(mirror.repository, cancel=world.cancel))
    assert not done.is_sound
    assert [hit.point for damage in done.damage for hit in damage.hits] == [old.id]


def test_an_image_file_heals_the_disk_it_is_of(tmp_path: Path) -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    world.verify()
    path = tmp_path / "disk.raw"
    path.write_bytes(IMAGE)
    with ImageDonor(path, disk="another") as other:
        assert not _heal(world, other).is_sound
    with ImageDonor(path, disk="disk-1") as donor:
        assert _heal(world, donor).is_sound
    assert _is_clean(world, [old], IMAGE)


@pytest.mark.parametrize("can_punch", [True, False])
@pytest.mark.parametrize("is_healed", [True, False])
def test_collection_leaves_what_is_damaged_and_keeps_what_healed_it(*, can_punch: bool, is_healed: bool) -> None:
    world = World(memory=MemoryStore() if can_punch else _CannotPunch())
    large = image_of({2 * number: 2 * number + 2 for number in range(30)}, count=60)
    small = image_of({0: 2, 2: 4, 4: 1000}, count=60)
    dropped = world.back_up(large, run="r-1")
    kept = world.back_up(small, run="r-2", vm=VmUuid("vm-2"))
    _flip(world, pack_key(dropped.disks[0].stored.root.pack))
    assert not _scrub(world).is_sound
    if is_healed:
        assert _heal(world, _image_donor(large)).is_sound
    world.repository.delete_point(dropped.id)
    for _ in range(3):
        world.clock.advance(1_000_000)
        world.collect()
    world.reopen()
    for report in (_scrub(world), world.verify()):
        assert [hit.point for damage in report.damage for hit in damage.hits] == ([] if is_healed else [kept.id])
    if is_healed:
        assert world.restore(kept) == small


@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
def test_killed_anywhere_a_healing_costs_nothing_and_is_done_by_the_next(effect: FaultEffect) -> None:
    world = World()
    old = world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    assert not world.verify().is_sound
    frozen = {each: world.memory.get(each) for each in world.keys("")}
    counter = FaultyStore(world.memory)
    world.store = counter
    world.reopen()
    before = counter.operations
    assert _heal(world, _image_donor(IMAGE)).is_sound
    for at in range(before + 1, counter.operations + 1):
        world.memory = MemoryStore()
        for name, content in frozen.items():
            world.memory.put(name, content)
        world.store = FaultyStore(world.memory, [Fault(at=at, effect=effect)])
        world.reopen()
        with pytest.raises(SimulatedCrash):
            _heal(world, _image_donor(IMAGE))
        world.store = world.memory
        world.reopen()
        assert _heal(world, _image_donor(IMAGE)).is_sound
        assert _is_clean(world, [old], IMAGE)


def test_what_prevents_healing_is_told_and_the_damage_too() -> None:
    world = World()
    world.back_up(IMAGE, run="r-1")
    (key,) = world.keys("packs/")
    _flip(world, key)
    world.memory.put("features/write/from-the-future", b"")
    report = world.reopen().verify(None, progress=NoProgress(), cancel=world.cancel)
    assert not report.is_sound
    assert report.healed is not None
    assert "from-the-future" in report.healed.failure
