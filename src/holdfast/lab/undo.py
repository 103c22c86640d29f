"""What a transaction of the pool's database has done so far, and how to take it back.

Invariant: taken back to a position, everything that was noted since is as it was at that position, newest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Changes", "Deletion", "Position"]


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object that is gone, remembered for events."""

    cls: str
    ref: str
    created: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Position:
    """How far a transaction has come."""

    touched: int
    deleted: int
    undo: int


@dataclass(slots=True)
class Changes:
    """The changes of one transaction."""

    touched: dict[tuple[str, str], None] = field(default_factory=dict)
    """The objects that it made, changed or removed, each once, in order."""
    deleted: list[Deletion] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def position(self) -> Position:
        """Return where the transaction is now, for ``take_back``."""
        return Position(len(self.touched), len(self.deleted), len(self._undo))

    def note(self, undo: Callable[[], object]) -> None:
        """Remember how to take back what is done next."""
        self._undo.append(undo)

    def take_back(self, position: Position) -> None:
        """Undo everything since ``position``."""
        while len(self._undo) > position.undo:
            self._undo.pop()()
        while len(self.touched) > position.touched:
            self.touched.popitem()
        del self.deleted[position.deleted :]
