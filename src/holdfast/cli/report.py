"""How the end of a run is told, the same for backups, restores and resumed runs."""

from __future__ import annotations

from holdfast.cli.output import plain
from holdfast.cli.session import Session
from holdfast.core import ExitStatus
from holdfast.model import RunStatus
from holdfast.service import WorkReport

__all__ = ["report_work"]


def report_work(session: Session, report: WorkReport) -> ExitStatus:
    """Print findings, what was left on the pool, the error and the next step; return the exit status."""
    out, run = session.out, report.run
    for finding in run.findings:
        out.say(f"{finding.severity.value}: {finding.subject}: {finding.message}")
        if finding.next_step:
            out.say(f"  {finding.next_step}")
    for what, error in report.sweep.left:
        out.warn(f"left on the pool: {what}: {error}. The next run tries again.")
    if run.error is not None:
        out.warn(f"Run {run.run_id} {run.status.value}: {run.error.message}")
        out.warn(f"  Your data: {run.error.effect}")
        out.warn(f"  What to do: {run.error.next_step}")
    if run.is_resumable:
        out.warn(f"Run {run.run_id} is {run.status.value}: {run.reason}")
        out.warn(f"  Continue: holdfast run resume {run.run_id}")
        out.warn(f"  Close it and clean up: holdfast run cancel {run.run_id}")
    out.result(
        {
            "run": run.to_json(),
            "removed_from_pool": report.sweep.removed,
            "left_on_pool": [{"what": what, "error": str(error)} for what, error in report.sweep.left],
            "closed_runs": [plain(each.to_json()) for each in report.closed],
        }
    )
    match run.status:
        case RunStatus.SUCCEEDED:
            return ExitStatus.OK
        case RunStatus.PARTIAL:
            return ExitStatus.PARTIAL
        case RunStatus.FAILED | RunStatus.PAUSED if run.error is not None:
            return run.error.exit_status
        case RunStatus.FAILED:
            return ExitStatus.FAILED
        case RunStatus.PAUSED | RunStatus.INTERRUPTED | RunStatus.CANCELLED | RunStatus.RUNNING:
            return ExitStatus.INTERRUPTED
