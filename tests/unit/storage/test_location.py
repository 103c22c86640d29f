"""A place for a repository, as a person writes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.core import ExitStatus
from holdfast.storage import LocationRefused, StoreMissing, open_store


def test_a_path_and_a_file_url_name_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my backups"
    open_store(str(folder), create=True).put("a", b"x")
    for location in (str(folder), f"file://{tmp_path}/my%20backups", f"file://localhost{tmp_path}/my%20backups"):
        store = open_store(location)
        assert store.get("a") == b"x"
        assert store.describe() == f"folder {folder}"


def test_a_relative_path_is_taken_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("repository", create=True)
    assert (tmp_path / "repository/tmp").is_dir()


def test_opening_does_not_create(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        open_store(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "no path"),
        ("~/backup", "shell"),
        ("gs://bucket/x", "gs:// is not supported"),
        ("sftp://host/x", "sftp:// is not supported"),
        ("file://server/share", "server"),
        ("file://", "file:///srv"),
        ("file:///srv/a?b", "file:///srv"),
    ],
)
def test_what_is_not_supported_is_refused_with_what_is(location: str, hint: str) -> None:
    with pytest.raises(LocationRefused, match=hint) as refusal:
        open_store(location)
    assert refusal.value.exit_status is ExitStatus.USAGE
    assert "file://" in refusal.value.next_step()


def test_opening_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    open_store(str(tmp_path / "s"), create=True).put("a", b"x")
    dead = tmp_path / "s/tmp/put-dead"
    dead.write_bytes(b"half")
    os.utime(dead, (0, 0))
    assert open_store(str(tmp_path / "s")).get("a") == b"x"
    assert not dead.exists()
