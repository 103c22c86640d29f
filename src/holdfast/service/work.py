"""Runs of the two flows: explained, started, resumed, closed, and swept up after.

Invariant: when a use case here returns, the run's record says the truth, and a run that is final has left nothing of
ours on the pool, or the report says what is left and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from holdfast.backup import BACKUP_KIND, BackupArgs, BackupPlan, check_keep_points, plan_backup
from holdfast.core import Cancellation, ExitStatus, HoldfastError, Progress
from holdfast.model import JsonObject, PoolUuid, RunId, RunStatus, new_run_id
from holdfast.restore import (
    RESTORE_KIND,
    RestoreArgs,
    RestorePlan,
    fresh_generation_id,
    measure_data,
    plan_restore,
    wishes_of,
)
from holdfast.runs import RunRecord, Runs, RunSummary
from holdfast.service.history import open_working_runs
from holdfast.service.points import newest_by_vm
from holdfast.service.pools import connect_pool, learn_hosts
from holdfast.service.repositories import open_by_name
from holdfast.service.succession import give_up_leases, take_place_of_waiting
from holdfast.service.sweeping import sweep_all
from holdfast.service.workspace import Workspace
from holdfast.upkeep import NOTHING_SWEPT, SweepReport
from holdfast.xapi import Inventory, Patience

__all__ = [
    "BackupRequest",
    "SelectionAmbiguous",
    "WorkReport",
    "cancel_run",
    "explain_backup",
    "explain_restore",
    "resume_run",
    "run_backup",
    "run_restore",
]


class SelectionAmbiguous(HoldfastError):
    """All VMs were asked for, and some by name."""

    code = "backup.selection-ambiguous"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was backed up."
    advice = "Give either --vm, once or more, or --all."

    def __init__(self) -> None:
        super().__init__("all VMs were asked for and some by name")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What the user asks to back up: VMs by name or uuid, or ``all_vms`` of the pool."""

    pool: str
    repository: str
    vms: tuple[str, ...] = ()
    all_vms: bool = False
    force_full: bool = False
    keep_points: int | None = None
    job: str = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReport:
    """A run as it ended, what was swept after it, and older runs that were closed before it."""

    run: RunRecord
    sweep: SweepReport
    closed: tuple[RunSummary, ...] = ()
    not_given_up: HoldfastError | None = None
    """Why what a cancelled run stored cannot be collected yet."""


def explain_backup(workspace: Workspace, request: BackupRequest, *, cancel: Cancellation) -> BackupPlan:
    """Return what a backup would do; nothing is changed."""
    _check_request(request)
    with connect_pool(workspace, request.pool, cancel) as pool:
        return _plan(workspace, request, pool.inventory(), cancel=cancel)


def run_backup(workspace: Workspace, request: BackupRequest, *, progress: Progress, cancel: Cancellation) -> WorkReport:
    """Back up, and return how it went. Raises only when the run could not begin; its own failures are in the record."""
    _check_request(request)
    with open_working_runs(workspace) as runs:
        with connect_pool(workspace, request.pool, cancel, patience=Patience.RUN, tell=progress.note) as pool:
            learn_hosts(workspace, request.pool, pool)
            inventory = pool.inventory()
        plan = _plan(workspace, request, inventory, cancel=cancel)
        args = BackupArgs(
            pool=request.pool,
            repository=request.repository,
            vms=tuple(each.vm.uuid for each in plan.vms),
            vm_names={each.vm.uuid: each.vm.name for each in plan.vms},
            force_full=request.force_full,
            keep_points=request.keep_points,
            job=request.job,
        )
        closed = take_place_of_waiting(runs, args, on_pool={vm.uuid for vm in inventory.vms}, progress=progress)
        args = msgspec.structs.replace(args, heir_of=tuple(each.run_id for each in closed))
        title = f"back up {', '.join(each.vm.name for each in plan.vms)}"
        report = _execute(workspace, runs, BACKUP_KIND, _builtins(args), title, progress=progress, cancel=cancel)
        return WorkReport(run=report.run, sweep=report.sweep, closed=closed)


def explain_restore(workspace: Workspace, args: RestoreArgs, *, cancel: Cancellation) -> RestorePlan:
    """Return what a restore would do; nothing is changed."""
    return _plan_restore(workspace, args, patience=Patience.BRIEF, tell=lambda _: None, cancel=cancel)


def run_restore(
    workspace: Workspace,
    args: RestoreArgs,
    *,
    progress: Progress,
    cancel: Cancellation,
    show_plan: Callable[[RestorePlan], None] = lambda _: None,
) -> WorkReport:
    """Restore, and return how it went. ``show_plan`` gets the plan first. Raises only when the run could not begin."""
    with open_working_runs(workspace) as runs:
        plan = _plan_restore(workspace, args, patience=Patience.RUN, tell=progress.note, cancel=cancel)
        show_plan(plan)
        whole = msgspec.structs.replace(args, point=plan.point.id)
        title = f"restore {plan.name} from {plan.point.id}"
        return _execute(workspace, runs, RESTORE_KIND, _builtins(whole), title, progress=progress, cancel=cancel)


def resume_run(workspace: Workspace, run: RunId, *, progress: Progress, cancel: Cancellation) -> WorkReport:
    """Continue a paused or interrupted run where it was, and return how it went."""
    with open_working_runs(workspace) as runs:
        record = runs.resume(run, cancel=cancel, progress=progress)
        sweep = _sweep_after(workspace, runs, record)
        return WorkReport(run=runs.show(run), sweep=sweep)


def cancel_run(workspace: Workspace, run: RunId, *, reason: str) -> WorkReport:
    """Close a run for good and remove what it left on the pool. One that works in another process is asked to stop."""
    with open_working_runs(workspace) as runs:
        record = runs.show(run)
        if record.status is RunStatus.RUNNING:
            runs.request_cancel(run, reason=reason)
            return WorkReport(run=runs.show(run), sweep=NOTHING_SWEPT)
        not_given_up = None
        if not record.status.is_final:
            record = runs.close_run(run, reason=reason)
            not_given_up = give_up_leases(workspace, record)
        sweep = _sweep_after(workspace, runs, record)
        return WorkReport(run=runs.show(run), sweep=sweep, not_given_up=not_given_up)


def _check_request(request: BackupRequest) -> None:
    """Refuse what is wrong whatever the pool says, before it is asked."""
    if request.all_vms and request.vms:
        raise SelectionAmbiguous
    check_keep_points(request.keep_points)


def _plan(workspace: Workspace, request: BackupRequest, inventory: Inventory, *, cancel: Cancellation) -> BackupPlan:
    wanted = inventory.vms if request.all_vms else [inventory.find_vm(name) for name in request.vms]
    unique = {vm.uuid: vm for vm in wanted}
    newest = newest_by_vm(open_by_name(workspace, request.repository, browsing=True, cancel=cancel).points())
    return plan_backup(list(unique.values()), newest, force_full=request.force_full, keep_points=request.keep_points)


def _plan_restore(
    workspace: Workspace,
    args: RestoreArgs,
    *,
    patience: Patience,
    tell: Callable[[str], None],
    cancel: Cancellation,
) -> RestorePlan:
    repository = open_by_name(workspace, args.repository, cancel=cancel)
    point = repository.point(args.point)
    with connect_pool(workspace, args.pool, cancel, patience=patience, tell=tell) as pool:
        return plan_restore(
            point,
            pool.inventory(),
            wishes_of(args),
            data_bytes=measure_data(repository, point, cancel=cancel),
            fresh_generation=fresh_generation_id(workspace.entropy),
        )


def _execute(
    workspace: Workspace,
    runs: Runs,
    kind: str,
    args: JsonObject,
    title: str,
    *,
    progress: Progress,
    cancel: Cancellation,
) -> WorkReport:
    run = new_run_id(clock=workspace.clock, entropy=workspace.entropy)
    record = runs.execute(kind, run, args, cancel=cancel, progress=progress, title=title)
    sweep = _sweep_after(workspace, runs, record)
    # Shown again: the ledger lines that the record tells have been closed by the sweep.
    return WorkReport(run=runs.show(run), sweep=sweep)


def _sweep_after(workspace: Workspace, runs: Runs, record: RunRecord) -> SweepReport:
    """Sweep the pools that the run has made something on, and the one it names, whatever that is called now."""
    return sweep_all(workspace, runs, _pools_of(workspace, record))


def _pools_of(workspace: Workspace, record: RunRecord) -> Sequence[PoolUuid]:
    pools = [line.pool for line in record.ledger]
    try:
        pools.append(workspace.registry.pool(str(record.args["pool"])).pool)
    except HoldfastError:
        # Forgotten or damaged: what the ledger names is swept all the same.
        return pools
    return pools


def _builtins(value: msgspec.Struct) -> JsonObject:
    built: JsonObject = msgspec.to_builtins(value)
    return built
