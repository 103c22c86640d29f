"""Key holders who are added while the data key is rotated: they open the new epoch, or it is told that they do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from holdfast.repository import IdentityHolder, IdentityUnlock, RotatedMeanwhile, new_recovery_key
from holdfast.storage import ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper
from tests.support.keyed_world import OTHER_UNLOCK, UNLOCK, KeyedWorld

LATE = new_recovery_key()


class Meanwhile(StoreWrapper):
    """A store in which something else happens right before the first put below one prefix."""

    def __init__(self, inner: ObjectStore, prefix: str, event: Callable[[], None]) -> None:
        super().__init__(inner)
        self._prefix, self._events = prefix, [event]

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        if self._events and key.startswith(self._prefix):
            self._events.pop()()
        super().put(key, parts, locked_until=locked_until)


def add_late(world: KeyedWorld) -> None:
    world.open(OTHER_UNLOCK).keys.add(IdentityHolder("late", LATE.public))


@pytest.mark.parametrize("at", ["features/", "keys/", "holders/"])
def test_a_holder_who_is_added_before_the_epoch_begins_makes_it_begin_anew(at: str) -> None:
    world = KeyedWorld()
    with pytest.raises(RotatedMeanwhile, match="'late' was added"):
        world.rotate(store=Meanwhile(world.memory, at, lambda: add_late(world)))
    assert world.keys("epochs/") == []
    assert "late" in world.rotate().goes_on
    assert world.open(IdentityUnlock(LATE.secret)).keys.epoch == 1


def test_a_holder_who_is_added_at_the_very_last_moment_is_told_as_left_out() -> None:
    world = KeyedWorld()
    rotation = world.rotate(store=Meanwhile(world.memory, "epochs/", lambda: add_late(world)))
    assert rotation.left_out == ("late",)
    keys = world.open(UNLOCK).keys
    keys.add(IdentityHolder("late", LATE.public))
    assert world.open(IdentityUnlock(LATE.secret)).keys.epoch == 1
