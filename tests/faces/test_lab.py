"""``holdfast lab`` as an admin uses it: start a pool, rehearse a disaster, let a day pass, stop it again."""

from __future__ import annotations

import socket
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
        ("vm", "list"),
        ("vm", "start", "web"),
        ("password",),
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


def test_a_lab_takes_the_password_that_it_is_given(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = "--state", str(tmp_path / "lab")
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    monkeypatch.setenv("HOLDFAST_LAB_PASSWORD", "from the environment")
    for options, expected in ((("--password-file", str(secret)), "from a file"), ((), "from the environment")):
        cli("lab", "start", "--scenario", "empty", *options, *at)
        try:
            assert cli("lab", "password", *at)["password"] == expected
        finally:
            cli("lab", "stop", *at)


def test_a_lab_is_started_again_as_it_was_made_and_deleted_when_it_does_not_run(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    at = "--state", str(folder)
    made = ("--scenario", "empty", "--nbd", "none", "--hosts", "2", "--storage-gib", "7", "--user", "boss")
    first = cli("lab", "start", *made, *at)
    try:
        running = cli("lab", "delete", "--yes", *at, status=9)["error"]
        assert running["code"] == "lab.still-runs"
    finally:
        cli("lab", "stop", *at)
    for wish in (("--scenario", "demo"), ("--nbd", "tls"), ("--hosts", "3"), ("--no-cbt",), ("--storage-gib", "8")):
        error = cli("lab", "start", *wish, *at, status=4)["error"]
        assert error["code"] == "lab.state-mismatch"
        assert "No lab was started" in error["effect"]
    port = int(first["url"].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        taken = cli("lab", "start", "--port", str(port), *at, status=9)["error"]
        assert taken["code"] == "lab.port-unusable"
    assert cli("lab", "start", *at)["url"] == first["url"]
    cli("lab", "stop", *at)
    (folder / "notes.txt").write_text("mine")
    assert cli("lab", "delete", *at, status=2)["error"]["code"] == "cli.not-confirmed"
    told = cli.text("lab", "delete", "--yes", *at)
    assert f"{folder / 'disks'}" in told
    assert "stays: notes.txt" in told
    assert [each.name for each in folder.iterdir()] == ["notes.txt"]
    assert cli("lab", "delete", "--yes", *at, status=5)["error"]["code"] == "lab.not-there"


def test_the_faults_are_listed_without_a_lab_too(cli: Cli, tmp_path: Path) -> None:
    at = "--state", str(tmp_path / "none")
    assert {each["name"] for each in cli("lab", "fault", "list", *at)["kinds"]} == set(FAULT_KINDS)
    assert "No lab runs here" in cli.text("lab", "fault", "list", *at)


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
    text = cli.text("lab", "scenarios")
    assert "database" in text
    assert "1.7 GB" in text
    assert "recorded" not in text


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
    assert cli.text("lab", "logs", "--lines", "0", *at) == ""
    assert cli("lab", "logs", "--lines", "-5", *at, status=2)["error"]["code"] == "cli.wrong-usage"


def test_the_log_tells_what_was_refused_and_which_fault_fired(cli: Cli, handle: LabHandle, at: tuple[str, str]) -> None:
    cli("lab", "fault", "set", "login-refused", *at)
    session = XenAPI.Session(handle.plain_url)
    with pytest.raises(XenAPI.Failure):
        session.xenapi.login_with_password(handle.user, handle.password.reveal())
    with pytest.raises(XenAPI.Failure):
        session.xenapi.login_with_password(handle.user, "wrong")
    text = cli.text("lab", "logs", *at)
    assert "lab.fault-armed" in text
    assert "lab.fault-fired" in text
    assert "SESSION_AUTHENTICATION_FAILED" in text
    assert "wrong" not in text


def test_the_password_is_shown_on_purpose(cli: Cli, at: tuple[str, str]) -> None:
    assert cli("lab", "password", *at) == {"user": "root", "password": PASSWORD}
    assert cli.text("lab", "password", *at) == f"{PASSWORD}\n"


def test_the_vms_of_the_lab_are_started_and_shut_down_by_name(cli: Cli, at: tuple[str, str]) -> None:
    def states() -> dict[str, str]:
        return {each["name"]: each["power_state"] for each in cli("lab", "vm", "list", *at)}

    assert states() == {"db": "Running", "web": "Running"}
    cli("lab", "vm", "stop", "web", *at)
    assert states() == {"db": "Running", "web": "Halted"}
    assert "VM_BAD_POWER_STATE" in cli("lab", "vm", "stop", "web", *at, status=4)["error"]["message"]
    assert cli.text("lab", "vm", "start", "web", *at) == "web runs.\n"
    assert "web" in cli.text("lab", "vm", "list", *at)


def test_after_a_crash_the_vms_are_started_again_and_have_lost_their_tracking(
    cli: Cli, handle: LabHandle, at: tuple[str, str]
) -> None:
    cli("lab", "fault", "set", "host-crashes", *at)
    cli("lab", "vm", "start", "web", *at)
    cli("lab", "vm", "start", "db", *at)
    session = XenAPI.Session(handle.plain_url)
    session.xenapi.login_with_password(handle.user, handle.password.reveal())
    told = [each["name"] for each in session.xenapi.message.get_all_records().values()]
    session.xenapi.session.logout()
    assert "VDI_CBT_METADATA_INCONSISTENT" in told


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
        (("call-fails", "--set", "method=Nonsense.thing"), 4, "a call such as"),
        (("storage-full", "--set", "sr=nosuch"), 4, "a storage repository of this pool"),
        (("nbd-slow", "--set", "bytes_per_s=0"), 4, "1 or more"),
        (("clock-skewed", "--set", "seconds=1e18"), 4, "31622400"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_in_words(
    cli: Cli, at: tuple[str, str], words: tuple[str, ...], status: int, said: str
) -> None:
    error = cli("lab", "fault", "set", *words, *at, status=status)["error"]
    assert said in error["message"]
    assert error["effect"] in ("Nothing was changed in the lab.", "Nothing was changed.")
    assert _armed(cli, at) == []


def test_after_a_change_of_certificate_the_new_one_is_told(cli: Cli, handle: LabHandle, at: tuple[str, str]) -> None:
    cli("lab", "fault", "set", "certificate-changes", *at)
    assert cli("lab", "status", *at)["fingerprint"] != handle.fingerprint
