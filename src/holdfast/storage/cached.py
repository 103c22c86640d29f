"""A store with a bounded memory on the local disk, for small objects that are read again and again.

Only what never changes under its name may be kept: the caller says which keys those are. The engine authenticates what
it reads, so a copy that somebody tampered with is refused as the object itself would be; a checksum keeps a copy that a
crash or a bad disk spoiled from being taken for a damaged object. Copies are as sealed as the objects are.

Invariant: losing the folder, or any file in it, costs reading and nothing else; it never grows beyond its bound by more
than what other processes add meanwhile. What must be proven by reading the store itself goes around this wrapper.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

from blake3 import blake3

from holdfast.core import get_log
from holdfast.model import Extent
from holdfast.storage.store import ObjectStore
from holdfast.storage.wrapper import StoreWrapper

__all__ = ["CachedStore"]

_log = get_log(__name__)

_CHECK_BYTES = 16
_NAME_DIGITS = 32
_numbers = itertools.count()


class CachedStore(StoreWrapper):
    """A store that remembers objects under some prefixes. Several processes may share one folder."""

    def __init__(
        self,
        inner: ObjectStore,
        *,
        folder: Path,
        prefixes: Collection[str],
        bytes_max: int,
        object_bytes_max: int,
    ) -> None:
        """Use the folder, made when there is something to keep. Objects longer than ``object_bytes_max`` are not."""
        super().__init__(inner)
        self._folder = folder
        self._prefixes = tuple(prefixes)
        self._bytes_max = bytes_max
        self._object_bytes_max = object_bytes_max
        self._lock = threading.Lock()
        self._lengths = self._found()
        """Copies and their lengths, least recently used first."""
        self._used_bytes = sum(self._lengths.values())
        self._forgotten = 0
        """How often anything was forgotten: what was being read meanwhile may be what is gone."""

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        if not self._is_hot(key):
            return self._inner.get(key)
        name = _name(key)
        copy = self._recall(name)
        if copy is not None:
            return copy
        forgotten = self._forgotten
        content = self._inner.get(key)
        if len(content) <= self._object_bytes_max:
            self._keep(name, content, forgotten=forgotten)
        return content

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``. Served from a copy of the whole object; ranges alone are not remembered."""
        copy = self._recall(_name(key)) if self._is_hot(key) else None
        if copy is None or offset_bytes + length_bytes > len(copy):
            return self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        return copy[offset_bytes : offset_bytes + length_bytes]

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._forget(_name(key))
        self._inner.delete(key)
        # Once more: somebody may have read it in between.
        self._forget(_name(key))

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        self._forget(_name(key))
        punched = self._inner.try_punch(key, extents)
        self._forget(_name(key))
        return punched

    def _is_hot(self, key: str) -> bool:
        return key.startswith(self._prefixes)

    def _found(self) -> OrderedDict[str, int]:
        """Return what earlier processes have left, by the time of its last use."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    if len(entry.name) == _NAME_DIGITS:
                        found.append((facts.st_mtime, entry.name, facts.st_size))
                    else:
                        Path(entry.path).unlink()  # half a copy of a process that died
        return OrderedDict((name, length_bytes) for _, name, length_bytes in sorted(found))

    def _recall(self, name: str) -> bytes | None:
        """Return a copy, None when there is no good one."""
        path = self._folder / name
        try:
            stored = path.read_bytes()
        except OSError:
            with self._lock:
                self._used_bytes -= self._lengths.pop(name, 0)
            return None
        content = stored[_CHECK_BYTES:]
        if _check(name, content) != stored[:_CHECK_BYTES]:
            self._forget(name)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        with self._lock:
            if name in self._lengths:
                self._lengths.move_to_end(name)
        return content

    def _keep(self, name: str, content: bytes, *, forgotten: int) -> None:
        """Remember an object, unless one was forgotten since then; a disk that refuses costs nothing but this copy."""
        stored_bytes = _CHECK_BYTES + len(content)
        temporary = self._folder / f"{name}.{os.getpid()}.{next(_numbers)}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not made durable: a copy that a power failure spoils has a wrong checksum.
            temporary.write_bytes(_check(name, content) + content)
            with self._lock:
                if self._forgotten != forgotten:
                    temporary.unlink(missing_ok=True)
                    return
                temporary.replace(self._folder / name)
                self._used_bytes += stored_bytes - self._lengths.pop(name, 0)
                self._lengths[name] = stored_bytes
                self._make_room()
        except OSError as cause:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            _log.info("store.cache-refused", folder=str(self._folder), reason=cause.strerror or str(cause))

    def _make_room(self) -> None:
        while self._used_bytes > self._bytes_max:
            name, length_bytes = self._lengths.popitem(last=False)
            self._used_bytes -= length_bytes
            (self._folder / name).unlink(missing_ok=True)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._forgotten += 1
            self._used_bytes -= self._lengths.pop(name, 0)
            with contextlib.suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)


def _name(key: str) -> str:
    """Return a file name that tells nothing about the key."""
    name: str = blake3(key.encode(), derive_key_context="holdfast 2026-11 cache file name").hexdigest()
    return name[:_NAME_DIGITS]


def _check(name: str, content: bytes) -> bytes:
    digest: bytes = blake3(name.encode() + content).digest(length=_CHECK_BYTES)
    return digest
