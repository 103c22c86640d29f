"""The log of a lab stays short and is in nobody's way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.lab.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.log"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield opened
    os.close(opened)


def test_a_full_log_starts_anew_and_the_last_one_is_kept(path: Path, descriptor: int) -> None:
    journal = Journal(path, length_bytes_max=100, descriptor=descriptor)
    for number in range(50):
        print(f"line {number:04d}", file=journal)
    kept = path.with_name("lab.log.1").read_text() + path.read_text()
    assert path.read_text().endswith("line 0049\n")
    assert kept.splitlines() == [f"line {number:04d}" for number in range(50 - len(kept.splitlines()), 50)]
    assert len(kept) <= 200
    assert journal.fileno() == descriptor
    assert sorted(each.name for each in path.parent.iterdir()) == ["lab.log", "lab.log.1"]


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert Journal(path, descriptor=full.fileno()).write("lost\n") == 5


def test_a_log_that_cannot_start_anew_grows_no_further(path: Path, descriptor: int) -> None:
    journal = Journal(path, length_bytes_max=4, descriptor=descriptor)
    path.with_name("lab.log.1").mkdir()
    (path.with_name("lab.log.1") / "x").touch()
    assert journal.write("long line\n") == 10
    assert path.stat().st_size == 0
