"""The commands that lock: what they say is what was tried, and a failure never hides the recovery key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import keeper as keeper_noun
from holdfast.cli.main import run
from holdfast.keeper import KEEPER_FOLDER
from holdfast.repository import Protection
from holdfast.storage import StoreFull
from tests.support.keeping import FakeFlags


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = run([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_new_repository_can_be_immutable_and_says_that_its_folder_cannot_hold(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, made = answer(
        capsys, "repository", "create", "main", str(home / "store"), "--no-secret", "--immutable", "30d"
    )
    assert status == 0
    assert made["locked"]["policy"]["days"] == 30
    status, shown = answer(capsys, "repository", "lock", "main", "--status")
    assert status == 1
    assert shown["protection"]["verdict"] == "not-protected"
    assert run(["repository", "lock", "main"]) == 1
    said = capsys.readouterr().out
    assert "NOT PROTECTED: the store cannot hold anything" in said
    assert "tried at 20" in said


@pytest.mark.parametrize(("words", "code"), [("x", "days-unclear"), ("-1", "days-unclear"), ("9999", "days-invalid")])
def test_days_that_mean_nothing_are_refused_before_anything_is_made(
    home: Path, capsys: pytest.CaptureFixture[str], words: str, code: str
) -> None:
    status, said = answer(capsys, "repository", "create", "main", str(home / "store"), "--immutable", words)
    assert status == 2
    assert code in said["error"]["code"]
    assert not (home / "store").exists()


def test_a_lock_that_fails_does_not_hide_the_recovery_key(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull(store="folder", key="immutability/00000001", free_bytes=None)

    monkeypatch.setattr(Protection, "set_days", full)
    status, made = answer(capsys, "repository", "create", "main", str(home / "store"), "--immutable", "30")
    assert status == 1
    assert made["recovery_key"].startswith("AGE-SECRET-KEY-")
    assert made["locked"] is None


def test_a_new_repository_that_nothing_holds_says_so_at_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["repository", "create", "main", str(home / "store"), "--no-secret", "--immutable", "30"]) == 0
    told = capsys.readouterr().out
    assert "NOT PROTECTED" in told
    assert "holdfast keeper run" in told


def test_days_are_set_changed_and_taken_back_in_words(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["repository", "create", "main", str(home / "store"), "--no-secret"]) == 0
    assert run(["repository", "lock", "main"]) == 0
    assert "Lock it: holdfast repository lock main --days 30" in capsys.readouterr().out.replace("\n", " ")
    assert run(["repository", "lock", "main", "--days", "7d"]) == 1, "the folder has no keeper"
    assert "is to hold each restore point for 7 days" in capsys.readouterr().out
    assert run(["repository", "lock", "main", "--days", "0"]) == 0
    assert "holds nothing new" in capsys.readouterr().out


def test_the_keeper_holds_a_repository_and_the_trial_says_protected(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = FakeFlags()
    monkeypatch.setattr(keeper_noun, "LinuxFlags", lambda: flags)
    monkeypatch.setattr("holdfast.storage.posix_locks.LinuxFlags", lambda: flags)
    folder = str(home / "store")
    assert run(["keeper", "status", "--folder", folder]) == 5
    assert run(["repository", "create", "main", folder, "--no-secret", "--immutable", "30"]) == 0
    keep = ("keeper", "run", "--folder", folder, "--days", "30", "--state", str(home / "state"), "--once")
    capsys.readouterr()
    status, report = answer(capsys, *keep)
    assert (status, report["held"]) == (0, 4)
    _, shown = answer(capsys, "repository", "lock", "main")
    assert shown["protection"]["verdict"] == "pending"
    assert run([*keep]) == 0
    assert "1 new objects held" in capsys.readouterr().out
    # No folder of a test refuses to delete what only a pretended flag holds; the judges try it on a real one.
    assert run(["keeper", "status", "--folder", folder]) == 0
    assert "Holds 5 objects, new ones for 30 days" in capsys.readouterr().out
    assert (home / "store" / KEEPER_FOLDER / "word.json").exists()


def test_a_trial_that_fails_is_told_and_is_no_protection(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["repository", "create", "main", str(home / "store"), "--no-secret"]) == 0

    def full(*_: object) -> None:
        raise StoreFull(store="folder", key="canary/x", free_bytes=None)

    monkeypatch.setattr(Protection, "prove", full)
    capsys.readouterr()
    assert run(["repository", "show", "main"]) == 0
    assert "NOT KNOWN: it could not be tried: folder" in capsys.readouterr().out
