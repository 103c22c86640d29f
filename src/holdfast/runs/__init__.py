"""Durable executions: runs, steps, findings, progress and the ledger."""

from holdfast.runs.context import Flow, RunStopped, StepContext, StepFailed, StepFunction, StepResult
from holdfast.runs.errors import (
    FlowUnknown,
    RunAlreadyExists,
    RunFinished,
    RunFlowChanged,
    RunIsRunning,
    RunNotFound,
    RunsDatabaseBusy,
    RunsDatabaseDamaged,
    RunsDatabaseNewer,
    RunsDiskFull,
    RunsFolderNotWritable,
    RunStateLost,
    RunsUnavailable,
)
from holdfast.runs.ledger import Ledger, LedgerId, LedgerLine, LedgerState
from holdfast.runs.record import ErrorFacts, NoteLine, RunRecord, RunSummary, StepRecord, StepState, TaskProgress
from holdfast.runs.runs import Runs, open_runs

__all__ = [
    "ErrorFacts",
    "Flow",
    "FlowUnknown",
    "Ledger",
    "LedgerId",
    "LedgerLine",
    "LedgerState",
    "NoteLine",
    "RunAlreadyExists",
    "RunFinished",
    "RunFlowChanged",
    "RunIsRunning",
    "RunNotFound",
    "RunRecord",
    "RunStateLost",
    "RunStopped",
    "RunSummary",
    "Runs",
    "RunsDatabaseBusy",
    "RunsDatabaseDamaged",
    "RunsDatabaseNewer",
    "RunsDiskFull",
    "RunsFolderNotWritable",
    "RunsUnavailable",
    "StepContext",
    "StepFailed",
    "StepFunction",
    "StepRecord",
    "StepResult",
    "StepState",
    "TaskProgress",
    "open_runs",
]
