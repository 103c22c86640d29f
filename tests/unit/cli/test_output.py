"""With --json there is one document on standard output, whatever happens."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from rich.console import Console

from holdfast.cli.output import Output, plain
from holdfast.core import ExitStatus, HoldfastError, Secret
from holdfast.model import RunStatus


class _Broken(HoldfastError):
    code = "test.broken"
    exit_status = ExitStatus.NO_SPACE
    effect = "Nothing happened."
    advice = "Do this."

    def __init__(self) -> None:
        super().__init__("it broke")
        self.disk = "d-1"


@dataclass(frozen=True)
class _Value:
    when: datetime
    status: RunStatus
    parts: tuple[int, ...]
    secret: Secret
    raw: bytes


def test_any_value_becomes_plain_and_a_secret_stays_one() -> None:
    value = _Value(
        when=datetime(2026, 1, 2, tzinfo=UTC), status=RunStatus.PAUSED, parts=(1, 2), secret=Secret("s"), raw=b"abc"
    )
    assert plain(value) == {
        "when": "2026-01-02T00:00:00Z",
        "status": "paused",
        "parts": [1, 2],
        "secret": "***",
        "raw": {"length_bytes": 3},
    }


def test_json_mode_prints_nothing_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.say("hello")
    out.table(("A",), [("b",)], empty="none")
    out.result({"x": 1})
    assert json.loads(capsys.readouterr().out) == {"x": 1}


def test_an_error_is_told_in_three_parts_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    status = Output(as_json=False).fail(_Broken())
    told = capsys.readouterr()
    assert status == 7
    assert told.out == ""
    for part in ("it broke", "Nothing happened.", "Do this.", "test.broken"):
        assert part in told.err


def test_an_error_in_json_mode_is_the_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).fail(_Broken())
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "test.broken"
    assert error["facts"] == {"disk": "d-1"}
    assert error["next_step"] == "Do this."


def test_brackets_in_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.table(("NAME",), [("[bold]web[/bold]",)], empty="")
    out.say("[red]x[/red]")
    told = capsys.readouterr().out
    assert "[bold]web[/bold]" in told
    assert "[red]x[/red]" in told


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("A",), [], empty="Nothing here.")
    assert capsys.readouterr().out == "Nothing here.\n"


def test_what_people_copy_is_never_broken_on_a_narrow_terminal() -> None:
    out = Output(as_json=False)
    stream = io.StringIO()
    out.people = Console(file=stream, width=60, force_terminal=False)
    point = "20261120T090820Z-3f9a1c2e"
    out.table(("=POINT", "VM", ">READ"), [(point, "a long name of a machine in the cellar", "1.00 GiB")], empty="")
    assert point in stream.getvalue()
