"""Requests of the store to hold objects for longer, read from files that somebody hostile may have written.

Invariant: a request file is removed only when it is old and every line of it was handed out in an earlier look, so a
crash loses none.
"""

from __future__ import annotations

import contextlib
import os
import stat

from holdfast.core import MIB
from holdfast.keeper.exchange import parse_requests

__all__ = ["RequestReader"]

_FILE_BYTES_MAX = 16 * MIB
"""Three times what a store writes into one file before it begins the next."""
_BYTES_AT_ONCE_MAX = 16 * MIB
"""Some 200,000 requests in one look; the next look goes on."""
_FILES_AT_ONCE_MAX = 10_000
"""Bounds what somebody costs who fills the folder with files; honest writers have a few at a time."""
_AGE_S_MIN = 3600
"""A store begins a new file every ten minutes; one that was not written to for an hour has no writer any more."""


class RequestReader:
    """Reads the requests of one folder, each line once. Not thread-safe."""

    def __init__(self, *, owner: int) -> None:
        self._owner = owner
        self._offsets: dict[str, int] = {}
        self._unfinished: dict[str, int] = {}

    def read(self, folder: int) -> dict[str, int]:
        """Return the latest time that was asked for each object since the last ``finish``."""
        wanted: dict[str, int] = {}
        budget_bytes = _BYTES_AT_ONCE_MAX
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)[:_FILES_AT_ONCE_MAX]
        self._offsets = {name: self._offsets[name] for name in names if name in self._offsets}
        self._unfinished = {}
        for name in names:
            text = self._read_on(folder, name, budget_bytes)
            budget_bytes -= len(text)
            for key, until_s in parse_requests(text):
                wanted[key] = max(until_s, wanted.get(key, 0))
        return wanted

    def finish(self, folder: int, *, now_s: float) -> None:
        """Note that everything the last ``read`` returned is written down; remove files that are done with."""
        for name, offset in self._offsets.items():
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
                is_old = now_s - facts.st_mtime > _AGE_S_MIN
                if is_old and offset >= min(facts.st_size, _FILE_BYTES_MAX):
                    os.unlink(name, dir_fd=folder)
        self._offsets.update(self._unfinished)

    def _read_on(self, folder: int, name: str, budget_bytes: int) -> bytes:
        """Return the whole lines of a file that were not read before."""
        offset = self._offsets.get(name, 0)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError:
            return b""  # a link, a pipe, or gone: nothing that a store writes
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != self._owner:
                return b""
            length_bytes = min(facts.st_size, _FILE_BYTES_MAX) - offset
            text = os.pread(descriptor, max(0, min(length_bytes, budget_bytes)), offset)
        finally:
            os.close(descriptor)
        whole = text[: text.rfind(b"\n") + 1]
        self._unfinished[name] = offset + len(whole)
        return whole
