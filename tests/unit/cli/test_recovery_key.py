"""A recovery key is shown once, as text and as a picture, and asked back until it opens."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import pytest
import segno

from holdfast import service
from holdfast.cli.output import Output
from holdfast.cli.qr import QrNotWritten, check_qr_file, qr_lines, write_qr
from holdfast.cli.recovery_key import ask_back, show_recovery_key
from holdfast.cli.session import Session
from holdfast.cli.unlocking import read_unlock, unlock_from
from holdfast.core import Cancellation, Secret
from holdfast.daemon import read_settings
from holdfast.repository import IdentityUnlock, OpenUnlock, PassphraseUnlock, new_recovery_key
from holdfast.service import Workspace
from holdfast.storage import MemoryStore
from tests.unit.service.fakes import make_workspace

CANCEL = Cancellation()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    stores: dict[str, MemoryStore] = {}
    return make_workspace(tmp_path / "a", stores=stores)


def session_of(workspace: Workspace, tmp_path: Path, *, as_json: bool = False) -> Session:
    return Session(
        settings=read_settings(home=tmp_path / "home"),
        workspace=workspace,
        out=Output(as_json=as_json),
        cancel=CANCEL,
        quiet=True,
    )


def created(workspace: Workspace) -> Secret:
    recovery = service.create_repository(workspace, name="main", location="/r", cancel=CANCEL).recovery_key
    assert recovery is not None
    return recovery


def proven(workspace: Workspace) -> set[str]:
    return set(workspace.registry.repository("main").keys.proven)


def test_case_and_spaces_of_a_recovery_key_are_forgiven() -> None:
    key = new_recovery_key().secret
    text = key.reveal().lower()
    typed = f"  {text[:20]} {text[20:40]}\n{text[40:]} \n"
    assert unlock_from(Secret(typed)) == IdentityUnlock(key)
    assert unlock_from(Secret(" pass phrase ")) == PassphraseUnlock(Secret(" pass phrase "))


def test_a_key_file_may_be_one_of_age_keygen_or_of_ssh(tmp_path: Path) -> None:
    key = new_recovery_key()
    path = tmp_path / "key.txt"
    path.write_text(f"# created: today\n# public key: {key.public}\n{key.secret.reveal()}\n")
    assert read_unlock(passphrase_file=None, recovery_key_file=path) == IdentityUnlock(key.secret)
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    found = read_unlock(passphrase_file=None, recovery_key_file=path)
    assert isinstance(found, IdentityUnlock)
    assert found.identity.reveal().startswith("-----BEGIN OPENSSH")
    assert read_unlock(passphrase_file=None, recovery_key_file=None, no_secret=True) == OpenUnlock()


def test_a_wrong_key_is_asked_for_again_until_it_opens(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = created(workspace).reveal()
    other = new_recovery_key().secret.reveal()
    monkeypatch.setattr(sys, "stdin", _Terminal(f"{other}\n{key[:-1]}\n{key.lower()}\n"))
    assert ask_back(session_of(workspace, tmp_path), repository="main", drill=True)
    assert proven(workspace) == {"recovery"}
    told = capsys.readouterr()
    assert told.err.count("mistyped") == 2
    assert "Proven" in told.out
    assert "machine-a" in told.out


def test_enter_leaves_it_for_later_and_says_so(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    created(workspace)
    monkeypatch.setattr(sys, "stdin", _Terminal("\n"))
    assert not ask_back(session_of(workspace, tmp_path), repository="main", drill=True)
    assert "Not proven" in capsys.readouterr().err
    assert proven(workspace) == set()


@pytest.mark.parametrize("how", ["no terminal", "no drill", "json"])
def test_where_nobody_is_asked_it_is_said_that_nothing_was_proven(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    created(workspace)
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n") if how == "no terminal" else _Terminal("x\n"))
    session = session_of(workspace, tmp_path, as_json=how == "json")
    assert not ask_back(session, repository="main", drill=how != "no drill")
    assert "Nobody has proven yet" in capsys.readouterr().err


def test_a_key_is_shown_as_text_and_on_a_terminal_as_a_picture(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_recovery_key().secret
    for stream, has_picture in ((io.StringIO(), False), (_Terminal(), True)):
        monkeypatch.setattr(sys, "stdout", stream)
        show_recovery_key(session_of(workspace, tmp_path), key, repository="main")
        assert key.reveal() in stream.getvalue()
        assert ("▀" in stream.getvalue()) == has_picture


def test_the_half_blocks_are_the_modules_of_the_code() -> None:
    key = new_recovery_key().secret
    lines = qr_lines(key)
    dark = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = [[dark[char][half] for char in line] for line in lines for half in (0, 1)]
    expected = [
        [int(bool(each)) for each in row] for row in segno.make_qr(key.reveal(), error="m").matrix_iter(border=4)
    ]
    assert rows[: len(expected)] == expected
    assert all(not any(row) for row in rows[len(expected) :])
    assert max(len(line) for line in lines) <= 60


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_picture_file_is_for_its_owner_only_and_never_replaces_another(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"key{suffix}"
    write_qr(path, new_recovery_key().secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    with pytest.raises(QrNotWritten):
        write_qr(path, new_recovery_key().secret)
    assert path.read_bytes() == content


def test_a_picture_that_cannot_be_written_is_refused_before_there_is_a_key(tmp_path: Path) -> None:
    for path in (tmp_path / "key.gif", tmp_path / "absent" / "key.svg", tmp_path):
        with pytest.raises(QrNotWritten):
            check_qr_file(path)
