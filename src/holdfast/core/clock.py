"""Time as a seam: wall clock, monotonic clock and sleeping arrive through the constructor, so tests own their time."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from holdfast.core.cancel import Cancellation

__all__ = ["Clock", "ManualClock", "SystemClock", "format_minute", "format_time", "parse_time"]


class Clock(Protocol):
    """Where time comes from. Implementations are thread-safe."""

    def now(self) -> datetime:
        """Return the wall clock in UTC, aware. It may jump; never subtract two of them to measure."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards; only differences mean something."""
        ...

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """Wait; raise ``Cancelled`` at once when ``cancel`` is triggered meanwhile."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """See ``Clock.monotonic_s``."""
        return time.monotonic()

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """See ``Clock.sleep``."""
        if cancel is None:
            time.sleep(duration_s)
        else:
            cancel.wait(duration_s)


class ManualClock:
    """A clock for tests: it moves only when told to, and sleeping moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """See ``Clock.now``."""
        with self._lock:
            return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        """See ``Clock.monotonic_s``."""
        with self._lock:
            return self._elapsed_s

    def advance(self, duration_s: float) -> None:
        """Move the clock forward."""
        assert duration_s >= 0
        with self._lock:
            self._elapsed_s += duration_s

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """Move the clock forward instead of waiting."""
        if cancel is not None:
            cancel.check()
        self.advance(duration_s)


def format_time(moment: datetime) -> str:
    """Return a stored time: UTC, seconds, ISO 8601 with ``Z``, e.g. ``2026-11-20T09:08:20Z``."""
    assert moment.tzinfo is not None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_minute(moment: datetime) -> str:
    """Return a time as people are told it, to the minute: ``2026-11-20 09:08 UTC``."""
    assert moment.tzinfo is not None
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def parse_time(text: str) -> datetime:
    """Return the aware UTC time that ``format_time`` wrote. ValueError when the text is not one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text!r}")
    return moment.astimezone(UTC)
