"""What a flow works with: durable steps, findings, notes.

A flow is an ordinary function that may be run again from the start: its completed steps then give back their recorded
results without running. So a flow must reach the same steps in the same order for the same results, and does all work
that changes the world inside steps. A step that runs now gives exactly what it gives replayed: JSON or ``StepFailed``.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from holdfast.core import Cancellation, HoldfastError, Progress, get_log, limits
from holdfast.model import Finding, JsonObject, JsonValue, RunId
from holdfast.runs.record import UNEXPECTED_CODE, ErrorFacts, StepState

__all__ = [
    "Flow",
    "RecordsBroken",
    "RunStopped",
    "StepContext",
    "StepFailed",
    "StepFunction",
    "StepLog",
    "StepRecorder",
    "StepResult",
    "StepsChanged",
]

_log = get_log(__name__)

StepFunction = Callable[[], JsonValue]
"""The work of one step. Safe to run twice: a process may die after the work and before its result is recorded."""


class StepFailed(HoldfastError):
    """A step failed. It carries the original error's code, texts and facts, the same whether it ran now or long ago."""

    code = "run.step-failed"

    def __init__(self, *, step: str, error: ErrorFacts) -> None:
        super().__init__(error.message)
        self.step = step
        self.error = error
        self.code = error.code
        self.effect = error.effect
        self.retry = error.retry
        self.exit_status = error.exit_status

    def next_step(self) -> str:
        """Return what the original error advised."""
        return self.error.next_step

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Return the original error's facts, and the step."""
        plain = {k: v for k, v in self.error.facts.items() if isinstance(v, str | int | float | bool | None)}
        return {**plain, "step": self.step}


class RunStopped(BaseException):
    """The run was asked to stop: passes through the flow (no ``except Exception`` holds it) and nothing is recorded."""


class StepsChanged(BaseException):
    """The flow does not reach the recorded steps. Passes through the flow: going on would do the wrong thing."""


class RecordsBroken(BaseException):
    """What the run does cannot be recorded. Passes through the flow: no step may run unrecorded."""

    def __init__(self, error: HoldfastError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of one of several parallel steps."""

    name: str
    value: JsonValue
    failure: StepFailed | None

    def unwrap(self) -> JsonValue:
        """Return the value; raise the ``StepFailed`` when the step failed."""
        if self.failure is not None:
            raise self.failure
        return self.value


class StepRecorder(Protocol):
    """Remembers results of steps across processes. The engine is one; tests may use a dictionary."""

    def reserve(self, name: str) -> Callable[[Callable[[], JsonObject]], JsonObject]:
        """Draw the next place in the run's order and return the function that fills it.

        That function gives back what is recorded at this place, or else runs its argument and records what that
        returns. An exception of the argument is passed on and records nothing. Places may be filled from any thread
        that runs in a copy of the caller's context.
        """
        ...


class StepLog(Protocol):
    """The record for people. Calls are durable, thread-safe and may be repeated."""

    def step_started(self, name: str) -> None:
        """Write down that the step's work begins."""
        ...

    def step_ended(self, name: str, state: StepState, error: ErrorFacts | None) -> None:
        """Write down how the step's work ended."""
        ...

    def step_replayed(self, name: str, error: ErrorFacts | None) -> None:
        """Repair the step's line if the process died between the engine's record and this one."""
        ...

    def add_finding(self, finding: Finding) -> bool:
        """Keep a finding; return whether it is new to this run."""
        ...


class StepContext:
    """One attempt of one run, as its flow sees it."""

    def __init__(
        self, *, run_id: RunId, cancel: Cancellation, progress: Progress, recorder: StepRecorder, log: StepLog
    ) -> None:
        self.run_id = run_id
        self.cancel = cancel
        """Cancelled when the face asks, or another process does. Hand it to everything that waits."""
        self.progress = progress
        self._recorder = recorder
        self._log = log
        self.reached: set[str] = set()
        """Names of the steps that this attempt has come to, replayed ones included."""
        self._lock = threading.Lock()
        self.partial_reason: str | None = None

    def step(self, name: str, function: StepFunction) -> JsonValue:
        """Return what ``function`` returned, now or in an earlier attempt of this run.

        ``name`` is unique in the run. Raises ``StepFailed`` when the function failed, in the same attempt or an
        earlier one: a failed step is not tried again, the flow decides what that means for the rest.
        """
        return self._run_reserved(name, self._reserve(name), function)

    def steps_parallel(self, steps: Sequence[tuple[str, StepFunction]], *, at_once: int) -> list[StepResult]:
        """Run several steps, at most ``at_once`` at a time, and return what became of each, in the order given.

        A failed step does not stop the others. When the run is asked to stop, those under way are waited for.
        """
        assert at_once > 0
        reserved = [(name, self._reserve(name), function) for name, function in steps]
        with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="step") as workers:
            futures = [
                workers.submit(contextvars.copy_context().run, self._result_of, name, place, function)
                for name, place, function in reserved
            ]
        stops = [error for future in futures if (error := future.exception()) is not None]
        if stops:
            raise next((e for e in stops if not isinstance(e, RunStopped)), stops[0])
        return [future.result() for future in futures]

    def finding(self, finding: Finding) -> None:
        """Attach a fact worth telling to the run. Told twice, as by a replayed flow, it is kept once."""
        self._log.add_finding(finding)

    def note(self, message: str) -> None:
        """Tell one line that stays in the run's record and is shown to whoever watches."""
        self.progress.note(message)

    def mark_partial(self, reason: str) -> None:
        """Say that the run will have ended with a part of its work undone; the first reason is kept."""
        self.partial_reason = self.partial_reason or reason

    def _reserve(self, name: str) -> Callable[[Callable[[], JsonObject]], JsonObject]:
        with self._lock:
            assert name not in self.reached, f"two steps of one run are called {name!r}"
            self.reached.add(name)
            return self._recorder.reserve(name)

    def _result_of(
        self, name: str, place: Callable[[Callable[[], JsonObject]], JsonObject], function: StepFunction
    ) -> StepResult:
        try:
            return StepResult(name=name, value=self._run_reserved(name, place, function), failure=None)
        except StepFailed as failure:
            return StepResult(name=name, value=None, failure=failure)

    def _run_reserved(
        self, name: str, place: Callable[[Callable[[], JsonObject]], JsonObject], function: StepFunction
    ) -> JsonValue:
        if self.cancel.is_cancelled:
            raise RunStopped(self.cancel.reason)
        causes: list[Exception] = []
        has_run = threading.Event()

        def work() -> JsonObject:
            has_run.set()
            return self._perform(name, function, causes)

        envelope = place(work)
        error = ErrorFacts.from_json(envelope["error"]) if "error" in envelope else None
        with _records_needed():
            # Written after the engine's record, never before: a step that is told to be done does not run again.
            if has_run.is_set():
                self._log.step_ended(name, StepState.DONE if error is None else StepState.FAILED, error)
            else:
                self._log.step_replayed(name, error)
        if error is not None:
            raise StepFailed(step=name, error=error) from (causes[0] if causes else None)
        return envelope["value"]

    def _perform(self, name: str, function: StepFunction, causes: list[Exception]) -> JsonObject:
        with _records_needed():
            self._log.step_started(name)
        try:
            return {"value": _as_recorded(name, function())}
        except Exception as cause:
            if self.cancel.is_cancelled:
                # A stop shows as many errors (a closed socket, a lost task); none of them is the step's own fault.
                with _records_needed():
                    self._log.step_ended(name, StepState.STOPPED, None)
                raise RunStopped(self.cancel.reason) from cause
            causes.append(cause)
            error = ErrorFacts.of(cause)
            if error.code == UNEXPECTED_CODE:
                _log.error("run.step-crashed", run=self.run_id, step=name, exc_info=cause)
            return {"error": error.to_json()}


Flow = Callable[[StepContext, JsonObject], JsonObject]
"""A kind of run: takes its context and the arguments it was started with, returns the result for the record."""


def _as_recorded(name: str, value: JsonValue) -> JsonValue:
    text = json.dumps(value, allow_nan=False)
    assert len(text) <= limits.STEP_RESULT_BYTES_MAX, f"the result of step {name!r} has {len(text)} bytes"
    recorded: JsonValue = json.loads(text)
    return recorded


@contextlib.contextmanager
def _records_needed() -> Iterator[None]:
    """Stop the flow when the log cannot be written: an ordinary exception would be taken for the step's own failure."""
    try:
        yield
    except HoldfastError as broken:
        raise RecordsBroken(broken) from broken
