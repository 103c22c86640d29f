"""The file ``runs.db``: opened or created, checked for what it is, every failure told in our words.

Writes take SQLite's write lock at their beginning, so what a transaction read is still true when it writes; they are
on the disk when the block ends (WAL with full synchronisation), because the ledger must survive a power cut.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from holdfast.core import HoldfastError, limits
from holdfast.runs import tables
from holdfast.runs.errors import (
    RunsDatabaseBusy,
    RunsDatabaseDamaged,
    RunsDatabaseNewer,
    RunsDiskFull,
    RunsFolderNotWritable,
    RunsUnavailable,
)

__all__ = ["Database", "create_private_file", "database_error", "mapped_database", "open_database"]


class Database:
    """The open database. Safe from any thread; a context manager."""

    def __init__(self, *, path: Path, engine: sa.Engine) -> None:
        self.path = path
        self._engine = engine

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yield a connection inside a transaction that alone may write; durable when the block ends without error."""
        with mapped_database(self.path), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one moment, whatever others write meanwhile."""
        with mapped_database(self.path), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def close(self) -> None:
        """Close every connection. May be called twice."""
        self._engine.dispose()


def open_database(path: Path) -> Database:
    """Return the database at ``path``, created with mode 0600 when there is none.

    Raises ``RunsFolderNotWritable``, ``RunsDatabaseDamaged`` or ``RunsDatabaseNewer``.
    """
    create_private_file(path)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    sa.event.listen(engine, "connect", _prepare_connection)
    database = Database(path=path, engine=engine)
    try:
        _ensure_schema(database)
    except BaseException:
        database.close()
        raise
    return database


def create_private_file(path: Path) -> None:
    """Make sure that ``path`` exists, is ours to write and was born unreadable for others."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as cause:
        raise RunsFolderNotWritable(path=path.parent, detail=cause.strerror or str(cause)) from cause


@contextlib.contextmanager
def mapped_database(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and SQLAlchemy about the file at ``path`` into ours, chained."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as cause:
        raise database_error(cause, path=path) from cause


def database_error(cause: sa.exc.SQLAlchemyError | sqlite3.Error, *, path: Path) -> HoldfastError:
    """Return our error for one of the database library's."""
    original = cause.orig if isinstance(cause, sa.exc.DBAPIError) else cause
    # SQLite's extended codes keep the primary one in their low byte (https://sqlite.org/rescode.html).
    match getattr(original, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return RunsDatabaseBusy(path=path)
        case sqlite3.SQLITE_FULL:
            return RunsDiskFull(path=path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return RunsFolderNotWritable(path=path.parent, detail=str(original))
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return RunsDatabaseDamaged(path=path, detail=str(original))
    return RunsUnavailable(path=path, detail=str(original))


def _prepare_connection(connection: Any, _record: Any) -> None:
    # The driver's own transaction control would begin them late and unlocked; Database begins each one itself.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={round(limits.RUNS_DATABASE_WAIT_S * 1000)}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _ensure_schema(database: Database) -> None:
    with database.read() as connection:
        if _check_version(database.path, connection):
            return
    with database.write() as connection:
        # Two processes may have found the file empty; the second one comes here after the first has filled it.
        if not _check_version(database.path, connection):
            tables.metadata.create_all(connection)
            connection.execute(sa.insert(tables.schema).values(version=tables.RUNS_WITH_LEDGER))


def _check_version(path: Path, connection: sa.Connection) -> bool:
    names = set(sa.inspect(connection).get_table_names())
    if not names:
        return False
    version = connection.execute(sa.select(tables.schema.c.version)).scalar() if tables.schema.name in names else None
    if version is None:
        raise RunsDatabaseDamaged(path=path, detail="it belongs to another program, or was never completed")
    if version > tables.RUNS_WITH_LEDGER:
        raise RunsDatabaseNewer(path=path, version=version, version_max=tables.RUNS_WITH_LEDGER)
    return True
