"""Rotation of the data key: old keys read what is old, nobody is ever locked out, nothing is rewritten."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import HoldfastError, ManualClock, Secret
from holdfast.model import RunId
from holdfast.repository import (
    EpochLost,
    HolderHeld,
    HolderNotProven,
    HolderRefused,
    HolderUndecided,
    HolderUnknown,
    IdentityHolder,
    IdentityUnlock,
    KeyOutdated,
    LastHolder,
    NewHolder,
    OpenHolder,
    PassphraseHolder,
    PassphraseUnlock,
    RotationUseless,
    WrongKey,
    new_recovery_key,
)
from holdfast.repository.config import KEY_EPOCHS
from holdfast.repository.keys.holders import _HolderRecord, _record_key
from holdfast.repository.layout import EPOCH_MAX, TRAILER_BYTES_MAX, ObjectKind, parse_trailer_word, trailer_word
from holdfast.repository.records.immutability import read_lock_policy, write_lock_policy
from holdfast.repository.sealing import EpochNotHeld, SealBroken
from holdfast.storage import (
    FaultyStore,
    MemoryStore,
)
from holdfast.storage.wrapper import StoreWrapper
from tests.support.keyed_world import HOLDERS, LEAVER, LEAVER_UNLOCK, OTHER_UNLOCK, UNLOCK, KeyedWorld
from tests.support.repositories import disk_facts, image_of, write_whole

IMAGE = image_of({0: 1, 1: 2, 3: 4}, count=5)
LATER_IMAGE = image_of({0: 1, 1: 2, 2: 9, 3: 4}, count=5)


def test_who_kept_the_old_key_reads_what_was_there_and_nothing_after() -> None:
    world = KeyedWorld()
    before = world.back_up_as(UNLOCK, IMAGE, run="r-before")
    old = world.old_vault()
    old_names = set(world.memory.snapshot())
    world.rotate(leave_out=["leaver"])
    after = world.back_up_as(UNLOCK, LATER_IMAGE, run="r-after")
    with pytest.raises(WrongKey):
        world.open(LEAVER_UNLOCK)
    key = next(each for each in world.keys("points/") if each.endswith(before.id))
    assert old.read(key, kind=ObjectKind.POINT)
    new_names = set(world.memory.snapshot()) - old_names
    kinds = set()
    for name in sorted(new_names):
        content = world.store.get(name)
        if content[:4] == b"HFSO":
            with pytest.raises(EpochNotHeld):
                old.keys.open_object(content, kind=ObjectKind(content[5]), key=name)
            # Nor does the old key open it under a header that claims the old epoch.
            with pytest.raises(SealBroken):
                old.keys.open_object(content[:6] + b"\0\0" + content[8:], kind=ObjectKind(content[5]), key=name)
            kinds.add(ObjectKind(content[5]))
        elif content[:4] == b"HFPK":
            pack = bytes.fromhex(name.rpartition("/")[2])
            with pytest.raises(Exception, match="epoch 1"):
                old.shelf.open(pack)  # type: ignore[arg-type]
    assert {ObjectKind.POINT, ObjectKind.EPOCH, ObjectKind.HOLDER} <= kinds
    assert any(name.startswith("packs/") for name in new_names)
    assert world.restore(before) == IMAGE
    assert world.restore(after) == LATER_IMAGE


def test_nothing_that_was_stored_is_rewritten_or_removed_but_files_of_holders() -> None:
    world = KeyedWorld()
    world.back_up_as(UNLOCK, IMAGE, run="r-before")
    before = world.memory.snapshot()
    world.rotate(leave_out=["leaver"])
    now = world.memory.snapshot()
    gone = {name for name in before if now.get(name) != before[name]}
    assert {name.partition("/")[0] for name in gone} == {"keys", "holders"}
    assert {name for name in gone if name.startswith("keys/")} == {
        "keys/machine.age",
        "keys/other.age",
        "keys/leaver.age",
    }
    assert f"features/read/{KEY_EPOCHS}" in now


def test_deduplication_goes_on_over_rotations() -> None:
    world = KeyedWorld()
    first = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    world.rotate()
    packs = set(world.keys("packs/"))
    second = world.back_up_as(UNLOCK, IMAGE, run="r-2")
    fresh = sum(len(world.store.get(each)) for each in set(world.keys("packs/")) - packs)
    assert fresh < 1000
    assert world.restore(first) == world.restore(second) == IMAGE
    assert second.facts.vm == first.facts.vm
    assert len({key.split("/")[1] for key in world.keys("points/")}) == 1


def test_points_of_four_epochs_restore_for_every_machine() -> None:
    world = KeyedWorld()
    images = [image_of({0: epoch + 1, 1: 7, 2: epoch + 20}, count=3) for epoch in range(4)]
    points = []
    for epoch, image in enumerate(images):
        points.append(world.back_up_as(OTHER_UNLOCK, image, run=f"r-{epoch}"))
        if epoch < 3:
            assert world.rotate().epoch == epoch + 1
    for unlock in (UNLOCK, OTHER_UNLOCK, LEAVER_UNLOCK):
        world.repository = world.open(unlock)
        assert [world.restore(point) for point in points] == images
        assert world.verify().damage == ()
        assert world.repository.keys.epoch == 3
    assert len(world.keys("keys/")) == len(world.keys("holders/")) == 3


def test_a_lost_trailer_is_found_in_an_index_in_any_epoch() -> None:
    world = KeyedWorld()
    world.rotate()
    point = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    for name in world.keys("packs/"):
        world.memory.restore({**world.memory.snapshot(), name: world.store.get(name)[:-4] + b"\xff" * 4})
    world.repository = world.open(UNLOCK)
    assert world.restore(point) == IMAGE


def test_the_epoch_at_the_end_of_a_pack_is_proven_too() -> None:
    world = KeyedWorld()
    world.rotate()
    world.back_up_as(UNLOCK, IMAGE, run="r-1")
    for key in world.keys("index/"):
        world.store.delete(key)
    name = world.keys("packs/")[0]
    content = bytearray(world.store.get(name))
    content[-1] ^= 0x10
    world.memory.restore({**world.memory.snapshot(), name: bytes(content)})
    world.repository = world.open(UNLOCK)
    assert any("epoch 129" in each.reason for each in world.verify().damage)


def test_a_running_writer_goes_on_and_its_point_is_whole() -> None:
    world = KeyedWorld()
    with world.begin("r-running") as writer:
        stored = write_whole(writer, IMAGE)
        world.rotate(leave_out=["leaver"])
        point = writer.publish(world.facts("r-running"), [(disk_facts(len(IMAGE)), stored)])
    world.repository = world.open(OTHER_UNLOCK)
    assert world.restore(point) == IMAGE
    assert world.verify().damage == ()


def test_a_run_that_begins_in_an_old_process_uses_the_new_key() -> None:
    world = KeyedWorld()
    process = world.repository
    world.rotate(leave_out=["leaver"])
    world.repository = process
    point = world.back_up(IMAGE, run="r-1")
    assert process.keys.epoch == 1
    name = next(each for each in world.keys("points/") if each.endswith(point.id))
    assert world.store.get(name)[6:8] == b"\x01\x00"
    assert {world.store.get(each)[6:8] for each in world.keys("packs/")} == {b"\x01\x00"}


def test_a_process_from_before_reads_what_came_after() -> None:
    world = KeyedWorld()
    process = world.open(OTHER_UNLOCK)
    world.rotate()
    point = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    world.repository = process
    assert [each.id for each in process.points()] == [point.id]
    assert world.restore(point) == IMAGE
    assert world.verify().damage == ()


def test_a_process_whose_holder_was_left_out_writes_nothing_any_more() -> None:
    world = KeyedWorld()
    before = world.back_up_as(UNLOCK, IMAGE, run="r-0")
    process = world.open(LEAVER_UNLOCK)
    world.rotate(leave_out=["leaver"])
    world.repository = process
    names = set(world.memory.snapshot())
    for change in (
        lambda: world.begin("r-1"),
        lambda: process.delete_point(before.id),
        lambda: process.keys.add(IdentityHolder("friend", LEAVER.public)),
        lambda: process.keys.remove("other"),
        lambda: process.keys.rotate(LEAVER_UNLOCK, goes_on=(), leave_out=()),
    ):
        with pytest.raises((KeyOutdated, WrongKey)):
            change()
    assert set(world.memory.snapshot()) == names
    assert world.restore(before) == IMAGE


def test_a_holder_file_that_is_put_back_reads_the_past_only() -> None:
    world = KeyedWorld()
    before = world.back_up_as(UNLOCK, IMAGE, run="r-0")
    kept = world.store.get("keys/leaver.age")
    world.rotate(leave_out=["leaver"])
    after = world.back_up_as(UNLOCK, LATER_IMAGE, run="r-1")
    world.store.put("keys/leaver.age", kept)
    world.repository = world.open(LEAVER_UNLOCK)
    assert world.restore(before) == IMAGE
    assert [each.id for each in world.repository.points()] == [before.id]
    assert after.id in str(world.repository.damaged_points()[0])
    with pytest.raises(KeyOutdated):
        world.begin("r-2")
    facts = {each.name: each.is_current for each in world.open(UNLOCK).keys.holders()}
    assert facts == {"machine": True, "other": True, "leaver": False}
    # The next change of holders cleans up.
    world.open(UNLOCK).keys.remove("other")
    assert not [each for each in world.keys("keys/") if "leaver" in each]


def test_a_lost_epoch_object_costs_no_data_and_the_next_rotation_brings_it_back() -> None:
    world = KeyedWorld()
    world.rotate(leave_out=["leaver"])
    point = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    world.store.delete("epochs/00001")
    world.repository = world.open(OTHER_UNLOCK)
    assert world.restore(point) == IMAGE
    with pytest.raises(EpochLost):
        world.begin("r-2")
    with pytest.raises(EpochLost):
        world.repository.keys.remove("other")
    assert world.rotate().epoch == 2
    assert world.keys("epochs/") == ["epochs/00001", "epochs/00002"]
    world.repository = world.open(OTHER_UNLOCK)
    assert world.restore(point) == IMAGE


def test_a_damaged_epoch_object_costs_no_data_either() -> None:
    world = KeyedWorld()
    world.rotate()
    point = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    world.memory.restore({**world.memory.snapshot(), "epochs/00001": b"rubbish"})
    world.repository = world.open(OTHER_UNLOCK)
    assert world.restore(point) == IMAGE
    with pytest.raises(KeyOutdated):
        world.begin("r-2")


def test_forged_epochs_stop_writing_and_nothing_else() -> None:
    world = KeyedWorld()
    point = world.back_up_as(UNLOCK, IMAGE, run="r-1")
    for name in ("epochs/00009", "epochs/later", "epochs/99999"):
        world.store.put(name, b"not sealed")
    world.repository = world.open(UNLOCK)
    assert world.restore(point) == IMAGE
    with pytest.raises(KeyOutdated):
        world.begin("r-2")
    world.store.delete("epochs/00009")
    world.repository = world.open(UNLOCK)
    world.back_up(IMAGE, run="r-3")


def without_records(world: KeyedWorld) -> None:
    """Make the repository one of before public keys were recorded."""
    for key in world.keys("holders/"):
        world.store.delete(key)


def test_a_holder_without_a_record_is_asked_for_or_left_out() -> None:
    world = KeyedWorld()
    without_records(world)
    names = set(world.memory.snapshot())
    with pytest.raises(HolderUndecided, match="'leaver'"):
        world.rotate()
    assert set(world.memory.snapshot()) == names
    done = world.rotate(HOLDERS[1], leave_out=["leaver"])
    assert (done.goes_on, done.left_out) == (("machine", "other"), ("leaver",))
    assert world.open(OTHER_UNLOCK).keys.epoch == 1
    # From now on they are recorded.
    assert world.rotate().goes_on == ("machine", "other")


def test_opening_with_a_key_records_its_public_half() -> None:
    world = KeyedWorld()
    without_records(world)
    assert [world.repository.keys.recognise(each) for each in (LEAVER_UNLOCK, OTHER_UNLOCK)] == ["leaver", "other"]
    assert world.repository.keys.recognise(IdentityUnlock(new_recovery_key().secret)) is None
    assert len(world.keys("holders/")) == 2
    assert world.rotate().goes_on == ("leaver", "machine", "other")


def test_a_record_that_somebody_with_an_old_key_made_is_not_believed() -> None:
    world = KeyedWorld()
    old = world.old_vault()
    world.rotate(leave_out=["leaver"])
    without_records(world)
    file = next(each for each in world.keys("keys/") if "other" in each)
    forged = _HolderRecord(file=file, recipient=LEAVER.public, added_at="2026-11-20T09:08:20Z")
    old.write(_record_key(world.store.get(file)), msgspec.msgpack.encode(forged), kind=ObjectKind.HOLDER)
    with pytest.raises(HolderUndecided, match="'other'"):
        world.rotate()


@pytest.mark.parametrize(
    ("goes_on", "leave_out", "error"),
    [
        ([IdentityHolder("other", LEAVER.public)], [], HolderRefused),
        ([PassphraseHolder("other", Secret("x"))], [], HolderRefused),
        ([], ["nobody"], HolderUnknown),
        ([IdentityHolder("nobody", LEAVER.public)], [], HolderUnknown),
        ([], ["machine", "other", "leaver"], LastHolder),
        ([], ["machine"], HolderRefused),
    ],
)
def test_a_rotation_that_would_lock_somebody_out_by_mistake_is_refused(
    goes_on: list[NewHolder], leave_out: list[str], error: type[Exception]
) -> None:
    world = KeyedWorld()
    with pytest.raises(error):
        world.rotate(*goes_on, leave_out=leave_out)
    assert world.keys("epochs/") == []
    assert set(world.keys("keys/")) == {f"keys/{each.name}.age" for each in HOLDERS}
    assert world.rotate().goes_on == ("leaver", "machine", "other")


def test_an_open_repository_has_no_data_key_to_rotate() -> None:
    world = KeyedWorld((*HOLDERS, OpenHolder()))
    with pytest.raises(RotationUseless):
        world.rotate()
    world.open(UNLOCK).keys.remove("open")
    world.rotate()
    with pytest.raises(HolderRefused):
        world.open(UNLOCK).keys.add(OpenHolder())


@pytest.mark.slow(reason="passphrases cost a second each time, by design")
def test_passphrases_go_on_when_they_are_typed_rightly_and_change_in_a_step() -> None:
    holder = PassphraseHolder("me", Secret("correct horse"))
    world = KeyedWorld((HOLDERS[0], holder))
    with pytest.raises(HolderUndecided, match="'me'"):
        world.rotate()
    with pytest.raises(HolderRefused, match="not its passphrase"):
        world.rotate(PassphraseHolder("me", Secret("wrong horse")))
    world.rotate(holder)
    assert world.open(PassphraseUnlock(Secret("correct horse"))).keys.epoch == 1
    world.open(UNLOCK).keys.change_secret(PassphraseHolder("me", Secret("battery staple")))
    assert world.open(PassphraseUnlock(Secret("battery staple"))).keys.epoch == 1
    with pytest.raises(WrongKey):
        world.open(PassphraseUnlock(Secret("correct horse")))
    assert len([each for each in world.keys("keys/") if "/me." in each]) == 1


def test_a_store_that_spoils_a_new_file_loses_no_holder() -> None:
    world = KeyedWorld()
    spoiling = FaultyStore(world.memory, [])

    class Spoiling(StoreWrapper):
        def get(self, key: str) -> bytes:
            content = self._inner.get(key)
            return content[:-1] if key.startswith("keys/leaver.0") else content

    with pytest.raises(HolderNotProven):
        world.open(UNLOCK, store=Spoiling(spoiling)).keys.change_secret(HOLDERS[2])
    assert world.open(LEAVER_UNLOCK).keys.epoch == 0


def test_locked_files_of_holders_go_when_their_locks_end() -> None:
    clock = ManualClock()
    world = KeyedWorld(memory=MemoryStore(clock=clock), clock=clock)
    until = clock.now() + timedelta(days=3)
    write_lock_policy(world.repository._vault, days=3)
    for key in world.keys("keys/"):
        world.store.try_lock(key, until)
    with pytest.raises(HolderHeld, match="leaver"):
        world.open(UNLOCK).keys.remove("leaver")
    policy = read_lock_policy(world.repository._vault)
    assert policy is not None
    assert (policy.days, policy.let_go) == (3, frozenset({"keys/leaver.age"}))
    assert world.open(LEAVER_UNLOCK).keys.epoch == 0
    done = world.rotate(leave_out=["leaver"])
    assert done.locked_files == 3
    with pytest.raises(KeyOutdated):
        world.open(LEAVER_UNLOCK).begin_run(RunId("r-1"), cancel=world.cancel)
    for unlock in (UNLOCK, OTHER_UNLOCK):
        world.repository = world.open(unlock)
        world.back_up(IMAGE, run=f"r-{unlock is UNLOCK}")
    clock.advance(4 * 86400)
    # The runs have held the new files meanwhile, and not the old ones, which go now.
    with pytest.raises(HolderHeld, match="other"):
        world.open(UNLOCK).keys.remove("other")
    assert [each.split("-")[0] for each in world.keys("keys/")] == ["keys/machine.00001", "keys/other.00001"]
    clock.advance(30 * 86400)
    world.open(UNLOCK).keys.remove("other")
    assert [each.split("-")[0] for each in world.keys("keys/")] == ["keys/machine.00001"]


def test_a_secret_whose_file_is_locked_is_told_to_open_until_then() -> None:
    clock = ManualClock()
    world = KeyedWorld(memory=MemoryStore(clock=clock), clock=clock)
    until = clock.now() + timedelta(days=3)
    write_lock_policy(world.repository._vault, days=3)
    world.store.try_lock("keys/leaver.age", until)
    fresh = new_recovery_key()
    assert world.open(UNLOCK).keys.change_secret(IdentityHolder("leaver", fresh.public)) == until
    assert world.open(LEAVER_UNLOCK).id == world.open(IdentityUnlock(fresh.secret)).id
    clock.advance(4 * 86400)
    world.open(UNLOCK).keys.remove("other")
    with pytest.raises(WrongKey):
        world.open(LEAVER_UNLOCK)
    assert world.open(IdentityUnlock(fresh.secret)).keys.epoch == 0


def test_a_flipped_byte_in_any_object_of_the_keys_is_refused_or_harmless() -> None:
    world = KeyedWorld()
    point = world.back_up_as(UNLOCK, IMAGE, run="r-0")
    world.rotate(leave_out=["leaver"])
    later = world.back_up_as(UNLOCK, LATER_IMAGE, run="r-1")
    start = world.memory.snapshot()
    names = [each for each in start if each.split("/")[0] in ("keys", "epochs", "holders")]
    refused = 0
    for name in names:
        for at in range(0, len(start[name]), 7):
            spoiled = bytearray(start[name])
            spoiled[at] ^= 0x21
            world.memory.restore({**start, name: bytes(spoiled)})
            try:
                world.repository = world.open(UNLOCK)
                assert world.restore(point) == IMAGE
                assert world.restore(later) == LATER_IMAGE
                world.repository.keys.holders()
            except HoldfastError:
                refused += 1
    assert refused > 10
    world.memory.restore(start)
    assert world.open(OTHER_UNLOCK).keys.epoch == 1


@given(length=st.integers(0, TRAILER_BYTES_MAX), epoch=st.integers(0, EPOCH_MAX))
def test_length_and_epoch_share_a_word(length: int, epoch: int) -> None:
    word = trailer_word(length, epoch=epoch)
    assert word < 2**32
    assert parse_trailer_word(word) == (length, epoch)
    assert trailer_word(length, epoch=0) == length
