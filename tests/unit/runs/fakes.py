"""Recorder and log in memory: what the engine and the database do for a flow, without either."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.core import Cancellation, NoProgress, Progress
from holdfast.model import Finding, JsonObject, RunId
from holdfast.runs import StepContext, StepState
from holdfast.runs.context import StepsChanged
from holdfast.runs.record import ErrorFacts


class MemoryRecorder:
    """See ``StepRecorder``. ``replay`` is the same record, seen by the next attempt."""

    def __init__(self, record: dict[int, tuple[str, str]] | None = None) -> None:
        self.record = {} if record is None else record
        self._next = 0
        self._lock = threading.Lock()

    def replay(self) -> MemoryRecorder:
        return MemoryRecorder(self.record)

    def reserve(self, name: str) -> Callable[[Callable[[], JsonObject]], JsonObject]:
        with self._lock:
            place = self._next
            self._next += 1

        def fill(work: Callable[[], JsonObject]) -> JsonObject:
            if place not in self.record:
                self.record[place] = (name, json.dumps(work()))
            recorded_name, text = self.record[place]
            if recorded_name != name:
                raise StepsChanged(f"step {name!r} is not the recorded one")
            outcome: JsonObject = json.loads(text)
            return outcome

        return fill


@dataclass
class MemoryLog:
    """See ``StepLog``."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def step_started(self, name: str) -> None:
        self.lines.append(("started", name))

    def step_ended(self, name: str, state: StepState, error: ErrorFacts | None) -> None:
        assert (error is not None) == (state is StepState.FAILED)
        self.lines.append((state.value, name))

    def step_replayed(self, name: str, error: ErrorFacts | None) -> None:
        self.lines.append(("replayed", name))

    def add_finding(self, finding: Finding) -> bool:
        is_new = finding not in self.findings
        if is_new:
            self.findings.append(finding)
        return is_new


def memory_context(
    *,
    recorder: MemoryRecorder | None = None,
    log: MemoryLog | None = None,
    cancel: Cancellation | None = None,
    progress: Progress | None = None,
) -> StepContext:
    return StepContext(
        run_id=RunId("r-memory"),
        cancel=cancel or Cancellation(),
        progress=progress or NoProgress(),
        recorder=recorder or MemoryRecorder(),
        log=log or MemoryLog(),
    )
