"""One attempt of one run in this process: its flow in the engine, a watcher beside it, the truth written at the end.

The watcher saves progress and looks for requests of other processes about once a second. However the attempt ends,
exactly one of these is written: paused, succeeded, partial, failed, cancelled; if even that cannot be written, the run
is seen as interrupted once the process has ended, and stays resumable.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TypeGuard

from holdfast.core import Cancellation, HoldfastError, Progress, Retry, get_log
from holdfast.model import Finding, JsonObject, RunStatus, Severity
from holdfast.runs.attempt_log import AttemptLog
from holdfast.runs.context import Flow, RecordsBroken, RunStopped, StepContext, StepFailed, StepsChanged
from holdfast.runs.engine import Engine
from holdfast.runs.errors import RunFlowChanged, RunStateLost
from holdfast.runs.journal import Attempt, Journal
from holdfast.runs.progress import RecordedProgress
from holdfast.runs.record import UNEXPECTED_CODE, ErrorFacts

__all__ = ["Execution"]

_log = get_log(__name__)
_CLOSE_REQUEST = "cancel"


class _NotNow(BaseException):
    """The flow met an obstacle outside its steps that may pass; what it has done so far is worth keeping."""

    def __init__(self, error: HoldfastError) -> None:
        super().__init__(str(error))
        self.error = error


class Execution:
    """One attempt of one run."""

    def __init__(
        self,
        *,
        attempt: Attempt,
        flow: Flow,
        args: JsonObject,
        completed: frozenset[str],
        engine: Engine,
        journal: Journal,
        cancel: Cancellation,
        progress: Progress,
        poll_s: float,
    ) -> None:
        """``completed`` names the steps that earlier attempts have recorded; empty for the first attempt."""
        self._attempt = attempt
        self._flow = flow
        self._args = args
        self._completed = completed
        self._engine = engine
        self._journal = journal
        self._face_cancel = cancel
        self._poll_s = poll_s
        self._cancel = Cancellation()
        self._is_closing = False
        self._beat_failures = 0
        self._log = AttemptLog(database=journal.database, clock=journal.clock, run_id=attempt.run_id)
        self._progress = RecordedProgress(face=progress, tell=self._log.add_note)
        self._context = StepContext(
            run_id=attempt.run_id, cancel=self._cancel, progress=self._progress, recorder=engine, log=self._log
        )

    def carry_out(self) -> None:
        """Run the flow until it ends or is stopped, and write down which.

        Raises only what keeps the truth from being written, e.g. ``RunsDiskFull``; the run is resumable then.
        """
        try:
            with self._face_cancel.on_cancel(self._stop_with_face), self._watched():
                outcome = self._run_engine()
        except RunStopped:
            self._end_stopped()
        except _NotNow as obstacle:
            facts = ErrorFacts.of(obstacle.error)
            self._journal.end(self._attempt, status=RunStatus.PAUSED, reason=facts.message, error=facts)
        except StepsChanged as changed:
            error = RunFlowChanged(run_id=self._attempt.run_id, detail=str(changed))
            self._journal.end(self._attempt, status=RunStatus.FAILED, error=ErrorFacts.of(error))
        except RunStateLost as error:
            self._journal.end(self._attempt, status=RunStatus.FAILED, error=ErrorFacts.of(error))
        except RecordsBroken as broken:
            self._pause_if_possible(broken.error)
            raise broken.error from broken
        except HoldfastError as error:
            self._pause_if_possible(error)
            raise
        else:
            self._end_with(outcome)

    def _run_engine(self) -> JsonObject:
        run_id = self._attempt.run_id
        if self._attempt.number == 1:
            return self._engine.start(run_id, self._body, interrupted=self._stop_on_interrupt)
        return self._engine.resume(
            run_id, self._body, has_completed_steps=bool(self._completed), interrupted=self._stop_on_interrupt
        )

    def _body(self) -> JsonObject:
        """Return the outcome to record. Whatever leaves it as an exception is none: the run stays unfinished."""
        try:
            result = self._flow(self._context, self._args)
        except Exception as cause:
            if self._cancel.is_cancelled:
                raise RunStopped(self._cancel.reason) from cause
            if self._may_pass(cause):
                raise _NotNow(cause) from cause
            error = ErrorFacts.of(cause)
            if error.code == UNEXPECTED_CODE:
                _log.error("run.crashed", run=self._attempt.run_id, exc_info=cause)
            return {"error": error.to_json()}
        left_out = sorted(self._completed - self._context.reached)
        if left_out:
            raise StepsChanged(f"recorded step {left_out[0]!r} is not reached any more")
        return {"result": result, "partial": self._context.partial_reason}

    def _may_pass(self, cause: Exception) -> TypeGuard[HoldfastError]:
        """Whether resuming later can help: the error says so, steps are recorded, and it is not itself recorded."""
        if not isinstance(cause, HoldfastError) or isinstance(cause, StepFailed):
            return False
        return cause.retry is not Retry.NEVER and bool(self._completed | self._context.reached)

    def _end_with(self, outcome: JsonObject) -> None:
        self._report_beat_failures()
        if "error" in outcome:
            self._journal.end(self._attempt, status=RunStatus.FAILED, error=ErrorFacts.from_json(outcome["error"]))
            return
        result, partial = outcome["result"], outcome["partial"]
        assert isinstance(result, dict)
        self._journal.end(
            self._attempt,
            status=RunStatus.SUCCEEDED if partial is None else RunStatus.PARTIAL,
            reason="" if partial is None else str(partial),
            result=result,
        )

    def _end_stopped(self) -> None:
        self._report_beat_failures()
        status = RunStatus.CANCELLED if self._is_closing else RunStatus.PAUSED
        self._journal.end(self._attempt, status=status, reason=self._cancel.reason)

    def _pause_if_possible(self, error: HoldfastError) -> None:
        try:
            self._journal.end(self._attempt, status=RunStatus.PAUSED, reason=str(error), error=ErrorFacts.of(error))
        except HoldfastError as second:
            # The first error is raised to the caller; the run shows as interrupted once this process has ended.
            _log.warning("run.end-not-written", run=self._attempt.run_id, error=str(second))

    def _stop_with_face(self) -> None:
        self._cancel.cancel(reason=self._face_cancel.reason)

    def _stop_on_interrupt(self) -> None:
        self._cancel.cancel(reason="stopped with Ctrl-C")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), name="run-watcher")
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(self._poll_s):
            try:
                requested, reason = self._journal.beat(self._attempt, progress=self._progress.take_change())
            except HoldfastError as error:
                self._beat_failures += 1
                _log.warning("run.progress-not-saved", run=self._attempt.run_id, error=str(error))
                continue
            if requested:
                self._is_closing = self._is_closing or requested == _CLOSE_REQUEST
                self._cancel.cancel(reason=reason)

    def _report_beat_failures(self) -> None:
        if self._beat_failures:
            message = f"Progress could not be saved {self._beat_failures} times."
            self._log.add_finding(Finding(severity=Severity.NOTE, subject="run records", message=message))
