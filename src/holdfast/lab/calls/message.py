"""Calls of messages: what the pool, or a client, wants people to know.

A pool keeps messages outside its database, which shows: they have calls of their own, and looking for them by an
expression uses plain field names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Row
from holdfast.lab.datamodel import load_datamodel, parse_type, parse_whole
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.where import parse_where

__all__ = ["calls"]

calls = CallSet()

Records = dict[str, dict[str, object]]

_CLASSES = {"Host": "host", "Pool": "pool"}
"""Where the datamodel spells a class differently."""

_MOMENT = parse_type("datetime")


def _is_known(context: Context, cls: str, uuid: str) -> bool:
    return context.db.has_uuid(_CLASSES.get(cls, cls), uuid)


def _records(context: Context, matches: Callable[[Mapping[str, object]], bool]) -> Records:
    """Return the messages that match, latest first."""
    rows = reversed(context.db.rows("message"))
    return {row.ref: dict(row.fields) for row in rows if matches(row.fields)}


@calls.on("message.create")
def create(context: Context, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """Say something about an object that exists."""
    if not _is_known(context, cls, obj_uuid):
        raise ApiFailure("UUID_INVALID", cls, obj_uuid)
    return context.db.create(
        "message",
        {
            "name": name,
            "priority": priority,
            "cls": cls,
            "obj_uuid": obj_uuid,
            "timestamp": context.pool.now(),
            "body": body,
        },
    )


@calls.on("message.destroy")
def destroy(context: Context, ref: str) -> str:
    """Forget a message."""
    context.db.destroy("message", ref)
    return ""


@calls.on("message.destroy_many")
def destroy_many(context: Context, refs: list[str]) -> str:
    """Forget messages, up to the first one that does not exist."""
    for ref in refs:
        context.db.destroy("message", ref)
    return ""


@calls.on("message.destroy_all")
def destroy_all(context: Context, filters: dict[str, str]) -> str:
    """Forget all messages before or after a moment, or of a priority; filters that nobody knows are ignored."""
    enums = load_datamodel().enums
    before, after = (
        str(_MOMENT.accept(filters[key], enums)) if key in filters else None for key in ("before", "after")
    )
    try:
        priority = parse_whole(filters["priority"]) if "priority" in filters else None
    except ValueError as cause:
        raise internal_failure("Int64.of_string") from cause

    def is_doomed(row: Row) -> bool:
        moment = str(row.fields["timestamp"])
        return (
            (before is None or moment < before)
            and (after is None or moment > after)
            and (priority is None or row.fields["priority"] == priority)
        )

    with context.db.transaction():
        for row in context.db.rows("message"):
            if is_doomed(row):
                context.db.destroy("message", row.ref)
    return ""


@calls.on("message.get_all")
def get_all(context: Context) -> list[str]:
    """Return every message."""
    return [row.ref for row in context.db.rows("message")]


@calls.on("message.get_record")
def get_record(context: Context, ref: str) -> dict[str, object]:
    """Return one message."""
    return dict(context.db.row("message", ref).fields)


@calls.on("message.get_by_uuid")
def get_by_uuid(context: Context, uuid: str) -> str:
    """Return the message with this identity."""
    return context.db.by_uuid("message", uuid)


@calls.on("message.get_all_records")
def get_all_records(context: Context) -> Records:
    """Return every message with its record."""
    return _records(context, lambda record: True)


@calls.on("message.get_all_records_where")
def get_all_records_where(context: Context, expression: str) -> Records:
    """Return the messages that match; a field that messages do not have matches none."""
    matcher = parse_where(expression)

    def matches(record: Mapping[str, object]) -> bool:
        try:
            return matcher(record)
        except ApiFailure:
            return False

    return _records(context, matches)


@calls.on("message.get")
def get(context: Context, cls: str, obj_uuid: str, since: str) -> Records:
    """Return what was said about an object after a moment."""
    if not _is_known(context, cls, obj_uuid):
        raise ApiFailure("UUID_INVALID")
    return _records(
        context,
        lambda record: record["cls"] == cls and record["obj_uuid"] == obj_uuid and str(record["timestamp"]) > since,
    )


@calls.on("message.get_since")
def get_since(context: Context, since: str) -> Records:
    """Return what was said since a moment, that second included: messages know theirs more exactly than they tell."""
    return _records(context, lambda record: str(record["timestamp"]) >= since)
