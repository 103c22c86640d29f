"""Which operations run on which object, and the waiting of those that must not run together.

An operation that collides waits until the other ends, as on a real pool; only when the wait is over does the client
see ``OTHER_OPERATION_IN_PROGRESS``. Invariant: an operation is shown in ``current_operations`` exactly while it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.core import Clock
from holdfast.lab.database import Database
from holdfast.lab.errors import ApiFailure
from holdfast.lab.tasks import Tasks

__all__ = ["CALLS_WAITING_MAX", "WAIT_S_MAX", "WAIT_S_QUICK", "Cancelled", "Mark", "Operations"]

CALLS_WAITING_MAX = 101
"""The pool's own queue of waiting calls; beyond it a call is refused at once. It counts to 100 before it looks."""

WAIT_S_MAX = 7200.0
"""The pool's own patience with a collision."""

WAIT_S_QUICK = 120.0
"""Its patience where a collision should be over soon: exports, and disks of a VM that starts."""

WAIT_STEP_S = 1.0
"""How often a waiting call looks up on its own; it is woken when something changes."""


class Cancelled(Exception):
    """The task was cancelled while it waited."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One object with the operation that is to run on it."""

    cls: str
    ref: str
    operation: str


class Operations:
    """The operations of one pool. Safe to use from any thread."""

    def __init__(self, db: Database, clock: Clock, tasks: Tasks) -> None:
        self._db = db
        self._clock = clock
        self._tasks = tasks
        self._waiting = 0
        self.on_begin: Callable[[Sequence[Mark]], None] = lambda marks: None
        """Told before each operation begins, from the thread that runs it."""

    @contextlib.contextmanager
    def running(
        self,
        cls: str,
        ref: str,
        operation: str,
        *,
        task: str,
        check: Callable[[], None],
        wait_s_max: float = WAIT_S_MAX,
    ) -> Iterator[None]:
        """Mark the operation as running on the object while the block runs.

        ``check`` raises the reason why the operation is not allowed now; a collision is waited for, anything else is
        raised at once.
        """
        with self.running_together((Mark(cls, ref, operation),), task=task, check=check, wait_s_max=wait_s_max):
            yield

    @contextlib.contextmanager
    def running_together(
        self, marks: Sequence[Mark], *, task: str, check: Callable[[], None], wait_s_max: float = WAIT_S_MAX
    ) -> Iterator[None]:
        """Mark several objects at once, a repository and its disk for instance: all of them, or none while it waits."""
        self.on_begin(marks)
        self._begin(marks, task=task, check=check, wait_s_max=wait_s_max)
        try:
            yield
        finally:
            with self._db.transaction():
                for mark in marks:
                    if self._db.exists(mark.cls, mark.ref):
                        self._db.drop_key(mark.cls, mark.ref, "current_operations", key=task)

    def _begin(self, marks: Sequence[Mark], *, task: str, check: Callable[[], None], wait_s_max: float) -> None:
        deadline_s = self._clock.monotonic_s() + wait_s_max
        waits = False
        try:
            while True:
                if self._tasks.is_cancelled(task):
                    raise Cancelled
                with self._db.transaction():
                    try:
                        check()
                    except ApiFailure as refusal:
                        if refusal.code != "OTHER_OPERATION_IN_PROGRESS" or self._clock.monotonic_s() >= deadline_s:
                            raise
                    else:
                        for mark in marks:
                            self._db.put_key(mark.cls, mark.ref, "current_operations", key=task, value=mark.operation)
                        return
                    if not waits:
                        if self._waiting >= CALLS_WAITING_MAX:
                            raise ApiFailure("TOO_MANY_PENDING_TASKS")
                        self._waiting += 1
                        waits = True
                with self._db.lock:
                    if not self._tasks.is_cancelled(task):
                        self._db.changed.wait(WAIT_STEP_S)
        finally:
            if waits:
                self._waiting -= 1
