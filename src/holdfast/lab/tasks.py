"""Tasks: the record of work that goes on while the client looks away, and its end, told exactly once.

Invariant: a task that has ended stays as it ended; a task that is gone is gone for everyone.
"""

from __future__ import annotations

import threading

from holdfast.core import Clock
from holdfast.lab.database import Database
from holdfast.lab.datamodel import NULL_REF, DateTime

__all__ = ["TASKS_ENDED_MAX", "Tasks"]

TASKS_ENDED_MAX = 200
"""Ended tasks beyond this many are collected, oldest first, as on a real pool."""


class Tasks:
    """The tasks of one pool. Safe to use from any thread."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cancels: dict[str, threading.Event] = {}

    def create(self, label: str, *, host: str, description: str = "", is_cancellable: bool = False) -> str:
        """Return a new pending task."""
        with self._db.transaction():
            self._collect()
            ref = self._db.create(
                "task",
                {
                    "name_label": label,
                    "name_description": description,
                    "allowed_operations": ["cancel"] if is_cancellable else [],
                    "created": DateTime.of(self._clock.now()),
                    "status": "pending",
                    "resident_on": host,
                    "type": "<none/>",
                    "backtrace": "()",
                },
            )
            if is_cancellable:
                self._cancels[ref] = threading.Event()
            return ref

    def _collect(self) -> None:
        ended = [row.ref for row in self._db.rows("task") if row.fields["status"] != "pending"]
        for ref in ended[: max(0, len(ended) - TASKS_ENDED_MAX)]:
            self.destroy(ref)

    def set_progress(self, ref: str, progress: float) -> None:
        """Record how far the work is; nothing happens for a task that ended or is gone."""
        with self._db.transaction():
            if self._is_open(ref):
                self._db.set("task", ref, "progress", progress)

    def succeed(self, ref: str, result: str) -> None:
        """End the task with a result (an XML fragment); nothing happens for one that ended or is gone."""
        self._end(ref, {"status": "success", "result": result, "progress": 1.0})

    def fail(self, ref: str, description: list[str]) -> None:
        """End the task with an error list; nothing happens for one that ended or is gone."""
        self._end(ref, {"status": "failure", "error_info": description, "progress": 1.0})

    def end_cancelled(self, ref: str) -> None:
        """End the task as cancelled; the pool leaves its error list empty."""
        self._end(ref, {"status": "cancelled", "progress": 1.0})

    def _end(self, ref: str, values: dict[str, object]) -> None:
        with self._db.transaction():
            self._cancels.pop(ref, None)
            if self._is_open(ref):
                finished = DateTime.of(self._clock.now())
                ended = {"finished": finished, "allowed_operations": [], "current_operations": {}}
                self._db.update("task", ref, {**values, **ended})
            elif self._db.exists("task", ref):
                self._db.set("task", ref, "progress", 1.0)

    def _is_open(self, ref: str) -> bool:
        row = self._db.find("task", ref)
        return row is not None and row.fields["status"] in ("pending", "cancelling")

    def ask_cancel(self, ref: str, *, by: str) -> None:
        """Ask the task to stop. Work that cannot be cancelled goes on, and so does its record, as on a real pool."""
        with self._db.transaction():
            event = self._cancels.get(ref)
            if event is not None:
                event.set()
                self._db.changed.notify_all()
            else:
                self._db.put_key("task", ref, "current_operations", key=by, value="cancel")

    def is_cancelled(self, ref: str) -> bool:
        """Whether someone asked this cancellable task to stop."""
        event = self._cancels.get(ref)
        return event is not None and event.is_set()

    def seal(self, ref: str) -> None:
        """From here on the task cannot be cancelled any more."""
        with self._db.transaction():
            self._cancels.pop(ref, None)
            if self._is_open(ref) and self._db.texts("task", ref, "allowed_operations"):
                self._db.set("task", ref, "allowed_operations", [])

    def destroy(self, ref: str) -> None:
        """Forget the task. Safe to call twice."""
        with self._db.transaction():
            self._cancels.pop(ref, None)
            if self._db.exists("task", ref):
                self._db.destroy("task", ref)

    def destroy_all(self) -> None:
        """Forget every task, as a restart of the tool stack does: no one is told how they ended."""
        for row in self._db.rows("task"):
            event = self._cancels.get(row.ref)
            self.destroy(row.ref)
            if event is not None:
                event.set()
                self._cancels[row.ref] = event  # who still waits in it gives up

    def exists(self, ref: str) -> bool:
        """Whether the task is there."""
        return ref != NULL_REF and self._db.exists("task", ref)
