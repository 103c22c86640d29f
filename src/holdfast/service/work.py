"""Runs of the two flows: started, resumed, closed, and swept up after.

Invariant: when a use case here returns, the run's record says the truth, and a run that is final has left nothing of
ours on the pool, or the report says what is left and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from holdfast.backup import BACKUP_KIND, BackupArgs, BackupFlow, BackupPlan, plan_backup
from holdfast.core import Cancellation, HoldfastError, Progress, limits
from holdfast.model import JsonObject, RunId, RunStatus, new_run_id
from holdfast.restore import (
    RESTORE_KIND,
    RestoreArgs,
    RestoreFlow,
    RestorePlan,
    fresh_generation_id,
    measure_data,
    plan_restore,
    wishes_of,
)
from holdfast.runs import RunIsRunning, RunRecord, Runs, RunSummary
from holdfast.service.config import NameUnknown
from holdfast.service.points import newest_of
from holdfast.service.pools import connect_pool
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace
from holdfast.upkeep import SweepReport, lines_to_sweep, sweep_ledger
from holdfast.xapi import Inventory

__all__ = [
    "BackupRequest",
    "WorkReport",
    "cancel_run",
    "explain_backup",
    "explain_restore",
    "list_runs",
    "resume_run",
    "run_backup",
    "run_restore",
    "show_run",
]

_NOTHING_SWEPT = SweepReport(removed=(), left=())


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What the user asks to back up. An empty ``vms`` with ``all_vms`` means every VM of the pool."""

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


def explain_backup(workspace: Workspace, request: BackupRequest, *, cancel: Cancellation) -> BackupPlan:
    """Return what a backup would do; nothing is changed."""
    with connect_pool(workspace, request.pool, cancel) as pool:
        return _plan(workspace, request, pool.inventory(), cancel=cancel)


def run_backup(workspace: Workspace, request: BackupRequest, *, progress: Progress, cancel: Cancellation) -> WorkReport:
    """Back up, and return how it went. Raises only when the run could not begin; its own failures are in the record."""
    with _runs(workspace) as runs:
        plan = explain_backup(workspace, request, cancel=cancel)
        _tell_paused(runs, request.pool, progress)
        closed = _close_interrupted(workspace, runs, request.pool, progress)
        names = ", ".join(each.vm.name for each in plan.vms)
        args = BackupArgs(
            pool=request.pool,
            repository=request.repository,
            vms=tuple(each.vm.uuid for each in plan.vms),
            force_full=request.force_full,
            keep_points=request.keep_points,
            job=request.job,
            heir_of=tuple(each.run_id for each in closed),
        )
        return _execute(
            workspace,
            runs,
            BACKUP_KIND,
            _builtins(args),
            f"back up {names}",
            progress=progress,
            cancel=cancel,
            closed=closed,
        )


def explain_restore(workspace: Workspace, args: RestoreArgs, *, cancel: Cancellation) -> RestorePlan:
    """Return what a restore would do; nothing is changed."""
    repository = open_by_name(workspace, args.repository, cancel=cancel)
    point = repository.point(args.point)
    with connect_pool(workspace, args.pool, cancel) as pool:
        return plan_restore(
            point,
            pool.inventory(),
            wishes_of(args),
            data_bytes=measure_data(repository, point, cancel=cancel),
            fresh_generation=fresh_generation_id(workspace.entropy),
        )


def run_restore(workspace: Workspace, args: RestoreArgs, *, progress: Progress, cancel: Cancellation) -> WorkReport:
    """Restore, and return how it went. Raises only when the run could not begin."""
    with _runs(workspace) as runs:
        plan = explain_restore(workspace, args, cancel=cancel)
        whole = msgspec.structs.replace(args, point=plan.point.id)
        title = f"restore {plan.name} from {plan.point.id}"
        return _execute(workspace, runs, RESTORE_KIND, _builtins(whole), title, progress=progress, cancel=cancel)


def resume_run(workspace: Workspace, run: RunId, *, progress: Progress, cancel: Cancellation) -> WorkReport:
    """Continue a paused or interrupted run where it was, and return how it went."""
    with _runs(workspace) as runs:
        record = runs.resume(run, cancel=cancel, progress=progress)
        return WorkReport(run=record, sweep=_sweep(workspace, runs, _pool_of(record)))


def cancel_run(workspace: Workspace, run: RunId, *, reason: str) -> WorkReport:
    """Close a run for good and remove what it left on the pool. One that works in another process is asked to stop."""
    with _runs(workspace) as runs:
        record = runs.show(run)
        if record.status is RunStatus.RUNNING:
            runs.request_cancel(run, reason=reason)
            return WorkReport(run=runs.show(run), sweep=_NOTHING_SWEPT)
        if not record.status.is_final:
            record = runs.close_run(run, reason=reason)
            _give_up_leases(workspace, record)
        return WorkReport(run=record, sweep=_sweep(workspace, runs, _pool_of(record)))


def list_runs(workspace: Workspace, *, limit: int) -> Sequence[RunSummary]:
    """Return the newest runs, newest first."""
    with workspace.open_runs() as runs:
        return runs.list(limit=limit)


def show_run(workspace: Workspace, run: str) -> RunRecord:
    """Return everything that is known about a run."""
    with workspace.open_runs() as runs:
        return runs.show(RunId(run))


@contextlib.contextmanager
def _runs(workspace: Workspace) -> Iterator[Runs]:
    """Open the runs with both flows registered, ready to execute and to resume."""
    with workspace.open_runs() as runs:
        backup = BackupFlow(
            open_pool=lambda name, cancel: connect_pool(workspace, name, cancel),
            open_repository=lambda name, cancel: open_by_name(workspace, name, cancel=cancel),
            ledger=runs.ledger,
        )
        restore = RestoreFlow(
            open_pool=lambda name, cancel: connect_pool(workspace, name, cancel),
            open_repository=lambda name, cancel: open_by_name(workspace, name, cancel=cancel),
            ledger=runs.ledger,
            entropy=workspace.entropy,
        )
        runs.register(BACKUP_KIND, backup)
        runs.register(RESTORE_KIND, restore)
        yield runs


def _plan(workspace: Workspace, request: BackupRequest, inventory: Inventory, *, cancel: Cancellation) -> BackupPlan:
    wanted = inventory.vms if request.all_vms else [inventory.find_vm(name) for name in request.vms]
    unique = {vm.uuid: vm for vm in wanted}
    newest = newest_of(open_by_name(workspace, request.repository, cancel=cancel).points())
    return plan_backup(list(unique.values()), newest, force_full=request.force_full, keep_points=request.keep_points)


def _execute(
    workspace: Workspace,
    runs: Runs,
    kind: str,
    args: JsonObject,
    title: str,
    *,
    progress: Progress,
    cancel: Cancellation,
    closed: tuple[RunSummary, ...] = (),
) -> WorkReport:
    run = new_run_id(clock=workspace.clock, entropy=workspace.entropy)
    record = runs.execute(kind, run, args, cancel=cancel, progress=progress, title=title)
    return WorkReport(run=record, sweep=_sweep(workspace, runs, _pool_of(record)), closed=closed)


def _close_interrupted(workspace: Workspace, runs: Runs, pool: str, progress: Progress) -> tuple[RunSummary, ...]:
    """Close runs on this pool whose process died: this run does their work anew, re-using what they stored."""
    closed = []
    for each in runs.list(limit=limits.RUNS_KEPT_MAX, status=RunStatus.INTERRUPTED):
        if _pool_of(runs.show(each.run_id)) == pool:
            try:
                closed.append(runs.close_run(each.run_id, reason="its process died; a newer run takes its place"))
            except RunIsRunning:
                continue  # somebody resumed it this moment
            progress.note(f"run {each.run_id} was interrupted; it is closed and cleaned up, what it stored is re-used")
    return tuple(closed)


def _give_up_leases(workspace: Workspace, record: RunRecord) -> None:
    """Let garbage collection have what a cancelled backup stored; fine when the repository is not known any more."""
    if record.kind == BACKUP_KIND:
        with contextlib.suppress(NameUnknown):
            name = str(record.args["repository"])
            open_by_name(workspace, name, cancel=Cancellation()).end_run(record.run_id)


def _tell_paused(runs: Runs, pool: str, progress: Progress) -> None:
    """Remind of runs that were paused on purpose: they keep their snapshots until somebody decides."""
    for each in runs.list(limit=limits.RUNS_KEPT_MAX, status=RunStatus.PAUSED):
        if _pool_of(runs.show(each.run_id)) == pool:
            progress.note(f"run {each.run_id} is paused and keeps its snapshots; resume or cancel it")


def _pool_of(record: RunRecord) -> str:
    return str(record.args["pool"])


def _sweep(workspace: Workspace, runs: Runs, pool_name: str) -> SweepReport:
    """Remove what final runs left on a pool. A pool that cannot be reached is swept the next time."""
    try:
        config = workspace.registry.pool(pool_name)
    except NameUnknown:
        return _NOTHING_SWEPT
    unfinished = {each.run_id for each in runs.list(limit=limits.RUNS_KEPT_MAX) if not each.status.is_final}
    lines = lines_to_sweep(
        runs.ledger, pool=config.pool, is_final=lambda run: run not in unfinished, now=workspace.clock.now()
    )
    if not lines:
        return _NOTHING_SWEPT
    try:
        # A token of its own: cleaning up after a stop must not be stopped by the same Ctrl-C.
        with connect_pool(workspace, pool_name, Cancellation()) as client:
            return sweep_ledger(client, runs.ledger, lines)
    except HoldfastError as error:
        return SweepReport(removed=(), left=tuple((f"{each.kind} {each.name!r}", error) for each in lines))


def _builtins(value: msgspec.Struct) -> JsonObject:
    built: JsonObject = msgspec.to_builtins(value)
    return built
