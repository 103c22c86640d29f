"""The commands about keys, as somebody types them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run
from holdfast.core import ExitStatus
from holdfast.repository import new_recovery_key


class Shell:
    """A home, a repository in it, and what its commands print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        status, document = self.document("repository", "create", "main", str(folder / "repository"))
        assert status == ExitStatus.OK
        self.recovery_key = str(document["recovery_key"])
        assert document["recovery_key_proven"] is False
        self.key_file = folder / "key.txt"
        self.key_file.write_text(self.recovery_key.lower())

    def document(self, *words: str) -> tuple[int, Any]:
        """Return exit status and document of a command."""
        self.capsys.readouterr()
        status = run([*words, "--json", "--home", str(self.folder / "home")])
        return status, json.loads(self.capsys.readouterr().out)

    def text(self, *words: str) -> str:
        """Return what a command prints for people."""
        self.capsys.readouterr()
        run([*words, "--home", str(self.folder / "home")])
        printed = self.capsys.readouterr()
        return printed.out + printed.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("HOLDFAST_PASSPHRASE", raising=False)
    return Shell(tmp_path, capsys)


def test_a_drill_from_a_file_is_told_by_show(shell: Shell) -> None:
    assert "ever proven" in shell.text("repository", "show", "main")
    status, done = shell.document("repository", "key", "drill", "main", "--recovery-key-file", str(shell.key_file))
    assert (status, done["holder"], done["is_current"]) == (ExitStatus.OK, "recovery", True)
    assert "recovery: key last proven 20" in shell.text("repository", "show", "main")


def test_a_wrong_key_fails_the_drill(shell: Shell) -> None:
    shell.key_file.write_text(new_recovery_key().secret.reveal())
    status, document = shell.document("repository", "key", "drill", "main", "--recovery-key-file", str(shell.key_file))
    assert status == ExitStatus.REFUSED
    assert document["error"]["code"] == "repository.wrong-key"


def test_the_data_key_is_rotated_without_somebody_who_left(shell: Shell) -> None:
    leaver = new_recovery_key()
    shell.document("repository", "key", "add", "main", "leaver", "--public-key", leaver.public)
    status, refused = shell.document("repository", "key", "rotate-data", "main", "--leave-out", "leaver")
    assert (status, refused["error"]["code"]) == (ExitStatus.USAGE, "cli.not-confirmed")
    status, done = shell.document("repository", "key", "rotate-data", "main", "--leave-out", "leaver", "--yes")
    assert (status, done["epoch"], done["left_out"]) == (ExitStatus.OK, 1, ["leaver"])
    assert "recovery" in done["goes_on"]
    assert "leaver" not in shell.text("repository", "key", "list", "main")
    assert "Data key number 1" in shell.text("repository", "show", "main")
    assert shell.document("repository", "key", "drill", "main", "--recovery-key-file", str(shell.key_file))[0] == 0


@pytest.mark.parametrize("option", ["--leave-out", "--public-key", "--passphrase-file"])
def test_a_holder_that_nobody_knows_is_refused_before_anything_is_asked(shell: Shell, option: str) -> None:
    for path in (shell.folder / "repository" / "holders").iterdir():
        path.unlink()
    value = "levaer" if option == "--leave-out" else "levaer=/nowhere"
    status, document = shell.document("repository", "key", "rotate-data", "main", option, value, "--yes")
    assert (status, document["error"]["code"]) == (ExitStatus.NOT_FOUND, "repository.holder-unknown")


def test_a_holder_without_a_record_is_named_and_can_be_given(shell: Shell) -> None:
    other = new_recovery_key()
    shell.document("repository", "key", "add", "main", "other", "--public-key", other.public)
    for path in (shell.folder / "repository" / "holders").iterdir():
        path.unlink()
    status, document = shell.document("repository", "key", "rotate-data", "main", "--leave-out", "recovery", "--yes")
    assert (status, document["error"]["code"]) == (ExitStatus.USAGE, "repository.holder-undecided")
    given = ("--leave-out", "recovery", "--public-key", f"other={other.public}", "--yes")
    status, done = shell.document("repository", "key", "rotate-data", "main", *given)
    assert status == ExitStatus.OK
    assert len(done["goes_on"]) == 2


def test_a_recovery_key_is_changed_in_a_step(shell: Shell, tmp_path: Path) -> None:
    picture = tmp_path / "key.svg"
    status, done = shell.document("repository", "key", "rotate", "main", "recovery", "--recovery", "--qr", str(picture))
    assert (status, done["old_key_opens_until"]) == (ExitStatus.OK, None)
    assert picture.exists()
    drill = ("repository", "key", "drill", "main", "--recovery-key-file", str(shell.key_file))
    assert shell.document(*drill)[0] == ExitStatus.REFUSED
    shell.key_file.write_text(done["recovery_key"])
    assert shell.document(*drill)[0] == ExitStatus.OK


def test_a_picture_in_the_way_stops_before_anything_is_changed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "key.svg").write_text("mine")
    words = ("repository", "key", "rotate", "main", "recovery", "--recovery", "--qr", str(tmp_path / "key.svg"))
    assert shell.document(*words)[1]["error"]["code"] == "cli.qr-not-written"
    assert shell.document("repository", "key", "drill", "main", "--recovery-key-file", str(shell.key_file))[0] == 0


def test_a_machine_shows_its_public_key(shell: Shell) -> None:
    status, document = shell.document("repository", "key", "public")
    assert status == ExitStatus.OK
    assert document["public_key"].startswith("age1")
    assert document["public_key"] in shell.text("repository", "key", "list", "main")
