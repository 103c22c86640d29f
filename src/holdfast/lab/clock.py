"""The pool's own clock: it runs as the machine's does and can be moved forward, so that an hour passes at once.

Everything in the lab that waits for minutes or days (collected tasks, idle sessions, merged disks) asks this clock.
Invariant: the monotonic clock never goes back, nor does the wall clock unless it is skewed; who sleeps wakes when the
time has come, however it came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from holdfast.core import Cancellation, Clock

__all__ = ["OFF_S_MAX", "LabClock"]

OFF_S_MAX = 100 * 366 * 86_400
"""A century: further off, years would leave the calendar before anybody had learned more."""

_LOOK_S = 0.1
"""How often a cancellable sleep looks up."""


class LabClock:
    """A ``Clock`` that can be moved forward. Safe to use from any thread."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._moved = threading.Condition()
        self._ahead_s = 0.0
        self._skew_s = 0.0
        self._told: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return self._base.now() + timedelta(seconds=self._ahead_s + self._skew_s)

    def monotonic_s(self) -> float:
        """See ``Clock.monotonic_s``."""
        return self._base.monotonic_s() + self._ahead_s

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """See ``Clock.sleep``. Ends early when the clock is moved past the moment."""
        deadline_s = self.monotonic_s() + duration_s
        with self._moved:
            while (left_s := deadline_s - self.monotonic_s()) > 0:
                if cancel is not None:
                    cancel.check()
                self._moved.wait(left_s if cancel is None else min(left_s, _LOOK_S))

    @property
    def lead_s(self) -> float:
        """How far this clock was moved ahead of the machine's."""
        return self._ahead_s

    def on_move(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` after every move, for those who wait on something else as well."""
        self._told.append(tell)

    def skew(self, duration_s: float) -> None:
        """Let the wall clock be wrong by so much more, ahead or, negative, behind; nothing becomes due by that.

        ``ValueError`` when it would be wrong by more than a calendar has room for.
        """
        with self._moved:
            if abs(self._skew_s + duration_s) > OFF_S_MAX:
                raise ValueError(f"the clock would be wrong by more than {OFF_S_MAX} seconds")
            self._skew_s += duration_s

    def move(self, duration_s: float) -> None:
        """Move the clock forward and wake everybody whose time may have come."""
        assert duration_s >= 0
        with self._moved:
            self._ahead_s += duration_s
            self._moved.notify_all()
        for tell in self._told:
            tell()
