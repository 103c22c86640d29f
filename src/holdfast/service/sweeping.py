"""Cleaning up on pools: what finished runs left, what a pool that is forgotten keeps, references that nobody needs.

Invariant: a sweep never stops at what it cannot do. What stays is reported with its reason, and looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.core import Cancellation, ExitStatus, HoldfastError
from holdfast.model import PoolUuid, RunId
from holdfast.runs import LedgerLine, LedgerState, RunNotFound, Runs
from holdfast.service.config import PoolConfig
from holdfast.service.pools import connect_pool, forget_pool
from holdfast.service.workspace import Workspace
from holdfast.upkeep import (
    CleaningPlan,
    LeftOnPool,
    SweepReport,
    describe_line,
    lines_to_sweep,
    plan_cleaning,
    sweep_ledger,
)

__all__ = ["PoolForgotten", "RemovedPool", "clean_pool", "explain_cleaning", "remove_pool", "sweep_all", "sweep_pool"]


class PoolForgotten(HoldfastError):
    """Things of ours are on a pool that is not known here any more."""

    code = "pool.forgotten"
    exit_status = ExitStatus.NOT_FOUND
    effect = "They take space on that pool; restore points are untouched."

    def __init__(self, *, pool: PoolUuid) -> None:
        super().__init__(f"no pool with the uuid {pool} is known here, so it cannot be cleaned")
        self.pool = str(pool)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return "Add that pool again with 'holdfast pool add'; its next run, or 'holdfast pool clean', removes them."


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedPool:
    """A pool that was forgotten, and what of ours stays on it."""

    name: str
    references: int
    """Snapshots and change metadata for next increments."""
    leftovers: int
    """What runs that did not end in order have not removed yet."""


def sweep_pool(workspace: Workspace, runs: Runs, pool: PoolUuid) -> SweepReport:
    """Remove what final runs left on a pool. One that cannot be reached, or is forgotten, is told as left."""
    lines = lines_to_sweep(runs.ledger, pool=pool, is_final=_finality(runs), now=workspace.clock.now())
    if not lines:
        return SweepReport(removed=(), left=())
    # A closed line is only looked at in case of a late call; it is nothing to bother anybody with.
    owed = [line for line in lines if line.state.is_open]
    try:
        config = next((each for each in workspace.registry.pools() if each.pool == pool), None)
    except HoldfastError as error:
        return _all_left(owed, error)
    if config is None:
        return _all_left(owed, PoolForgotten(pool=pool))
    return _remove(workspace, runs, config, lines)


def sweep_all(workspace: Workspace, runs: Runs, pools: Sequence[PoolUuid]) -> SweepReport:
    """Sweep several pools, each once."""
    reports = [sweep_pool(workspace, runs, pool) for pool in dict.fromkeys(pools)]
    return SweepReport(
        removed=tuple(each for report in reports for each in report.removed),
        left=tuple(each for report in reports for each in report.left),
    )


def explain_cleaning(workspace: Workspace, name: str, *, everything: bool, cancel: Cancellation) -> CleaningPlan:
    """Return which references on a pool nobody needs any more, or all of them; nothing is changed."""
    with workspace.open_runs() as runs:
        return _plan_cleaning(workspace, runs, workspace.registry.pool(name), everything=everything, cancel=cancel)


def clean_pool(workspace: Workspace, name: str, *, everything: bool, cancel: Cancellation) -> SweepReport:
    """Remove what finished runs left on a pool, and the references that ``explain_cleaning`` names."""
    config = workspace.registry.pool(name)
    with workspace.open_runs() as runs:
        plan = _plan_cleaning(workspace, runs, config, everything=everything, cancel=cancel)
        cancel.check()
        leftovers = sweep_pool(workspace, runs, config.pool)
        for line in plan.lines:
            # Not kept any more: should removing it fail now, every later sweep tries again.
            runs.ledger.made(line.id, external_id=str(line.external_id))
        dropped = _remove(workspace, runs, config, plan.lines)
    return SweepReport(removed=(*leftovers.removed, *dropped.removed), left=(*leftovers.left, *dropped.left))


def remove_pool(workspace: Workspace, name: str) -> RemovedPool:
    """Forget a pool and its password, and return what of ours stays on it. Restore points are untouched."""
    config = workspace.registry.pool(name)
    with workspace.open_runs() as runs:
        kept = [
            line
            for line in runs.ledger.lines(pool=config.pool, states=(LedgerState.KEPT,))
            if "repository" in line.details
        ]
        leftovers = runs.ledger.open_lines(pool=config.pool)
    forget_pool(workspace, name)
    return RemovedPool(name=name, references=len(kept), leftovers=len(leftovers))


def _plan_cleaning(
    workspace: Workspace, runs: Runs, config: PoolConfig, *, everything: bool, cancel: Cancellation
) -> CleaningPlan:
    with connect_pool(workspace, config.name, cancel) as client:
        vms = {vm.uuid for vm in client.inventory().vms}
    return plan_cleaning(
        runs.ledger,
        pool=config.pool,
        known_repositories={each.repository for each in workspace.registry.repositories()},
        vms=vms,
        everything=everything,
    )


def _remove(workspace: Workspace, runs: Runs, config: PoolConfig, lines: Sequence[LedgerLine]) -> SweepReport:
    if not lines:
        return SweepReport(removed=(), left=())
    try:
        # A token of its own: cleaning up after a stop must not be stopped by the same Ctrl-C.
        with connect_pool(workspace, config.name, Cancellation()) as client:
            return sweep_ledger(client, runs.ledger, lines)
    except HoldfastError as error:
        return _all_left([line for line in lines if runs.ledger.get(line.id).state.is_open], error)


def _all_left(lines: Sequence[LedgerLine], error: HoldfastError) -> SweepReport:
    return SweepReport(removed=(), left=tuple(LeftOnPool(what=describe_line(each), error=error) for each in lines))


def _finality(runs: Runs) -> Callable[[RunId], bool]:
    """Return whether a run is over, asked once for each run. One that is forgotten is: only finished runs are."""
    known: dict[RunId, bool] = {}

    def is_final(run: RunId) -> bool:
        if run not in known:
            try:
                known[run] = runs.show(run).status.is_final
            except RunNotFound:
                known[run] = True
        return known[run]

    return is_final
