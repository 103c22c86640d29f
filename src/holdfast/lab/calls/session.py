"""Calls of sessions, tasks, events and messages: who is there, and what is going on."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure
from holdfast.lab.events import Events

__all__ = ["make_session_calls"]


def make_session_calls(events: Events) -> CallSet:
    """Return the calls, with the event interface they serve."""
    calls = CallSet()
    _add_session_calls(calls)
    _add_task_calls(calls)
    _add_message_calls(calls)

    @calls.on("event.from")
    def event_from(context: Context, classes: list[str], token: str, timeout: float) -> dict[str, object]:
        return events.wait(context.session, classes, token, timeout)

    @calls.on("event.inject")
    def event_inject(context: Context, cls: str, ref: str) -> str:
        names = {name.lower(): name for name in context.db.datamodel.classes}
        name = names.get(cls.lower(), cls)
        if name not in context.db.datamodel.classes or not context.db.exists(name, ref):
            raise ApiFailure("HANDLE_INVALID", cls, ref)
        return events.inject(name, ref)

    @calls.on("event.get_current_id")
    def event_get_current_id(context: Context) -> int:
        return context.db.generation

    return calls


def _add_session_calls(calls: CallSet) -> None:
    @calls.on("session.login_with_password")
    def login(context: Context, user: str, password: str, version: str = "", originator: str = "") -> str:
        pool = context.pool
        if context.host != pool.master_ref:
            raise ApiFailure("HOST_IS_SLAVE", pool.master_address)
        fault = pool.faults.take("host-is-slave")
        if fault is not None:
            raise ApiFailure("HOST_IS_SLAVE", fault.text("address"))
        if pool.faults.take("login-refused"):
            raise ApiFailure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        pool.sessions.check_password(user, password)
        return pool.sessions.open(user=user, originator=originator, host=context.host)

    @calls.on("session.logout", "session.local_logout")
    def logout(context: Context) -> str:
        context.pool.sessions.close(context.session)
        return ""

    @calls.on("session.change_password")
    def change_password(context: Context, old: str, new: str) -> str:
        context.pool.sessions.change_password(new)
        return ""

    @calls.on("session.get_all_subject_identifiers")
    def get_all_subject_identifiers(context: Context) -> list[str]:
        return []

    @calls.on("session.logout_subject_identifier")
    def logout_subject_identifier(context: Context, identifier: str) -> str:
        return ""


def _add_task_calls(calls: CallSet) -> None:
    @calls.on("task.create")
    def create(context: Context, label: str, description: str) -> str:
        return context.pool.tasks.create(label, host=context.pool.master_ref, description=description)

    @calls.on("task.destroy")
    def destroy(context: Context, ref: str) -> str:
        context.db.row("task", ref)
        context.pool.tasks.destroy(ref)
        return ""

    @calls.on("task.cancel")
    def cancel(context: Context, ref: str) -> str:
        context.db.row("task", ref)
        context.pool.tasks.ask_cancel(ref, by=context.task)
        return ""


def _add_message_calls(calls: CallSet) -> None:
    @calls.on("message.create")
    def create(context: Context, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
        known = {known.lower(): known for known in context.db.datamodel.classes}.get(cls.lower(), cls)
        if known in context.db.datamodel.classes and not context.db.has_uuid(known, obj_uuid):
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
        context.db.destroy("message", ref)
        return ""

    @calls.on("message.destroy_many")
    def destroy_many(context: Context, refs: list[str]) -> str:
        with context.db.transaction():
            for ref in refs:
                context.db.destroy("message", ref)
        return ""

    @calls.on("message.get_all")
    def get_all(context: Context) -> list[str]:
        return [row.ref for row in context.db.rows("message")]

    @calls.on("message.get_record")
    def get_record(context: Context, ref: str) -> dict[str, object]:
        return dict(context.db.row("message", ref).fields)

    @calls.on("message.get_by_uuid")
    def get_by_uuid(context: Context, uuid: str) -> str:
        return context.db.by_uuid("message", uuid)

    @calls.on("message.get_all_records")
    def get_all_records(context: Context) -> dict[str, dict[str, object]]:
        return {row.ref: dict(row.fields) for row in context.db.rows("message")}

    @calls.on("message.get_all_records_where")
    def get_all_records_where(context: Context, expression: str) -> dict[str, dict[str, object]]:
        return get_all_records(context)  # the pool ignores the expression for messages, too

    @calls.on("message.get")
    def get(context: Context, cls: str, obj_uuid: str, since: str) -> dict[str, dict[str, object]]:
        rows = context.db.rows("message")
        return {row.ref: dict(row.fields) for row in rows if row.fields["obj_uuid"] == obj_uuid}

    @calls.on("message.get_since")
    def get_since(context: Context, since: str) -> dict[str, dict[str, object]]:
        rows = context.db.rows("message")
        return {row.ref: dict(row.fields) for row in rows if str(row.fields["timestamp"]) > since}
