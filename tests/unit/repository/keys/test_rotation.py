"""Rotations of the data key that die, or meet others: nobody is locked out, and whoever came second is told."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from holdfast.core import HoldfastError
from holdfast.model import RunId
from holdfast.repository import (
    HolderNotProven,
    HolderUndecided,
    IdentityHolder,
    IdentityUnlock,
    KeyOutdated,
    RotatedMeanwhile,
    Unlock,
    WrongKey,
    new_recovery_key,
)
from holdfast.storage import (
    Fault,
    FaultEffect,
    FaultyStore,
    ObjectInfo,
    ObjectStore,
    Parts,
    SimulatedCrash,
)
from holdfast.storage.wrapper import StoreWrapper
from tests.support.keyed_world import LEAVER_UNLOCK, OTHER_UNLOCK, UNLOCK, KeyedWorld
from tests.support.repositories import image_of

IMAGE = image_of({0: 1, 1: 2, 3: 4}, count=5)
LATER_IMAGE = image_of({0: 1, 1: 2, 2: 9, 3: 4}, count=5)


Refusals = tuple[type[HoldfastError], ...]

EFFECTS = (FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER, FaultEffect.FAIL_BEFORE, FaultEffect.FAIL_AFTER)


def at_every_operation(world: KeyedWorld, action: Callable[[ObjectStore], object], check: Callable[[], None]) -> int:
    """Do ``action`` with each fault at each operation, each time from the same start; return how many there were."""
    start = world.memory.snapshot()
    for effect in EFFECTS:
        number = 0
        while True:
            number += 1
            world.memory.restore(start)
            faulty = FaultyStore(world.memory, [Fault(at=number, effect=effect)])
            try:
                action(faulty)
            except (SimulatedCrash, Exception):
                check()
            else:
                if faulty.operations < number:
                    break
                check()
    return number


def test_a_rotation_that_dies_at_any_operation_locks_nobody_out() -> None:
    world = KeyedWorld()
    before = world.back_up_as(UNLOCK, IMAGE, run="r-0")

    def check() -> None:
        begun = bool(world.keys("epochs/"))
        for unlock in (UNLOCK, OTHER_UNLOCK):
            world.repository = world.open(unlock)
            assert world.repository.keys.epoch == int(begun)
            assert world.restore(before) == IMAGE
        if begun:
            with pytest.raises((WrongKey, KeyOutdated)):
                world.open(LEAVER_UNLOCK).begin_run(RunId("r-x"), cancel=world.cancel)
        else:
            assert world.open(LEAVER_UNLOCK).keys.epoch == 0
        leave_out = [each.name for each in world.repository.keys.holders() if each.name == "leaver" and each.is_current]
        done = world.rotate(leave_out=leave_out)
        assert done.epoch == 1 + begun
        after = world.back_up_as(OTHER_UNLOCK, LATER_IMAGE, run="r-1")
        world.repository = world.open(UNLOCK)
        assert [world.restore(each) for each in (before, after)] == [IMAGE, LATER_IMAGE]
        assert len(world.keys("keys/")) == len(world.keys("holders/")) == 2

    operations = at_every_operation(world, lambda store: world.rotate(leave_out=["leaver"], store=store), check)
    assert operations > 30


def test_a_change_of_a_secret_that_dies_at_any_operation_leaves_one_that_opens() -> None:
    world = KeyedWorld()
    fresh = new_recovery_key()

    def opens(unlock: Unlock) -> bool:
        try:
            return world.open(unlock).keys.epoch == 0
        except WrongKey:
            return False

    def check() -> None:
        assert opens(LEAVER_UNLOCK) or opens(IdentityUnlock(fresh.secret))
        world.open(UNLOCK).keys.change_secret(IdentityHolder("leaver", fresh.public))
        assert not opens(LEAVER_UNLOCK)
        assert opens(IdentityUnlock(fresh.secret))

    def action(store: ObjectStore) -> None:
        world.open(UNLOCK, store=store).keys.change_secret(IdentityHolder("leaver", fresh.public))

    assert at_every_operation(world, action, check) > 10


class Interrupting(StoreWrapper):
    """A store in which something else happens right before one name is put."""

    def __init__(self, inner: ObjectStore, prefix: str, event: Callable[[], object]) -> None:
        super().__init__(inner)
        self._prefix, self._event = prefix, event
        self._happened = False

    def put(self, key: str, parts: Parts, *, locked_until: object = None) -> None:
        """See ``ObjectStore.put``."""
        if key.startswith(self._prefix) and not self._happened:
            self._happened = True
            self._event()
        self._inner.put(key, parts)


@pytest.mark.parametrize("at", ["features/", "keys/", "holders/", "epochs/"])
def test_of_two_rotations_at_once_one_wins_and_everybody_opens_it(at: str) -> None:
    world = KeyedWorld()
    store = Interrupting(world.memory, at, lambda: world.rotate(unlock=OTHER_UNLOCK))
    with pytest.raises(RotatedMeanwhile):
        world.rotate(store=store)
    assert world.keys("epochs/") == ["epochs/00001"]
    for unlock in (UNLOCK, OTHER_UNLOCK, LEAVER_UNLOCK):
        world.repository = world.open(unlock)
        assert world.repository.keys.epoch == 1
    point = world.back_up(IMAGE, run="r-1")
    world.repository = world.open(OTHER_UNLOCK)
    assert world.restore(point) == IMAGE
    assert world.rotate().epoch == 2


class Overtaken(StoreWrapper):
    """A store in which something happens before the ``at``-th listing, reading or writing."""

    def __init__(self, inner: ObjectStore, at: int, event: Callable[[], object], *, verbs: str = "list") -> None:
        super().__init__(inner)
        self._left, self._event, self._verbs = at, event, verbs.split()

    @property
    def is_over(self) -> bool:
        """Whether it has happened."""
        return self._left <= 0

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        self._count("list")
        return self._inner.list(prefix)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        self._count("get")
        return self._inner.get(key)

    def put(self, key: str, parts: Parts, *, locked_until: object = None) -> None:
        """See ``ObjectStore.put``."""
        self._count("put")
        self._inner.put(key, parts)

    def _count(self, verb: str) -> None:
        if verb in self._verbs:
            self._left -= 1
            if self._left == 0:
                self._event()


def rotate_if_told_whom(world: KeyedWorld) -> None:
    """Rotate, unless a holder has a file and no record yet."""
    with contextlib.suppress(HolderUndecided):
        world.rotate(unlock=OTHER_UNLOCK)


def rotated_at_every_operation(action: Callable[[KeyedWorld, ObjectStore], object], refusals: Refusals) -> int:
    """Do something while another program rotates, before each operation in turn; return how often it was refused."""
    refused = 0
    for at in range(1, 200):
        world = KeyedWorld()
        store = Overtaken(world.memory, at, functools.partial(rotate_if_told_whom, world), verbs="list get put")
        try:
            action(world, store)
        except refusals:
            refused += 1
        world.repository = world.open(OTHER_UNLOCK)
        world.restore(world.back_up(IMAGE, run="r-1"))
        if not store.is_over:
            return refused
    raise AssertionError("it does not come to an end")


def test_a_rotation_that_is_overtaken_anywhere_says_so_or_comes_after_the_other() -> None:
    assert rotated_at_every_operation(lambda world, store: world.rotate(store=store), (RotatedMeanwhile,)) > 10


class Forgetful(StoreWrapper):
    """A store that takes the files of key holders and has nothing of them."""

    def put(self, key: str, parts: Parts, *, locked_until: object = None) -> None:
        """See ``ObjectStore.put``."""
        if not key.startswith("keys/"):
            self._inner.put(key, parts)


def test_a_store_that_loses_what_it_took_is_blamed_and_nobody_else() -> None:
    world = KeyedWorld()
    with pytest.raises(HolderNotProven):
        world.rotate(store=Forgetful(world.memory))
    assert world.keys("epochs/") == []
    assert world.open(LEAVER_UNLOCK).keys.epoch == 0


def test_a_change_of_holders_while_another_program_rotates_is_made_or_refused() -> None:
    fresh = new_recovery_key()

    def add(world: KeyedWorld, store: ObjectStore) -> None:
        world.open(UNLOCK, store=store).keys.add(IdentityHolder("fresh", fresh.public))
        assert world.open(IdentityUnlock(fresh.secret)).keys.epoch <= 1

    def change(world: KeyedWorld, store: ObjectStore) -> None:
        world.open(UNLOCK, store=store).keys.change_secret(IdentityHolder("leaver", fresh.public))

    assert rotated_at_every_operation(add, (KeyOutdated,)) > 1
    assert rotated_at_every_operation(change, (KeyOutdated,)) > 1


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_who_opens_it_while_an_epoch_begins_is_told_of_no_loss(at: int) -> None:
    world = KeyedWorld()
    world.rotate()
    store = Overtaken(world.memory, at, functools.partial(world.rotate, unlock=OTHER_UNLOCK))
    world.repository = world.open(UNLOCK, store=store)
    point = world.back_up(IMAGE, run="r-1")
    assert world.restore(point) == IMAGE


def test_a_holder_that_is_removed_while_an_epoch_begins_stays_out() -> None:
    world = KeyedWorld()
    store = Interrupting(world.memory, "keys/", lambda: world.open(OTHER_UNLOCK).keys.remove("leaver"))
    with pytest.raises(RotatedMeanwhile):
        world.rotate(store=store)
    with pytest.raises(WrongKey):
        world.open(LEAVER_UNLOCK)


def test_a_holder_that_is_added_while_an_epoch_begins_is_told_so() -> None:
    world = KeyedWorld()
    friend = new_recovery_key()
    store = Interrupting(world.memory, "keys/friend", lambda: world.rotate())
    with pytest.raises(KeyOutdated):
        world.open(UNLOCK, store=store).keys.add(IdentityHolder("friend", friend.public))
    with pytest.raises(WrongKey):
        world.open(IdentityUnlock(friend.secret))
    world.open(UNLOCK).keys.add(IdentityHolder("friend", friend.public))
    assert world.open(IdentityUnlock(friend.secret)).keys.epoch == 1
