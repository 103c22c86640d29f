"""Every command line ends with its document, its message and its exit status, whatever was typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import service
from holdfast.cli.main import app, run
from holdfast.core import ExitStatus

_WRONG = [
    ["nonsense"],
    ["backup", "run"],
    ["backup", "run", "--pool", "p", "--repository", "r", "--keep", "many"],
    ["restore", "vm", "p", "--repository", "r", "--pool", "p", "--mac", "some"],
    ["run", "list", "--limit", "0"],
    ["pool", "add", "x"],
    ["point", "show", "--repository"],
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def _json(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = run([*words, "--json", "--home", str(home)])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", _WRONG, ids=" ".join)
def test_wrong_usage_is_status_2_and_one_document(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--home", str(home)]) == ExitStatus.USAGE
    status, document = _json(capsys, home, *words)
    assert status == ExitStatus.USAGE
    assert document["error"]["code"] == "cli.wrong-usage"
    assert document["error"]["message"]


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (["pool", "show", "x"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["pool", "remove", "x"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["pool", "clean", "x"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["vm", "list", "../x"], "config.name-invalid", ExitStatus.USAGE),
        (["backup", "run", "--pool", "x", "--repository", "y"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["repository", "show", "x"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["repository", "remove", "x"], "cli.not-confirmed", ExitStatus.USAGE),
        (["point", "list", "--repository", "x"], "config.name-unknown", ExitStatus.NOT_FOUND),
        (["run", "show", "r-none"], "run.not-found", ExitStatus.NOT_FOUND),
        (["run", "resume", "r-none"], "run.not-found", ExitStatus.NOT_FOUND),
        (["run", "cancel", "r-none"], "run.not-found", ExitStatus.NOT_FOUND),
        (["run", "resume"], "run.nothing-to-resume", ExitStatus.NOT_FOUND),
        (
            ["restore", "vm", "p", "--repository", "r", "--pool", "p", "--network", "lan"],
            "restore.network-map-invalid",
            ExitStatus.USAGE,
        ),
        (["pool", "add", "x", "ftp://x", "--yes"], "pool.address-invalid", ExitStatus.USAGE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_every_error_has_its_code_its_status_and_its_three_parts(
    words: list[str], code: str, wanted: ExitStatus, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, document = _json(capsys, home, *words)
    error = document["error"]
    assert (error["code"], status) == (code, wanted)
    assert error["message"]
    assert error["effect"]
    assert error["next_step"]
    assert run([*words, "--home", str(home)]) == wanted
    told = capsys.readouterr()
    assert told.out == ""
    assert error["message"] in told.err
    assert error["effect"] in told.err


@pytest.mark.parametrize("noun", ["pool", "repository", "run"])
def test_an_empty_list_is_an_empty_document_and_a_hint(
    noun: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _json(capsys, home, noun, "list") == (0, [])
    assert run([noun, "list", "--home", str(home)]) == 0
    assert "yet" in capsys.readouterr().out


def test_a_mistake_of_the_program_is_a_document_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(service, "list_pools", broken)
    status, document = _json(capsys, home, "pool", "list")
    assert status == ExitStatus.FAILED
    assert document["error"]["code"] == "cli.unexpected"
    assert "ZeroDivisionError: oh" in document["error"]["message"]


def test_a_folder_of_our_own_that_cannot_be_written_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    (home / "config").write_text("a file where a folder must be")
    words = ("repository", "create", "main", str(home / "repository"))
    status, document = _json(capsys, home, *words)
    assert status == ExitStatus.FAILED
    assert document["error"]["code"] == "config.not-writable"


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["backup", "run", "--help"], ["--version"]):
        assert run(words) == 0
    assert "Example: holdfast backup run" in capsys.readouterr().out


def test_every_command_takes_what_all_commands_take() -> None:
    for noun in app:
        if noun.startswith("-") or app[noun].default_command is not None:
            continue
        for verb in app[noun]:
            if not verb.startswith("-") and app[noun][verb].default_command is not None:
                names = app[noun][verb].assemble_argument_collection()
                flags = {name for argument in names for name in argument.names}
                assert {"--json", "--quiet", "--verbose", "--home"} <= flags, f"{noun} {verb}"
