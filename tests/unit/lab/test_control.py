"""The side channel, guests at work, and a lab in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import HoldfastError, Secret
from holdfast.lab import (
    GuestNotRunning,
    LabControl,
    LabFailed,
    LabOptionInvalid,
    LabOptions,
    LabRefused,
    LabStateMismatch,
    LabUnreachable,
    RunningLab,
    read_lab,
    spawn_lab,
    start_lab,
)
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import first_disk, refusal, vm_named, wait_until


def test_only_the_token_opens_the_side_channel(lab: RunningLab) -> None:
    for token in ("", "wrong", lab.control.token.reveal()[:-1]):
        with pytest.raises(LabRefused):
            LabControl(lab.control.address, Secret(token)).status()
    with pytest.raises(LabRefused):
        lab.control.call("no-such-verb")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("hash", {}), ("hash", {"disk": "nope"}), ("fault-arm", {"name": "login-refused", "count": "x"}), ("witness", {})],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(
    lab: RunningLab, verb: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(LabRefused) as caught:
        lab.control.call(verb, **arguments)
    assert str(caught.value).removeprefix("the lab refused: ")


def test_the_status_tells_vms_and_counts(lab: RunningLab, api: Any) -> None:
    told = lab.control.status()
    names = {vm["name"]: vm["power_state"] for vm in told["vms"]}  # type: ignore[union-attr, index, call-overload]
    assert names == {"alpha": "Running", "beta": "Running"}
    assert told["disks"] == api.VDI.get_all().__len__()
    assert told["power_states"] == {"Running": 2}


def test_the_status_counts_vms_by_power_state_without_snapshots(lab: RunningLab, api: Any) -> None:
    beta = vm_named(api, "beta")
    snapshot = api.VM.snapshot(vm_named(api, "alpha"), "not counted")
    api.VM.hard_shutdown(beta)
    try:
        assert lab.control.status()["power_states"] == {"Halted": 1, "Running": 1}
    finally:
        api.VM.start(beta, False, False)
        disk = first_disk(api, snapshot)
        api.VM.destroy(snapshot)
        api.VDI.destroy(disk)


def test_the_hash_of_a_destroyed_snapshot_is_still_known(lab: RunningLab, api: Any) -> None:
    disk = first_disk(api, vm_named(api, "alpha"))
    snapshot = api.VDI.snapshot(disk)
    uuid = api.VDI.get_uuid(snapshot)
    before = lab.control.sha256(uuid)
    api.VDI.data_destroy(snapshot)
    lab.pool.disks.write(api.VDI.get_uuid(disk), 0, b"later")
    assert lab.control.sha256(uuid) == before
    api.VDI.destroy(snapshot)
    assert lab.control.sha256(uuid) == before


def test_what_carries_our_mark_is_a_leftover_but_change_metadata_is_not(lab: RunningLab, api: Any) -> None:
    disk = first_disk(api, vm_named(api, "alpha"))
    snapshot = api.VDI.snapshot(disk)
    assert lab.control.leftovers() == []
    api.VDI.add_to_other_config(snapshot, "holdfast:run", "7")
    assert [found["uuid"] for found in lab.control.ours()] == [api.VDI.get_uuid(snapshot)]
    assert len(lab.control.leftovers()) == 1
    api.VDI.data_destroy(snapshot)
    assert lab.control.leftovers() == []
    api.VDI.destroy(snapshot)


@pytest.fixture(scope="module")
def guests() -> Iterator[RunningLab]:
    """A lab whose disks have real file systems."""
    with tiny_lab(scenario="tiny", seed=5) as running:
        yield running


@pytest.mark.slow(reason="makes three small file systems")
def test_guests_work_and_their_file_systems_stay_clean(guests: RunningLab) -> None:
    with logged_in(guests) as session:
        api = session.xenapi
        for name in ("web", "db"):
            vm = vm_named(api, name)
            disk = first_disk(api, vm)
            before = guests.control.sha256(api.VDI.get_uuid(disk))
            one = api.VDI.snapshot(disk)
            told = guests.control.work_guest(api.VM.get_uuid(vm))
            assert all("files created" in line and "database pages" in line for line in told)
            assert guests.control.sha256(api.VDI.get_uuid(disk)) != before
            two = api.VDI.snapshot(disk)
            assert api.VDI.list_changed_blocks(one, two).strip("A=")
            report = guests.control.check_filesystem(api.VDI.get_uuid(two))
            assert report.found
            assert report.clean in (True, None)


@pytest.mark.slow(reason="makes three small file systems")
def test_single_actions_and_background_writing_tell_what_they_did(guests: RunningLab) -> None:
    with logged_in(guests) as session:
        disk = session.xenapi.VDI.get_uuid(first_disk(session.xenapi, vm_named(session.xenapi, "web")))
    assert guests.control.change_files(disk, count=3, total_bytes=30_000)["written_bytes"] == pytest.approx(
        30_000, rel=0.2
    )
    assert guests.control.write_pages(disk, fraction=0.1)["pages"] == 12
    assert guests.control.append_log(disk, length_bytes=5000)["written_bytes"] == 5064
    before = guests.control.sha256(disk)
    guests.control.start_writing(disk)
    guests.control.start_writing(disk)
    wait_until(guests, lambda: guests.control.sha256(disk) != before)
    assert guests.control.stop_writing(disk)["writes"] > 0  # type: ignore[operator]
    assert guests.control.stop_writing(disk) == {"writes": 0, "written_bytes": 0}


def test_the_guest_of_a_vm_that_does_not_run_does_nothing(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "beta")
    api.VM.hard_shutdown(vm)
    with pytest.raises(LabRefused) as caught:
        lab.control.work_guest(api.VM.get_uuid(vm))
    assert str(GuestNotRunning("beta", power_state="Halted")) in str(caught.value)
    api.VM.start(vm, False, False)


@pytest.mark.slow(reason="starts two labs")
def test_a_lab_started_again_on_its_folder_has_its_pool_back(tmp_path: Path) -> None:
    with tiny_lab(tmp_path) as first, logged_in(first) as session:
        api = session.xenapi
        snapshot = api.VM.snapshot(vm_named(api, "alpha"), "survives")
        uuid = api.VM.get_uuid(snapshot)
        frozen = api.VDI.get_uuid(first_disk(api, snapshot))
        content = first.control.sha256(frozen)
        first.pool.faults.arm("vbd-leaks")
        api.VDI.checksum(first_disk(api, snapshot))
        assert first.control.attachments() == [frozen]
        old = session._session
    with tiny_lab(tmp_path, password=None) as second:
        assert second.password.reveal() == first.password.reveal()
        assert second.fingerprint == first.fingerprint
        with logged_in(second) as session:
            assert session.xenapi.VM.get_by_uuid(uuid) == snapshot
            assert second.control.sha256(frozen) == content
            assert second.control.attachments() == []
            assert refusal(lambda: session.xenapi.session.get_uuid(old))[0] == "HANDLE_INVALID"


def _doors(lab: RunningLab) -> tuple[object, ...]:
    return lab.url, lab.plain_url, lab.nbd_address, lab.member_urls, lab.fingerprint, lab.user, lab.password.reveal()


@pytest.mark.slow(reason="starts three labs")
def test_a_lab_started_again_is_found_where_it_was(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty", hosts=2, user="somebody") as first:
        doors = _doors(first)
    with tiny_lab(tmp_path, scenario="empty", hosts=2, password=None) as second:
        assert _doors(second) == doors
    with tiny_lab(tmp_path, scenario="empty", hosts=2, tls_port=_free_port()) as elsewhere:
        assert elsewhere.url != first.url, "a port that is asked for goes before a remembered one"
        assert elsewhere.plain_url == first.plain_url


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.slow(reason="starts three labs")
def test_a_port_that_was_taken_meanwhile_is_replaced_and_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tiny_lab(tmp_path, scenario="empty") as first:
        port = int(first.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), tiny_lab(tmp_path, scenario="empty") as second:
        assert second.url != first.url
        assert second.nbd_address == first.nbd_address
        told = capfd.readouterr()
        assert "lab.port-taken" in told.out + told.err
    with tiny_lab(tmp_path, scenario="empty") as third:
        assert third.url == first.url


def test_another_scenario_or_a_second_lab_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty"), pytest.raises(HoldfastError, match="in use"):
        start_lab(LabOptions(state_dir=tmp_path, scenario="empty"))
    with pytest.raises(LabStateMismatch):
        start_lab(LabOptions(state_dir=tmp_path, scenario="bare"))
    with tiny_lab(tmp_path, scenario="empty"):
        pass
    with pytest.raises(LabOptionInvalid) as caught:
        start_lab(LabOptions(state_dir=tmp_path / "other", scenario="nope"))
    assert "demo" in caught.value.next_step()


@pytest.mark.slow(reason="starts three processes")
def test_a_lab_lives_in_its_own_process_and_survives_a_kill(tmp_path: Path) -> None:
    options = LabOptions(state_dir=tmp_path, scenario="bare", password=Secret("a password"))
    handle = spawn_lab(options)
    try:
        assert handle.is_running()
        assert handle.password.reveal() == "a password"
        assert (tmp_path / "lab.json").stat().st_mode & 0o077 == 0
        assert b"a password" not in Path(f"/proc/{handle.pid}/cmdline").read_bytes()
        found = read_lab(tmp_path)
        assert found is not None
        assert found.url == handle.url
        disk = json.dumps(handle.control.status())
        os.kill(handle.pid, signal.SIGKILL)
        handle.stop()
        handle = spawn_lab(options)
        assert json.loads(json.dumps(handle.control.status()))["vms"] == json.loads(disk)["vms"]
    finally:
        handle.stop()
    assert not handle.is_running()
    assert read_lab(tmp_path) is None
    with pytest.raises(LabUnreachable):
        handle.control.status()
    handle.stop()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("call-fails", {"method": "Nonsense.thing"}),
        ("storage-full", {"sr": "nosuch"}),
        ("storage-unreachable", {"sr": "nosuch"}),
        ("cbt-lost", {"disk": "nosuch"}),
        ("export-cut", {"path": "/exprot"}),
        ("operation-waits", {"operation": "snapshott"}),
    ],
)
def test_a_fault_for_a_place_that_is_not_in_the_pool_is_refused(
    lab: RunningLab, name: str, parameters: dict[str, str]
) -> None:
    with pytest.raises(LabRefused, match=r"of this pool, not|such as .*, not|or a path, not"):
        lab.control.arm_fault_with(name, parameters)
    assert lab.control.faults() == []


def test_a_mistake_of_the_lab_is_told_as_one_and_the_channel_goes_on(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(seconds: float) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(lab.pool.chores), "advance", lambda self, seconds: full(seconds))
    with pytest.raises(LabFailed, match="No space left"):
        lab.control.advance(1.0)
    assert lab.control.status()["templates"] == 0


def test_a_clock_that_is_moved_and_skewed_again_and_again_stays_in_the_calendar(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabRefused, match="more than"):
        for _ in range(200):
            lab.control.arm_fault("clock-skewed", seconds=366 * 86_400.0, direction="behind")
    lab.control.clear_faults()
    monkeypatch.setattr("holdfast.lab.control.OFF_S_MAX", 10.0)
    lab.control.advance(6.0)
    with pytest.raises(LabRefused, match="ahead"):
        lab.control.advance(6.0)
    assert lab.control.status()["time"]
