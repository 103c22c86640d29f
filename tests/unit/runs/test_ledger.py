"""The ledger: written before the thing exists, found again by any process, closed once."""

from __future__ import annotations

import pytest

from holdfast.core import ManualClock
from holdfast.model import PoolUuid, RunId
from holdfast.runs import Ledger, LedgerId, LedgerState
from holdfast.runs.database import Database, open_database
from holdfast.runs.sql_ledger import SqlLedger

_RUN, _POOL = RunId("r-1"), PoolUuid("pool-1")


def _intend(ledger: Ledger, name: str = "holdfast r-1 web", run: RunId = _RUN, pool: PoolUuid = _POOL) -> LedgerId:
    return ledger.intend(run=run, pool=pool, kind="snapshot", name=name, details={"vm": "vm-1"})


def test_a_line_tells_everything_a_sweep_needs(ledger: SqlLedger, clock: ManualClock) -> None:
    line_id = _intend(ledger)
    created = clock.now()
    clock.advance(90)
    ledger.made(line_id, external_id="uuid-7")
    line = ledger.get(line_id)
    assert (line.run_id, line.pool, line.kind, line.name) == (_RUN, _POOL, "snapshot", "holdfast r-1 web")
    assert (line.details, line.external_id, line.state) == ({"vm": "vm-1"}, "uuid-7", LedgerState.MADE)
    assert (line.created, line.updated) == (created, clock.now())
    assert line.to_json()["state"] == "made"


def test_what_was_intended_is_known_to_another_process_at_once(ledger: SqlLedger, database: Database) -> None:
    line_id = _intend(ledger)
    other = open_database(database.path)
    assert [line.id for line in SqlLedger(database=other, clock=ManualClock()).open_lines()] == [line_id]
    other.close()


def test_intending_twice_continues_the_open_line(ledger: SqlLedger) -> None:
    line_id = _intend(ledger)
    assert _intend(ledger) == line_id
    ledger.made(line_id, external_id="uuid-7")
    assert _intend(ledger) == line_id
    assert ledger.get(line_id).external_id == "uuid-7"


@pytest.mark.parametrize("close", ["gone", "keep"])
def test_intending_again_after_a_line_was_closed_is_a_new_line(ledger: SqlLedger, close: str) -> None:
    line_id = _intend(ledger)
    ledger.gone(line_id) if close == "gone" else ledger.keep(line_id, why="the reference of the next run")
    assert _intend(ledger) != line_id


def test_closed_lines_are_not_open_and_closing_works_twice(ledger: SqlLedger) -> None:
    gone, kept, still_open = _intend(ledger, "a"), _intend(ledger, "b"), _intend(ledger, "c")
    for _ in range(2):
        ledger.gone(gone)
        ledger.keep(kept, why="the reference of the next run")
    assert [line.id for line in ledger.open_lines()] == [still_open]
    assert ledger.get(kept).why == "the reference of the next run"
    assert [line.id for line in ledger.lines(states=[LedgerState.KEPT])] == [kept]
    ledger.gone(kept)
    assert ledger.lines(states=[LedgerState.KEPT]) == []


def test_lines_are_found_by_pool_and_by_run(ledger: SqlLedger) -> None:
    here = _intend(ledger)
    elsewhere = _intend(ledger, pool=PoolUuid("pool-2"))
    later = _intend(ledger, run=RunId("r-2"))
    assert [line.id for line in ledger.open_lines(pool=_POOL)] == [here, later]
    assert [line.id for line in ledger.open_lines(run=_RUN)] == [here, elsewhere]
    assert [line.id for line in ledger.open_lines(pool=_POOL, run=_RUN)] == [here]
    assert [line.id for line in ledger.lines()] == [here, elsewhere, later]


def test_a_line_that_never_was_is_our_mistake(ledger: SqlLedger) -> None:
    with pytest.raises(KeyError):
        ledger.get(LedgerId(99))
    with pytest.raises(AssertionError):
        ledger.gone(LedgerId(99))
