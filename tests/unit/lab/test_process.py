"""A lab's process is started once, found again, and never taken for another one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import Cancellation, Cancelled, ExitStatus, SystemClock
from holdfast.lab import SCENARIO_SUMMARIES, LabDidNotStart, LabOptions, read_lab, spawn_lab, start_lab
from holdfast.lab.founding import LabWishes, resume_options
from holdfast.lab.listening import LabPortUnusable
from holdfast.lab.options import LabOptionInvalid, LabStateMismatch
from holdfast.lab.process import LabAlreadyRuns, LabStartRefused, write_lab_file
from holdfast.lab.state import LabFolderNotWritable
from tests.support.lab import tiny_lab


@pytest.mark.parametrize("start", [spawn_lab, start_lab])
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_folder_that_cannot_be_is_refused_in_words(tmp_path: Path, start: type, below: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(LabFolderNotWritable) as caught:
        start(LabOptions(state_dir=blocked / below))
    assert str(blocked) in str(caught.value)
    assert caught.value.exit_status is ExitStatus.REFUSED
    assert blocked.read_text() == "in the way"


def test_a_folder_in_which_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(LabFolderNotWritable):
        start_lab(LabOptions(state_dir=Path("/proc/self")))


def test_an_unknown_scenario_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(LabOptionInvalid, match="nope") as caught:
        spawn_lab(LabOptions(state_dir=tmp_path / "lab", scenario="nope"))
    assert caught.value.exit_status is ExitStatus.USAGE
    assert all(name in caught.value.next_step() for name in SCENARIO_SUMMARIES)
    assert not (tmp_path / "lab").exists()


@pytest.mark.slow(reason="starts a lab and a process")
def test_a_lab_that_cannot_start_says_why_in_one_clean_line(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty"), pytest.raises(LabAlreadyRuns) as in_use:
        spawn_lab(LabOptions(state_dir=tmp_path, scenario="empty"))
    assert (tmp_path / "pool.db").exists()
    assert in_use.value.exit_status is ExitStatus.BUSY
    assert (tmp_path / "lab.log").read_text() == "", "the log is that of the lab that runs"
    with pytest.raises(LabStartRefused, match="the scenario empty, not bare") as mismatch:
        spawn_lab(LabOptions(state_dir=tmp_path, scenario="bare"))
    assert mismatch.value.code == "lab.state-mismatch"
    assert "Leave the option out" in mismatch.value.next_step()
    assert (tmp_path / "lab.log").read_text().endswith("with --state.\n")


@pytest.mark.slow(reason="starts a process")
def test_a_lab_that_ends_without_a_word_is_told_by_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "disks").write_text("in the way")
    with pytest.raises(LabDidNotStart) as caught:
        spawn_lab(LabOptions(state_dir=tmp_path, scenario="empty"))
    assert caught.value.reason
    assert str(tmp_path) in caught.value.next_step()
    assert "repository" in caught.value.effect


def test_a_wish_that_the_pool_in_the_folder_does_not_fulfil_is_refused(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty", nbd="none", hosts=2):
        pass
    assert resume_options(tmp_path, LabWishes()).scenario == "empty"
    assert resume_options(tmp_path, LabWishes(hosts=1)).hosts == 2
    assert resume_options(tmp_path, LabWishes(role_users=True)).role_users
    for wish in (LabWishes(scenario="demo"), LabWishes(nbd="tls"), LabWishes(cbt=False), LabWishes(hosts=3)):
        with pytest.raises(LabStateMismatch):
            resume_options(tmp_path, wish)
    assert resume_options(tmp_path / "none", LabWishes(cbt=False)).cbt is False


@pytest.mark.slow(reason="starts a process")
def test_a_port_that_is_taken_is_told_and_asked_for_again_the_next_time(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty") as first:
        port = int(first.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        handle = spawn_lab(LabOptions(state_dir=tmp_path, scenario="empty"))
        handle.stop()
        assert [(each.name, each.wanted_port) for each in handle.moved] == [("tls", port)]
        assert handle.url.endswith(f":{handle.moved[0].port}")
        with pytest.raises(LabPortUnusable, match=str(port)):
            start_lab(LabOptions(state_dir=tmp_path, scenario="empty", tls_port=port))
    with tiny_lab(tmp_path, scenario="empty") as again:
        assert again.url == first.url


def test_after_a_failover_the_labs_file_names_the_new_master(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty", hosts=2) as lab:
        lab.on_new_face = lambda: write_lab_file(lab)
        before = lab.url
        lab.control.arm_fault("master-moves")
        told = read_lab(tmp_path)
        assert told is not None
        assert told.url == lab.url != before
        assert lab.member_urls == (before,)


@contextlib.contextmanager
def _bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any lab, and must outlive the block."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process
            assert process.poll() is None, "somebody else's process was ended"
        finally:
            process.kill()


def _write_facts(folder: Path, **changes: object) -> None:
    facts = {
        "pid": os.getpid(),
        "started_ticks": 1,
        "scenario": "empty",
        "url": "https://127.0.0.1:1",
        "plain_url": "http://127.0.0.1:1",
        "nbd": ["127.0.0.1", 1],
        "user": "root",
        "password": "secret",
        "fingerprint": "00" * 32,
        "certificate": "",
        "control": ["127.0.0.1", 1],
        "token": "token",
        **changes,
    }
    (folder / "lab.json").write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


@pytest.mark.parametrize("started_ticks", [1, None], ids=["another start time", "none written down"])
def test_a_process_that_only_has_the_labs_number_is_left_alone(tmp_path: Path, started_ticks: int | None) -> None:
    with _bystander() as process:
        _write_facts(tmp_path, pid=process.pid, started_ticks=started_ticks)
        stale = read_lab(tmp_path)
        assert stale is not None
        assert not stale.is_running()
        assert not stale.is_alive
        stale.stop()
    assert not (tmp_path / "lab.json").exists()


def test_stopping_a_lab_that_is_gone_leaves_the_file_of_the_next_one(tmp_path: Path) -> None:
    _write_facts(tmp_path)
    stale = read_lab(tmp_path)
    assert stale is not None
    _write_facts(tmp_path, started_ticks=2)
    stale.stop()
    assert read_lab(tmp_path) is not None


@pytest.mark.parametrize("text", ["", "{}", "[", "[]", '{"pid": 1}'])
def test_a_file_that_names_no_lab_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    assert read_lab(tmp_path) is None


@pytest.mark.slow(reason="starts a process")
def test_a_lab_that_runs_is_not_started_twice_and_stays_found(tmp_path: Path) -> None:
    options = LabOptions(state_dir=tmp_path, scenario="empty")
    handle = spawn_lab(options)
    try:
        with pytest.raises(LabAlreadyRuns) as caught:
            spawn_lab(options)
        assert handle.url in str(caught.value)
        assert f"holdfast lab stop --state {tmp_path}" in caught.value.next_step()
        assert caught.value.exit_status is ExitStatus.BUSY
        found = read_lab(tmp_path)
        assert found is not None
        assert found.pid == handle.pid
        assert found.is_running()
    finally:
        handle.stop()


@pytest.mark.slow(reason="starts a process")
def test_a_stale_file_does_not_keep_a_lab_from_starting(tmp_path: Path) -> None:
    with _bystander() as process:
        _write_facts(tmp_path, pid=process.pid)
        handle = spawn_lab(LabOptions(state_dir=tmp_path, scenario="empty"))
        try:
            assert handle.pid != process.pid
            assert handle.is_running()
        finally:
            handle.stop()


class _CancelsWhileWaiting(SystemClock):
    """A clock at whose first wait somebody presses Ctrl-C."""

    def __init__(self, folder: Path, cancel: Cancellation) -> None:
        self.folder, self.cancel = folder, cancel
        self.children: list[str] = []

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        mine = Path("/proc/self/task").glob("*/children")
        self.children = [pid for each in mine for pid in each.read_text().split()]
        assert (self.folder / "lab.log").exists()
        self.cancel.cancel()
        super().sleep(duration_s, cancel=cancel)


@pytest.mark.parametrize("was_there", [False, True])
def test_a_start_that_is_cancelled_leaves_no_process_and_no_state(tmp_path: Path, was_there: bool) -> None:
    folder = tmp_path / "lab"
    if was_there:
        folder.mkdir()
    cancel = Cancellation()
    clock = _CancelsWhileWaiting(folder, cancel)
    with pytest.raises(Cancelled):
        spawn_lab(LabOptions(state_dir=folder, scenario="empty"), clock=clock, cancel=cancel)
    assert clock.children
    assert [pid for pid in clock.children if Path(f"/proc/{pid}/cmdline").exists() and _is_lab(pid)] == []
    assert folder.exists() == was_there
    assert list(tmp_path.rglob("*")) == ([folder] if was_there else [])


def _is_lab(pid: str) -> bool:
    return b"holdfast.lab" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow(reason="starts a lab")
def test_a_cancelled_start_keeps_the_pool_that_the_folder_held(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty") as lab:
        url = lab.url
    cancel = Cancellation()
    with pytest.raises(Cancelled):
        spawn_lab(
            LabOptions(state_dir=tmp_path, scenario="empty"),
            clock=_CancelsWhileWaiting(tmp_path, cancel),
            cancel=cancel,
        )
    with tiny_lab(tmp_path, scenario="empty") as again:
        assert again.url == url


def test_a_start_that_was_cancelled_before_makes_nothing(tmp_path: Path) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        spawn_lab(LabOptions(state_dir=tmp_path / "lab", scenario="empty"), cancel=cancel)
    assert not (tmp_path / "lab").exists()


_STARTS_A_LAB = """
import sys
from pathlib import Path
from threading import Thread
from holdfast.lab import LabOptions, spawn_lab

dies = sys.argv[2] == "dies"
options = LabOptions(state_dir=Path(sys.argv[1]), scenario="empty", dies_with_parent=dies)
starter = Thread(target=spawn_lab, args=(options,))
starter.start()
starter.join()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow(reason="starts a process that starts a lab")
@pytest.mark.parametrize("dies", [True, False])
def test_a_lab_dies_with_its_parent_only_where_it_is_told_to(tmp_path: Path, dies: bool) -> None:
    command = [sys.executable, "-c", _STARTS_A_LAB, str(tmp_path), "dies" if dies else "stays"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        lab = read_lab(tmp_path)
        assert lab is not None
        try:
            assert lab.is_running(), "the end of the thread that started it is not the end of the parent"
            parent.kill()
            parent.wait()
            if dies:
                assert lab._is_gone_within(10, SystemClock())
                assert read_lab(tmp_path) is None, "it ended in good order"
            else:
                assert not lab._is_gone_within(1.5, SystemClock())
                assert lab.is_running()
        finally:
            lab.stop()
