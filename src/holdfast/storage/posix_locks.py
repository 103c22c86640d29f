"""Locks of a folder store: asked of the keeper on its file server, and read from what it says and what the flags show.

The store itself cannot lock anything: whoever may write here could unlock it again. Invariant: an object is called
locked only when the keeper has written so, and, where flags can be seen, only when the flag is there.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.keeper import (
    HELD_FOLDER,
    IMMUTABLE,
    KEEPER_FOLDER,
    REQUESTS_FOLDER,
    WORD_FILE,
    FileFlags,
    HeldFile,
    KeeperWord,
    LinuxFlags,
    held_name,
    is_kept,
    parse_held,
    parse_word,
    request_line,
)
from holdfast.storage.errors import ObjectLocked
from holdfast.storage.posix_calls import PosixCalls

__all__ = ["PosixLocks"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FILE_AGE_S_MAX = 600.0
"""The keeper removes request files that nobody has written to for an hour; ours is left long before."""
_FILE_LINES_MAX = 50_000
"""Some 5 MB: the keeper reads 16 MB of requests in one look, from all writers together."""

_GROUPS_KEPT_MAX = 8
"""Lists of held objects that are kept parsed: some thousand lines each in the largest repositories."""


class PosixLocks:
    """The keeper of a folder as the store sees it. Thread-safe. Errors of the file system come as ``OSError``."""

    def __init__(self, root: Path, *, calls: PosixCalls, flags: FileFlags | None = None) -> None:
        self._root = root
        self._own = root / KEEPER_FOLDER
        self._calls = calls
        self._flags = flags or LinuxFlags()
        self._lock = threading.Lock()
        self._file: Path | None = None
        self._file_began_s = 0.0
        self._file_lines = 0
        self._groups: OrderedDict[str, tuple[tuple[int, int, int], dict[str, HeldFile]]] = OrderedDict()

    def try_ask(self, key: str, until: datetime) -> datetime | None:
        """Ask the keeper to hold an object, and return until when it will, at its next look; None without a keeper.

        When it returns, the request outlives a power failure.
        """
        word = self._word()
        if word is None or not is_kept(key):
            return None
        longest = _EPOCH + timedelta(seconds=word.time_s, days=word.days_max)
        wanted = min(until, longest)
        # Rounded up: a lock may be longer than asked for, never shorter.
        until_s = -((_EPOCH - wanted) // timedelta(seconds=1))
        self._append(request_line(key, until_s))
        return wanted

    def until(self, key: str) -> datetime | None:
        """Return until when an object is held; None when it is not."""
        held = self._held(key)
        if held is None or not held.is_held or self._shows_flag(key) is False:
            return None
        return _EPOCH + timedelta(seconds=held.until_s)

    def refusal(self, key: str, store: str) -> ObjectLocked | None:
        """Return why an object cannot be deleted or changed; None when that is not because of a lock."""
        shown = self._shows_flag(key)
        held = self._held(key)
        if shown is False or (shown is None and (held is None or not held.is_held)):
            return None
        until = _EPOCH + timedelta(seconds=held.until_s) if held is not None and held.is_held else None
        return ObjectLocked(store=store, key=key, until=until)

    def _word(self) -> KeeperWord | None:
        try:
            return parse_word((self._own / WORD_FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def _append(self, line: bytes) -> None:
        with self._lock:
            is_old = time.monotonic() - self._file_began_s > _FILE_AGE_S_MAX or self._file_lines >= _FILE_LINES_MAX
            if self._file is None or is_old:
                descriptor, self._file = self._calls.create_temporary(self._own / REQUESTS_FOLDER)
                self._file_began_s, self._file_lines = time.monotonic(), 0
            else:
                descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                self._calls.write(descriptor, [memoryview(line)])
            except BaseException:
                os.close(descriptor)
                self._file = None
                raise
            self._file_lines += 1
        # Outside the lock: what several threads have written becomes durable together.
        try:
            self._calls.make_durable(descriptor)
        finally:
            os.close(descriptor)

    def _held(self, key: str) -> HeldFile | None:
        """Return what the keeper says of an object."""
        if not is_kept(key):
            return None
        name = held_name(key)
        path = self._own / HELD_FOLDER / name
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            with self._lock:
                known = self._groups.get(name)
            if known is None or known[0] != stamp:
                known = (stamp, parse_held(path.read_bytes()))
                with self._lock:
                    self._groups[name] = known
                    self._groups.move_to_end(name)
                    while len(self._groups) > _GROUPS_KEPT_MAX:
                        self._groups.popitem(last=False)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return known[1].get(key)

    def _shows_flag(self, key: str) -> bool | None:
        """Return whether an object has the flag; None where flags cannot be seen, through NFS or SMB for instance."""
        try:
            descriptor = os.open(self._root / key, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as cause:
            if cause.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                return None
            raise
        try:
            flags = self._flags.read(descriptor)
        finally:
            os.close(descriptor)
        return None if flags is None else bool(flags & IMMUTABLE)
