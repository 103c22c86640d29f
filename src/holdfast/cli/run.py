"""``holdfast run``: what was executed, and how to continue or close it."""

from __future__ import annotations

from cyclopts import App

from holdfast import service
from holdfast.cli.backup import show_backup_result
from holdfast.cli.report import report_work
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_bytes, format_duration
from holdfast.model import RunId, RunStatus

__all__ = ["app"]

app = App(name="run", help="What was executed, and how to continue or close it.")

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
def list_(*, limit: int = 20, common: Common = _NO_COMMON) -> int:
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
                format_duration(((each.ended or each.updated) - each.started).total_seconds()),
                each.title,
            )
            for each in runs
        ]
        session.out.table(("RUN", "STATUS", "STARTED (UTC)", ">TOOK", "WHAT"), rows, empty="No run yet.")
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
    """Continue a run that was paused or whose process died; without a name, every one that waits.

    Example: holdfast run resume r-20261120-090820-5c1d07

    Parameters
    ----------
    run
        The run; all that wait when left out.
    """

    def body(session: Session) -> ExitStatus:
        waiting = (RunStatus.PAUSED, RunStatus.INTERRUPTED)
        known = service.list_runs(session.workspace, limit=100) if run is None else ()
        names = [RunId(run)] if run else [each.run_id for each in reversed(known) if each.status in waiting]
        if not names:
            raise NothingToResume
        status = ExitStatus.OK
        for name in names:
            with session.progress() as progress:
                report = service.resume_run(session.workspace, name, progress=progress, cancel=session.cancel)
            if report.run.kind == "backup":
                show_backup_result(session, report)
            ended = report_work(session, report)
            status = status if ended is ExitStatus.OK else ended
        return status

    return run_command(common, body)


@app.command
def cancel(run: str, *, common: Common = _NO_COMMON) -> int:
    """Close a run for good and remove what it left on the pool. What it stored is re-used by the next backup.

    Example: holdfast run cancel r-20261120-090820-5c1d07

    Parameters
    ----------
    run
        The run.
    """

    def body(session: Session) -> ExitStatus:
        report = service.cancel_run(session.workspace, RunId(run), reason="cancelled by request")
        if report.run.status is RunStatus.RUNNING:
            session.out.say(f"Run {run} works in another process; it was asked to stop and will clean up.")
        else:
            session.out.say(f"Run {run} is {report.run.status.value}.")
        for what in report.sweep.removed:
            session.out.say(f"removed from the pool: {what}")
        for what, error in report.sweep.left:
            session.out.warn(f"left on the pool: {what}: {error}")
        session.out.result({"run": report.run.to_json(), "removed_from_pool": report.sweep.removed})
        return ExitStatus.OK if not report.sweep.left else ExitStatus.FAILED

    return run_command(common, body)
