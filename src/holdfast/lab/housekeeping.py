"""What the pool does on its own as time passes: collecting old tasks, closing idle sessions, merging disks.

Work is due at a moment of the lab's clock; one thread does it when the moment comes, and whoever moves the clock does
it on the way, moment by moment. Invariant: due work runs in the order of its moments, one piece at a time, and sees
the clock at its moment or later, never before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import get_log
from holdfast.lab.clock import LabClock

__all__ = ["Housekeeping"]

log = get_log(__name__)

_LOOK_S = 1.0
"""How often the thread looks at the clock when nothing is due sooner."""


@dataclass(slots=True)
class _Chore:
    due_s: float
    work: Callable[[], None]
    period_s: float | None


class Housekeeping:
    """The chores of one pool. Safe to use from any thread."""

    def __init__(self, clock: LabClock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._at_work = threading.RLock()
        self._chores: dict[str, _Chore] = {}
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def every(self, name: str, period_s: float, work: Callable[[], None]) -> None:
        """Do ``work`` again and again, the first time one period from now. A chore of that name is replaced."""
        self._set(name, _Chore(self._clock.monotonic_s() + period_s, work, period_s))

    def after(self, name: str, delay_s: float, work: Callable[[], None]) -> None:
        """Do ``work`` once, so long from now. A chore of that name is replaced: its moment moves."""
        self._set(name, _Chore(self._clock.monotonic_s() + delay_s, work, None))

    def is_due(self, name: str) -> bool:
        """Whether a chore of that name waits."""
        with self._changed:
            return name in self._chores

    def cancel(self, name: str) -> None:
        """Forget a chore; nothing happens when there is none."""
        with self._changed:
            self._chores.pop(name, None)

    def _set(self, name: str, chore: _Chore) -> None:
        with self._changed:
            self._chores[name] = chore
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to do chores as time passes."""
        self._thread = threading.Thread(target=self._run, name="lab-housekeeping", daemon=True)
        self._thread.start()

    def advance(self, duration_s: float) -> None:
        """Let so much time pass at once, doing on the way what becomes due."""
        assert duration_s >= 0
        end_s = self._clock.monotonic_s() + duration_s
        with self._at_work:
            while (moment_s := self._next_moment()) is not None and moment_s <= end_s:
                self._clock.move(max(0.0, moment_s - self._clock.monotonic_s()))
                self._do_due()
            self._clock.move(max(0.0, end_s - self._clock.monotonic_s()))

    def _next_moment(self) -> float | None:
        with self._changed:
            return min((chore.due_s for chore in self._chores.values()), default=None)

    def _do_due(self) -> None:
        """Do what is due now, earliest first."""
        with self._at_work:
            while (due := self._take_due()) is not None:
                name, work = due
                try:
                    work()
                except Exception:
                    log.exception("lab.chore-failed", chore=name)  # the next one must not wait for this one's mending

    def _take_due(self) -> tuple[str, Callable[[], None]] | None:
        with self._changed:
            now_s = self._clock.monotonic_s()
            due = [(chore.due_s, name) for name, chore in self._chores.items() if chore.due_s <= now_s]
            if not due or self._is_closed:
                return None
            name = min(due)[1]
            chore = self._chores[name]
            if chore.period_s is None:
                del self._chores[name]
            else:
                chore.due_s = max(chore.due_s + chore.period_s, now_s)
            return name, chore.work

    def _run(self) -> None:
        while True:
            self._do_due()
            with self._changed:
                if self._is_closed:
                    return
                moment_s = min((chore.due_s for chore in self._chores.values()), default=None)
                left_s = _LOOK_S if moment_s is None else moment_s - self._clock.monotonic_s()
                self._changed.wait(min(_LOOK_S, max(0.001, left_s)))

    def close(self) -> None:
        """Stop; what is due is left undone. Safe to call twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)
