"""``holdfast run``: what was executed, and how to continue or close it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from cyclopts import App, Parameter, validators

from holdfast import service
from holdfast.cli.nouns import NOUNS
from holdfast.cli.report import show_sweep, tell_work, work_document
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_bytes, format_duration
from holdfast.model import RunId, RunStatus
from holdfast.runs import RunSummary
from holdfast.service import WorkReport

__all__ = ["app"]

app = App(name="run", help=NOUNS["run"])

_NO_COMMON = Common()


class NothingToResume(HoldfastError):
    """No run waits to be continued."""

    code = "run.nothing-to-resume"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."
    advice = "'holdfast run list' shows all runs."

    def __init__(self) -> None:
        super().__init__("no run is paused or interrupted")


@app.command(name="list")
def list_(
    *, limit: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20, common: Common = _NO_COMMON
) -> int:
    """List the newest runs with the truth about each.

    Example: holdfast run list --limit 50

    Parameters
    ----------
    limit
        How many at most.
    """

    def body(session: Session) -> ExitStatus:
        runs = service.list_runs(session.workspace, limit=limit)
        rows = [
            (
                each.run_id,
                each.status.value,
                f"{each.started:%Y-%m-%d %H:%M:%S}",
                _took(each, session.workspace.clock.now()),
                each.title,
            )
            for each in runs
        ]
        session.out.table(("=RUN", "STATUS", "STARTED (UTC)", ">TOOK", "WHAT"), rows, empty="No run yet.")
        session.out.result([each.to_json() for each in runs])
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def show(run: str, *, common: Common = _NO_COMMON) -> int:
    """Show a run: its steps, what it told, its findings and what it made on the pool.

    Example: holdfast run show r-20261120-090820-5c1d07

    Parameters
    ----------
    run
        The run.
    """

    def body(session: Session) -> ExitStatus:
        record = service.show_run(session.workspace, run)
        out = session.out
        out.say(f"{record.run_id}  {record.title}", style="bold")
        out.say(f"{record.status.value}{f': {record.reason}' if record.reason else ''}")
        rows = [
            (
                step.name,
                step.state.value,
                str(step.attempts),
                format_duration(step.duration_s) if step.duration_s is not None else "",
                step.error.message if step.error else "",
            )
            for step in record.steps
        ]
        out.gap()
        out.table(("STEP", "STATE", ">ATTEMPTS", ">TOOK", "ERROR"), rows, empty="no step yet")
        for task in record.progress:
            total = f" of {format_bytes(task.total_bytes)}" if task.total_bytes else ""
            out.say(f"under way: {task.what}, {format_bytes(task.done_bytes)}{total}")
        for note in record.notes:
            out.say(f"{note.told:%H:%M:%S} {note.message}")
        for finding in record.findings:
            out.say(f"{finding.severity.value}: {finding.subject}: {finding.message}")
        for line in record.ledger:
            out.say(f"on the pool: {line.kind} {line.name!r}: {line.state.value} {line.why}")
        if record.error is not None:
            out.say(f"error: {record.error.message}\n  {record.error.next_step}")
        out.result(record.to_json())
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def resume(run: str | None = None, *, common: Common = _NO_COMMON) -> int:
    """Continue a run that was paused or whose process died; without a name, every one that waits, oldest first.

    With --json a named run is told as by 'backup run', several as a list under "runs".

    Example: holdfast run resume r-20261120-090820-5c1d07

    Parameters
    ----------
    run
        The run; all that wait when left out.
    """

    def body(session: Session) -> ExitStatus:
        if run is not None:
            report = _resume_one(session, RunId(run))
            session.out.result(work_document(report))
            return tell_work(session, report)
        waiting = service.list_waiting_runs(session.workspace)
        if not waiting:
            raise NothingToResume
        return _resume_all(session, [each.run_id for each in waiting])

    return run_command(common, body)


@app.command
def cancel(run: str, *, common: Common = _NO_COMMON) -> int:
    """Close a run for good and remove what it left on the pool. What it stored is given up.

    Example: holdfast run cancel r-20261120-090820-5c1d07

    Parameters
    ----------
    run
        The run.
    """

    def body(session: Session) -> ExitStatus:
        report = service.cancel_run(session.workspace, RunId(run), reason="cancelled by request")
        out, status = session.out, report.run.status
        if status is RunStatus.RUNNING:
            out.say(f"Run {run} works in another process; it was asked to stop and will clean up.")
        else:
            out.say(f"Run {run} is {status.value}.")
        show_sweep(out, report, quietly=False)
        if report.not_given_up is not None:
            out.warn(f"What it stored is given up once its lease has ended: {report.not_given_up}")
        out.result(work_document(report))
        return ExitStatus.OK if not report.sweep.left else ExitStatus.FAILED

    return run_command(common, body)


def _resume_one(session: Session, run: RunId) -> WorkReport:
    with session.progress() as progress:
        return service.resume_run(session.workspace, run, progress=progress, cancel=session.cancel)


def _resume_all(session: Session, waiting: list[RunId]) -> ExitStatus:
    """Resume one after the other; what keeps one from going on does not keep the others."""
    status, documents = ExitStatus.OK, []
    for run in waiting:
        try:
            report = _resume_one(session, run)
        except HoldfastError as error:
            session.out.tell_error(error)
            documents.append({"run_id": run, **session.out.error_document(error)})
            ended = error.exit_status
        else:
            documents.append(work_document(report))
            ended = tell_work(session, report)
        status = status if ended is ExitStatus.OK else ended
        if session.cancel.is_cancelled:
            break
    session.out.result({"runs": documents})
    return status


def _took(run: RunSummary, now: datetime) -> str:
    """Return how long a run took, or takes so far."""
    end = run.ended or (now if run.status is RunStatus.RUNNING else run.updated)
    return format_duration(max((end - run.started).total_seconds(), 0.0))
