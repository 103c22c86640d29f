"""Counting what a store is asked: requests, bytes and failures by verb, for benchmarks, tests and cost estimates.

Invariant: every request is counted once, when it ends; bytes are those that really moved.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.model import Extent
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts, length_of
from holdfast.storage.wrapper import StoreWrapper, Verb

__all__ = ["Meter", "MeteredStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What one verb cost so far."""

    requests: int = 0
    failures: int = 0
    length_bytes: int = 0
    """Bytes of objects that were written, read or punched; zero for the other verbs."""


class MeteredStore(StoreWrapper):
    """A store that can tell what was asked of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._meters = {verb: Meter() for verb in Verb}

    def meters(self) -> Mapping[Verb, Meter]:
        """Return the counts of every verb as of now."""
        with self._lock:
            return dict(self._meters)

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        with self._counted(Verb.PUT):
            self._inner.put(key, parts, locked_until=locked_until)
        self._add_bytes(Verb.PUT, length_of(parts))

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        with self._counted(Verb.GET):
            content = self._inner.get(key)
        self._add_bytes(Verb.GET, len(content))
        return content

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        with self._counted(Verb.GET):
            content = self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        self._add_bytes(Verb.GET, len(content))
        return content

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        with self._counted(Verb.SIZE):
            return self._inner.size(key)

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        with self._counted(Verb.SIZE):
            return self._inner.stored_at(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        with self._counted(Verb.LIST):
            yield from self._inner.list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        with self._counted(Verb.DELETE):
            self._inner.delete(key)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        with self._counted(Verb.PUNCH):
            freed_bytes = self._inner.try_punch(key, extents)
        self._add_bytes(Verb.PUNCH, freed_bytes or 0)
        return freed_bytes

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        with self._counted(Verb.LOCK):
            return self._inner.try_lock(key, until)

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        with self._counted(Verb.LOCK):
            return self._inner.locked_until(key)

    @contextlib.contextmanager
    def _counted(self, verb: Verb) -> Iterator[None]:
        failures = 1
        try:
            yield
            failures = 0
        except GeneratorExit:
            # Whoever stops reading a listing has what they wanted.
            failures = 0
            raise
        finally:
            with self._lock:
                meter = self._meters[verb]
                self._meters[verb] = replace(meter, requests=meter.requests + 1, failures=meter.failures + failures)

    def _add_bytes(self, verb: Verb, length_bytes: int) -> None:
        with self._lock:
            meter = self._meters[verb]
            self._meters[verb] = replace(meter, length_bytes=meter.length_bytes + length_bytes)
