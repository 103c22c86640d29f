"""A store whose listings are late, as those of object stores used to be and those of caches still are.

For simulations. Invariant: gets, sizes and puts see the truth at once; only listings show the past, by a fixed number
of changes, and they catch up with ``settle``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from datetime import datetime

from holdfast.storage.errors import ObjectMissing
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper

__all__ = ["LaggingStore"]


class LaggingStore(StoreWrapper):
    """A store that lists what was true ``lag_changes`` puts and deletes ago. Everybody goes through one instance."""

    def __init__(self, inner: ObjectStore, *, lag_changes: int) -> None:
        assert lag_changes >= 0
        super().__init__(inner)
        self._lock = threading.Lock()
        self._recent: deque[tuple[str, ObjectInfo | None]] = deque(maxlen=lag_changes)
        """The newest changes, oldest first: the key, and what was under it before."""

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        with self._lock:
            self._inner.put(key, parts, locked_until=locked_until)
            self._recent.append((key, None))

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        with self._lock:
            try:
                before = ObjectInfo(key, self._inner.size(key))
            except ObjectMissing:
                before = None
            self._inner.delete(key)
            if before is not None:
                self._recent.append((key, before))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what ``ObjectStore.list`` would have yielded some changes ago."""
        with self._lock:
            found = {info.key: info for info in self._inner.list(prefix)}
            for key, before in reversed(self._recent):
                if not key.startswith(prefix):
                    continue
                if before is None:
                    found.pop(key, None)
                else:
                    found[key] = before
        return iter(sorted(found.values()))

    def settle(self) -> None:
        """Let listings catch up with everything that has happened."""
        with self._lock:
            self._recent.clear()
