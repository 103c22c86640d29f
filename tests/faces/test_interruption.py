"""A run that is stopped or killed at any place: it resumes or is closed, and nothing of ours stays on the pool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import SystemClock
from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, leftovers, points, write_as_guest
from tests.support.lab import PASSWORD

pytestmark = pytest.mark.slow(reason="whole processes that are killed and started again")

PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "before the snapshot": ("call-stalls", {"method": "VM.snapshot", "seconds": 60.0}),
    "while changed blocks are asked for": ("call-stalls", {"method": "VDI.list_changed_blocks", "seconds": 4.0}),
    "in the middle of the transfer": ("nbd-stalls", {"after_bytes": 70_000, "seconds": 4.0}),
    "while the snapshot is removed": ("call-stalls", {"method": "VM.destroy", "seconds": 4.0}),
    "while the data is purged": ("call-stalls", {"method": "VDI.data_destroy", "seconds": 4.0}),
    "while the old reference is removed": ("call-stalls", {"method": "VDI.destroy", "seconds": 4.0}),
}
"""Long enough to kill a process in between, short enough not to be waited for at the end. A call that makes something
stalls until the lab ends: what it would make afterwards is another test's matter."""


def _spawn(cli: Cli, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HOLDFAST_POOL_PASSWORD": PASSWORD, "HOLDFAST_HOME": str(cli.home)}
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", *words, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cli.home,
    )


def _wait_until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        SystemClock().sleep(0.02)


def _backup_that_hangs(
    cli: Cli, lab: RunningLab, place: str, *, seconds: float | None = None
) -> subprocess.Popen[bytes]:
    """Start an increment in its own process and return when it hangs at that place."""
    backup(cli, "--vm", "beta")
    write_as_guest(lab, "beta", offset_bytes=9 * 1024 * 1024, data=b"changed!" * 40_000)
    name, parameters = PLACES[place]
    lab.control.arm_fault(name, **{**parameters, **({"seconds": seconds} if seconds else {})})
    process = _spawn(cli, "backup", "run", "--pool", "lab", "--repository", "main", "--vm", "beta")
    _wait_until(lambda: not lab.control.faults() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def _newest_run(cli: Cli) -> dict[str, Any]:
    newest: dict[str, Any] = cli("run", "list")[0]
    return newest


def _assert_newest_point_is_right(cli: Cli, lab: RunningLab) -> None:
    point = points(cli)[-1]
    report = cli("restore", "vm", point["id"], "--repository", "main", "--pool", "lab", "--name", "copy")
    live = {disk["position"]: disk["uuid"] for disk in point["disks"]}
    for disk in report["run"]["result"]["disks"]:
        assert lab.control.sha256(disk["disk"]) == lab.control.sha256(live[disk["position"]])


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_resumed_the_run_ends_as_if_nothing_had_been(ready: Cli, lab: RunningLab, place: str) -> None:
    process = _backup_that_hangs(ready, lab, place)
    process.kill()
    process.communicate()
    assert _newest_run(ready)["status"] == "interrupted"
    report = ready("run", "resume")["runs"][0]
    assert report["run"]["status"] == "succeeded"
    assert len(points(ready)) == 2
    assert leftovers(lab) == []
    assert len(lab.control.ours()) == 2, "one reference for each disk"
    _assert_newest_point_is_right(ready, lab)


@pytest.mark.parametrize("place", ["before the snapshot", "in the middle of the transfer", "while the data is purged"])
def test_killed_and_cancelled_nothing_stays_on_the_pool(ready: Cli, lab: RunningLab, place: str) -> None:
    process = _backup_that_hangs(ready, lab, place)
    process.kill()
    process.communicate()
    report = ready("run", "cancel", _newest_run(ready)["run_id"])
    assert report["run"]["status"] == "cancelled"
    assert leftovers(lab) == []
    assert len(points(ready)) in (1, 2)
    assert ready("point", "verify", "--repository", "main")["damage"] == []
    backup(ready, "--vm", "beta")
    assert leftovers(lab) == []
    assert len(lab.control.ours()) == 2
    _assert_newest_point_is_right(ready, lab)


def test_a_new_backup_takes_the_place_of_a_killed_one(ready: Cli, lab: RunningLab) -> None:
    process = _backup_that_hangs(ready, lab, "in the middle of the transfer")
    process.kill()
    process.communicate()
    killed = _newest_run(ready)["run_id"]
    report = backup(ready, "--vm", "beta")
    assert report["run"]["status"] == "succeeded"
    assert [each["run_id"] for each in report["closed_runs"]] == [killed]
    assert ready("run", "show", killed)["status"] == "cancelled"
    assert leftovers(lab) == []
    _assert_newest_point_is_right(ready, lab)


def test_a_new_backup_takes_the_place_of_a_paused_one_and_re_uses_what_it_stored(ready: Cli, lab: RunningLab) -> None:
    process = _backup_that_hangs(ready, lab, "in the middle of the transfer")
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=30)
    paused = json.loads(told)["run"]
    assert paused["status"] == "paused"
    backup(ready, "--vm", "alpha")
    assert ready("run", "show", paused["run_id"])["status"] == "paused", "a backup of others leaves it alone"
    report = backup(ready, "--all")
    assert [each["run_id"] for each in report["closed_runs"]] == [paused["run_id"]]
    assert leftovers(lab) == []
    _assert_newest_point_is_right(ready, lab)


def test_a_second_run_of_the_same_vm_takes_nothing_from_the_first(ready: Cli, lab: RunningLab) -> None:
    process = _backup_that_hangs(ready, lab, "in the middle of the transfer", seconds=30)
    assert backup(ready, "--vm", "beta")["run"]["status"] == "succeeded"
    assert len(leftovers(lab)) == 1, "the first run's snapshot"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert ready("run", "resume")["runs"][0]["run"]["status"] == "succeeded"
    assert leftovers(lab) == []
    assert len(lab.control.ours()) == 2, "one reference for each disk"
    assert len(points(ready)) == 3
    assert ready("point", "verify", "--repository", "main")["damage"] == []


def test_ctrl_c_stops_within_seconds_and_the_run_resumes(ready: Cli, lab: RunningLab) -> None:
    process = _backup_that_hangs(ready, lab, "in the middle of the transfer")
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert time.monotonic() - asked < 8
    assert process.returncode == 130
    assert json.loads(told)["run"]["status"] == "paused"
    assert ready("run", "resume")["runs"][0]["run"]["status"] == "succeeded"
    assert leftovers(lab) == []
    _assert_newest_point_is_right(ready, lab)


def test_another_process_cancels_a_running_one(ready: Cli, lab: RunningLab) -> None:
    process = _backup_that_hangs(ready, lab, "in the middle of the transfer", seconds=30)
    ready("run", "cancel", _newest_run(ready)["run_id"])
    told, _ = process.communicate(timeout=30)
    assert json.loads(told)["run"]["status"] == "cancelled"
    assert leftovers(lab) == []


@pytest.mark.parametrize("method", ["VDI.create", "VBD.create"])
def test_a_killed_restore_leaves_nothing_when_cancelled_and_one_vm_when_resumed(
    ready: Cli, lab: RunningLab, method: str
) -> None:
    backup(ready, "--vm", "beta")
    point = points(ready)[0]["id"]
    before = lab.control.status()["disks"]
    words = ("restore", "vm", point, "--repository", "main", "--pool", "lab", "--name", "copy")
    for ending in ("cancel", "resume"):
        lab.control.arm_fault("call-stalls", method=method, seconds=60.0)
        process = _spawn(ready, *words)
        _wait_until(lambda process=process: not lab.control.faults() or process.poll() is not None)  # type: ignore[misc]
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        ready("run", ending, _newest_run(ready)["run_id"])
        names = [each["name"] for each in ready("vm", "list", "lab")]
        assert names.count("copy") == (1 if ending == "resume" else 0)
        added = int(str(lab.control.status()["disks"])) - int(str(before))
        assert added == (2 if ending == "resume" else 0)
        assert leftovers(lab) == []


@pytest.fixture
def small_place(tmp_path: Path) -> Any:
    """A file system of 48 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root, so a really full disk was not tried")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_in_the_middle_loses_nothing_and_the_run_says_so(
    cli: Cli, lab: RunningLab, small_place: Path
) -> None:
    cli("pool", "add", "lab", lab.url, "--yes")
    cli("repository", "create", "main", str(small_place / "repository"))
    backup(cli, "--vm", "alpha")
    filler = small_place / "filler"
    free = os.statvfs(small_place)
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 1024 * 1024))
    report = backup(cli, "--vm", "beta", status=7)
    assert report["run"]["status"] == "failed"
    assert "space" in report["run"]["error"]["message"]
    assert leftovers(lab) == []
    assert cli("point", "verify", "--repository", "main")["damage"] == []
    filler.unlink()
    backup(cli, "--vm", "beta")
    assert len(points(cli)) == 2


def test_what_a_dead_clients_call_makes_afterwards_is_swept_by_the_next_run(ready: Cli, lab: RunningLab) -> None:
    lab.control.arm_fault("call-stalls", method="VM.snapshot", seconds=4.0)
    process = _spawn(ready, "backup", "run", "--pool", "lab", "--repository", "main", "--vm", "beta")
    _wait_until(lambda: not lab.control.faults())
    process.kill()
    process.communicate()
    ready("run", "cancel", _newest_run(ready)["run_id"])
    assert leftovers(lab) == []
    _wait_until(lambda: leftovers(lab) != [])
    backup(ready, "--vm", "alpha")
    assert leftovers(lab) == []
