"""Where rows of the pool's database rest: one SQLite file in the lab's folder.

Invariant: ``apply`` is atomic, and what it stored survives a killed process. After a loss of power the last moments may
be missing, because no answer waits for the disk, but the file is whole: its journal is flushed before it is folded in.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RowStore", "StoredRow"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS row (
    class TEXT NOT NULL, ref TEXT NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL, fields TEXT NOT NULL,
    PRIMARY KEY (class, ref)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_PUT_ROW = "INSERT OR REPLACE INTO row (class, ref, created, modified, fields) VALUES (?, ?, ?, ?, ?)"
_PUT_FACT = "INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row as it was stored."""

    cls: str
    ref: str
    created: int
    modified: int
    fields: dict[str, object]


class RowStore:
    """The rows on disk. Its one user holds the database's lock at every call."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            path.chmod(0o600)  # before the journal is made, which takes its mode from here
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    def generation(self) -> int:
        """Return the generation at the last ``apply``; 0 for a fresh store."""
        return int(self.fact("generation") or "0")

    def rows(self) -> Iterator[StoredRow]:
        """Yield every row, oldest first."""
        cursor = self._connection.execute("SELECT class, ref, created, modified, fields FROM row ORDER BY created")
        for cls, ref, created, modified, fields in cursor.fetchall():
            yield StoredRow(cls, ref, created, modified, json.loads(fields))

    def apply(
        self,
        kept: Iterable[tuple[str, str, int, int, dict[str, object]]],
        gone: Iterable[tuple[str, str]],
        generation: int,
    ) -> None:
        """Store changed rows and forget removed ones, all or nothing."""
        put = [(cls, ref, created, modified, json.dumps(fields)) for cls, ref, created, modified, fields in kept]
        self._connection.execute("BEGIN")
        try:
            self._connection.executemany(_PUT_ROW, put)
            self._connection.executemany("DELETE FROM row WHERE class = ? AND ref = ?", list(gone))
            self._connection.execute(_PUT_FACT, ("generation", str(generation)))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def fact(self, name: str) -> str | None:
        """Return a remembered fact about the pool, e.g. which scenario it was made from."""
        found = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def set_fact(self, name: str, value: str) -> None:
        """Remember a fact."""
        self._connection.execute(_PUT_FACT, (name, value))

    def clear(self) -> None:
        """Forget every row and every fact."""
        self._connection.executescript("BEGIN; DELETE FROM row; DELETE FROM fact; COMMIT")

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._connection.close()
