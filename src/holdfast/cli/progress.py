"""Progress for people: live bars with rate and time left on a terminal, quiet lines otherwise.

The engine calls from several threads and often; what is written is throttled here.
"""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)
from rich.text import Text

from holdfast.core import Clock, Progress, ProgressTask, format_bytes, format_duration, format_rate

__all__ = ["LineProgress", "TerminalProgress", "open_progress"]

_TOLD_S_MIN = 0.5
LINE_INTERVAL_S = 10.0
"""A log collector or a cron mail wants few lines; a person watching wants a sign of life."""


def open_progress(console: Console, *, clock: Clock, quiet: bool) -> TerminalProgress | LineProgress:
    """Return live bars when ``console`` is a terminal and nobody asked for quiet, lines otherwise."""
    if console.is_terminal and not quiet:
        return TerminalProgress(console)
    return LineProgress(console, clock=clock, quiet=quiet)


class _RateColumn(ProgressColumn):
    """The rate in the units of everything else that we print."""

    def render(self, task: Task) -> Text:
        """Return the rate of the last seconds, or nothing while it is not known."""
        speed = task.finished_speed or task.speed
        return Text(format_rate(speed) if speed else "", style="progress.data.speed")


class TerminalProgress:
    """Live bars on standard error. A context manager."""

    def __init__(self, console: Console) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            DownloadColumn(binary_units=True),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Progress:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        """See ``Progress.start``."""
        return _Bar(self._rich, self._rich.add_task(what, total=total_bytes))

    def note(self, message: str) -> None:
        """See ``Progress.note``."""
        self._rich.console.print(f"  {message}", markup=False, emoji=False)


class _Bar:
    def __init__(self, rich: RichProgress, task: TaskID) -> None:
        self._rich, self._task = rich, task

    def advance(self, done_bytes: int) -> None:
        self._rich.advance(self._task, done_bytes)

    def retotal(self, total_bytes: int) -> None:
        self._rich.update(self._task, total=total_bytes)

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.remove_task(self._task)


class LineProgress:
    """A line when a task ends and one every ten seconds while it runs. A context manager."""

    def __init__(self, console: Console, *, clock: Clock, quiet: bool) -> None:
        self._console, self._clock, self._quiet = console, clock, quiet

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        """See ``Progress.start``."""
        return _Lines(self, what, total_bytes=total_bytes, clock=self._clock)

    def note(self, message: str) -> None:
        """See ``Progress.note``."""
        if not self._quiet:
            self._console.print(message, markup=False, emoji=False)


class _Lines:
    def __init__(self, progress: LineProgress, what: str, *, total_bytes: int | None, clock: Clock) -> None:
        self._progress, self._what, self._total_bytes, self._clock = progress, what, total_bytes, clock
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._started_s = self._told_s = clock.monotonic_s()

    def advance(self, done_bytes: int) -> None:
        with self._lock:
            self._done_bytes += done_bytes
            now_s = self._clock.monotonic_s()
            if now_s - self._told_s < LINE_INTERVAL_S:
                return
            self._told_s = now_s
            line = self._line(now_s)
        self._progress.note(line)

    def retotal(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes

    def _line(self, now_s: float) -> str:
        rate = self._done_bytes / max(now_s - self._started_s, 1e-9)
        line = f"{self._what}: {format_bytes(self._done_bytes)}"
        if self._total_bytes:
            line += f" of {format_bytes(self._total_bytes)}"
        line += f", {format_rate(rate)}"
        if self._total_bytes and rate > 0:
            line += f", {format_duration(max(self._total_bytes - self._done_bytes, 0) / rate)} left"
        return line

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_s = self._clock.monotonic_s() - self._started_s
        # What took no time needs no line; its rate would say nothing either.
        if kind is None and self._done_bytes and took_s >= _TOLD_S_MIN:
            rate = format_rate(self._done_bytes / max(took_s, 1e-9))
            self._progress.note(f"{self._what}: {format_bytes(self._done_bytes)} in {format_duration(took_s)}, {rate}")
