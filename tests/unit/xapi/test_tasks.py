"""A long call ends with its result, its cause of failure, or the fact that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock
from holdfast.xapi import CancelledOnPool, SrFull, TaskOverdue, TaskVanished
from holdfast.xapi.tasks import call_async, wait_task
from holdfast.xapi.wire import parse_task_result
from tests.unit.xapi.fake_pool import FakePool, Refusal, fake_pool, logged_in


def _events(*records: dict[str, Any] | None) -> Any:
    """Answer each question with the next record, and with nothing once they are used up."""
    left = list(records)

    def answer(_session: str, classes: list[str], token: str, _wait: float) -> dict[str, Any]:
        record = left.pop(0) if left else None
        ref = classes[0].removeprefix("task/")
        events = [] if record is None else [{"ref": ref, "operation": "mod", "snapshot": record}]
        return {"events": events, "token": f"{len(left)},0", "valid_ref_counts": {}}

    return answer


def _record(status: str, *, result: str = "", error: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"status": status, "result": result, "error_info": list(error)}


def _gone(*_: str) -> dict[str, Any]:
    raise Refusal("HANDLE_INVALID", "task", "OpaqueRef:t")


def _pool_with(pool: FakePool, *records: dict[str, Any] | None) -> None:
    pool.methods["event.from"] = _events(*records)


@pytest.mark.parametrize(
    ("fragment", "value"),
    [
        ("", ""),
        ("<value></value>", ""),
        ("<value>OpaqueRef:x</value>", "OpaqueRef:x"),
        ("<value><array><data><value>a</value><value>b</value></data></array></value>", ["a", "b"]),
        ("plain text", "plain text"),
    ],
)
def test_a_tasks_result_is_parsed_from_its_xml(fragment: str, value: object) -> None:
    assert parse_task_result(fragment) == value


def test_a_long_call_returns_its_parsed_result_and_removes_its_task() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["Async.VM.snapshot"] = lambda *_: "OpaqueRef:t"
        _pool_with(pool, _record("pending"), None, _record("success", result="<value>OpaqueRef:s</value>"))
        pool.methods["task.get_record"] = lambda *_: _record("pending")
        assert call_async(calls, "VM.snapshot", "r", "name") == "OpaqueRef:s"
        assert pool.names()[-1] == "task.destroy"


def test_a_failed_task_raises_its_cause() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        _pool_with(pool, _record("failure", error=("SR_BACKEND_FAILURE_44", "", "no space")))
        with pytest.raises(SrFull, match="no space"):
            wait_task(calls, "OpaqueRef:t", operation="VM.snapshot")


def test_a_task_cancelled_by_somebody_else_says_so() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        _pool_with(pool, _record("cancelled"))
        with pytest.raises(CancelledOnPool):
            wait_task(calls, "OpaqueRef:t", operation="VM.snapshot")


def test_a_task_that_vanished_is_not_waited_for() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        _pool_with(pool, _record("pending"))
        pool.methods["task.get_record"] = _gone
        with pytest.raises(TaskVanished):
            wait_task(calls, "OpaqueRef:t", operation="VM.snapshot")


def test_a_task_is_watched_by_looking_at_it_when_events_do_not_work() -> None:
    def broken(*_: object) -> None:
        raise Refusal("EVENT_SUBSCRIPTION_PARSE_FAILURE", "task")

    states = iter([_record("pending"), _record("pending"), _record("success", result="<value>x</value>")])
    clock = ManualClock()
    with fake_pool() as pool, logged_in(pool, clock=clock) as calls:
        pool.methods["event.from"] = broken
        pool.methods["task.get_record"] = lambda *_: next(states)
        assert wait_task(calls, "OpaqueRef:t", operation="op") == "x"
        assert clock.monotonic_s() == 3


def test_a_task_that_never_ends_is_overdue() -> None:
    clock = ManualClock()

    def idle(*_: object) -> dict[str, Any]:
        clock.advance(10)
        return {"events": [], "token": "1,1", "valid_ref_counts": {}}

    with fake_pool() as pool, logged_in(pool, clock=clock) as calls:
        pool.methods["event.from"] = idle
        pool.methods["task.get_record"] = lambda *_: _record("pending")
        with pytest.raises(TaskOverdue):
            wait_task(calls, "OpaqueRef:t", operation="op", timeout_s=60)


def test_a_cancelled_wait_asks_the_pool_to_cancel_the_task() -> None:
    cancel = Cancellation()

    def cancelling(*_: object) -> dict[str, Any]:
        cancel.cancel()
        return {"events": [], "token": "1,1", "valid_ref_counts": {}}

    with fake_pool() as pool, logged_in(pool, cancel=cancel) as calls:
        pool.methods["event.from"] = cancelling
        pool.methods["task.cancel"] = lambda *_: ""
        with pytest.raises(Cancelled):
            wait_task(calls, "OpaqueRef:t", operation="op")
        assert ("task.cancel", ("OpaqueRef:session", "OpaqueRef:t")) in pool.calls


def test_a_call_refused_because_the_queue_is_full_is_sent_again() -> None:
    answers = iter([Refusal("TOO_MANY_PENDING_TASKS"), None])

    def start(*_: object) -> str:
        refusal = next(answers)
        if refusal is not None:
            raise refusal
        return "OpaqueRef:t"

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["Async.VM.snapshot"] = start
        _pool_with(pool, _record("success"))
        assert call_async(calls, "VM.snapshot", "r") == ""
