"""Calls of the event interface."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure
from holdfast.lab.events import Events

__all__ = ["make_event_calls"]


def make_event_calls(events: Events) -> CallSet:
    """Return the calls, with the event interface they serve."""
    calls = CallSet()

    @calls.on("event.from")
    def event_from(context: Context, classes: list[str], token: str, timeout: float) -> dict[str, object]:
        return events.wait(context.session, classes, token, timeout)

    @calls.on("event.inject")
    def event_inject(context: Context, cls: str, ref: str) -> str:
        if cls not in context.db.datamodel.classes or not context.db.exists(cls, ref):
            raise ApiFailure("HANDLE_INVALID", cls, ref)
        return events.inject(cls, ref)

    @calls.on("event.register")
    def event_register(context: Context, classes: list[str]) -> str:
        events.register(context.session, classes)
        return ""

    @calls.on("event.unregister")
    def event_unregister(context: Context, classes: list[str]) -> str:
        events.unregister(context.session, classes)
        return ""

    @calls.on("event.next")
    def event_next(context: Context) -> list[dict[str, object]]:
        return events.next(context.session)

    @calls.on("event.get_current_id")
    def event_get_current_id(context: Context) -> int:
        return events.current_id()

    return calls
