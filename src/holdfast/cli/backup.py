"""``holdfast backup``: make restore points."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from holdfast import service
from holdfast.backup import BackupResult
from holdfast.cli.report import report_work
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_bytes, format_duration
from holdfast.service import BackupRequest, WorkReport

__all__ = ["app", "show_backup_result"]

app = App(name="backup", help="Make restore points.")

_NO_COMMON = Common()


@app.command
def run(
    *,
    pool: str,
    repository: str,
    vm: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    all_vms: Annotated[bool, Parameter(name="--all", negative="")] = False,
    full: Annotated[bool, Parameter(negative="")] = False,
    keep: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Back up VMs of a pool into a repository: what changed since their newest point, or everything the first time.

    Ctrl-C pauses within seconds; 'holdfast run resume' continues where it was.

    Example: holdfast backup run --pool prod --vm web --vm db --repository main --keep 14

    Parameters
    ----------
    pool
        The pool.
    repository
        The repository.
    vm
        A VM by name or uuid; may be repeated.
    all_vms
        Every VM of the pool.
    full
        Read every allocated block, as if nothing were known. Known content is still stored only once.
    keep
        Afterwards keep the newest N points of each VM and delete the others.
    dry_run
        Print the plan and stop.
    """

    def body(session: Session) -> ExitStatus:
        request = BackupRequest(
            pool=pool, repository=repository, vms=vm, all_vms=all_vms, force_full=full, keep_points=keep
        )
        if dry_run:
            plan = service.explain_backup(session.workspace, request, cancel=session.cancel)
            session.out.say(plan.explain())
            session.out.result({"plan": plan.explain().splitlines()})
            return ExitStatus.OK
        with session.progress() as progress:
            report = service.run_backup(session.workspace, request, progress=progress, cancel=session.cancel)
        show_backup_result(session, report)
        return report_work(session, report)

    return run_command(common, body)


def show_backup_result(session: Session, report: WorkReport) -> None:
    """Print what each VM and disk cost; nothing when the run has no result."""
    if report.run.result is None:
        return
    result = msgspec.convert(report.run.result, BackupResult)
    rows = []
    for vm in result.vms:
        for disk in vm.disks:
            rows.append(
                (
                    vm.vm_name,
                    disk.position,
                    disk.source.value,
                    format_bytes(disk.provisioned_bytes),
                    format_bytes(disk.read_bytes),
                    format_bytes(disk.new_bytes),
                    format_bytes(disk.stored_bytes),
                )
            )
    if rows:
        columns = ("VM", "DISK", "SOURCE", ">PROVISIONED", ">READ", ">NEW", ">STORED")
        session.out.table(columns, rows, empty="")
    for vm in result.vms:
        if vm.point is not None:
            dropped = f"; {len(vm.dropped_points)} older dropped" if vm.dropped_points else ""
            session.out.say(f"{vm.vm_name}: point {vm.point}{dropped}")
    if report.run.ended is not None:
        took_s = (report.run.ended - report.run.started).total_seconds()
        session.out.say(f"run {report.run.run_id} took {format_duration(took_s)}")
