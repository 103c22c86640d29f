"""Logs are events with fields on standard error; what is below the asked level is not written."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator

import pytest

from holdfast.core import Secret, configure_log, get_log


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    configure_log()


def test_an_event_keeps_its_name_and_fields_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(verbosity=1, as_json=True)
    get_log("holdfast.backup.flow").info("disk.sent", disk="d1", length_bytes=65536)
    shown = capsys.readouterr()
    event = json.loads(shown.err)
    assert (event["event"], event["disk"], event["length_bytes"]) == ("disk.sent", "d1", 65536)
    assert (event["module"], event["level"]) == ("holdfast.backup.flow", "info")
    assert event["timestamp"].endswith("Z")
    assert shown.out == ""


@pytest.mark.parametrize(
    ("verbosity", "levels"), [(0, ["warning"]), (1, ["info", "warning"]), (2, ["debug", "info", "warning"])]
)
def test_verbosity_opens_one_level_more(verbosity: int, levels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(verbosity=verbosity, as_json=True)
    log = get_log("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == levels


def test_nothing_goes_to_standard_output_even_before_a_face_configured_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    get_log("x").warning("pool.slow", seconds=3)
    shown = capsys.readouterr()
    assert "pool.slow" in shown.err
    assert shown.out == ""


def test_a_logger_made_before_the_configuration_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_log("x")
    configure_log(verbosity=2, as_json=True)
    log.debug("late")
    assert json.loads(capsys.readouterr().err)["event"] == "late"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_field_is_masked(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(verbosity=1, as_json=as_json)
    get_log("x").info("pool.login", password=Secret("plain text"), more=[Secret("plain text")])
    assert "plain text" not in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_logged_traceback_shows_no_local_values(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(verbosity=1, as_json=as_json)
    local = "plain " + "text"
    try:
        raise OSError(len(local))
    except OSError:
        get_log("x").error("run.crashed", exc_info=True)
    shown = capsys.readouterr().err
    assert "run.crashed" in shown
    assert "plain text" not in shown


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("as_json", [True, False])
def test_an_event_that_cannot_be_written_is_lost_and_ends_nothing(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_log(as_json=as_json)
    monkeypatch.setattr("sys.stderr", _Full())
    get_log("m").error("lab.call-failed", why="a disk without room")
    try:
        raise ValueError("the cause")
    except ValueError:
        get_log("m").exception("lab.call-failed")
