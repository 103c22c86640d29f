"""The durable engine: the one module that knows DBOS. It remembers, per run, the results of completed steps.

A run is one DBOS workflow of the same id. What the run's body returns is recorded as the workflow's result; what it
raises is not recorded at all, so a stopped run stays as it is and may be taken up again. Two rules make that safe with
several processes on one file: each process listens to a queue of its own, so that a resumed run is begun by the process
that asked for it; and who may ask is decided before, by the runs database, never here.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, SetWorkflowID
from dbos import error as dbos_error

from holdfast.core import get_log, limits
from holdfast.model import JsonObject, RunId
from holdfast.runs.context import RecordsBroken, RunStopped, StepsChanged
from holdfast.runs.database import create_private_file, database_error, mapped_database
from holdfast.runs.errors import RunStateLost, RunsUnavailable

__all__ = ["Body", "Engine"]

Body = Callable[[], JsonObject]
"""The whole of a run: returns what is recorded as its outcome, or raises and leaves the run unfinished."""

_APPLICATION = "holdfast"
_APPLICATION_VERSION = "holdfast-1"
"""Fixed, or DBOS would hash the source and strand every paused run at an upgrade."""

_QUEUE_PREFIX = "holdfast-"
_QUEUE_POLL_S = 0.25
"""At most this long a resumed run waits to begin. Every poll is a transaction: 0.05 s cost 6 % of a core."""
_THREADS_MAX = 64
"""Far more than steps ever run at once: they mostly wait for the pool or the store."""
_LISTENER_POLL_S = 0.25
"""We use no notifications; the listener is only waited for at the end, where its default of 1 s would be felt."""
_WAIT_S = 1.0
_log = get_log(__name__)


class _Job:
    """A run that this process carries out: its body, and how far that has come."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.entered = threading.Event()
        self.left = threading.Event()
        self.outcome: JsonObject | None = None
        self.error: BaseException | None = None

    def carry_out(self) -> JsonObject:
        self.entered.set()
        try:
            self.outcome = self.body()
            return self.outcome
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.left.set()


_jobs: dict[str, _Job] = {}
"""Runs that this process carries out now, by id; DBOS finds workflows by name only, so the body waits here."""


@DBOS.workflow(name="holdfast.run", max_recovery_attempts=None)
def _carry_out(run_id: str) -> JsonObject:
    job = _jobs.get(run_id)
    if job is None:
        raise RunStopped("nobody waits for this run any more")
    return job.carry_out()


class Engine:
    """The engine on one file. One at a time in a process: DBOS is a singleton. A context manager."""

    def __init__(self, *, path: Path, executor: str, dead: Callable[[str], bool]) -> None:
        """Open or create the file at ``path`` and take the queue of ``executor``; queues of the dead are removed."""
        create_private_file(path)
        self._path = path
        self._queue = _QUEUE_PREFIX + executor
        _quiet_log()
        url = sa.URL.create("sqlite", database=str(path)).render_as_string()
        with mapped_database(path):
            _enable_wal(path)
            _prepare_queue(url, self._queue, dead=dead)
            DBOS(
                config={
                    "name": _APPLICATION,
                    "system_database_url": url,
                    "executor_id": executor,
                    "application_version": _APPLICATION_VERSION,
                    "serializer": DBOSPortableJSONSerializer(),
                    "log_level": "WARNING",
                    "enable_otlp": False,
                    "max_executor_threads": _THREADS_MAX,
                    "notification_listener_polling_interval_sec": _LISTENER_POLL_S,
                }
            )
            try:
                DBOS.listen_queues([self._queue])
                DBOS.launch()
            except BaseException:
                DBOS.destroy()
                raise
        _forward_log()

    def start(self, run_id: RunId, body: Body, *, interrupted: Callable[[], None]) -> JsonObject:
        """Carry out a new run and return its outcome; what ``body`` raises is passed on and leaves the run unfinished.

        A first Ctrl-C calls ``interrupted`` and goes on waiting for the body to end; a second one is passed on.
        """
        with _job(run_id, body) as job:
            with mapped_database(self._path), SetWorkflowID(run_id):
                DBOS.start_workflow(_carry_out, run_id)
            return self._wait(job, interrupted=interrupted)

    def resume(
        self, run_id: RunId, body: Body, *, has_completed_steps: bool, interrupted: Callable[[], None]
    ) -> JsonObject:
        """Carry out the rest of a run, or return its outcome when only telling it was left to do.

        The caller has made sure that no other process carries it out. Raises ``RunStateLost`` when steps were
        completed but their results are gone.
        """
        with mapped_database(self._path):
            status = DBOS.get_workflow_status(run_id)
        if status is None and not has_completed_steps:
            return self.start(run_id, body, interrupted=interrupted)
        if status is None or status.status == "ERROR":
            raise RunStateLost(run_id=run_id, path=self._path)
        if status.status == "SUCCESS":
            assert isinstance(status.output, dict)
            return status.output
        with _job(run_id, body) as job:
            with mapped_database(self._path):
                DBOS.resume_workflow(run_id, queue_name=self._queue)
            return self._wait(job, interrupted=interrupted)

    def reserve(self, name: str) -> Callable[[Callable[[], JsonObject]], JsonObject]:
        """See ``StepRecorder.reserve``; called by the body of a run, in its own thread."""
        place = DBOS.reserve_step()

        def fill(work: Callable[[], JsonObject]) -> JsonObject:
            try:
                return place.run({"name": name}, work)
            except dbos_error.DBOSUnexpectedStepError as cause:
                raise StepsChanged(f"step {name!r} is not the recorded one") from cause
            except (sa.exc.SQLAlchemyError, sqlite3.Error) as cause:
                raise RecordsBroken(database_error(cause, path=self._path)) from cause
            except (dbos_error.DBOSException, dbos_error.DBOSBaseException) as cause:
                raise RecordsBroken(RunsUnavailable(path=self._path, detail=str(cause))) from cause

        return fill

    def forget_except(self, unfinished: Callable[[], set[RunId]]) -> None:
        """Drop what is remembered of runs that are finished; ``unfinished`` is asked after the engine was read."""
        with mapped_database(self._path):
            known = [
                item.workflow_id
                for item in DBOS.list_workflows(load_input=False, load_output=False, limit=limits.RUNS_KEPT_MAX)
            ]
            keep = unfinished()
            finished = [run_id for run_id in known if RunId(run_id) not in keep]
            if finished:
                DBOS.delete_workflows(finished)

    def close(self) -> None:
        """Stop the engine's threads and close its file; takes well under a second."""
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            # Best effort: the next engine removes the queue of a process that has ended.
            DBOS.delete_queue(self._queue)
        DBOS.destroy()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, job: _Job, *, interrupted: Callable[[], None]) -> JsonObject:
        waited_s = 0.0
        is_interrupted = False
        while True:
            try:
                if job.left.wait(_WAIT_S):
                    break
            except KeyboardInterrupt:
                if is_interrupted:
                    raise
                is_interrupted = True
                interrupted()
            waited_s += _WAIT_S
            if waited_s > limits.RUNS_ENGINE_START_S and not job.entered.is_set():
                raise RunsUnavailable(path=self._path, detail="the engine did not begin the run")
        if job.error is not None:
            raise job.error
        assert job.outcome is not None
        return job.outcome


@contextlib.contextmanager
def _job(run_id: RunId, body: Body) -> Iterator[_Job]:
    assert run_id not in _jobs
    job = _jobs[run_id] = _Job(body)
    try:
        yield job
    finally:
        del _jobs[run_id]


def _prepare_queue(url: str, name: str, *, dead: Callable[[str], bool]) -> None:
    """Make our queue and remove those of the dead, before the launch: a queue made later is noticed a second later."""
    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, serializer=DBOSPortableJSONSerializer(), application_name=_APPLICATION)
    try:
        client.register_queue(name, polling_interval_sec=_QUEUE_POLL_S)
        for queue in client.list_queues():
            if queue.name.startswith(_QUEUE_PREFIX) and dead(queue.name.removeprefix(_QUEUE_PREFIX)):
                client.delete_queue(queue.name)
    finally:
        client.destroy()


def _enable_wal(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=limits.RUNS_DATABASE_WAIT_S)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


class _Forward(logging.Handler):
    """Passes what DBOS logs on to our log, as warnings: whatever matters reaches the user as an error of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.warning("engine.log", level_name=record.levelname, message=record.getMessage())


def _quiet_log() -> None:
    logger = logging.getLogger("dbos")
    # A handler that is in place keeps DBOS from installing its own on standard error.
    logger.handlers[:] = [logging.NullHandler()]
    logger.propagate = False


def _forward_log() -> None:
    logging.getLogger("dbos").handlers[:] = [_Forward(level=logging.WARNING)]
