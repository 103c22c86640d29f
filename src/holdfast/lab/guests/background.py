"""A guest that keeps writing while its VM runs until it is told to stop, for snapshots and backups under load.

Invariant: when ``stop`` returns the last write is done and counted; an error in the guest is raised there, not lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from holdfast.core import KIB, Cancellation, Cancelled, Clock, SystemClock
from holdfast.lab.guests.actions import Guest

__all__ = ["BackgroundWriter", "Written"]

_LOG_EVERY = 8
_LOG_BYTES = 4 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a background writer has done so far."""

    writes: int
    written_bytes: int


class BackgroundWriter:
    """Writes database pages and log lines every few milliseconds. A context manager: writing inside the block.

    ``turn`` is held during each write and says whether the guest may write now, so that who puts its VM to sleep waits
    for the write under way and sees none after it.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        interval_s: float = 0.005,
        clock: Clock | None = None,
        turn: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    ) -> None:
        self._guest = guest
        self._turn = turn
        self._interval_s = interval_s
        self._clock = clock or SystemClock()
        self._cancel = Cancellation()
        self._lock = threading.Lock()
        self._writes = 0
        self._written_bytes = 0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"lab-guest-{guest.disk}", daemon=True)

    @property
    def written(self) -> Written:
        """What has been written until now."""
        with self._lock:
            return Written(writes=self._writes, written_bytes=self._written_bytes)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> Written:
        """Stop and return what was written; raises what made the guest stop by itself. Safe to call twice."""
        self._cancel.cancel(reason="the guest was stopped")
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.written

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            while True:
                with self._turn() as is_awake:
                    written_bytes = self._write() if is_awake else None
                if written_bytes is not None:
                    with self._lock:
                        self._writes += 1
                        self._written_bytes += written_bytes
                self._clock.sleep(self._interval_s, cancel=self._cancel)
        except Cancelled:
            return
        except Exception as failure:
            self._failure = failure

    def _write(self) -> int:
        if self._writes % _LOG_EVERY == _LOG_EVERY - 1:
            return self._guest.append_log(_LOG_BYTES).written_bytes
        return self._guest.rewrite_pages(1).written_bytes
