"""A runs database that costs little: created once, copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import ManualClock
from holdfast.runs.database import Database, open_database
from holdfast.runs.journal import Journal
from holdfast.runs.sql_ledger import SqlLedger


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "runs.db"
    open_database(path).close()
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Iterator[Database]:
    shutil.copy(empty_database, tmp_path / "runs.db")
    opened = open_database(tmp_path / "runs.db")
    yield opened
    opened.close()


@pytest.fixture
def ledger(database: Database, clock: ManualClock) -> SqlLedger:
    return SqlLedger(database=database, clock=clock)


@pytest.fixture
def journal(database: Database, ledger: SqlLedger, clock: ManualClock, tmp_path: Path) -> Journal:
    return Journal(database=database, executors=tmp_path / "executors", ledger=ledger, clock=clock)
