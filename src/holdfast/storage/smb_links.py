"""The logins that a store holds at a server: made when they are needed, one thread at a time on each, a bounded number.

Invariant: a link that broke is never given out again, and all are logged out when the store ends or the process does.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator

from holdfast.core import limits
from holdfast.storage.smb_link import SmbLink

__all__ = ["SmbLinks"]


class SmbLinks:
    """A few links to one share."""

    def __init__(self, dial: Callable[[], SmbLink]) -> None:
        self._dial = dial
        self._slots = threading.BoundedSemaphore(limits.SMB_CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._idle: list[SmbLink] = []
        # Also at the end of the process: a server keeps the session of a client that just vanishes for minutes.
        self._end = weakref.finalize(self, _close_all, self._idle)

    @contextlib.contextmanager
    def link(self) -> Iterator[SmbLink]:
        """Give a link to one thread until the block ends; waits while all are in use. Errors as ``SmbLink``."""
        with self._slots:
            link = self._take_idle() or self._dial()
            try:
                yield link
            finally:
                self._give_back(link)

    def close(self) -> None:
        """Log out everywhere. Links that are in use end when they come back."""
        self._end()

    def _take_idle(self) -> SmbLink | None:
        """Return a link that still works, if there is one; the newest, so that the others may be forgotten."""
        with self._lock:
            while self._idle:
                link = self._idle.pop()
                if link.is_usable:
                    return link
                link.close()
        return None

    def _give_back(self, link: SmbLink) -> None:
        if link.is_usable and self._end.alive:
            with self._lock:
                self._idle.append(link)
        else:
            link.close()


def _close_all(links: list[SmbLink]) -> None:
    while links:
        links.pop().close()
