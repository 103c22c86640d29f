"""The store and the keys of one repository together: sealed objects by name, and the shelf of packs.

Invariant: what ``read`` returns was sealed by a holder of the repository key for exactly this object name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from holdfast.core import Clock, Entropy
from holdfast.repository.layout import ObjectKind
from holdfast.repository.lock_terms import LockTerms
from holdfast.repository.packs.pack import PackShelf
from holdfast.repository.sealing import KeyRing
from holdfast.storage import ObjectInfo, ObjectStore

__all__ = ["Vault", "stamp", "stamped_at", "stamped_name"]

_HELD_LIKE_PACKS = frozenset({ObjectKind.MOVED, ObjectKind.EPOCH, ObjectKind.IMMUTABILITY})


class Vault:
    """What every part of the engine works on. Thread-safe."""

    def __init__(
        self, store: ObjectStore, keys: KeyRing, *, clock: Clock, entropy: Entropy, shelf: PackShelf | None = None
    ) -> None:
        self.store = store
        self.keys = keys
        self.clock = clock
        self.entropy = entropy
        self.shelf = PackShelf(store, keys) if shelf is None else shelf
        self.lock_terms: LockTerms | None = None
        """How long what is new is held against deletion; looked up before anything is written."""

    def write(self, key: str, payload: bytes, *, kind: ObjectKind, locked_until: datetime | None = None) -> int:
        """Seal and store an object; return its length. ``ObjectExists`` when the name is taken.

        What points are found by is held like a pack, points as told, everything else not at all.
        """
        sealed = self.keys.seal_object(payload, kind=kind, key=key, entropy=self.entropy)
        if kind in _HELD_LIKE_PACKS:
            locked_until = self.locked_until_if_new()
        self.store.put(key, sealed, locked_until=locked_until)
        return len(sealed)

    def locked_until_if_new(self) -> datetime | None:
        """Return until when a pack is held that is stored now; None where the repository is not immutable."""
        return None if self.lock_terms is None else self.lock_terms.horizon(self.clock.now())

    def read(self, key: str, *, kind: ObjectKind) -> bytes:
        """Return an object's payload. ``ObjectMissing`` from the store; ``SealBroken`` when it does not open."""
        return self.keys.open_object(self.store.get(key), kind=kind, key=key)

    def names(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names begin with ``prefix``, sorted."""
        return self.store.list(prefix)

    def fresh_name(self, prefix: str) -> str:
        """Return a free object name below ``prefix`` that sorts by time."""
        return prefix + stamped_name(self.clock.now(), self.entropy.token_bytes(4).hex())


def stamp(moment: datetime) -> str:
    """Return a time as names carry it: ``20261120T090820Z``."""
    return f"{moment:%Y%m%dT%H%M%SZ}"


def stamped_at(key: str) -> datetime | None:
    """Return the time that the last part of an object's name begins with; None when it does not begin with one."""
    try:
        return datetime.strptime(key.rpartition("/")[2].partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def stamped_name(moment: datetime, suffix: str) -> str:
    """Return ``<time>-<suffix>``."""
    return f"{stamp(moment)}-{suffix}"
