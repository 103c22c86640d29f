"""The runs database: private, checked for what it is, and every failure told in our words."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from holdfast.core import ExitStatus
from holdfast.runs import (
    RunsDatabaseBusy,
    RunsDatabaseDamaged,
    RunsDatabaseNewer,
    RunsDiskFull,
    RunsFolderNotWritable,
    RunsUnavailable,
)
from holdfast.runs.database import Database, mapped_database, open_database
from holdfast.runs.tables import notes

_NOBODY = 65534


@pytest.fixture
def as_ordinary_user(tmp_path: Path) -> Iterator[None]:
    """Permissions mean nothing to root; give its power up for the test."""
    if os.geteuid() != 0:
        yield
        return
    # The folders above belong to root alone; this one is the test's whole world.
    before = Path.cwd()
    os.chdir(tmp_path)
    os.chown(tmp_path, _NOBODY, _NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.chdir(before)


def test_the_file_and_its_folder_are_readable_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "runs" / "runs.db"
    database = open_database(path)
    with database.write() as connection:
        connection.execute(sa.insert(notes).values(run_id="r", told="", message="m"))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in [path.parent, *path.parent.iterdir()]}
    assert modes == {"runs": 0o700, "runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}
    database.close()


def test_opening_twice_keeps_what_was_written(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.insert(notes).values(run_id="r", told="", message="kept"))
    again = open_database(database.path)
    with again.read() as connection:
        assert connection.execute(sa.select(notes.c.message)).scalars().all() == ["kept"]
    again.close()


def test_a_block_that_fails_writes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(sa.insert(notes).values(run_id="r", told="", message="never"))
        raise ZeroDivisionError
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(notes)).scalar() == 0


def test_writes_wait_for_the_disk(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL: the ledger survives a power cut"
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\x00" + bytes(4080)], ids=["text", "broken header"]
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(content)
    with pytest.raises(RunsDatabaseDamaged) as caught:
        open_database(path)
    assert str(path) in str(caught.value)
    assert str(path) in caught.value.next_step()
    assert caught.value.exit_status is ExitStatus.DAMAGED
    assert path.read_bytes() == content, "what cannot be read is left for those who may repair it"


def test_a_page_that_is_damaged_later_is_told_when_it_is_read(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.insert(notes), [{"run_id": "r", "told": "", "message": f"{n}"} for n in range(3000)])
    database.close()
    content = bytearray(database.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    database.path.write_bytes(content)
    with pytest.raises(RunsDatabaseDamaged):
        open_database(database.path)


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(RunsDatabaseDamaged, match="another program"):
        open_database(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]
    connection.close()


def test_a_newer_schema_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE holdfast_schema SET version = 7")
    with pytest.raises(RunsDatabaseNewer) as caught:
        open_database(database.path)
    assert (caught.value.version, caught.value.version_max) == (7, 1)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunsFolderNotWritable) as caught:
        open_database(tmp_path / "file" / "runs" / "runs.db")
    assert str(tmp_path) in caught.value.next_step()


@pytest.mark.usefixtures("as_ordinary_user")
def test_a_read_only_folder_is_told() -> None:
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(RunsFolderNotWritable, match="Permission denied"):
        open_database(Path("locked/runs.db"))


@pytest.mark.usefixtures("as_ordinary_user")
def test_a_read_only_file_is_told() -> None:
    Path("runs.db").touch(mode=0o400)
    with pytest.raises(RunsFolderNotWritable, match="Permission denied"):
        open_database(Path("runs.db"))


def test_a_full_disk_is_told_and_nothing_is_half_written(database: Database) -> None:
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(RunsDiskFull) as caught, database.write() as connection:
        for n in range(1000):
            connection.execute(sa.insert(notes).values(run_id="r", told="", message=f"{n}" * 100))
    assert caught.value.exit_status is ExitStatus.NO_SPACE
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(notes)).scalar() == 0


def test_a_database_that_stays_locked_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.core.limits.RUNS_DATABASE_WAIT_S", 0.01)
    other = open_database(database.path)
    with database.write(), pytest.raises(RunsDatabaseBusy), other.write():
        raise AssertionError("two writers at once")
    other.close()


def test_an_unforeseen_database_error_is_still_ours(tmp_path: Path) -> None:
    with pytest.raises(RunsUnavailable, match="something new"), mapped_database(tmp_path):
        raise sqlite3.OperationalError("something new")
    with pytest.raises(RunsUnavailable, match="pool"), mapped_database(tmp_path):
        raise sa.exc.TimeoutError("the pool is empty")
