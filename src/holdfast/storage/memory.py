"""A store in memory: for tests and simulations, under the same contract as every other.

Invariant: its whole state can be taken and put back at any moment, so a simulation can go back to before a crash.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from holdfast.core import Clock
from holdfast.model import Extent
from holdfast.storage.errors import KeyRefused, ObjectExists, ObjectLocked, ObjectMissing, RangeNotSatisfiable
from holdfast.storage.keys import check_key, check_prefix
from holdfast.storage.store import ObjectInfo, Parts, as_views

__all__ = ["MemoryStore"]


class MemoryStore:
    """Objects in a dictionary; gone with the process. With a ``clock`` it can lock them, and tell when they came."""

    def __init__(self, *, name: str = "memory", clock: Clock | None = None) -> None:
        self._name = name
        self._clock = clock
        self._locks: dict[str, datetime] = {}
        self._stored_at: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}
        self._keys: list[str] = []

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        check_key(key)
        content = b"".join(as_views(parts))
        with self._lock:
            if key in self._objects:
                raise ObjectExists(store=self.describe(), key=key)
            self._check_no_folder(key)
            self._objects[key] = content
            bisect.insort(self._keys, key)
            if self._clock is not None:
                self._stored_at[key] = self._clock.now()
                if locked_until is not None:
                    self._locks[key] = locked_until

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        with self._lock:
            content = self._objects.get(key)
        if content is None:
            raise ObjectMissing(store=self.describe(), key=key)
        return content

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        assert offset_bytes >= 0
        assert length_bytes >= 0
        content = self.get(key)
        self._check_range(key, len(content), offset_bytes=offset_bytes, length_bytes=length_bytes)
        return content[offset_bytes : offset_bytes + length_bytes]

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return len(self.get(key))

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        self.get(key)
        with self._lock:
            return self._stored_at.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        with self._lock:
            first = bisect.bisect_left(self._keys, prefix)
            # "\x7f" sorts after every character a key can hold.
            last = bisect.bisect_left(self._keys, prefix + "\x7f")
            found = [ObjectInfo(key, len(self._objects[key])) for key in self._keys[first:last]]
        return iter(found)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        check_key(key)
        with self._lock:
            self._check_unlocked(key)
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]
                self._locks.pop(key, None)
                self._stored_at.pop(key, None)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise ObjectMissing(store=self.describe(), key=key)
            self._check_unlocked(key)
            content = bytearray(self._objects[key])
            for extent in extents:
                self._check_range(key, len(content), offset_bytes=extent.offset_bytes, length_bytes=extent.length_bytes)
                content[extent.offset_bytes : extent.end_bytes] = bytes(extent.length_bytes)
            self._objects[key] = bytes(content)
        return sum(extent.length_bytes for extent in extents)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        self.get(key)
        if self._clock is None:
            return None
        with self._lock:
            self._locks[key] = max(until, self._locks.get(key, until))
            return self._locks[key]

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        self.get(key)
        with self._lock:
            return self._lock_of(key)

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``: memory does not say."""
        return None

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return self._name

    def snapshot(self) -> Mapping[str, bytes]:
        """Return the whole state as of now; later changes do not show in it."""
        with self._lock:
            return MappingProxyType(dict(self._objects))

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Become what ``snapshot`` returned, or any other collection of objects: how tests plant damage."""
        for key in state:
            check_key(key)
        with self._lock:
            self._objects = dict(state)
            self._keys = sorted(self._objects)

    def _lock_of(self, key: str) -> datetime | None:
        until = self._locks.get(key)
        return until if until is not None and self._clock is not None and until > self._clock.now() else None

    def _check_unlocked(self, key: str) -> None:
        until = self._lock_of(key)
        if until is not None:
            raise ObjectLocked(store=self.describe(), key=key, until=until)

    def _check_no_folder(self, key: str) -> None:
        """Refuse a key that is a folder of another one, or lies below one: a file system could not hold both."""
        folders = key.split("/")[:-1]
        above = next((folder for folder in _joined(folders) if folder in self._objects), None)
        place = bisect.bisect_left(self._keys, key + "/")
        is_folder = place < len(self._keys) and self._keys[place].startswith(key + "/")
        if above is not None or is_folder:
            raise KeyRefused(key=key, reason="one object would be the folder of another")

    def _check_range(self, key: str, size_bytes: int, *, offset_bytes: int, length_bytes: int) -> None:
        if offset_bytes + length_bytes > size_bytes:
            raise RangeNotSatisfiable(
                store=self.describe(),
                key=key,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
                size_bytes=size_bytes,
            )


def _joined(segments: Sequence[str]) -> Iterator[str]:
    """Yield every leading path of the segments: ``a``, ``a/b``, …"""
    for count in range(1, len(segments) + 1):
        yield "/".join(segments[:count])
