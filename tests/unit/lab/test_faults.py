"""Every fault: what a client sees, exactly as often as it was told to happen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from holdfast.core import MIB
from holdfast.formats.vhd import VhdDamaged, VhdError, VhdInterrupted, VhdStreamReader, VhdTruncated
from holdfast.lab import FAULT_KINDS, LabRefused, RunningLab
from holdfast.lab.faults import Faults, FaultUnknown, FaultValueInvalid
from tests.support.lab import PASSWORD
from tests.unit.lab.talk import ended, get_raw, json_call, new_disk, put_raw, refusal, vm_named, wait_until
from tests.unit.lab.test_nbd_service import _reading


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    lab.pool.disks.write(api.VDI.get_uuid(made), 0, b"faulty" * 100_000)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def _read_vhd(body: bytes) -> None:
    for _ in VhdStreamReader(io.BytesIO(body)).blocks():
        pass


def test_a_fault_fires_as_often_as_told_and_is_gone() -> None:
    faults = Faults()
    faults.arm("login-refused", count=2)
    assert [bool(faults.take("login-refused")) for _ in range(3)] == [True, True, False]
    assert faults.armed() == []


def test_a_fault_without_an_end_stays_until_cleared() -> None:
    faults = Faults()
    faults.arm("login-refused", count=-1)
    assert all(faults.take("login-refused") for _ in range(5))
    assert faults.clear(name="login-refused") == 1
    assert faults.take("login-refused") is None


def test_a_fault_waits_for_the_method_it_is_for() -> None:
    faults = Faults()
    faults.arm("call-stalls", method="VM.snapshot", seconds=0.0)
    assert faults.take("call-stalls", method="VM.get_all") is None
    assert faults.take("call-stalls", method="VM.snapshot") is not None


@pytest.mark.parametrize(("name", "parameters"), [("no-such-fault", {}), ("login-refused", {"method": "x"})])
def test_an_unknown_fault_or_parameter_is_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(FaultUnknown):
        Faults().arm(name, **parameters)


def test_a_parameter_given_as_text_becomes_what_its_default_is() -> None:
    armed = Faults().arm("nbd-stalls", after_bytes="4096", seconds="0.5")
    assert armed.parameters == {"after_bytes": 4096, "seconds": 0.5}
    assert (armed.number("after_bytes"), armed.seconds()) == (4096, 0.5)
    assert Faults().arm("nbd-stalls", after_bytes=8192.0, seconds=2).parameters == {"after_bytes": 8192, "seconds": 2.0}
    assert Faults().arm("snapshot-fails", code=44).text("code") == "44"


@pytest.mark.parametrize("value", ["soon", "", "1.5", 1.5, "-1", -1, True, float("inf"), float("nan")])
def test_a_whole_number_that_is_none_is_refused_by_name_and_expected_kind(value: Any) -> None:
    faults = Faults()
    with pytest.raises(FaultValueInvalid, match=r"^after_bytes of fault 'nbd-stalls' is a whole number of 0 or more"):
        faults.arm("nbd-stalls", after_bytes=value)
    assert faults.armed() == []


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-0.5", -1, False])
def test_a_duration_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(FaultValueInvalid, match=r"^seconds of fault 'call-stalls' is a number of 0 or more"):
        Faults().arm("call-stalls", seconds=value)


@pytest.mark.parametrize("count", [0, -2])
def test_a_fault_that_would_never_fire_is_refused(count: int) -> None:
    with pytest.raises(FaultValueInvalid, match="count"):
        Faults().arm("login-refused", count=count)


def test_the_side_channel_refuses_a_value_in_words_and_arms_nothing(lab: RunningLab) -> None:
    for name, parameters in (
        ("nbd-disconnects", {"after_bytes": "soon"}),
        ("nbd-disconnects", {"after_bytes": [5]}),
        ("login-refused", {"name": "x"}),
    ):
        with pytest.raises(LabRefused) as caught:
            lab.control.arm_fault(name, **parameters)
        assert next(iter(parameters)) in str(caught.value)
    with pytest.raises(LabRefused, match="count"):
        lab.control.arm_fault("login-refused", count=True)
    assert lab.control.faults() == []


def test_every_fault_says_what_it_does() -> None:
    for kind in FAULT_KINDS.values():
        assert kind.summary.endswith(".")
        assert kind.name == kind.name.lower()


def test_a_login_can_be_refused_or_sent_elsewhere(lab: RunningLab) -> None:
    stranger = XenAPI.Session(lab.plain_url)
    lab.control.arm_fault("login-refused")
    assert refusal(lambda: stranger.xenapi.login_with_password("root", PASSWORD))[0] == "SESSION_AUTHENTICATION_FAILED"
    lab.control.arm_fault("host-is-slave", address="192.0.2.7")
    error = json_call(lab, "session.login_with_password", "root", PASSWORD)["error"]
    assert (error["message"], error["data"]) == ("HOST_IS_SLAVE", ["192.0.2.7"])
    assert "result" in json_call(lab, "session.login_with_password", "root", PASSWORD)


def test_a_session_can_end_in_the_middle(lab: RunningLab, session: Any) -> None:
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    lab.control.arm_fault("session-invalid", method="VM.get_all")
    assert "result" in json_call(lab, "host.get_all", ref)
    for method in ("VM.get_all", "host.get_all"):
        assert json_call(lab, method, ref)["error"]["message"] == "SESSION_INVALID"


def test_any_call_can_be_refused_with_any_code(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.arm_fault("call-fails", method="VM.snapshot", code="SR_BACKEND_FAILURE_47", parameters="|SR is gone|")
    assert refusal(lambda: api.VM.snapshot(vm, "x")) == ["SR_BACKEND_FAILURE_47", "", "SR is gone", ""]
    lab.control.arm_fault("operation-in-progress", method="VM.destroy")
    assert refusal(lambda: api.VM.destroy(vm))[:2] == ["OTHER_OPERATION_IN_PROGRESS", "VM"]
    lab.control.arm_fault("too-many-tasks")
    assert refusal(lambda: api.VM.get_all()) == ["TOO_MANY_PENDING_TASKS"]
    assert api.VM.get_all()


def test_a_call_can_be_slow(lab: RunningLab, api: Any) -> None:
    lab.control.arm_fault("call-stalls", method="VM.get_all", seconds=0.05)
    began_s = lab.pool.clock.monotonic_s()
    api.VM.get_all()
    assert lab.pool.clock.monotonic_s() - began_s >= 0.05


def test_a_task_can_vanish_though_its_work_is_done(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("task-vanishes", method="VDI.snapshot")
    task = session.xenapi.Async.VDI.snapshot(disk)
    wait_until(lab, lambda: not lab.pool.tasks.exists(task))
    assert len(api.VDI.get_snapshots(disk)) == 1


def test_a_change_log_can_be_found_inconsistent(lab: RunningLab, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    one = api.VDI.snapshot(disk)
    uuid = api.VDI.get_uuid(disk)
    lab.control.arm_fault("cbt-lost", disk=uuid)
    two = api.VDI.snapshot(disk)
    assert (api.VDI.get_cbt_enabled(disk), api.VDI.get_cbt_enabled(two)) == (False, False)
    assert refusal(lambda: api.VDI.list_changed_blocks(one, two))[0] == "SR_BACKEND_FAILURE_460"
    told = [m for m in api.message.get_all_records().values() if m["obj_uuid"] == uuid]
    assert [m["name"] for m in told] == ["VDI_CBT_METADATA_INCONSISTENT"]


def test_the_storage_driver_can_fail_to_compare(lab: RunningLab, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    one, two = api.VDI.snapshot(disk), api.VDI.snapshot(disk)
    lab.control.arm_fault("changed-blocks-fail", code="SR_BACKEND_FAILURE_459")
    assert refusal(lambda: api.VDI.list_changed_blocks(one, two))[0] == "SR_BACKEND_FAILURE_459"
    assert api.VDI.list_changed_blocks(one, two)


def test_nbd_can_be_missing_busy_cut_or_slow(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-info-empty")
    assert api.VDI.get_nbd_info(disk) == []
    assert len(api.VDI.get_nbd_info(disk)) == 1
    lab.control.arm_fault("nbd-busy")
    with pytest.raises(OSError), _reading(lab, session, disk):
        raise AssertionError("it was taken")
    lab.control.arm_fault("nbd-disconnects", after_bytes=MIB + 100)
    with _reading(lab, session, disk) as client:
        assert client.read(0, MIB)
        with pytest.raises(OSError):
            client.read(MIB, MIB)
    lab.control.arm_fault("nbd-stalls", after_bytes=100, seconds=0.05)
    with _reading(lab, session, disk) as client:
        began_s = lab.pool.clock.monotonic_s()
        assert client.read(0, MIB)[:6] == b"faulty"
        assert lab.pool.clock.monotonic_s() - began_s >= 0.05
    wait_until(lab, lambda: lab.control.attachments() == [])


@pytest.mark.slow(reason="a disk stays in use on purpose")
def test_a_disk_can_stay_in_use_after_a_transfer(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("disk-stays-in-use", seconds=0.2)
    with _reading(lab, session, disk) as client:
        client.read(0, 512)
    assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    wait_until(lab, lambda: lab.pool.db.texts("VDI", disk, "VBDs") == [])


def test_an_attachment_can_leak(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("vbd-leaks")
    assert get_raw(lab, session, disk).status == 200
    assert lab.control.attachments() == [api.VDI.get_uuid(disk)]
    assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    api.VBD.unplug(api.VDI.get_VBDs(disk)[0])


@pytest.mark.parametrize(
    ("name", "refused", "status"),
    [
        ("export-cut", VhdTruncated, "failure"),
        ("export-truncated", VhdTruncated, "success"),
        ("export-fails-late", VhdInterrupted, "failure"),
    ],
)
def test_an_export_can_end_early(
    lab: RunningLab, session: Any, api: Any, disk: str, name: str, refused: type[VhdError], status: str
) -> None:
    lab.control.arm_fault(name, after_bytes=100_000)
    task = api.task.create("export", "")
    body = _received(lab, session, disk, task)
    with pytest.raises(refused):
        _read_vhd(body)
    assert ended(lab, task)["status"] == status


def _received(lab: RunningLab, session: Any, disk: str, task: str) -> bytes:
    """Return what arrived, whether the connection was closed or reset."""
    try:
        return get_raw(lab, session, disk, format="vhd", task_id=task).body
    except ConnectionResetError:
        return b""


def test_an_export_can_lie_and_be_slow(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("export-lies")
    task = api.task.create("export", "")
    body = get_raw(lab, session, disk, format="vhd", task_id=task).body
    with pytest.raises(VhdDamaged):
        _read_vhd(body)
    assert ended(lab, task)["status"] == "success"
    lab.control.arm_fault("export-stalls", after_bytes=1000, seconds=0.05)
    began_s = lab.pool.clock.monotonic_s()
    _read_vhd(get_raw(lab, session, disk, format="vhd").body)
    assert lab.pool.clock.monotonic_s() - began_s >= 0.05


def test_an_import_can_fail_at_the_end_or_be_reset_though_it_succeeded(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    lab.control.arm_fault("import-fails-late")
    task = api.task.create("import", "")
    assert b"HTTP/1.1 500" in put_raw(lab, session, disk, b"x" * 512, task_id=task)
    assert ended(lab, task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]
    lab.control.arm_fault("import-resets")
    task = api.task.create("import", "")
    put_raw(lab, session, disk, b"y" * 512, task_id=task)
    assert ended(lab, task)["status"] == "success"
    assert lab.pool.disks.read(api.VDI.get_uuid(disk), 0, 512) == b"y" * 512


def test_a_restart_of_the_tool_stack_forgets_sessions_and_tasks(lab: RunningLab, api: Any) -> None:
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    task = json_call(lab, "task.create", ref, "pending", "")["result"]
    lab.control.restart_toolstack()
    assert json_call(lab, "VM.get_all", ref)["error"]["message"] == "SESSION_INVALID"
    fresh = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    assert json_call(lab, "task.get_status", fresh, task)["error"]["message"] == "HANDLE_INVALID"


def test_every_fault_is_proven_by_a_test() -> None:
    folder = Path(__file__).parent
    source = "".join((folder / name).read_text(encoding="utf-8") for name in ("test_faults.py", "test_snapshots.py"))
    assert [name for name in FAULT_KINDS if f'"{name}"' not in source] == []


def test_the_side_channel_names_what_it_does_not_know(lab: RunningLab) -> None:
    with pytest.raises(LabRefused) as caught:
        lab.control.arm_fault("no-such-fault")
    assert "login-refused" in str(caught.value)
