"""Asynchronous calls, their records, their end, and operations that must wait for each other."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from holdfast.core import ManualClock, SystemEntropy
from holdfast.lab import RunningLab
from holdfast.lab.database import Database
from holdfast.lab.datamodel import EPOCH, load_datamodel
from holdfast.lab.errors import ApiFailure
from holdfast.lab.operations import CALLS_WAITING_MAX, WAIT_S_MAX, Cancelled, Operations
from holdfast.lab.store import RowStore
from holdfast.lab.tasks import TASKS_MAX, Tasks
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


World = tuple[Database, Tasks, Operations, ManualClock]


@pytest.fixture
def world(tmp_path: Any) -> World:
    db = Database(load_datamodel(), RowStore(tmp_path / "pool.db"), SystemEntropy())
    clock = ManualClock()
    tasks = Tasks(db, clock)
    return db, tasks, Operations(db, clock, tasks), clock


def _busy(db: Database, vm: str) -> ApiFailure | None:
    running = db.mapping("VM", vm, "current_operations")
    return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM", vm, "x", "y") if running else None


def _check(db: Database, vm: str) -> None:
    failure = _busy(db, vm)
    if failure is not None:
        raise failure


def test_a_task_that_still_runs_is_destroyed_after_its_end(lab: RunningLab, api: Any) -> None:
    task = api.task.create("mine", "")
    api.task.destroy(task)
    assert api.task.get_current_operations(task) == {"task": "destroy"}
    assert refusal(lambda: api.task.destroy(task)) == ["MAP_DUPLICATE_KEY", "task", "current_operations", task, "task"]
    api.task.set_status(task, "success")
    lab.pool.chores.advance(31)
    assert not lab.pool.tasks.exists(task)


def test_a_session_lists_its_tasks_until_they_are_gone(session: Any, api: Any) -> None:
    task = api.task.create("mine", "")
    assert api.session.get_tasks(session._session) == [task]
    api.task.set_status(task, "cancelled")
    api.task.destroy(task)
    assert api.session.get_tasks(session._session) == []


def test_ended_tasks_are_forgotten_after_65_minutes(world: World) -> None:
    _, tasks, _, clock = world
    ended, pending = tasks.create("ended", host=""), tasks.create("pending", host="")
    tasks.succeed(ended, "")
    clock.advance(65 * 60)
    tasks.collect()
    assert tasks.exists(ended)
    clock.advance(1)
    tasks.collect()
    assert not tasks.exists(ended)
    assert tasks.exists(pending)


def test_a_day_old_task_without_progress_is_forgotten_though_somebody_waits_for_it(world: World) -> None:
    _, tasks, _, clock = world
    stuck, slow = tasks.create("stuck", host=""), tasks.create("slow", host="")
    clock.advance(24 * 3600 + 1)
    tasks.collect()
    assert tasks.exists(stuck), "the first look only remembers how far it is"
    tasks.set_progress(slow, 0.5)
    tasks.collect()
    assert not tasks.exists(stuck)
    assert tasks.exists(slow)


def test_with_too_many_tasks_ended_ones_are_forgotten_oldest_first(world: World) -> None:
    _, tasks, _, clock = world
    ended = [tasks.create(str(number), host="") for number in range(150)]
    for ref in ended:
        clock.advance(1)
        tasks.succeed(ref, "")
    pending = [tasks.create("pending", host="") for _ in range(TASKS_MAX - 150)]
    tasks.collect()
    assert all(tasks.exists(ref) for ref in ended)
    tasks.create("one too many", host="")
    tasks.collect()
    assert [tasks.exists(ref) for ref in ended] == [False] * 100 + [True] * 50
    assert all(tasks.exists(ref) for ref in pending)


def test_a_task_ends_once(world: World) -> None:
    db, tasks, _, _ = world
    ref = tasks.create("t", host="")
    tasks.fail(ref, ["A"])
    tasks.succeed(ref, "<value>x</value>")
    assert (db.get("task", ref, "status"), db.get("task", ref, "result")) == ("failure", "")
    tasks.destroy(ref)
    tasks.succeed(ref, "")


def test_a_colliding_operation_waits_until_the_other_ends(world: World) -> None:
    db, _, operations, _ = world
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


def test_a_wait_that_is_over_tells_what_was_in_the_way(world: World) -> None:
    db, _, operations, clock = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        threading.Thread(target=db.wake).start()  # gets its turn when the wait begins
        if looks == 2:
            clock.advance(WAIT_S_MAX)
        _check(db, vm)

    with pytest.raises(ApiFailure) as caught, operations.running("VM", vm, "snapshot", task="t1", check=check):
        raise AssertionError("it began")
    assert caught.value.description == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "x", "y"]
    assert looks == 2


def test_a_cancelled_task_stops_waiting(world: World) -> None:
    db, tasks, operations, _ = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    task = tasks.create("waits", host="", is_cancellable=True)
    tasks.ask_cancel(task, by="someone")
    with pytest.raises(Cancelled), operations.running("VM", vm, "snapshot", task=task, check=lambda: _check(db, vm)):
        raise AssertionError("it began")


def test_the_queue_of_waiting_calls_has_an_end(world: World) -> None:
    db, _, operations, _ = world
    vm = db.create("VM", {"current_operations": {"t0": "export"}})
    operations._waiting = CALLS_WAITING_MAX
    with (
        pytest.raises(ApiFailure) as caught,
        operations.running("VM", vm, "snapshot", task="t1", check=lambda: _check(db, vm)),
    ):
        raise AssertionError("it began")
    assert caught.value.description == ["TOO_MANY_PENDING_TASKS"]


def test_a_failing_block_leaves_no_operation_behind(world: World) -> None:
    db, _, operations, _ = world
    vm = db.create("VM", {})
    with (
        pytest.raises(ZeroDivisionError),
        operations.running("VM", vm, "snapshot", task="t1", check=lambda: _check(db, vm)),
    ):
        raise ZeroDivisionError
    assert db.mapping("VM", vm, "current_operations") == {}
