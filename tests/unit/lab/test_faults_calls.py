"""Faults of logins, calls and tasks: what a client reads on the wire, and what became of its call."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import XenAPI

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.support.lab import PASSWORD
from tests.unit.lab.talk import ended, get_raw, json_call, new_disk, refusal, vm_named, wait_until


@pytest.fixture
def disk(api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def test_a_login_can_be_refused(lab: RunningLab) -> None:
    stranger = XenAPI.Session(lab.plain_url)
    lab.control.arm_fault("login-refused")
    assert refusal(lambda: stranger.xenapi.login_with_password("root", PASSWORD))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert "result" in json_call(lab, "session.login_with_password", "root", PASSWORD)


def test_a_session_can_end_in_the_middle(lab: RunningLab) -> None:
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    lab.control.arm_fault("session-invalid", method="VM.get_all")
    assert "result" in json_call(lab, "host.get_all", ref)
    for method in ("VM.get_all", "host.get_all"):
        assert json_call(lab, method, ref)["error"]["message"] == "SESSION_INVALID"


def test_any_call_can_be_refused_with_any_code(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.arm_fault("call-fails", method="VM.snapshot", code="SR_BACKEND_FAILURE_47", parameters="|SR is gone|")
    assert refusal(lambda: api.VM.snapshot(vm, "x")) == ["SR_BACKEND_FAILURE_47", "", "SR is gone", ""]
    lab.control.arm_fault("too-many-tasks")
    assert refusal(lambda: api.VM.get_all()) == ["TOO_MANY_PENDING_TASKS"]
    assert api.VM.get_all()


def test_a_refused_asynchronous_call_fails_its_task(lab: RunningLab, session: Any, disk: str) -> None:
    lab.control.arm_fault("call-fails", method="VDI.snapshot", code="SR_BACKEND_FAILURE_44", parameters="|full|")
    task = ended(lab, session.xenapi.Async.VDI.snapshot(disk))
    assert (task["status"], task["error_info"]) == ("failure", ["SR_BACKEND_FAILURE_44", "", "full", ""])


def test_a_collision_can_surface_with_the_object_and_the_other_operation(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.arm_fault("operation-in-progress", method="VM.destroy", operation="export")
    told = refusal(lambda: api.VM.destroy(vm))
    assert told[:4] == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "export"]


def test_an_operation_can_wait_for_another_one_and_then_goes_on(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    lab.control.arm_fault("operation-waits", operation="snapshot", seconds=3600)
    task = session.xenapi.Async.VDI.snapshot(disk)
    wait_until(lab, lambda: "destroy" in api.VDI.get_current_operations(disk).values())
    assert api.task.get_status(task) == "pending"
    lab.control.advance(3601)
    assert ended(lab, task)["status"] == "success"
    assert api.VDI.get_current_operations(disk) == {}


def test_a_call_can_be_slow(lab: RunningLab) -> None:
    lab.control.arm_fault("call-stalls", method="host.get_all", seconds=3600)
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    answers: list[dict[str, Any]] = []
    caller = threading.Thread(target=lambda: answers.append(json_call(lab, "host.get_all", ref)))
    caller.start()
    wait_until(lab, lambda: lab.control.faults() == [])
    assert answers == []
    lab.control.advance(3600)
    caller.join(10)
    assert len(answers[0]["result"]) == 1


def test_a_call_can_get_lost_before_it_is_carried_out_or_its_answer_after(lab: RunningLab) -> None:
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    for fault, is_carried_out in (("call-lost", False), ("answer-lost", True)):
        before = len(json_call(lab, "task.get_all", ref)["result"])
        lab.control.arm_fault(fault, method="task.create")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            json_call(lab, "task.create", ref, "lost", "")
        assert len(json_call(lab, "task.get_all", ref)["result"]) == before + is_carried_out


def test_a_task_can_vanish_though_its_work_is_done(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("task-vanishes", method="VDI.snapshot")
    task = session.xenapi.Async.VDI.snapshot(disk)
    wait_until(lab, lambda: not lab.pool.tasks.exists(task))
    assert len(api.VDI.get_snapshots(disk)) == 1


def test_the_task_of_a_transfer_can_vanish_too(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    task = api.task.create("export", "")
    lab.control.arm_fault("task-vanishes", method="/export_raw_vdi")
    assert len(get_raw(lab, session, disk, task_id=task).body) == 8 * MIB
    assert refusal(lambda: api.task.get_status(task)) == ["HANDLE_INVALID", "task", task]


@pytest.mark.parametrize("cls", ["VDI", "VM", "task"])
def test_somebody_else_can_delete_what_a_call_is_about(lab: RunningLab, api: Any, cls: str) -> None:
    making: dict[str, Callable[[], str]] = {
        "VDI": lambda: new_disk(api, MIB),
        "VM": lambda: str(api.VM.clone(api.VM.snapshot(vm_named(api, "alpha"), "s"), "short-lived")),
        "task": lambda: str(api.task.create("short-lived", "")),
    }
    made = making[cls]()
    lab.control.arm_fault("object-vanishes", method=f"{cls}.set_other_config")
    assert refusal(lambda: getattr(api, cls).set_other_config(made, {})) == ["HANDLE_INVALID", cls, made]
    assert made not in getattr(api, cls).get_all()


def test_somebody_else_can_add_the_same_key_first(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    lab.control.arm_fault("map-key-taken", method="VM.add_to_other_config", value="theirs")
    told = refusal(lambda: api.VM.add_to_other_config(vm, "mark", "ours"))
    assert told == ["MAP_DUPLICATE_KEY", "VM", "other_config", vm, "mark"]
    assert api.VM.get_other_config(vm)["mark"] == "theirs"
    api.VM.remove_from_other_config(vm, "mark")
