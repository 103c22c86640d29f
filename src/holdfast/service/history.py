"""The runs of this installation: opened with the flows they follow, listed, shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from holdfast.backup import BACKUP_KIND, BackupFlow
from holdfast.core import limits
from holdfast.model import RunId, RunStatus
from holdfast.restore import RESTORE_KIND, RestoreFlow
from holdfast.runs import RunRecord, Runs, RunSummary, StepContext
from holdfast.service.pools import connect_pool
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace
from holdfast.upkeep import remove_line
from holdfast.xapi import Patience, PoolClient

__all__ = ["list_runs", "list_waiting_runs", "open_working_runs", "show_run", "waiting_runs"]


def list_runs(workspace: Workspace, *, limit: int) -> Sequence[RunSummary]:
    """Return the newest runs, newest first."""
    with workspace.open_runs() as runs:
        return runs.list(limit=limit)


def list_waiting_runs(workspace: Workspace) -> Sequence[RunSummary]:
    """Return every run that is paused or was interrupted, oldest first: the order to continue them in."""
    with workspace.open_runs() as runs:
        return waiting_runs(runs)


def show_run(workspace: Workspace, run: str) -> RunRecord:
    """Return everything that is known about a run."""
    with workspace.open_runs() as runs:
        return runs.show(RunId(run))


def waiting_runs(runs: Runs) -> list[RunSummary]:
    """Return the runs that somebody may resume, oldest first."""
    # Asked by status: runs that wait are never forgotten, and may lie behind any number of finished ones.
    waiting = [
        each
        for status in (RunStatus.PAUSED, RunStatus.INTERRUPTED)
        for each in runs.list(limit=limits.RUNS_KEPT_MAX, status=status)
    ]
    return sorted(waiting, key=lambda each: (each.started, each.run_id))


@contextlib.contextmanager
def open_working_runs(workspace: Workspace) -> Iterator[Runs]:
    """Open the runs with both flows registered, ready to execute and to resume."""

    def open_pool(name: str, context: StepContext) -> PoolClient:
        return connect_pool(workspace, name, context.cancel, patience=Patience.RUN, tell=context.note)

    with workspace.open_runs() as runs:
        backup = BackupFlow(
            open_pool=open_pool,
            open_repository=lambda name, cancel: open_by_name(workspace, name, cancel=cancel),
            ledger=runs.ledger,
            remove_line=remove_line,
            clock=workspace.clock,
            entropy=workspace.entropy,
        )
        restore = RestoreFlow(
            open_pool=open_pool,
            open_repository=lambda name, cancel: open_by_name(workspace, name, cancel=cancel),
            ledger=runs.ledger,
            remove_line=remove_line,
            clock=workspace.clock,
            entropy=workspace.entropy,
        )
        runs.register(BACKUP_KIND, backup)
        runs.register(RESTORE_KIND, restore)
        yield runs
