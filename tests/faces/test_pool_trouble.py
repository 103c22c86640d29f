"""What an admin meets at night: a pool that restarts, moves its master, fills up, or gives too few rights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import SystemClock
from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, leftovers, points, write_as_guest
from tests.support.lab import tiny_lab

pytestmark = pytest.mark.slow(reason="whole runs against a lab pool in trouble")


def _told(report: Any) -> str:
    """Return what the run says to people."""
    return "\n".join(each["message"] for each in (*report["run"]["findings"], *report["run"]["notes"]))


def _assert_newest_point_is_right(cli: Cli, lab: RunningLab, vm: str = "alpha") -> None:
    point = points(cli, "--vm", vm)[-1]
    report = cli("restore", "vm", point["id"], "--repository", "main", "--pool", "lab", "--name", "copy")
    live = {disk["position"]: disk["uuid"] for disk in point["disks"]}
    for disk in report["run"]["result"]["disks"]:
        assert lab.control.sha256(disk["disk"]) == lab.control.sha256(live[disk["position"]])


# --- the toolstack


def test_a_backup_that_begins_while_the_toolstack_restarts_waits_for_it_and_says_so(
    ready: Cli, lab: RunningLab
) -> None:
    lab.control.restart_toolstack()
    lab.control.arm_fault("call-lost", method="session.login_with_password", count=10)
    text = ready.text("backup", "run", "--pool", "lab", "--repository", "main", "--vm", "alpha")
    assert "waiting up to 4 min 56 s for the pool" in text
    assert len(points(ready)) == 1


@pytest.mark.parametrize("fault", ["host-still-booting", "host-in-emergency"])
def test_a_host_that_boots_is_waited_for(ready: Cli, lab: RunningLab, fault: str) -> None:
    lab.control.arm_fault(fault, count=20)
    assert backup(ready, "--vm", "alpha")["run"]["status"] == "succeeded"


def test_a_person_who_asks_is_told_soon_that_the_pool_is_away(ready: Cli, lab: RunningLab) -> None:
    lab.control.arm_fault("host-still-booting", count=-1)
    error = ready("vm", "list", "lab", status=3)["error"]
    assert error["code"] == "pool.starting"
    assert error["next_step"]


@contextmanager
def _in_the_middle(lab: RunningLab, trouble: Callable[[], object], **stall: Any) -> Iterator[None]:
    """Let the next transfer stall, and ``trouble`` happen while it does."""
    lab.control.arm_fault(
        "export-stalls" if "path" in stall else "nbd-stalls", after_bytes=70_000, seconds=0.4, **stall
    )

    def wait_and_make() -> None:
        while lab.control.faults():
            SystemClock().sleep(0.01)
        trouble()

    thread = threading.Thread(target=wait_and_make)
    thread.start()
    yield
    thread.join()


def test_a_backup_goes_on_after_a_restart_in_the_middle_of_its_transfer(ready: Cli, lab: RunningLab) -> None:
    backup(ready, "--vm", "alpha")
    write_as_guest(lab, "alpha", offset_bytes=9 << 20, data=b"changed!" * 40_000)
    with _in_the_middle(lab, lambda: lab.control.restart_toolstack(silent_s=0.7)):
        assert backup(ready, "--vm", "alpha")["run"]["status"] == "succeeded"
    assert leftovers(lab) == []
    _assert_newest_point_is_right(ready, lab)


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        ("call-lost", "VM.snapshot"),
        ("answer-lost", "VM.snapshot"),
        ("task-vanishes", "VM.snapshot"),
        ("task-vanishes", "VDI.list_changed_blocks"),
        ("answer-lost", "VM.destroy"),
        ("task-vanishes", "VM.destroy"),
        ("task-vanishes", "VDI.data_destroy"),
    ],
)
def test_a_call_of_a_backup_that_is_lost_costs_time_only(ready: Cli, lab: RunningLab, fault: str, method: str) -> None:
    backup(ready, "--vm", "beta")
    lab.control.arm_fault(fault, method=method)
    report = backup(ready, "--vm", "beta")
    assert report["run"]["status"] == "succeeded"
    assert (lab.control.faults(), leftovers(lab)) == ([], [])
    assert len(lab.control.ours()) == 2, "one reference for each disk"
    _assert_newest_point_is_right(ready, lab, "beta")


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        ("answer-lost", "VDI.create"),
        ("call-lost", "VM.create"),
        ("answer-lost", "VM.create"),
        ("task-vanishes", "VBD.create"),
        ("answer-lost", "VIF.create"),
    ],
)
def test_a_call_of_a_restore_that_is_lost_costs_time_only(ready: Cli, lab: RunningLab, fault: str, method: str) -> None:
    backup(ready, "--vm", "beta")
    disks = lab.control.status()["disks"]
    lab.control.arm_fault(fault, method=method)
    _assert_newest_point_is_right(ready, lab, "beta")
    assert [each["name"] for each in ready("vm", "list", "lab")].count("copy") == 1
    assert int(str(lab.control.status()["disks"])) == int(str(disks)) + 2
    assert (lab.control.faults(), leftovers(lab)) == ([], [])


@pytest.mark.parametrize("method", ["VM.snapshot", "VM.get_record", "task.create", "VDI.data_destroy"])
def test_several_sessions_lost_in_a_row_cost_time_only(ready: Cli, lab: RunningLab, method: str) -> None:
    lab.control.arm_fault("session-invalid", method=method, count=4)
    assert backup(ready, "--vm", "alpha")["run"]["status"] == "succeeded"
    assert lab.control.faults() == []


# --- several hosts


@pytest.fixture(params=["tls", "none"])
def two_hosts(cli: Cli, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningLab]:
    """A pool of two hosts that was added by the address of its member, read over NBD or by exports."""
    with tiny_lab(hosts=2, nbd=request.param) as lab:
        cli("pool", "add", "lab", lab.member_urls[0], "--yes")
        cli("repository", "create", "main", str(tmp_path / "repository"))
        yield lab


def test_a_backup_goes_on_when_the_master_moves_in_the_middle_of_a_transfer(cli: Cli, two_hosts: RunningLab) -> None:
    assert cli("pool", "list")[0]["url"] == two_hosts.url, "the member has named its master"
    by_export = two_hosts.options.nbd == "none"
    stall = {"path": "/export_raw_vdi"} if by_export else {}
    with _in_the_middle(two_hosts, lambda: two_hosts.control.arm_fault("master-moves"), **stall):
        assert backup(cli, "--vm", "alpha")["run"]["status"] == "succeeded"
    assert len(leftovers(two_hosts)) == int(by_export), "only a reference that has to keep its data"
    _assert_newest_point_is_right(cli, two_hosts)


# --- what stays attached


@pytest.mark.parametrize("fault", ["vbd-leaks", "disk-stays-in-use"])
def test_a_restored_disk_is_not_left_in_the_control_domain(ready: Cli, lab: RunningLab, fault: str) -> None:
    backup(ready, "--vm", "beta")
    lab.control.arm_fault(fault, count=-1, **({"seconds": 0.3} if fault == "disk-stays-in-use" else {}))
    words = ("--repository", "main", "--pool", "lab", "--name", "copy", "--start")
    report = ready("restore", "vm", points(ready)[0]["id"], *words)
    assert report["run"]["result"]["started"]
    restored = {each["disk"] for each in report["run"]["result"]["disks"]}
    assert restored.isdisjoint(lab.control.attachments())
    assert report["run"]["findings"] == []


# --- storage


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("storage-full", "pool.sr-full", 7),
        ("chain-too-long", "pool.chain-too-long", 1),
        ("disk-unavailable", "pool.disk-unavailable", 9),
        ("storage-detached", "pool.storage-offline", 3),
        ("storage-unreachable", "pool.storage-offline", 3),
    ],
)
def test_storage_that_takes_no_snapshot_is_told_with_what_to_do_and_leaves_nothing(
    ready: Cli, lab: RunningLab, fault: str, code: str, status: int
) -> None:
    disks = lab.control.status()["disks"]
    lab.control.arm_fault(fault, count=-1)
    error = backup(ready, "--vm", "beta", status=status)["run"]["error"]
    assert error["facts"]["cause_code"] == code
    assert error["effect"]
    assert error["next_step"]
    lab.control.clear_faults()
    assert lab.control.ours() == []
    assert lab.control.status()["disks"] == disks


def test_a_chain_that_is_being_merged_is_waited_for(ready: Cli, lab: RunningLab) -> None:
    lab.control.arm_fault("disk-unavailable", count=2)
    report = backup(ready, "--vm", "alpha")
    assert report["run"]["status"] == "succeeded"
    assert "attempt 2 of 3" in _told(report)


# --- rights


@pytest.mark.parametrize("role", ["read-only", "vm-operator", "vm-admin"])
def test_a_role_that_is_too_small_is_told_with_the_one_that_is_enough(cli: Cli, tmp_path: Path, role: str) -> None:
    with tiny_lab(role_users=True) as lab:
        cli("pool", "add", "lab", lab.url, "--yes", "--user", role)
        cli("repository", "create", "main", str(tmp_path / "repository"))
        error = backup(cli, "--vm", "alpha", status=4)["run"]["error"]
        assert error["facts"]["cause_code"] == "pool.rights-missing"
        assert "vm-power-admin" in error["next_step"]
        assert lab.control.ours() == []


def test_the_role_that_is_advised_is_enough_for_the_whole_job(cli: Cli, tmp_path: Path) -> None:
    with tiny_lab(role_users=True) as lab:
        cli("pool", "add", "lab", lab.url, "--yes", "--user", "vm-power-admin")
        cli("repository", "create", "main", str(tmp_path / "repository"))
        lab.control.arm_fault("vbd-leaks", count=-1)
        for _ in range(2):
            assert backup(cli, "--vm", "alpha")["run"]["findings"] == []
        _assert_newest_point_is_right(cli, lab)
        cli("pool", "clean", "lab", "--all", "--yes")
        assert lab.control.ours() == []
