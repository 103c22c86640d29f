"""Tasks: the record of work that goes on while the client looks away, and its end, told exactly once.

Whoever does the work ends the task; a client may set every field of it, which the pool believes. Invariant: a task that
has ended stays as it ended, and one that is gone is gone for everyone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from holdfast.core import Clock
from holdfast.lab.database import Database, Row
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.errors import ApiFailure
from holdfast.lab.texts import cut_text

__all__ = ["TASKS_MAX", "TASK_COLLECTION_S", "Tasks"]

TASK_COLLECTION_S = 30.0
"""How often the pool looks for tasks to forget."""

TASKS_MAX = 200
"""With more tasks than this, ended ones are forgotten before their time, oldest first."""

ENDED_AGE_MAX = timedelta(minutes=65)
"""An ended task is forgotten after this time."""

PENDING_AGE_MAX = timedelta(hours=24)
"""A task that is older and makes no progress from one look to the next is forgotten, whoever still waits for it."""

_ENDED = frozenset({"success", "failure", "cancelled"})
_TIME_FORMAT = "%Y%m%dT%H:%M:%SZ"


class Tasks:
    """The tasks of one pool. Safe to use from any thread."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._on_probation: dict[str, float] = {}
        self._sessions: dict[str, str] = {}

    def create(
        self,
        label: str,
        *,
        host: str,
        description: str = "",
        is_cancellable: bool = False,
        session: str = NULL_REF,
        subtask_of: str = NULL_REF,
    ) -> str:
        """Return a new pending task, which belongs to the session."""
        with self._db.transaction():
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
                    "subtask_of": subtask_of,
                    "backtrace": "()",
                },
            )
            if self._db.exists("session", session):
                self._sessions[ref] = session
                self._db.set("session", session, "tasks", [ref, *self._db.texts("session", session, "tasks")])
            return ref

    def session_of(self, ref: str) -> str:
        """Return the session that made the task; the null reference when nobody did."""
        return self._sessions.get(ref, NULL_REF)

    def set_progress(self, ref: str, progress: float) -> None:
        """Record how far the work is, even of a task that ended; nothing happens for one that is gone."""
        with self._db.transaction():
            if self._db.exists("task", ref):
                self._db.set("task", ref, "progress", progress)

    def succeed(self, ref: str, result: str) -> None:
        """End the task with a result (an XML fragment); nothing happens for one that ended or is gone."""
        self._end(ref, {"status": "success", "result": result})

    def fail(self, ref: str, description: list[str]) -> None:
        """End the task with an error list; nothing happens for one that ended or is gone."""
        status = "cancelled" if description[0] == "TASK_CANCELLED" else "failure"
        self._end(ref, {"status": status, "error_info": cut_text(description)})

    def end_cancelled(self, ref: str) -> None:
        """End the task as cancelled; the pool leaves its error list empty."""
        self._end(ref, {"status": "cancelled"})

    def _end(self, ref: str, values: dict[str, object]) -> None:
        with self._db.transaction():
            if self._is_pending(ref):
                finished = DateTime.of(self._clock.now())
                self._db.update(
                    "task", ref, {**values, "finished": finished, "progress": 1.0, "allowed_operations": []}
                )

    def _is_pending(self, ref: str) -> bool:
        row = self._db.find("task", ref)
        return row is not None and row.fields["status"] == "pending"

    # -- asking it to stop

    def ask_cancel(self, ref: str, *, by: str) -> None:
        """Ask the task to stop. Work that does not look goes on, and so does its record, as on a real pool."""
        with self._db.transaction():
            self._db.set("task", ref, "current_operations", {by: "cancel"})
            self._db.changed.notify_all()

    def is_cancelled(self, ref: str) -> bool:
        """Whether someone asked this task to stop."""
        row = self._db.find("task", ref)
        return row is not None and "cancel" in cast("dict[str, str]", row.fields["current_operations"]).values()

    def allow_cancel(self, ref: str) -> None:
        """Say that the work looks from here on whether it shall stop."""
        self._set_allowed(ref, ["cancel"])

    def seal(self, ref: str) -> None:
        """From here on the task cannot be cancelled any more."""
        self._set_allowed(ref, [])

    def _set_allowed(self, ref: str, operations: list[str]) -> None:
        with self._db.transaction():
            if self._db.exists("task", ref):
                # A task that ended before may be given to a second piece of work, which says the same of it.
                self._db.set("task", ref, "allowed_operations", operations)

    # -- forgetting

    def ask_destroy(self, ref: str) -> None:
        """Forget a task that has ended; one that goes on is forgotten soon after its end.

        ``HANDLE_INVALID`` when there is no such task, ``MAP_DUPLICATE_KEY`` when this was asked before.
        """
        with self._db.transaction():
            row = self._db.row("task", ref)
            if row.fields["status"] in _ENDED:
                self.destroy(ref)
            elif "task" in cast("dict[str, str]", row.fields["current_operations"]):
                raise ApiFailure("MAP_DUPLICATE_KEY", "task", "current_operations", ref, "task")
            else:
                self._db.put_key("task", ref, "current_operations", key="task", value="destroy")

    def destroy(self, ref: str) -> None:
        """Forget the task. Safe to call twice."""
        with self._db.transaction():
            session = self._sessions.pop(ref, NULL_REF)
            if self._db.exists("session", session):
                left = [each for each in self._db.texts("session", session, "tasks") if each != ref]
                self._db.set("session", session, "tasks", left)
            if self._db.exists("task", ref):
                self._db.destroy("task", ref)

    def destroy_all(self) -> None:
        """Forget every task, as a restart of the tool stack does: no one is told how they ended."""
        for row in self._db.rows("task"):
            self.destroy(row.ref)

    def exists(self, ref: str) -> bool:
        """Whether the task is there."""
        return ref != NULL_REF and self._db.exists("task", ref)

    def collect(self) -> None:
        """Forget what has been there too long; done every ``TASK_COLLECTION_S``."""
        with self._db.transaction():
            now = self._clock.now()
            ended = [row for row in self._db.rows("task") if row.fields["status"] in _ENDED]
            for row in [row for row in ended if _is_to_be_destroyed(row)]:
                self.destroy(row.ref)
            for row in [row for row in ended if now - _moment(row, "finished") > ENDED_AGE_MAX]:
                self.destroy(row.ref)
            self._collect_stuck(now)
            self._collect_excess()

    def _collect_stuck(self, now: datetime) -> None:
        """Forget tasks that are a day old and stand where they stood at the last look."""
        rows = [row for row in self._db.rows("task") if row.fields["status"] not in _ENDED]
        old = [row for row in rows if now - _moment(row, "created") > PENDING_AGE_MAX]
        before, self._on_probation = self._on_probation, {row.ref: _progress(row) for row in old}
        for row in old:
            if row.ref in before and _progress(row) <= before[row.ref]:
                self.destroy(row.ref)

    def _collect_excess(self) -> None:
        rows = self._db.rows("task")
        if len(rows) <= TASKS_MAX:
            return
        ended = sorted(
            (row for row in rows if row.fields["status"] in _ENDED), key=lambda row: _moment(row, "finished")
        )
        kept = max(0, TASKS_MAX - len(ended))
        for row in ended[: max(0, len(ended) - kept)]:
            self.destroy(row.ref)


def _is_to_be_destroyed(row: Row) -> bool:
    return "destroy" in cast("dict[str, str]", row.fields["current_operations"]).values()


def _moment(row: Row, name: str) -> datetime:
    return datetime.strptime(str(row.fields[name]), _TIME_FORMAT).replace(tzinfo=UTC)


def _progress(row: Row) -> float:
    return cast(float, row.fields["progress"])
