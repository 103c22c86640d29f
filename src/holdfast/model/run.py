"""A run: one execution of a job, what became of it and what it found worth telling."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "RunStatus", "Severity"]


class RunStatus(enum.Enum):
    """The truth about a run at this moment."""

    RUNNING = "running"
    PAUSED = "paused"
    """Stopped by request; resumable."""
    INTERRUPTED = "interrupted"
    """Its process died; resumable."""
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    """Some VMs have a new point, others do not."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Closed by request or because a newer run took its place; cleaned up."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self in (RunStatus.SUCCEEDED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED)


class Severity(enum.Enum):
    """How much a finding matters."""

    NOTE = "note"
    WARNING = "warning"
    DATA_AT_RISK = "data at risk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fact worth telling, attached to a run, a VM or a disk."""

    severity: Severity
    subject: str
    message: str
    next_step: str = ""
