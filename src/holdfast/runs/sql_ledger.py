"""The ledger in the runs database."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa

from holdfast.core import Clock, format_time, parse_time
from holdfast.model import JsonObject, PoolUuid, RunId
from holdfast.runs.database import Database
from holdfast.runs.ledger import LedgerId, LedgerLine, LedgerState
from holdfast.runs.tables import ledger

__all__ = ["SqlLedger"]

_OPEN_STATES = tuple(state for state in LedgerState if state.is_open)


class SqlLedger:
    """See ``Ledger``."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def intend(self, *, run: RunId, pool: PoolUuid, kind: str, name: str, details: JsonObject) -> LedgerId:
        """See ``Ledger.intend``."""
        now = format_time(self._clock.now())
        same = sa.select(ledger.c.id).where(
            ledger.c.run_id == run,
            ledger.c.pool == pool,
            ledger.c.kind == kind,
            ledger.c.name == name,
            ledger.c.state.in_([state.value for state in _OPEN_STATES]),
        )
        with self._database.write() as connection:
            known = connection.execute(same).scalar()
            if known is not None:
                return LedgerId(known)
            written = connection.execute(
                sa.insert(ledger).values(
                    run_id=run,
                    pool=pool,
                    kind=kind,
                    name=name,
                    details=json.dumps(details, allow_nan=False),
                    state=LedgerState.INTENDED.value,
                    why="",
                    created=now,
                    updated=now,
                )
            )
            assert written.inserted_primary_key is not None
            return LedgerId(int(written.inserted_primary_key[0]))

    def made(self, line: LedgerId, *, external_id: str) -> None:
        """See ``Ledger.made``."""
        self._change(line, state=LedgerState.MADE, external_id=external_id)

    def gone(self, line: LedgerId) -> None:
        """See ``Ledger.gone``."""
        self._change(line, state=LedgerState.GONE)

    def keep(self, line: LedgerId, *, why: str) -> None:
        """See ``Ledger.keep``."""
        self._change(line, state=LedgerState.KEPT, why=why)

    def get(self, line: LedgerId) -> LedgerLine:
        """See ``Ledger.get``."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(ledger).where(ledger.c.id == line)).first()
        if row is None:
            raise KeyError(line)
        return _parse(row)

    def lines(
        self,
        *,
        pool: PoolUuid | None = None,
        run: RunId | None = None,
        states: Sequence[LedgerState] = tuple(LedgerState),
    ) -> list[LedgerLine]:
        """See ``Ledger.lines``."""
        query = sa.select(ledger).where(ledger.c.state.in_([state.value for state in states])).order_by(ledger.c.id)
        if pool is not None:
            query = query.where(ledger.c.pool == pool)
        if run is not None:
            query = query.where(ledger.c.run_id == run)
        with self._database.read() as connection:
            return [_parse(row) for row in connection.execute(query)]

    def open_lines(self, *, pool: PoolUuid | None = None, run: RunId | None = None) -> list[LedgerLine]:
        """See ``Ledger.open_lines``."""
        return self.lines(pool=pool, run=run, states=_OPEN_STATES)

    def _change(self, line: LedgerId, *, state: LedgerState, **values: str) -> None:
        change = (
            sa.update(ledger)
            .where(ledger.c.id == line)
            .values(state=state.value, updated=format_time(self._clock.now()), **values)
        )
        with self._database.write() as connection:
            found = connection.execute(change).rowcount
        assert found == 1, f"no ledger line {line}"


def _parse(row: sa.Row[tuple[object, ...]]) -> LedgerLine:
    return LedgerLine(
        id=LedgerId(row.id),
        run_id=RunId(row.run_id),
        pool=PoolUuid(row.pool),
        kind=row.kind,
        name=row.name,
        details=json.loads(row.details),
        external_id=row.external_id,
        state=LedgerState(row.state),
        why=row.why,
        created=parse_time(row.created),
        updated=parse_time(row.updated),
    )
