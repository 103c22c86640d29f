"""What one attempt tells about its run: steps, findings and notes, each in its own transaction.

All of it is for people; nothing here decides what runs again. So every line may be written twice without harm.
"""

from __future__ import annotations

import json
import threading

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from holdfast.core import Clock, format_time, limits
from holdfast.model import Finding, RunId
from holdfast.runs.database import Database
from holdfast.runs.record import ErrorFacts, StepState
from holdfast.runs.tables import findings, notes, steps

__all__ = ["AttemptLog"]


class AttemptLog:
    """See ``StepLog``; also keeps notes. Thread-safe."""

    def __init__(self, *, database: Database, clock: Clock, run_id: RunId) -> None:
        self._database = database
        self._clock = clock
        self._run_id = run_id
        self._lock = threading.Lock()
        self._started_s: dict[str, float] = {}

    def step_started(self, name: str) -> None:
        """See ``StepLog.step_started``."""
        with self._lock:
            self._started_s[name] = self._clock.monotonic_s()
        now = format_time(self._clock.now())
        write = insert(steps).values(
            run_id=self._run_id, name=name, state=StepState.RUNNING.value, attempts=1, started=now
        )
        again = {
            "state": StepState.RUNNING.value,
            "attempts": steps.c.attempts + 1,
            "started": now,
            "duration_s": None,
            "error": None,
        }
        self._execute(write.on_conflict_do_update(index_elements=["run_id", "name"], set_=again))

    def step_ended(self, name: str, state: StepState, error: ErrorFacts | None) -> None:
        """See ``StepLog.step_ended``."""
        with self._lock:
            duration_s = self._clock.monotonic_s() - self._started_s.pop(name)
        self._execute(
            sa.update(steps)
            .where(*self._this(name))
            .values(state=state.value, duration_s=round(duration_s, 3), error=_error_text(error))
        )

    def step_replayed(self, name: str, error: ErrorFacts | None) -> None:
        """See ``StepLog.step_replayed``."""
        state = StepState.DONE if error is None else StepState.FAILED
        unfinished = [StepState.RUNNING.value, StepState.STOPPED.value]
        self._execute(
            sa.update(steps)
            .where(*self._this(name), steps.c.state.in_(unfinished))
            .values(state=state.value, error=_error_text(error))
        )

    def add_finding(self, finding: Finding) -> bool:
        """See ``StepLog.add_finding``."""
        values = {
            "severity": finding.severity.value,
            "subject": finding.subject,
            "message": finding.message,
            "next_step": finding.next_step,
        }
        # Counted by severity: thousands of notes must not crowd out one finding about data at risk.
        same = findings.c.severity == finding.severity.value
        return self._add_line(findings, values, counted=same, lines_max=limits.RUN_FINDINGS_MAX, what="findings")

    def add_note(self, message: str) -> bool:
        """Keep one line; return whether it is new to this run."""
        values = {"told": format_time(self._clock.now()), "message": message}
        return self._add_line(notes, values, counted=sa.true(), lines_max=limits.RUN_NOTES_MAX, what="notes")

    def _add_line(
        self, table: sa.Table, values: dict[str, str], *, counted: sa.ColumnElement[bool], lines_max: int, what: str
    ) -> bool:
        with self._database.write() as connection:
            count = connection.execute(
                sa.select(sa.func.count()).select_from(table).where(table.c.run_id == self._run_id, counted)
            ).scalar_one()
            if count >= lines_max:
                table = notes
                message = f"More than {lines_max} {what}: further ones of this run are not kept."
                values = {"told": format_time(self._clock.now()), "message": message}
            written = connection.execute(
                insert(table).values(run_id=self._run_id, **values).on_conflict_do_nothing()
            ).rowcount
        return written == 1

    def _this(self, name: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (steps.c.run_id == self._run_id, steps.c.name == name)

    def _execute(self, statement: sa.Executable) -> None:
        with self._database.write() as connection:
            connection.execute(statement)


def _error_text(error: ErrorFacts | None) -> str | None:
    return None if error is None else json.dumps(error.to_json())
