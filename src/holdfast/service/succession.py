"""What becomes of runs that wait when a new backup of the same VMs begins, and of runs that are closed by hand.

A run that was stopped at night and is never resumed would keep its snapshots for ever, and the SR fills up. So a new
backup that does all that such a run still had to do takes its place. Invariant: nothing that only the waiting run
would have done is given up by it; those runs are told instead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from holdfast.backup import BACKUP_KIND, BackupArgs
from holdfast.core import Cancellation, HoldfastError, Progress, from_builtins
from holdfast.model import RunStatus
from holdfast.runs import RunIsRunning, RunRecord, Runs, RunSummary, StepState
from holdfast.service.history import waiting_runs
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = ["give_up_leases", "take_place_of_waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beginning:
    """The backup that is about to begin."""

    pool: str
    repository: str
    vms: Collection[str]
    on_pool: Collection[str]
    """The VMs that the pool has."""


def take_place_of_waiting(
    runs: Runs, args: BackupArgs, *, on_pool: Collection[str], progress: Progress
) -> tuple[RunSummary, ...]:
    """Close the waiting runs whose work the backup ``args`` does anew, tell of the others, and return those closed.

    What they stored is re-used by their heir.
    """
    new = _Beginning(pool=args.pool, repository=args.repository, vms=args.vms, on_pool=on_pool)
    closed = []
    for each in waiting_runs(runs):
        record = runs.show(each.run_id)
        if record.args.get("pool") != new.pool:
            continue
        how = "was interrupted" if record.status is RunStatus.INTERRUPTED else "is paused"
        if not _is_replaced_by(record, new):
            progress.note(f"run {each.run_id} ({each.title}) {how} and keeps what it made; resume or cancel it")
            continue
        try:
            closed.append(runs.close_run(each.run_id, reason="a newer run of the same VMs takes its place"))
        except RunIsRunning:
            continue  # somebody resumed it this moment
        progress.note(f"run {each.run_id} {how}; this run takes its place and re-uses what it stored")
    return tuple(closed)


def give_up_leases(workspace: Workspace, record: RunRecord) -> HoldfastError | None:
    """Let garbage collection have what a closed backup stored; return why that has to wait, when it has to."""
    if record.kind != BACKUP_KIND:
        return None
    try:
        name = str(record.args["repository"])
        open_by_name(workspace, name, cancel=Cancellation()).end_run(record.run_id)
    except HoldfastError as error:
        return error
    return None


def _is_replaced_by(record: RunRecord, new: _Beginning) -> bool:
    """Whether every VM that the waiting run had still to do, and that still exists, is in the new one."""
    if record.kind != BACKUP_KIND or record.args.get("repository") != new.repository:
        return False
    done = {step.name.removeprefix("commit ") for step in record.steps if step.state is StepState.DONE}
    pending = set(from_builtins(record.args, BackupArgs).vms) - done
    return {vm for vm in pending if vm in new.on_pool} <= set(new.vms)
