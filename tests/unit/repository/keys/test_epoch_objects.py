"""The object by which an epoch begins counts only if the key of that very epoch sealed it."""

from __future__ import annotations

import msgspec

from holdfast.repository.layout import ObjectKind
from tests.support.keyed_world import UNLOCK, KeyedWorld


def test_an_old_key_begins_no_epoch_for_an_attempt_that_was_left_lying() -> None:
    world = KeyedWorld()
    old, files = world.old_vault(), world.memory.snapshot()
    world.rotate(leave_out=["leaver"])
    attempt = world.open(UNLOCK)._vault.keys.held.attempt
    # As after a crash right before the epoch began; then somebody who has the first key begins it.
    world.store.delete("epochs/00001")
    world.memory.restore({**world.memory.snapshot(), **files})
    record = msgspec.msgpack.encode({"attempt": attempt, "began_at": "2026-01-01T00:00:00Z"})
    old.write("epochs/00001", record, kind=ObjectKind.EPOCH)
    assert world.open(UNLOCK).keys.epoch == 0
