"""``holdfast lab`` as an admin uses it: start a pool, rehearse a disaster, let a day pass, stop it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from holdfast.core import Secret, parse_time
from holdfast.lab import FAULT_KINDS, SCENARIO_SUMMARIES, LabHandle, LabOptions, spawn_lab
from tests.faces.conftest import Cli
from tests.support.lab import PASSWORD

pytestmark = pytest.mark.slow(reason="a lab pool in a process of its own")


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHandle]:
    folder = tmp_path_factory.mktemp("lab")
    lab = spawn_lab(LabOptions(state_dir=folder, scenario="tiny", password=Secret(PASSWORD), dies_with_parent=True))
    yield lab
    lab.stop()


@pytest.fixture
def at(handle: LabHandle) -> Iterator[tuple[str, str]]:
    """Where the lab is, as words of a command; no fault survives the test."""
    yield "--state", str(handle.state_dir)
    handle.control.clear_faults()


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("stop",),
        ("clock", "--advance", "1h"),
        ("restart-toolstack",),
        ("logs",),
        ("guest", "work", "web"),
        ("fault", "list"),
        ("fault", "set", "login-refused"),
        ("fault", "clear"),
    ],
)
def test_without_a_lab_every_command_says_how_to_start_one(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    error = cli("lab", *words, "--state", str(tmp_path / "none"), status=5)["error"]
    assert error["code"] == "lab.not-running"
    assert "holdfast lab start" in error["next_step"]


def test_a_lab_is_started_once_and_stopped_once(cli: Cli, tmp_path: Path) -> None:
    at = "--state", str(tmp_path / "lab")
    started = cli("lab", "start", "--scenario", "empty", *at)
    try:
        assert cli("lab", "start", "--scenario", "empty", *at, status=9)["error"]["code"] == "lab.already-runs"
        assert cli("lab", "status", *at)["url"] == started["url"]
    finally:
        cli("lab", "stop", *at)
    assert cli("lab", "status", *at, status=5)["error"]["code"] == "lab.not-running"


def test_an_unknown_scenario_is_refused_with_those_there_are(cli: Cli, tmp_path: Path) -> None:
    error = cli("lab", "start", "--scenario", "moon", "--state", str(tmp_path / "lab"), status=2)["error"]
    assert "demo" in error["next_step"]
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("hosts", ["0", "65", "many"])
def test_a_number_of_hosts_that_no_pool_has_is_refused(cli: Cli, tmp_path: Path, hosts: str) -> None:
    at = "--state", str(tmp_path / "lab")
    assert cli("lab", "start", "--hosts", hosts, *at, status=2)["error"]["code"] == "cli.wrong-usage"
    assert not (tmp_path / "lab").exists()


def test_the_status_tells_what_there_is_the_time_and_what_is_armed(cli: Cli, at: tuple[str, str]) -> None:
    cli("lab", "fault", "set", "nbd-busy", *at)
    text = cli.text("lab", "status", *at)
    assert "VMs: 2 Running" in text
    assert "time in the lab: 20" in text
    assert "armed faults: 1" in text


def test_the_scenarios_are_listed_with_what_they_hold(cli: Cli) -> None:
    assert [each["name"] for each in cli("lab", "scenarios")] == sorted(SCENARIO_SUMMARIES)
    assert "database" in cli.text("lab", "scenarios")


def test_a_day_passes_at_once(cli: Cli, at: tuple[str, str]) -> None:
    before = parse_time(cli("lab", "clock", *at)["now"])
    told = cli("lab", "clock", "--advance", "24h", *at)
    assert told["advanced_s"] == 86_400
    assert timedelta(hours=24) <= parse_time(told["now"]) - before < timedelta(hours=25)
    assert "In the lab it is" in cli.text("lab", "clock", "--advance", "2d12h30m", *at)


@pytest.mark.parametrize("given", ["soon", "-1h"])
def test_a_time_that_is_none_is_refused(cli: Cli, at: tuple[str, str], given: str) -> None:
    error = cli("lab", "clock", f"--advance={given}", *at, status=2 if given == "soon" else 4)["error"]
    assert error["message"]


def test_a_restart_of_the_toolstack_leaves_no_session(cli: Cli, handle: LabHandle, at: tuple[str, str]) -> None:
    session = XenAPI.Session(handle.plain_url)
    session.xenapi.login_with_password(handle.user, handle.password.reveal())
    assert cli("lab", "restart-toolstack", *at)["restarted"] is True
    assert handle.control.status()["sessions"] == 0


def test_the_lab_tells_what_it_wrote_down(cli: Cli, handle: LabHandle, at: tuple[str, str]) -> None:
    with (handle.state_dir / "lab.log").open("a", encoding="utf-8") as log:
        log.write("one\ntwo\nthree\n")
    assert cli("lab", "logs", "--lines", "2", *at)["lines"] == ["two", "three"]
    assert cli.text("lab", "logs", "--lines", "1", *at) == "three\n"


def test_a_guest_does_a_days_work(cli: Cli, at: tuple[str, str]) -> None:
    assert cli("lab", "guest", "work", "web", *at)["done"]
    assert "no VMs are called 'nobody'" in cli("lab", "guest", "work", "nobody", *at, status=4)["error"]["message"]


def test_the_faults_are_listed_by_area_with_what_is_armed(cli: Cli, at: tuple[str, str]) -> None:
    listed = cli("lab", "fault", "list", *at)
    assert {kind["name"] for kind in listed["kinds"]} == set(FAULT_KINDS)
    assert listed["armed"] == []
    cli("lab", "fault", "set", "export-cut", "--set", "after_bytes=5000", "--times", "until-cleared", *at)
    text = cli.text("lab", "fault", "list", *at)
    assert "Hosts" in text
    assert "Armed: nbd-busy, once." in cli.text("lab", "fault", "set", "nbd-busy", *at)
    assert "lasts until cleared" in text
    assert "armed: export-cut, until cleared, after_bytes=5000" in text


def _armed(cli: Cli, at: tuple[str, str]) -> list[Any]:
    return [each["name"] for each in cli("lab", "fault", "list", *at)["armed"]]


def test_faults_are_set_so_many_times_and_cleared_by_name(cli: Cli, at: tuple[str, str]) -> None:
    assert cli("lab", "fault", "set", "nbd-busy", "--times", "3", *at)["remaining"] == 3
    assert cli("lab", "fault", "set", "clock-skewed", "--set", "seconds=60", *at)["remaining"] == -1
    assert _armed(cli, at) == ["nbd-busy", "clock-skewed"]
    assert cli("lab", "fault", "clear", "clock-skewed", *at)["cleared"] == 1
    assert _armed(cli, at) == ["nbd-busy"]
    assert "Cleared: 1. Still armed: 0." in cli.text("lab", "fault", "clear", *at)


def test_an_accident_happens_at_once(cli: Cli, at: tuple[str, str]) -> None:
    assert "Happened: toolstack-restarts." in cli.text("lab", "fault", "set", "toolstack-restarts", *at)
    assert _armed(cli, at) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("no-such-fault",), 4, "no fault is called"),
        (("nbd-busy", "--set", "count=5"), 4, "no parameter 'count'"),
        (("nbd-disconnects", "--set", "after_bytes=soon"), 4, "whole number"),
        (("nbd-disconnects", "--set", "after_bytes"), 2, "NAME=VALUE"),
        (("nbd-busy", "--times", "0"), 4, "1 or more"),
        (("nbd-busy", "--times", "often"), 2, "until-cleared"),
        (("master-moves",), 4, "two hosts"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_in_words(
    cli: Cli, at: tuple[str, str], words: tuple[str, ...], status: int, said: str
) -> None:
    error = cli("lab", "fault", "set", *words, *at, status=status)["error"]
    assert said in error["message"]
    assert _armed(cli, at) == []


def test_after_a_change_of_certificate_the_new_one_is_told(cli: Cli, handle: LabHandle, at: tuple[str, str]) -> None:
    cli("lab", "fault", "set", "certificate-changes", *at)
    assert cli("lab", "status", *at)["fingerprint"] != handle.fingerprint
