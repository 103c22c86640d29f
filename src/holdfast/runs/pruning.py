"""Forgetting old runs, so that the history stays small. What is open in the ledger keeps its run."""

from __future__ import annotations

import sqlalchemy as sa

from holdfast.core import limits
from holdfast.model import RunId, RunStatus
from holdfast.runs.database import Database
from holdfast.runs.ledger import LedgerState
from holdfast.runs.tables import findings, ledger, notes, runs, steps

__all__ = ["prune_runs", "unfinished_runs"]

_FINAL = [status.value for status in RunStatus if status.is_final]


def prune_runs(database: Database, *, kept_max: int = limits.RUNS_KEPT_MAX) -> list[RunId]:
    """Remove the oldest finished runs beyond ``kept_max``, with all they told, and return their ids.

    A run with an open ledger line stays. Ledger lines of things that are kept on the pool stay without their run.
    """
    is_open = [state.value for state in LedgerState if state.is_open]
    surplus = (
        sa.select(runs.c.run_id)
        .where(runs.c.status.in_(_FINAL))
        .order_by(runs.c.started.desc(), runs.c.run_id.desc())
        .limit(-1)
        .offset(kept_max)
    )
    with database.write() as connection:
        owing = set(connection.execute(sa.select(ledger.c.run_id).where(ledger.c.state.in_(is_open))).scalars())
        old = [run_id for run_id in connection.execute(surplus).scalars() if run_id not in owing]
        for run_id in old:
            for table in (steps, findings, notes, runs):
                connection.execute(sa.delete(table).where(table.c.run_id == run_id))
            connection.execute(
                sa.delete(ledger).where(ledger.c.run_id == run_id, ledger.c.state == LedgerState.GONE.value)
            )
    return [RunId(run_id) for run_id in old]


def unfinished_runs(database: Database) -> set[RunId]:
    """Return the ids of the runs that may still go on."""
    with database.read() as connection:
        found = connection.execute(sa.select(runs.c.run_id).where(runs.c.status.not_in(_FINAL)))
        return {RunId(run_id) for run_id in found.scalars()}
