"""Long calls: started as tasks, watched through events with a look at the task itself, cancelled when we are.

Invariant: a task that succeeded gives its parsed result; one that failed, vanished or was cancelled is an error.
"""

from __future__ import annotations

import contextlib

from holdfast.core import Cancellation, Cancelled, HoldfastError, get_log, limits
from holdfast.model import JsonObject, JsonValue
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import failure_from
from holdfast.xapi.errors import PoolFailure, TaskOverdue, TaskVanished
from holdfast.xapi.records import as_object, as_text, refs, text
from holdfast.xapi.retry import CALL_RULES, RetryRule
from holdfast.xapi.wire import parse_task_result

__all__ = ["call_async", "create_task", "destroy_task", "wait_task"]

_log = get_log(__name__)

_POLL_S = 1.0
"""Between two looks at a task when events do not work; a pool under load answers a getter in milliseconds."""
_CANCEL_TIMEOUT_S = 2.0
"""Asking the pool to cancel must not hold up our own stop."""
_FINAL = frozenset({"success", "failure", "cancelled"})


def call_async(calls: Calls, method: str, *params: object, rules: tuple[RetryRule, ...] = CALL_RULES) -> JsonValue:
    """Run ``Async.<method>`` and return its result. Errors as ``wait_task``; repeated as ``rules`` say."""

    def attempt() -> JsonValue:
        task = as_text(calls.call_once(f"Async.{method}", *params), what=f"Async.{method}")
        return wait_task(calls, task, operation=method)

    return calls.patiently(attempt, rules=rules)


def create_task(calls: Calls, label: str) -> str:
    """Return a fresh task of our own, for a transfer to adopt; whoever creates it destroys it."""
    return as_text(calls.call("task.create", label, ""), what="task.create")


def destroy_task(calls: Calls, task: str) -> None:
    """Remove a task. One that is left over is removed by the pool within a day, so nothing depends on this."""
    with contextlib.suppress(HoldfastError):
        calls.with_cancel(Cancellation()).call("task.destroy", task, timeout_s=_CANCEL_TIMEOUT_S)


def wait_task(calls: Calls, task: str, *, operation: str, timeout_s: float = limits.POOL_TASK_WAIT_S_MAX) -> JsonValue:
    """Return the parsed result of a task once it has ended, and destroy it.

    Raises the task's failure as ``PoolFailure``, ``TaskVanished`` when the pool forgot it, ``TaskOverdue`` after
    ``timeout_s``, ``Cancelled`` when we were cancelled: then the pool was asked to cancel it too, and it may still end
    either way.
    """
    try:
        record = _wait_end(calls, task, operation=operation, timeout_s=timeout_s)
    except Cancelled:
        with contextlib.suppress(HoldfastError):
            calls.with_cancel(Cancellation()).call("task.cancel", task, timeout_s=_CANCEL_TIMEOUT_S)
        raise
    destroy_task(calls, task)
    return _outcome(record, operation=operation)


def _wait_end(calls: Calls, task: str, *, operation: str, timeout_s: float) -> JsonObject:
    """Return the record of the task at its end."""
    deadline_s = calls.clock.monotonic_s() + timeout_s
    token = ""
    while (left_s := deadline_s - calls.clock.monotonic_s()) > 0:
        try:
            record, token = _next_event(calls, task, token, wait_s=min(limits.POOL_EVENT_WAIT_S, left_s))
        except PoolFailure as failure:
            # Events are the quick way, never the only one.
            _log.warning("pool.events-failed", operation=operation, answer=failure.xapi_code)
            calls.clock.sleep(_POLL_S, cancel=calls.cancel)
            record, token = None, ""
        if record is None:
            record = _look(calls, task, operation=operation)
        if text(record, "status") in _FINAL:
            return record
    raise TaskOverdue(operation=operation, task=task, timeout_s=timeout_s)


def _next_event(calls: Calls, task: str, token: str, *, wait_s: float) -> tuple[JsonObject | None, str]:
    """Return the task's newest record, or None when there was no news, and the token for the next question."""
    answer = as_object(
        calls.call(
            "event.from",
            [f"task/{task}"],
            token,
            wait_s,
            timeout_s=wait_s + limits.POOL_CALL_TIMEOUT_S,
        ),
        what="event.from",
    )
    newest: JsonObject | None = None
    events = answer.get("events")
    for event in events if isinstance(events, list) else []:
        snapshot = event.get("snapshot") if isinstance(event, dict) and event.get("ref") == task else None
        newest = snapshot if isinstance(snapshot, dict) else newest
    return newest, text(answer, "token")


def _look(calls: Calls, task: str, *, operation: str) -> JsonObject:
    record = calls.try_record("task", task)
    if record is None:
        raise TaskVanished(operation=operation, task=task)
    return record


def _outcome(record: JsonObject, *, operation: str) -> JsonValue:
    match text(record, "status"):
        case "success":
            return parse_task_result(text(record, "result"))
        case "cancelled":
            # XAPI leaves the reason of a cancelled task empty.
            raise failure_from(refs(record, "error_info") or ["TASK_CANCELLED"], operation=operation)
        case _:
            raise failure_from(refs(record, "error_info"), operation=operation)
