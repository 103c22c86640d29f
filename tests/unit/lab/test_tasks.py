"""Asynchronous calls, their records, their end, and operations that must wait for each other."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from holdfast.core import ManualClock, SystemClock, SystemEntropy
from holdfast.lab import RunningLab
from holdfast.lab.database import Database
from holdfast.lab.datamodel import EPOCH, load_datamodel
from holdfast.lab.errors import ApiFailure
from holdfast.lab.operations import CALLS_WAITING_MAX, Cancelled, Operations
from holdfast.lab.store import RowStore
from holdfast.lab.tasks import TASKS_ENDED_MAX, Tasks
from tests.unit.lab.talk import discard, ended, refusal, vm_named


def test_an_asynchronous_call_returns_a_task_whose_result_is_xml(lab: RunningLab, session: Any, api: Any) -> None:
    vm = vm_named(api, "alpha")
    task = session.xenapi.Async.VM.snapshot(vm, "later")
    record = ended(lab, task)
    snapshot = api.VM.get_by_name_label("later")[0]
    assert (record["status"], record["result"]) == ("success", f"<value>{snapshot}</value>")
    assert (record["progress"], record["name_label"]) == (1.0, "Async.VM.snapshot")
    assert record["finished"] != EPOCH
    api.task.destroy(task)
    discard(api, snapshot)


def test_a_bad_reference_fails_the_task_and_not_the_call(lab: RunningLab, session: Any) -> None:
    record = ended(lab, session.xenapi.Async.VM.snapshot("OpaqueRef:nope", "x"))
    assert (record["status"], record["error_info"]) == ("failure", ["HANDLE_INVALID", "VM", "OpaqueRef:nope"])


def test_a_clients_own_task_is_what_the_client_says(api: Any) -> None:
    task = api.task.create("mine", "about it")
    api.task.set_progress(task, 0.25)
    api.task.cancel(task)
    assert (api.task.get_status(task), api.task.get_progress(task)) == ("pending", 0.25)
    assert list(api.task.get_current_operations(task).values()) == ["cancel"]
    api.task.set_status(task, "success")
    assert api.task.get_finished(task) == EPOCH
    api.task.destroy(task)
    assert refusal(lambda: api.task.get_record(task)) == ["HANDLE_INVALID", "task", task]


@pytest.fixture
def world(tmp_path: Any) -> tuple[Database, Tasks, Operations]:
    db = Database(load_datamodel(), RowStore(tmp_path / "pool.db"), SystemEntropy())
    tasks = Tasks(db, ManualClock())
    return db, tasks, Operations(db, SystemClock(), tasks)


def _busy(db: Database, vm: str) -> ApiFailure | None:
    running = db.mapping("VM", vm, "current_operations")
    return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM", vm, "x", "y") if running else None


def _check(db: Database, vm: str) -> None:
    failure = _busy(db, vm)
    if failure is not None:
        raise failure


def test_ended_tasks_beyond_the_limit_are_forgotten_oldest_first(world: tuple[Database, Tasks, Operations]) -> None:
    _, tasks, _ = world
    refs = [tasks.create(str(number), host="") for number in range(TASKS_ENDED_MAX + 5)]
    for ref in refs:
        tasks.succeed(ref, "")
    pending = tasks.create("pending", host="")
    assert not tasks.exists(refs[0])
    assert tasks.exists(refs[-1])
    assert tasks.exists(pending)


def test_a_task_ends_once(world: tuple[Database, Tasks, Operations]) -> None:
    db, tasks, _ = world
    ref = tasks.create("t", host="")
    tasks.fail(ref, ["A"])
    tasks.succeed(ref, "<value>x</value>")
    assert (db.get("task", ref, "status"), db.get("task", ref, "result")) == ("failure", "")
    tasks.destroy(ref)
    tasks.succeed(ref, "")


def test_a_colliding_operation_waits_until_the_other_ends(world: tuple[Database, Tasks, Operations]) -> None:
    db, _, operations = world
    vm = db.create("VM", {})
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with operations.running("VM", vm, "export", task="t1", check=lambda: _check(db, vm)):
            entered.set()
            leave.wait(10)
            order.append("first")

    def second() -> None:
        with operations.running("VM", vm, "snapshot", task="t2", check=lambda: _check(db, vm)):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    assert db.mapping("VM", vm, "current_operations") == {"t1": "export"}
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]
    assert db.mapping("VM", vm, "current_operations") == {}


def test_a_wait_that_is_over_tells_what_was_in_the_way(world: tuple[Database, Tasks, Operations]) -> None:
    db, _, operations = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    with (
        pytest.raises(ApiFailure) as caught,
        operations.running("VM", vm, "snapshot", task="t1", check=lambda: _check(db, vm), wait_s_max=0.0),
    ):
        raise AssertionError("it began")
    assert caught.value.code == "OTHER_OPERATION_IN_PROGRESS"


def test_a_cancelled_task_stops_waiting(world: tuple[Database, Tasks, Operations]) -> None:
    db, tasks, operations = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    task = tasks.create("waits", host="", is_cancellable=True)
    tasks.ask_cancel(task, by="someone")
    with pytest.raises(Cancelled), operations.running("VM", vm, "snapshot", task=task, check=lambda: _check(db, vm)):
        raise AssertionError("it began")


def test_the_queue_of_waiting_calls_has_an_end(world: tuple[Database, Tasks, Operations]) -> None:
    db, _, operations = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    operations._waiting = CALLS_WAITING_MAX
    with (
        pytest.raises(ApiFailure) as caught,
        operations.running("VM", vm, "snapshot", task="t1", check=lambda: _check(db, vm)),
    ):
        raise AssertionError("it began")
    assert caught.value.description == ["TOO_MANY_PENDING_TASKS"]


def test_a_failing_block_leaves_no_operation_behind(world: tuple[Database, Tasks, Operations]) -> None:
    db, _, operations = world
    vm = db.create("VM", {})
    with (
        pytest.raises(ZeroDivisionError),
        operations.running("VM", vm, "snapshot", task="t1", check=lambda: _check(db, vm)),
    ):
        raise ZeroDivisionError
    assert db.mapping("VM", vm, "current_operations") == {}
