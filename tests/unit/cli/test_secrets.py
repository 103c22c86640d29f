"""Secrets come from a file, the environment or a person, in this order."""

from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest

from holdfast.cli.secrets import SecretNotGiven, read_new_secret, read_secret
from holdfast.core import Secret


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _read(file: Path | None = None) -> Secret:
    return read_secret(what="password of root", variable="HF_TEST", option="--password-file", file=file)


def test_the_file_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TEST", "from the environment")
    assert _read() == Secret("from the environment")
    path = tmp_path / "password"
    path.write_text("from the file\n")
    assert _read(path) == Secret("from the file")


def test_nobody_to_ask_is_an_error_that_names_the_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TEST", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SecretNotGiven) as caught:
        _read()
    assert "--password-file" in caught.value.next_step()
    assert "HF_TEST" in caught.value.next_step()


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SecretNotGiven):
        _read(tmp_path / "absent")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SecretNotGiven):
        _read(tmp_path / "empty")


def test_a_new_secret_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TEST", raising=False)
    monkeypatch.setattr(sys, "stdin", _Terminal())
    typed = iter(["one", "one", "one", "two", ""])
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(typed))

    def choose() -> Secret:
        return read_new_secret(what="passphrase", variable="HF_TEST", option="--passphrase-file", file=None)

    assert choose() == Secret("one")
    with pytest.raises(SecretNotGiven):
        choose()
    with pytest.raises(SecretNotGiven):
        choose()
