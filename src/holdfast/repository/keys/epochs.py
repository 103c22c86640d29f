"""Key epochs: which data key is in force, and what a holder's file gives. ``docs/formats/epochs.md`` is the law.

Invariant: a key is taken for that of an epoch in force only if the epoch's own object opens with it.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from holdfast.core import format_time, from_msgpack
from holdfast.model import RepositoryId
from holdfast.repository import layout
from holdfast.repository.keys.keys import (
    HolderFile,
    Unlock,
    WrongKey,
    files_for,
    list_holder_files,
    open_holder_file,
    tried,
)
from holdfast.repository.layout import EPOCHS_PREFIX, ObjectKind
from holdfast.repository.sealing import HeldKeys, KeyOutdated, KeyRing, SealBroken, sealed_epoch
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, ObjectStore

__all__ = ["begin_epoch", "check_epoch", "epoch_in_force", "epoch_key", "hold_keys", "try_hold_keys"]


class _EpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    attempt: str
    began_at: str


def epoch_key(epoch: int) -> str:
    """Return the name of the object by which an epoch begins."""
    return f"{EPOCHS_PREFIX}{epoch:05}"


def epoch_in_force(store: ObjectStore) -> int:
    """Return the highest epoch that has begun, 0 in a repository whose data key was never rotated."""
    return max(_epochs(store), default=0)


def check_epoch(vault: Vault) -> None:
    """Return when the newest key in use is the one in force, looked up now. ``KeyOutdated``, ``EpochLost``."""
    in_force = epoch_in_force(vault.store)
    if in_force != vault.keys.held.in_force:
        vault.keys.refresh()
    vault.keys.check_may_seal()
    if in_force != vault.keys.epoch:
        raise KeyOutdated(held=vault.keys.epoch, in_force=in_force)


def begin_epoch(vault: Vault, *, epoch: int, attempt: str) -> None:
    """Store the object by which ``epoch`` begins, sealed with its key. ``ObjectExists`` when another one began it."""
    record = _EpochRecord(attempt=attempt, began_at=format_time(vault.clock.now()))
    vault.write(epoch_key(epoch), msgspec.msgpack.encode(record), kind=ObjectKind.EPOCH)


def hold_keys(store: ObjectStore, unlock: Unlock, *, repository: RepositoryId) -> HeldKeys:
    """Return the keys that a secret gives; ``WrongKey`` when no holder's file opens with it."""
    held = try_hold_keys(store, unlock, repository=repository)
    if held is None:
        raise WrongKey(store=store.describe(), tried=tried(unlock))
    return held


def try_hold_keys(store: ObjectStore, unlock: Unlock, *, repository: RepositoryId) -> HeldKeys | None:
    """Return the keys that a secret gives, the best of all files that it opens; None when it opens none.

    Files come and go while an epoch begins. So what looks like a loss is believed only if none began meanwhile.
    """
    epochs = _epochs(store)
    while True:
        best = _best_of_files(store, unlock, epochs=epochs, repository=repository)
        if best is not None and _is_in_force(best):
            return best
        before, epochs = epochs, _epochs(store)
        if epochs == before:
            return best


def _best_of_files(
    store: ObjectStore, unlock: Unlock, *, epochs: Collection[int], repository: RepositoryId
) -> HeldKeys | None:
    files = list_holder_files(store)
    best: HeldKeys | None = None
    for file in files_for(files, unlock):
        try:
            keys = open_holder_file(store.get(file.key), unlock, repository=repository)
        except ObjectMissing:
            continue
        if keys is None:
            continue
        held = _judge(store, keys, file=file, files=files, epochs=epochs, repository=repository)
        if _is_in_force(held):
            return held
        if best is None or held.epoch > best.epoch:
            best = held
    return best


def _is_in_force(held: HeldKeys) -> bool:
    return held.epoch == held.in_force and not held.is_lost


def _judge(
    store: ObjectStore,
    keys: tuple[bytes, ...],
    *,
    file: HolderFile,
    files: Collection[HolderFile],
    epochs: Collection[int],
    repository: RepositoryId,
) -> HeldKeys:
    """Return how the keys in a holder's file stand to the epochs that have begun."""
    last = len(keys) - 1
    in_force = max(epochs, default=0)
    for epoch in range(last, 0, -1):
        attempt = _attempt(store, keys, epoch=epoch, repository=repository) if epoch in epochs else None
        if attempt is not None:
            return HeldKeys(keys=keys, epoch=epoch, attempt=attempt, in_force=in_force)
        if epoch == last == file.epoch and epoch not in epochs and all(each.epoch != last - 1 for each in files):
            # An attempt that did not win leaves the files of the epoch before alone; so this epoch did begin.
            lost_in_force = max(in_force, last)
            return HeldKeys(keys=keys, epoch=last, attempt=file.attempt, in_force=lost_in_force, is_lost=True)
    return HeldKeys(keys=keys, in_force=in_force)


def _attempt(store: ObjectStore, keys: tuple[bytes, ...], *, epoch: int, repository: RepositoryId) -> str | None:
    """Return the attempt by which an epoch began; None when its object does not open with this key."""
    ring = KeyRing(HeldKeys(keys=keys), repository=repository)
    name = epoch_key(epoch)
    try:
        sealed = store.get(name)
        payload = ring.open_object(sealed, kind=ObjectKind.EPOCH, key=name)
        # One that is sealed with an older key could be made by somebody who was left out.
        return from_msgpack(payload, _EpochRecord).attempt if sealed_epoch(sealed) == epoch else None
    except (ObjectMissing, SealBroken, msgspec.DecodeError, ValueError):
        return None


def _epochs(store: ObjectStore) -> set[int]:
    names = [info.key.removeprefix(EPOCHS_PREFIX) for info in store.list(EPOCHS_PREFIX)]
    numbers = {int(name) for name in names if len(name) == 5 and name.isascii() and name.isdigit()}
    return {number for number in numbers if 0 < number <= layout.EPOCH_MAX}
