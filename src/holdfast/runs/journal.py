"""The rows of runs: written by the process that carries a run out, read by anybody.

Every change of a run's status is one conditional UPDATE that names the attempt it belongs to. So of two processes that
want the same run exactly one gets it, and a process that lost its run can no longer speak for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from holdfast.core import Clock, format_time, parse_time
from holdfast.model import Finding, JsonObject, RunId, RunStatus, Severity
from holdfast.runs.database import Database
from holdfast.runs.errors import RunAlreadyExists, RunNotFound
from holdfast.runs.executors import is_alive
from holdfast.runs.record import (
    ErrorFacts,
    NoteLine,
    RunRecord,
    RunSummary,
    StepRecord,
    StepState,
    TaskProgress,
)
from holdfast.runs.sql_ledger import SqlLedger
from holdfast.runs.tables import findings, notes, runs, steps

__all__ = ["Attempt", "Journal", "RunRow"]

_UNFINISHED = (RunStatus.RUNNING.value, RunStatus.PAUSED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The right of one executor to speak for a run."""

    run_id: RunId
    executor: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run's row, with its status as it truly is."""

    summary: RunSummary
    args: JsonObject
    result: JsonObject | None
    flow_version: int
    attempt: int


class Journal:
    """All runs of one runs folder."""

    def __init__(self, *, database: Database, executors: Path, ledger: SqlLedger, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self._executors = executors
        self._ledger = ledger

    def create(
        self, *, run_id: RunId, kind: str, flow_version: int, title: str, args: JsonObject, executor: str
    ) -> Attempt:
        """Write down a new run as carried out by ``executor`` and return its first attempt."""
        now = format_time(self.clock.now())
        with self.database.write() as connection:
            if connection.execute(sa.select(runs.c.run_id).where(runs.c.run_id == run_id)).first():
                raise RunAlreadyExists(run_id=run_id)
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id,
                    kind=kind,
                    flow_version=flow_version,
                    title=title,
                    args=json.dumps(args, allow_nan=False),
                    status=RunStatus.RUNNING.value,
                    executor=executor,
                    attempt=1,
                    requested="",
                    reason="",
                    progress="[]",
                    started=now,
                    updated=now,
                )
            )
        return Attempt(run_id=run_id, executor=executor, number=1)

    def try_claim(self, row: RunRow, *, executor: str) -> Attempt | None:
        """Take over a run that nobody carries out, as ``row`` shows it; None when somebody else was faster."""
        assert row.summary.is_resumable
        run_id = row.summary.run_id
        claim = (
            sa.update(runs)
            .where(runs.c.run_id == run_id, runs.c.attempt == row.attempt, runs.c.status.in_(_UNFINISHED))
            .values(
                status=RunStatus.RUNNING.value,
                executor=executor,
                attempt=row.attempt + 1,
                requested="",
                reason="",
                updated=format_time(self.clock.now()),
            )
        )
        with self.database.write() as connection:
            if connection.execute(claim).rowcount == 0:
                return None
            connection.execute(
                sa.update(steps)
                .where(steps.c.run_id == run_id, steps.c.state == StepState.RUNNING.value)
                .values(state=StepState.STOPPED.value)
            )
        return Attempt(run_id=run_id, executor=executor, number=row.attempt + 1)

    def end(
        self,
        attempt: Attempt,
        *,
        status: RunStatus,
        reason: str = "",
        result: JsonObject | None = None,
        error: ErrorFacts | None = None,
    ) -> None:
        """Write down how ``attempt`` ended: paused or final. Without effect when the run is no longer its own."""
        assert status not in (RunStatus.RUNNING, RunStatus.INTERRUPTED)
        now = format_time(self.clock.now())
        values = {
            "status": status.value,
            "reason": reason,
            "result": None if result is None else json.dumps(result),
            "error": None if error is None else json.dumps(error.to_json()),
            "progress": "[]",
            "updated": now,
            "ended": now if status.is_final else None,
        }
        with self.database.write() as connection:
            connection.execute(sa.update(runs).where(*_owned_by(attempt)).values(values))

    def try_close(self, row: RunRow, *, reason: str) -> bool:
        """Close a run that nobody carries out, as ``row`` shows it; False when it has moved on meanwhile."""
        now = format_time(self.clock.now())
        close = (
            sa.update(runs)
            .where(
                runs.c.run_id == row.summary.run_id,
                runs.c.attempt == row.attempt,
                runs.c.status.in_(_UNFINISHED),
            )
            .values(status=RunStatus.CANCELLED.value, reason=reason, progress="[]", updated=now, ended=now)
        )
        with self.database.write() as connection:
            return connection.execute(close).rowcount == 1

    def request(self, row: RunRow, *, what: str, reason: str) -> bool:
        """Ask the process that carries the run out to stop it; False when it has ended meanwhile."""
        ask = (
            sa.update(runs)
            .where(
                runs.c.run_id == row.summary.run_id,
                runs.c.attempt == row.attempt,
                runs.c.status == RunStatus.RUNNING.value,
            )
            .values(requested=what, reason=reason)
        )
        with self.database.write() as connection:
            return connection.execute(ask).rowcount == 1

    def beat(self, attempt: Attempt, *, progress: tuple[TaskProgress, ...] | None) -> tuple[str, str]:
        """Save progress, if it changed, and return what was requested of the run, with the reason ('' for nothing)."""
        if progress is not None:
            values = {
                "progress": json.dumps([task.to_json() for task in progress]),
                "updated": format_time(self.clock.now()),
            }
            with self.database.write() as connection:
                connection.execute(sa.update(runs).where(*_owned_by(attempt)).values(values))
        with self.database.read() as connection:
            row = connection.execute(sa.select(runs.c.requested, runs.c.reason).where(*_owned_by(attempt))).first()
        return (str(row.requested), str(row.reason)) if row else ("", "")

    def row(self, run_id: RunId) -> RunRow:
        """Return the run's row. ``RunNotFound`` when there is none."""
        with self.database.read() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
        if row is None:
            raise RunNotFound(run_id=run_id)
        return self._parse(row, self._alive_memory())

    def summaries(self) -> list[RunSummary]:
        """Return every run, newest first."""
        query = sa.select(runs).order_by(runs.c.started.desc(), runs.c.run_id.desc())
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        alive = self._alive_memory()
        return [self._parse(row, alive).summary for row in rows]

    def record(self, run_id: RunId) -> RunRecord:
        """Return everything that is known about a run. ``RunNotFound`` when there is none."""
        row = self.row(run_id)
        is_running = row.summary.status is RunStatus.RUNNING
        with self.database.read() as connection:
            step_rows = connection.execute(sa.select(steps).where(steps.c.run_id == run_id).order_by(steps.c.id)).all()
            found = connection.execute(
                sa.select(findings).where(findings.c.run_id == run_id).order_by(findings.c.id)
            ).all()
            told = connection.execute(sa.select(notes).where(notes.c.run_id == run_id).order_by(notes.c.id)).all()
        summary = row.summary
        return RunRecord(
            **{name: getattr(summary, name) for name in RunSummary.__slots__},
            args=row.args,
            result=row.result,
            steps=tuple(_parse_step(step, is_running=is_running) for step in step_rows),
            findings=tuple(
                Finding(
                    severity=Severity(item.severity),
                    subject=item.subject,
                    message=item.message,
                    next_step=item.next_step,
                )
                for item in found
            ),
            notes=tuple(NoteLine(told=parse_time(item.told), message=item.message) for item in told),
            ledger=tuple(self._ledger.lines(run=run_id)),
        )

    def _alive_memory(self) -> Callable[[str], bool]:
        known: dict[str, bool] = {}

        def alive(executor: str) -> bool:
            if executor not in known:
                known[executor] = is_alive(self._executors, executor)
            return known[executor]

        return alive

    def _parse(self, row: sa.Row[tuple[object, ...]], alive: Callable[[str], bool]) -> RunRow:
        status = RunStatus(row.status)
        if status is RunStatus.RUNNING and not alive(row.executor):
            status = RunStatus.INTERRUPTED
        progress = [TaskProgress.from_json(task) for task in json.loads(row.progress)]
        return RunRow(
            summary=RunSummary(
                run_id=RunId(row.run_id),
                kind=row.kind,
                title=row.title,
                status=status,
                reason=row.reason,
                attempts=row.attempt,
                started=parse_time(row.started),
                updated=parse_time(row.updated),
                ended=None if row.ended is None else parse_time(row.ended),
                error=None if row.error is None else ErrorFacts.from_json(json.loads(row.error)),
                progress=tuple(progress) if status is RunStatus.RUNNING else (),
            ),
            args=json.loads(row.args),
            result=None if row.result is None else json.loads(row.result),
            flow_version=row.flow_version,
            attempt=row.attempt,
        )


def _owned_by(attempt: Attempt) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        runs.c.run_id == attempt.run_id,
        runs.c.executor == attempt.executor,
        runs.c.attempt == attempt.number,
        runs.c.status == RunStatus.RUNNING.value,
    )


def _parse_step(row: sa.Row[tuple[object, ...]], *, is_running: bool) -> StepRecord:
    state = StepState(row.state)
    if state is StepState.RUNNING and not is_running:
        state = StepState.STOPPED
    return StepRecord(
        name=row.name,
        state=state,
        attempts=row.attempts,
        started=parse_time(row.started),
        duration_s=row.duration_s,
        error=None if row.error is None else ErrorFacts.from_json(json.loads(row.error)),
    )
