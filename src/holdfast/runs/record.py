"""What is known about a run, as frozen values that a face can print and an API can send.

A record is the truth at the moment it was read: a run whose process died is ``INTERRUPTED`` in it, whatever the last
written row says. ``to_json`` gives the same names to people, scripts and the API.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from holdfast.core import ExitStatus, HoldfastError, Retry, format_time
from holdfast.model import Finding, JsonObject, JsonValue, RunId, RunStatus
from holdfast.runs.ledger import LedgerLine

__all__ = ["ErrorFacts", "NoteLine", "RunRecord", "RunSummary", "StepRecord", "StepState", "TaskProgress"]

UNEXPECTED_CODE = "run.unexpected"


class StepState(enum.Enum):
    """How far a step has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    """Stopped in the middle; it runs again when the run resumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """An error as plain values: it survives the process that raised it, unchanged."""

    code: str
    message: str
    effect: str
    next_step: str
    retry: Retry
    exit_status: ExitStatus
    facts: JsonObject

    @classmethod
    def of(cls, error: Exception) -> ErrorFacts:
        """Return the facts of any exception; one that is not ours is told as a mistake of the program."""
        if isinstance(error, HoldfastError):
            return cls(
                code=error.code,
                message=str(error),
                effect=error.effect,
                next_step=error.next_step(),
                retry=error.retry,
                exit_status=error.exit_status,
                facts=dict(error.facts()),
            )
        return cls(
            code=UNEXPECTED_CODE,
            message=f"{type(error).__name__}: {error}",
            effect="Published restore points are untouched; this part of the run was not completed.",
            next_step="This is a mistake in Holdfast; please report it with the output of 'holdfast run show'.",
            retry=Retry.NEVER,
            exit_status=ExitStatus.FAILED,
            facts={},
        )

    def to_json(self) -> JsonObject:
        """Return the facts as JSON; ``from_json`` gives an equal value back."""
        return {
            "code": self.code,
            "message": self.message,
            "effect": self.effect,
            "next_step": self.next_step,
            "retry": self.retry.value,
            "exit_status": int(self.exit_status),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: JsonValue) -> ErrorFacts:
        """Return what ``to_json`` wrote."""
        assert isinstance(value, dict)
        facts, exit_status = value["facts"], value["exit_status"]
        assert isinstance(facts, dict) and isinstance(exit_status, int)
        return cls(
            code=str(value["code"]),
            message=str(value["message"]),
            effect=str(value["effect"]),
            next_step=str(value["next_step"]),
            retry=Retry(value["retry"]),
            exit_status=ExitStatus(exit_status),
            facts=facts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress:
    """One thing that was under way when progress was last saved."""

    what: str
    done_bytes: int
    total_bytes: int | None

    def to_json(self) -> JsonObject:
        """Return the task as JSON."""
        return {"what": self.what, "done_bytes": self.done_bytes, "total_bytes": self.total_bytes}

    @classmethod
    def from_json(cls, value: JsonValue) -> TaskProgress:
        """Return what ``to_json`` wrote."""
        assert isinstance(value, dict)
        done_bytes, total_bytes = value["done_bytes"], value["total_bytes"]
        assert isinstance(done_bytes, int) and isinstance(total_bytes, int | None)
        return cls(what=str(value["what"]), done_bytes=done_bytes, total_bytes=total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteLine:
    """One line that a run told: a decision taken, a fall-back with its reason."""

    told: datetime
    message: str

    def to_json(self) -> JsonObject:
        """Return the line as JSON."""
        return {"told": format_time(self.told), "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One durable part of a run."""

    name: str
    state: StepState
    attempts: int
    started: datetime
    duration_s: float | None
    error: ErrorFacts | None

    def to_json(self) -> JsonObject:
        """Return the step as JSON."""
        return {
            "name": self.name,
            "state": self.state.value,
            "attempts": self.attempts,
            "started": format_time(self.started),
            "duration_s": self.duration_s,
            "error": self.error.to_json() if self.error else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run in one line."""

    run_id: RunId
    kind: str
    title: str
    status: RunStatus
    reason: str
    attempts: int
    """How many processes have worked on it: 1, and one more for each resume."""
    started: datetime
    updated: datetime
    ended: datetime | None
    error: ErrorFacts | None
    progress: tuple[TaskProgress, ...]

    @property
    def is_resumable(self) -> bool:
        """Whether ``resume`` may take it up."""
        return self.status in (RunStatus.PAUSED, RunStatus.INTERRUPTED)

    def to_json(self) -> JsonObject:
        """Return the run as JSON."""
        return {
            "run_id": str(self.run_id),
            "kind": self.kind,
            "title": self.title,
            "status": self.status.value,
            "is_resumable": self.is_resumable,
            "reason": self.reason,
            "attempts": self.attempts,
            "started": format_time(self.started),
            "updated": format_time(self.updated),
            "ended": format_time(self.ended) if self.ended else None,
            "error": self.error.to_json() if self.error else None,
            "progress": [task.to_json() for task in self.progress],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunSummary):
    """Everything that is known about a run."""

    args: JsonObject
    result: JsonObject | None
    steps: tuple[StepRecord, ...]
    findings: tuple[Finding, ...]
    notes: tuple[NoteLine, ...]
    ledger: tuple[LedgerLine, ...]

    def to_json(self) -> JsonObject:
        """Return the run as JSON, in full."""
        return {
            **RunSummary.to_json(self),
            "args": self.args,
            "result": self.result,
            "steps": [step.to_json() for step in self.steps],
            "findings": [
                {
                    "severity": finding.severity.value,
                    "subject": finding.subject,
                    "message": finding.message,
                    "next_step": finding.next_step,
                }
                for finding in self.findings
            ],
            "notes": [note.to_json() for note in self.notes],
            "ledger": [line.to_json() for line in self.ledger],
        }
