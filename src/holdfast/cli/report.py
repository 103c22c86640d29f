"""How the end of a run is told, the same for backups, restores, resumed and cancelled runs."""

from __future__ import annotations

from holdfast.backup import BACKUP_KIND, BackupResult
from holdfast.cli.output import Output, plain
from holdfast.cli.session import Session
from holdfast.core import ExitStatus, format_bytes, format_duration, from_builtins
from holdfast.model import RunStatus
from holdfast.restore import RESTORE_KIND, RestoreResult
from holdfast.runs import RunRecord
from holdfast.service import WorkReport

__all__ = ["show_sweep", "tell_work", "work_document"]


def tell_work(session: Session, report: WorkReport) -> ExitStatus:
    """Print what the run made, findings, what is left on the pool, the error and the next step; return the status."""
    out, run = session.out, report.run
    _show_result(out, run)
    for finding in run.findings:
        out.say(f"{finding.severity.value}: {finding.subject}: {finding.message}")
        if finding.next_step:
            out.say(f"  {finding.next_step}")
    show_sweep(out, report, quietly=True)
    if run.error is not None:
        out.warn(f"Run {run.run_id} {run.status.value}: {run.error.message}")
        out.warn(f"  Your data: {run.error.effect}")
        out.warn(f"  What to do: {run.error.next_step}")
    if run.is_resumable:
        out.warn(f"Run {run.run_id} is {run.status.value}: {run.reason}")
        out.warn(f"  Continue: holdfast run resume {run.run_id}")
        out.warn(f"  Close it and clean up: holdfast run cancel {run.run_id}")
    return _status_of(run)


def work_document(report: WorkReport) -> dict[str, object]:
    """Return the end of a run as its JSON document."""
    refused = report.not_given_up
    return {
        "run": report.run.to_json(),
        "removed_from_pool": report.sweep.removed,
        "left_on_pool": [
            {"what": each.what, "error": str(each.error), "code": each.error.code, "next_step": each.error.next_step()}
            for each in report.sweep.left
        ],
        "closed_runs": [plain(each.to_json()) for each in report.closed],
        "not_given_up": None if refused is None else {"error": str(refused), "code": refused.code},
    }


def show_sweep(out: Output, report: WorkReport, *, quietly: bool) -> None:
    """Print what could not be removed from the pool, and, unless ``quietly``, what was."""
    for what in () if quietly else report.sweep.removed:
        out.say(f"removed from the pool: {what}")
    for each in report.sweep.left:
        out.warn(f"left on the pool: {each.what}: {each.error}")
        out.warn(f"  {each.error.next_step()}")


def _status_of(run: RunRecord) -> ExitStatus:
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


def _show_result(out: Output, run: RunRecord) -> None:
    if run.result is None:
        return
    if run.kind == BACKUP_KIND:
        _show_backup(out, from_builtins(run.result, BackupResult))
    elif run.kind == RESTORE_KIND:
        _show_restore(out, from_builtins(run.result, RestoreResult))
    if run.ended is not None:
        out.say(f"run {run.run_id} took {format_duration((run.ended - run.started).total_seconds())}")


def _show_backup(out: Output, result: BackupResult) -> None:
    """Print what each VM and disk cost."""
    rows = [
        (
            vm.vm_name,
            disk.position,
            disk.source.value,
            format_bytes(disk.provisioned_bytes),
            format_bytes(disk.read_bytes),
            format_bytes(disk.new_bytes),
            format_bytes(disk.stored_bytes),
        )
        for vm in result.vms
        for disk in vm.disks
    ]
    if rows:
        columns = ("VM", "DISK", "SOURCE", ">PROVISIONED", ">READ", ">NEW", ">STORED")
        out.table(columns, rows, empty="")
    for vm in result.vms:
        if vm.point is not None:
            dropped = f"; {len(vm.dropped_points)} older dropped" if vm.dropped_points else ""
            out.say(f"{vm.vm_name}: point {vm.point}{dropped}")


def _show_restore(out: Output, result: RestoreResult) -> None:
    for disk in result.disks:
        out.say(f"disk {disk.position} {disk.name!r}: {format_bytes(disk.data_bytes)} written to {disk.disk}")
    started = ", and runs" if result.started else ""
    out.say(f"VM {result.vm_name!r} is restored: {result.vm}{started}")
