"""What every wrapper around a store has in common: it passes on what it does not change.

Invariant: a wrapper is an ``ObjectStore`` under the same contract, so wrappers nest in any order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from datetime import datetime

from holdfast.model import Extent
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts

__all__ = ["StoreWrapper", "Verb"]


class Verb(enum.Enum):
    """What a store is asked to do."""

    PUT = "put"
    GET = "get"
    SIZE = "size"
    """Asking for an object's length, or for when it was stored."""
    LIST = "list"
    DELETE = "delete"
    PUNCH = "punch"
    LOCK = "lock"
    """Setting a lock, and asking for one."""


class StoreWrapper:
    """A store around a store; a subclass overrides the methods in which it differs."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    @property
    def inner(self) -> ObjectStore:
        """The store that is wrapped."""
        return self._inner

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        self._inner.put(key, parts, locked_until=locked_until)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        return self._inner.get(key)

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        return self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._inner.size(key)

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._inner.stored_at(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._inner.delete(key)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        return self._inner.try_punch(key, extents)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        return self._inner.try_lock(key, until)

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        return self._inner.locked_until(key)

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``."""
        return self._inner.free_bytes()

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return self._inner.describe()
