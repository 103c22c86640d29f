"""Faults of logins, calls and tasks."""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind

__all__ = ["CALL_FAULTS"]

CALL_FAULTS = (
    FaultKind("login-refused", "A login is refused although the password is right."),
    FaultKind(
        "session-invalid",
        "The session is gone when this method is called; it is destroyed first.",
        {"method": ""},
    ),
    FaultKind(
        "call-fails",
        "A call is refused with this code; parameters are separated by '|'.",
        {"method": "", "code": "INTERNAL_ERROR", "parameters": ""},
    ),
    FaultKind("call-stalls", "A call takes this long before it is looked at.", {"method": "", "seconds": 5.0}),
    FaultKind("call-lost", "The connection is cut when a call arrives; the call is not carried out.", {"method": ""}),
    FaultKind("answer-lost", "A call is carried out, but the connection is cut before its answer.", {"method": ""}),
    FaultKind(
        "operation-in-progress",
        "A call is refused with OTHER_OPERATION_IN_PROGRESS, as after two hours of waiting.",
        {"method": "", "operation": "snapshot"},
    ),
    FaultKind(
        "operation-waits",
        "An operation finds its object busy with another one and waits for so long, visible to everybody.",
        {"operation": "", "busy_with": "destroy", "seconds": 5.0},
    ),
    FaultKind("too-many-tasks", "A call is refused with TOO_MANY_PENDING_TASKS.", {"method": ""}),
    FaultKind(
        "task-vanishes",
        "The task of an asynchronous call or a transfer is destroyed before it completes; the work itself is done.",
        {"method": ""},
    ),
    FaultKind(
        "object-vanishes",
        "The object that a call is about is deleted by somebody else just before: HANDLE_INVALID.",
        {"method": ""},
    ),
    FaultKind(
        "map-key-taken",
        "Somebody else adds the same key to a map just before: MAP_DUPLICATE_KEY, and the map has their value.",
        {"method": "", "value": "somebody else was faster"},
    ),
)
