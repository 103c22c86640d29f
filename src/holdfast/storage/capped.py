"""A store with an end: puts beyond a number of bytes fail as on a full disk.

Invariant: what is stored never exceeds the capacity, and a refused put leaves nothing behind.
"""

from __future__ import annotations

import threading
from datetime import datetime

from holdfast.storage.errors import ObjectMissing, StoreFull
from holdfast.storage.store import ObjectStore, Parts, length_of
from holdfast.storage.wrapper import StoreWrapper

__all__ = ["CappedStore"]


class CappedStore(StoreWrapper):
    """A store of ``capacity_bytes``. Everybody who writes goes through the same instance."""

    def __init__(self, inner: ObjectStore, *, capacity_bytes: int) -> None:
        super().__init__(inner)
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._used_bytes = sum(info.length_bytes for info in inner.list(""))

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        length_bytes = length_of(parts)
        with self._lock:
            free_bytes = self._capacity_bytes - self._used_bytes
            if length_bytes > free_bytes:
                raise StoreFull(store=self.describe(), key=key, free_bytes=max(0, free_bytes))
            self._inner.put(key, parts, locked_until=locked_until)
            self._used_bytes += length_bytes

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``; the space can be used again."""
        with self._lock:
            try:
                length_bytes = self._inner.size(key)
            except ObjectMissing:
                length_bytes = 0
            self._inner.delete(key)
            self._used_bytes -= length_bytes

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``."""
        with self._lock:
            return max(0, self._capacity_bytes - self._used_bytes)
