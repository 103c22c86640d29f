"""The log of a lab that runs for weeks: a file that is kept short, and never decides what the lab answers.

Invariant: file and predecessor together take no more than twice ``JOURNAL_BYTES_MAX``; a line that cannot be written,
on a full disk for one, is lost and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from pathlib import Path
from typing import TextIO

__all__ = ["JOURNAL_BYTES_MAX", "Journal", "is_journal"]

JOURNAL_BYTES_MAX = 4 << 20
"""About 40,000 lines; the last one is kept beside it as ``.1``."""

_STDERR = 2


def is_journal(stream: TextIO, path: Path) -> bool:
    """Whether the stream writes to that file."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except (OSError, ValueError):
        return False


class Journal(io.TextIOBase):
    """Standard error, going to a file that starts anew when it is full. Safe to use from any thread."""

    def __init__(self, path: Path, *, length_bytes_max: int = JOURNAL_BYTES_MAX, descriptor: int = _STDERR) -> None:
        super().__init__()
        self._path = path
        self._length_bytes_max = length_bytes_max
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor, which stays the same when the file is another one."""
        return self._descriptor

    def writable(self) -> bool:
        """Whether it can be written to, which it always can."""
        return True

    def write(self, text: str) -> int:
        """Append text, all of it or nothing; return its length."""
        with self._lock, contextlib.suppress(OSError):
            data = text.encode("utf-8", "backslashreplace")
            if os.fstat(self._descriptor).st_size + len(data) > self._length_bytes_max:
                self._start_anew()
            os.write(self._descriptor, data)
        return len(text)

    def _start_anew(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fresh, self._descriptor)
        os.close(fresh)
