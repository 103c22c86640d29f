"""Progress that is remembered: everything is passed on to the face, and kept so that the run's record can tell it.

Calls cost a lock and an addition; saving is somebody else's rhythm (about once a second), through ``take_change``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from holdfast.core import Progress, ProgressTask
from holdfast.runs.record import TaskProgress

__all__ = ["RecordedProgress"]


class RecordedProgress:
    """A ``Progress`` in front of another one. Thread-safe."""

    def __init__(self, *, face: Progress, tell: Callable[[str], bool]) -> None:
        """``tell`` keeps a note and says whether it is new; a note told before is not shown again."""
        self._face = face
        self._tell = tell
        self._lock = threading.Lock()
        self._tasks: dict[int, _Task] = {}
        self._next_key = 0
        self._is_changed = False

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        """See ``Progress.start``."""
        face_task = self._face.start(what, total_bytes=total_bytes)
        with self._lock:
            task = _Task(self, self._next_key, what, total_bytes, face_task)
            self._tasks[task.key] = task
            self._next_key += 1
            self._is_changed = True
        return task

    def note(self, message: str) -> None:
        """See ``Progress.note``. A note that this run told before, as a replayed flow does, is told once."""
        if self._tell(message):
            self._face.note(message)

    def take_change(self) -> tuple[TaskProgress, ...] | None:
        """Return what is under way, or None when nothing has changed since the last call."""
        with self._lock:
            if not self._is_changed:
                return None
            self._is_changed = False
            return tuple(
                TaskProgress(what=task.what, done_bytes=task.done_bytes, total_bytes=task.total_bytes)
                for task in self._tasks.values()
            )

    def _changed(
        self, task: _Task, *, done_bytes: int = 0, total_bytes: int | None = None, ended: bool = False
    ) -> None:
        with self._lock:
            task.done_bytes += done_bytes
            if total_bytes is not None:
                task.total_bytes = total_bytes
            if ended:
                self._tasks.pop(task.key, None)
            self._is_changed = True


class _Task:
    def __init__(
        self, owner: RecordedProgress, key: int, what: str, total_bytes: int | None, face_task: ProgressTask
    ) -> None:
        self.key = key
        self.what = what
        self.done_bytes = 0
        self.total_bytes = total_bytes
        self._owner = owner
        self._face_task = face_task

    def advance(self, done_bytes: int) -> None:
        self._owner._changed(self, done_bytes=done_bytes)
        self._face_task.advance(done_bytes)

    def retotal(self, total_bytes: int) -> None:
        self._owner._changed(self, total_bytes=total_bytes)
        self._face_task.retotal(total_bytes)

    def __enter__(self) -> ProgressTask:
        self._face_task.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner._changed(self, ended=True)
        self._face_task.__exit__(kind, value, trace)
