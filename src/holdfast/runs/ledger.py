"""The ledger: the written list of everything that runs have created on a pool.

A line is written before the thing is created, so that whatever a killed process left behind is named here and a sweep
can remove it. A line ends as ``GONE``, or as ``KEPT`` when the thing stays on purpose.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from holdfast.core import format_time
from holdfast.model import JsonObject, PoolUuid, RunId

__all__ = ["Ledger", "LedgerId", "LedgerLine", "LedgerState"]

LedgerId = NewType("LedgerId", int)


class LedgerState(enum.Enum):
    """Where the thing is, as far as we know."""

    INTENDED = "intended"
    """About to be created: it may or may not be on the pool; look for its name."""
    MADE = "made"
    """Created and known by its external id."""
    KEPT = "kept"
    """Stays on purpose, for the reason told; no sweep touches it."""
    GONE = "gone"
    """Removed, or found never to have existed."""

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to remove the thing or hand it over."""
        return self in (LedgerState.INTENDED, LedgerState.MADE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One thing that a run created, or was about to create, on a pool."""

    id: LedgerId
    run_id: RunId
    pool: PoolUuid
    kind: str
    name: str
    details: JsonObject
    external_id: str | None
    state: LedgerState
    why: str
    created: datetime
    updated: datetime

    def to_json(self) -> JsonObject:
        """Return the line as JSON."""
        return {
            "id": int(self.id),
            "run_id": str(self.run_id),
            "pool": str(self.pool),
            "kind": self.kind,
            "name": self.name,
            "details": self.details,
            "external_id": self.external_id,
            "state": self.state.value,
            "why": self.why,
            "created": format_time(self.created),
            "updated": format_time(self.updated),
        }


class Ledger(Protocol):
    """The list itself. Every call is durable when it returns, and safe from any thread and any process."""

    def intend(self, *, run: RunId, pool: PoolUuid, kind: str, name: str, details: JsonObject) -> LedgerId:
        """Write down, before it is created, that ``run`` is about to make something, and return the line's id.

        May be called twice: while an open line of the same run, pool, kind and name exists, that line is returned, so
        a step that runs again after a crash continues its own line. Look at ``get(id).external_id`` then.
        """
        ...

    def made(self, line: LedgerId, *, external_id: str) -> None:
        """Write down that the thing exists and how the pool calls it. May be called twice."""
        ...

    def gone(self, line: LedgerId) -> None:
        """Write down that the thing does not exist (any more). May be called twice, and on a kept line."""
        ...

    def keep(self, line: LedgerId, *, why: str) -> None:
        """Hand the thing over: it stays on purpose, and no sweep touches it. May be called twice."""
        ...

    def get(self, line: LedgerId) -> LedgerLine:
        """Return the line. ``KeyError`` when there is none with this id."""
        ...

    def lines(
        self,
        *,
        pool: PoolUuid | None = None,
        run: RunId | None = None,
        states: Sequence[LedgerState] = tuple(LedgerState),
    ) -> list[LedgerLine]:
        """Return lines, oldest first, of one pool or all, one run or all, in the given states."""
        ...

    def open_lines(self, *, pool: PoolUuid | None = None, run: RunId | None = None) -> list[LedgerLine]:
        """Return the lines that somebody still has to close, oldest first."""
        ...
