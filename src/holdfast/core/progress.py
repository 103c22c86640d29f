"""Progress: what is being done, how far, how fast, what next.

The engine reports to a ``Progress``; faces and the run's record implement it. Calls are cheap and may come from any
thread; an implementation throttles what it writes.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

__all__ = ["NoProgress", "Progress", "ProgressTask"]


class ProgressTask(Protocol):
    """One thing that is under way. A context manager: leaving the block ends it, failed or not."""

    def advance(self, done_bytes: int) -> None:
        """Add ``done_bytes`` to what is done."""
        ...

    def retotal(self, total_bytes: int) -> None:
        """Correct the total, once it is known better."""
        ...

    def __enter__(self) -> ProgressTask: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Progress(Protocol):
    """Receives what a long operation is doing."""

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        """Open a task; ``what`` is a short phrase such as ``web: disk 0``. ``total_bytes`` None means not countable."""
        ...

    def note(self, message: str) -> None:
        """Tell one line that stays: a decision taken, a fall-back with its reason."""
        ...


class _NoTask:
    def advance(self, done_bytes: int) -> None:
        pass

    def retotal(self, total_bytes: int) -> None:
        pass

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class NoProgress:
    """Nobody is watching."""

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        """See ``Progress.start``."""
        return _NoTask()

    def note(self, message: str) -> None:
        """See ``Progress.note``."""
