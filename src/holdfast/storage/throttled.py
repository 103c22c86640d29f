"""A store that leaves some of the line to others: so many bytes a second up, and so many down.

Objects go out whole, so the limit holds on the average: a pack of 64 MiB travels at the line's speed, and then nothing
does until its time is paid for. Invariant: what was let through in any span of time is at most the rate for that span
and one second more, and one object.
"""

from __future__ import annotations

import threading
from datetime import datetime

from holdfast.core import Cancellation, Clock
from holdfast.storage.store import ObjectStore, Parts, length_of
from holdfast.storage.wrapper import StoreWrapper

__all__ = ["Throttle", "ThrottledStore"]

_BURST_S = 1.0
"""What an idle time is worth afterwards; more would be a burst that the limit is there to prevent."""


class Throttle:
    """A budget of bytes per second that everybody who holds it shares, in any number of threads and stores."""

    def __init__(self, *, bytes_per_s_max: int, clock: Clock) -> None:
        assert bytes_per_s_max > 0
        self._bytes_per_s_max = bytes_per_s_max
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until_s = clock.monotonic_s() - _BURST_S
        """The moment up to which everything that was let through has been paid for."""

    def take(self, length_bytes: int, *, cancel: Cancellation) -> None:
        """Wait until everything before is paid for, and owe these bytes. ``Cancelled`` at once when that is asked."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            begin_s = max(self._paid_until_s, now_s - _BURST_S)
            self._paid_until_s = begin_s + length_bytes / self._bytes_per_s_max
        if begin_s > now_s:
            self._clock.sleep(begin_s - now_s, cancel=cancel)

    def owe(self, length_bytes: int) -> None:
        """Owe bytes that have travelled already; whoever comes next waits for them."""
        with self._lock:
            begin_s = max(self._paid_until_s, self._clock.monotonic_s() - _BURST_S)
            self._paid_until_s = begin_s + length_bytes / self._bytes_per_s_max


class ThrottledStore(StoreWrapper):
    """A store whose puts and gets keep to a budget; None: no limit in that direction."""

    def __init__(self, inner: ObjectStore, *, up: Throttle | None, down: Throttle | None, cancel: Cancellation) -> None:
        super().__init__(inner)
        self._up = up
        self._down = down
        self._cancel = cancel

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``. A put that fails has travelled all the same."""
        if self._up is not None:
            self._up.take(length_of(parts), cancel=self._cancel)
        self._inner.put(key, parts, locked_until=locked_until)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``. How long the object is shows when it is here; whoever comes next pays for it."""
        if self._down is None:
            return self._inner.get(key)
        self._down.take(0, cancel=self._cancel)
        content = self._inner.get(key)
        self._down.owe(len(content))
        return content

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        if self._down is not None:
            self._down.take(length_bytes, cancel=self._cancel)
        return self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
