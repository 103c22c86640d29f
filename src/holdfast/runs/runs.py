"""The runs of one folder: carried out, resumed, stopped, closed, listed.

Opening and listing are cheap and change nothing; the engine (DBOS, about a second to load) is started by the first run
that this process carries out. Any number of processes may use one folder at the same time.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core import Cancellation, Clock, Entropy, Progress
from holdfast.model import JsonObject, RunId, RunStatus
from holdfast.runs.context import Flow
from holdfast.runs.errors import FlowUnknown, RunFinished, RunFlowChanged, RunIsRunning, RunsFolderNotWritable
from holdfast.runs.executors import Executor, is_alive, sweep_dead, take_executor
from holdfast.runs.ledger import Ledger
from holdfast.runs.record import ErrorFacts, RunRecord, RunSummary, StepState

if TYPE_CHECKING:
    from holdfast.runs.engine import Engine
    from holdfast.runs.journal import Attempt, Journal, RunRow

__all__ = ["Runs", "open_runs"]

_POLL_S = 1.0
_LIST_MAX = 50
"""Some weeks of nightly runs; a screen or two."""


class Runs:
    """All runs of one folder. A context manager; safe from any thread."""

    def __init__(self, *, folder: Path, journal: Journal, ledger: Ledger, entropy: Entropy, poll_s: float) -> None:
        self.ledger = ledger
        self._folder = folder
        self._journal = journal
        self._entropy = entropy
        self._poll_s = poll_s
        self._flows: dict[str, tuple[Flow, int]] = {}
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self._engine: Engine | None = None

    def register(self, kind: str, flow: Flow, *, version: int = 1) -> None:
        """Make runs of ``kind`` executable. Raise ``version`` when the flow's steps change their meaning or order:
        unfinished runs of another version are closed instead of being continued wrongly."""
        assert kind not in self._flows, f"flow {kind!r} is registered twice"
        self._flows[kind] = (flow, version)

    def execute(
        self, kind: str, run_id: RunId, args: JsonObject, *, cancel: Cancellation, progress: Progress, title: str
    ) -> RunRecord:
        """Carry out a new run in this process and return its record once it has ended or was stopped.

        A failure of the flow is told by the record, not raised. ``args`` are kept in clear text: no secrets. Raises
        ``RunAlreadyExists``, or why the run could not be recorded (``RunsDiskFull``, …).
        """
        flow, version = self._flows[kind]
        executor, engine = self._start_engine()
        attempt = self._journal.create(
            run_id=run_id, kind=kind, flow_version=version, title=title, args=args, executor=executor.id
        )
        self._carry_out(engine, attempt, flow, args, frozenset(), cancel=cancel, progress=progress)
        return self.show(run_id)

    def resume(self, run_id: RunId, *, cancel: Cancellation, progress: Progress) -> RunRecord:
        """Take up a paused or interrupted run after its last completed step; return its record as ``execute`` does.

        A run whose steps are not the program's any more is closed, and its record says so. Raises ``RunNotFound``,
        ``RunFinished``, ``FlowUnknown``, or ``RunIsRunning`` when another process has it or was faster.
        """
        row = self._resumable_row(run_id)
        summary = row.summary
        if summary.kind not in self._flows:
            raise FlowUnknown(run_id=run_id, kind=summary.kind)
        flow, version = self._flows[summary.kind]
        executor, engine = self._start_engine()
        attempt = self._journal.try_claim(row, executor=executor.id)
        if attempt is None:
            raise RunIsRunning(run_id=run_id)
        if version != row.flow_version:
            detail = f"it follows version {row.flow_version} of {summary.kind!r}, this program has version {version}"
            error = ErrorFacts.of(RunFlowChanged(run_id=run_id, detail=detail))
            self._journal.end(attempt, status=RunStatus.FAILED, error=error)
            return self.show(run_id)
        recorded = (StepState.DONE, StepState.FAILED)
        completed = frozenset(step.name for step in self.show(run_id).steps if step.state in recorded)
        self._carry_out(engine, attempt, flow, row.args, completed, cancel=cancel, progress=progress)
        return self.show(run_id)

    def list(self, *, limit: int = _LIST_MAX, status: RunStatus | None = None) -> list[RunSummary]:
        """Return the newest runs, newest first, of one status or all."""
        summaries = self._journal.summaries()
        return [summary for summary in summaries if status in (None, summary.status)][:limit]

    def show(self, run_id: RunId) -> RunRecord:
        """Return everything that is known about a run. ``RunNotFound`` when there is none."""
        return self._journal.record(run_id)

    def request_pause(self, run_id: RunId, *, reason: str = "paused by request") -> RunRecord:
        """Ask the process that carries the run out to stop it, resumable; it does within about a second.

        A run that is not being carried out is left as it is. ``RunFinished`` when it has ended.
        """
        row = self._unfinished_row(run_id)
        if row.summary.status is RunStatus.RUNNING:
            self._journal.request(row, what="pause", reason=reason)
        return self.show(run_id)

    def request_cancel(self, run_id: RunId, *, reason: str = "cancelled by request") -> RunRecord:
        """Stop the run for good: at once when nobody carries it out, else its process stops it within about a second.

        What the run left on a pool is in the ledger, for the caller to sweep. ``RunFinished`` when it has ended.
        """
        row = self._unfinished_row(run_id)
        if row.summary.status is RunStatus.RUNNING:
            self._journal.request(row, what="cancel", reason=reason)
            return self.show(run_id)
        return self.close_run(run_id, reason=reason)

    def close_run(self, run_id: RunId, *, reason: str) -> RunRecord:
        """Close a paused or interrupted run for good, and return its record. ``RunIsRunning`` when somebody has it."""
        if not self._journal.try_close(self._resumable_row(run_id), reason=reason):
            raise RunIsRunning(run_id=run_id)
        return self.show(run_id)

    def close(self) -> None:
        """Stop the engine and close the files. May be called twice."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None
            if self._executor is not None:
                self._executor.close()
                self._executor = None
        self._journal.database.close()

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _carry_out(
        self,
        engine: Engine,
        attempt: Attempt,
        flow: Flow,
        args: JsonObject,
        completed: frozenset[str],
        *,
        cancel: Cancellation,
        progress: Progress,
    ) -> None:
        from holdfast.runs.execution import Execution

        Execution(
            attempt=attempt,
            flow=flow,
            args=args,
            completed=completed,
            engine=engine,
            journal=self._journal,
            cancel=cancel,
            progress=progress,
            poll_s=self._poll_s,
        ).carry_out()

    def _start_engine(self) -> tuple[Executor, Engine]:
        from holdfast.runs.engine import Engine
        from holdfast.runs.pruning import prune_runs, unfinished_runs

        with self._lock:
            if self._executor is None or self._engine is None:
                executors = self._folder / "executors"
                try:
                    executor = take_executor(executors, entropy=self._entropy)
                    sweep_dead(executors)
                except OSError as cause:
                    raise RunsFolderNotWritable(path=executors, detail=cause.strerror or str(cause)) from cause
                try:
                    engine = Engine(
                        path=self._folder / "engine.db",
                        executor=executor.id,
                        dead=lambda other: not is_alive(executors, other),
                    )
                except BaseException:
                    executor.close()
                    raise
                self._executor, self._engine = executor, engine
                prune_runs(self._journal.database)
                engine.forget_except(lambda: unfinished_runs(self._journal.database))
            return self._executor, self._engine

    def _unfinished_row(self, run_id: RunId) -> RunRow:
        row = self._journal.row(run_id)
        if row.summary.status.is_final:
            raise RunFinished(run_id=run_id, status=row.summary.status)
        return row

    def _resumable_row(self, run_id: RunId) -> RunRow:
        row = self._unfinished_row(run_id)
        if row.summary.status is RunStatus.RUNNING:
            raise RunIsRunning(run_id=run_id)
        return row


def open_runs(folder: Path, *, clock: Clock, entropy: Entropy, poll_s: float = _POLL_S) -> Runs:
    """Return the runs kept in ``folder``, which is created when missing, readable for its owner only.

    Raises ``RunsFolderNotWritable``, ``RunsDatabaseDamaged`` or ``RunsDatabaseNewer``.
    """
    # Imported here: the database library takes 0.4 s to load, and most commands only name the types of this package.
    from holdfast.runs.database import open_database
    from holdfast.runs.journal import Journal
    from holdfast.runs.sql_ledger import SqlLedger

    database = open_database(folder / "runs.db")
    ledger = SqlLedger(database=database, clock=clock)
    journal = Journal(database=database, executors=folder / "executors", ledger=ledger, clock=clock)
    return Runs(folder=folder, journal=journal, ledger=ledger, entropy=entropy, poll_s=poll_s)
