"""Data files under a bound: a lab has thousands of layers and a process has a thousand descriptors.

Invariant: a descriptor that someone borrowed is never closed under them, not even when its file was removed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.lab.disks.errors import DiskStoreFull

__all__ = ["OPEN_FILES_MAX", "OpenFiles", "read_exactly", "refused_when_full", "write_all"]

OPEN_FILES_MAX = 256
"""A process may usually hold 1024 descriptors; the lab's sockets need the rest."""


@dataclass(slots=True)
class _Open:
    descriptor: int
    users: int = 0
    is_forgotten: bool = False


class OpenFiles:
    """Hands out descriptors of files and keeps the recently used ones open. Thread-safe."""

    def __init__(self, *, files_max: int = OPEN_FILES_MAX) -> None:
        self._files_max = files_max
        self._lock = threading.Lock()
        self._open: dict[Path, _Open] = {}

    @contextlib.contextmanager
    def borrow(self, path: Path, *, create: bool = False) -> Iterator[int]:
        """Lend a descriptor for reading and writing. FileNotFoundError when the file is gone and not to be created."""
        with self._lock:
            entry = self._open.pop(path, None)
            if entry is None:
                entry = _Open(os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600))
            self._open[path] = entry  # moves it to the young end
            entry.users += 1
            self._close_oldest()
        try:
            yield entry.descriptor
        finally:
            with self._lock:
                entry.users -= 1
                if entry.is_forgotten and not entry.users:
                    os.close(entry.descriptor)

    def remove(self, path: Path) -> None:
        """Delete the file; whoever borrowed it keeps reading it. Removing twice is harmless."""
        with self._lock:
            self._forget(path)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close everything that is not lent out; the rest closes as it comes back."""
        with self._lock:
            for path in list(self._open):
                self._forget(path)

    def _close_oldest(self) -> None:
        if len(self._open) > self._files_max:
            idle = [path for path, entry in self._open.items() if not entry.users]
            for path in idle[: len(self._open) - self._files_max]:
                self._forget(path)

    def _forget(self, path: Path) -> None:
        entry = self._open.pop(path, None)
        if entry is not None:
            entry.is_forgotten = True
            if not entry.users:
                os.close(entry.descriptor)


@contextlib.contextmanager
def refused_when_full(folder: Path) -> Iterator[None]:
    """Raise ``DiskStoreFull`` when the machine has no room for what the block writes below ``folder``."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskStoreFull(folder=folder) from cause
        raise


def read_exactly(descriptor: int, view: memoryview, offset_bytes: int) -> None:
    """Fill ``view`` from the file; what lies beyond its end reads as zeros."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset_bytes + done)
        if count == 0:
            view[done:] = bytes(len(view) - done)
            return
        done += count


def write_all(descriptor: int, data: memoryview | bytes, offset_bytes: int) -> None:
    """Write all of ``data``; the system may take it in pieces."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset_bytes + done)
