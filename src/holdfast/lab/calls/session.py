"""Calls of sessions and tasks: who is there, and what is going on."""

from __future__ import annotations

from typing import cast

from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_TASK_ANY = "task.destroy/any"
"""The permission to meddle with other people's tasks."""


# -- sessions


@calls.on("session.login_with_password")
def login(context: Context, user: str, password: str, version: str = "", originator: str = "") -> str:
    """Return a session; a member sends the caller to its master."""
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


@calls.on("session.slave_login")
def slave_login(context: Context, host: str, secret: str) -> str:
    """Return a session of one of the pool's hosts, who alone know the secret."""
    if not context.pool.sessions.is_pool_secret(secret):
        raise ApiFailure("SESSION_AUTHENTICATION_FAILED", host, "Pool credentials invalid")
    return context.pool.sessions.open(user=host, originator="xapi", host=host, is_pool=True)


@calls.on("session.slave_local_login")
def slave_local_login(context: Context, secret: str) -> str:
    """Return a host's session for emergencies."""
    if not context.pool.sessions.is_pool_secret(secret):
        raise ApiFailure("SESSION_AUTHENTICATION_FAILED", "localhost", "Pool credentials invalid")
    return context.pool.sessions.open_local(f"OpaqueRef:{context.pool.new_uuid()}")


@calls.on("session.slave_local_login_with_password")
def slave_local_login_with_password(context: Context, user: str, password: str) -> str:
    """Return a session for emergencies, which any host gives to the superuser."""
    context.pool.sessions.check_superuser(user, password)
    return context.pool.sessions.open_local(f"OpaqueRef:{context.pool.new_uuid()}")


@calls.on("session.logout")
def logout(context: Context) -> str:
    """End the session."""
    context.pool.sessions.close(context.session)
    return ""


@calls.on("session.local_logout")
def local_logout(context: Context) -> str:
    """End a session for emergencies; any other goes on."""
    context.pool.sessions.close_local(context.session)
    return ""


@calls.on("session.change_password")
def change_password(context: Context, old: str, new: str) -> str:
    """Change the superuser's password; the old one is not asked for."""
    if not context.db.flag("session", context.session, "is_local_superuser"):
        raise ApiFailure("USER_IS_NOT_LOCAL_SUPERUSER", "Failed to change password for user root")
    context.pool.sessions.change_password(new)
    return ""


@calls.on("session.get_all_subject_identifiers")
def get_all_subject_identifiers(context: Context) -> list[str]:
    """Return who of the directory is logged in."""
    rows = context.db.rows("session")
    users = (cast(str, row.fields["auth_user_sid"]) for row in rows if not row.fields["is_local_superuser"])
    return list(dict.fromkeys(users))


@calls.on("session.logout_subject_identifier")
def logout_subject_identifier(context: Context, identifier: str) -> str:
    """End all sessions of a user of the directory but the caller's own."""
    for row in context.db.rows("session"):
        is_his = row.fields["auth_user_sid"] == identifier and not row.fields["is_local_superuser"]
        if is_his and row.ref != context.session:
            context.pool.sessions.close(row.ref)
    return ""


# -- tasks


def _assert_may_touch(context: Context, task: str) -> None:
    """Everybody may touch his own tasks; those of others need a permission."""
    db = context.db
    db.row("task", task)
    rbac = context.pool.sessions.rbac
    if rbac.is_allowed(db, context.session, _TASK_ANY):
        return
    owner = context.pool.tasks.session_of(task)
    mine, his = (db.find("session", session) for session in (context.session, owner))
    if mine is None or his is None or mine.fields["auth_user_sid"] != his.fields["auth_user_sid"]:
        raise rbac.denial(_TASK_ANY)


@calls.on("task.create")
def create_task(context: Context, label: str, description: str) -> str:
    """Return a task that the caller will tell about and end."""
    tasks = context.pool.tasks
    return tasks.create(label, host=context.pool.master_ref, description=description, session=context.session)


@calls.on("task.destroy")
def destroy_task(context: Context, ref: str) -> str:
    """Forget a task."""
    _assert_may_touch(context, ref)
    context.pool.tasks.ask_destroy(ref)
    return ""


@calls.on("task.cancel")
def cancel_task(context: Context, ref: str) -> str:
    """Ask a task to stop."""
    _assert_may_touch(context, ref)
    context.pool.tasks.ask_cancel(ref, by=context.task)
    return ""


def _add_task_setters() -> None:
    for field in ("status", "progress", "result", "error_info"):

        @calls.on(f"task.set_{field}")
        def set_field(context: Context, ref: str, new: object, *, field: str = field) -> str:
            _assert_may_touch(context, ref)
            context.db.set("task", ref, field, new)
            return ""


_add_task_setters()


@calls.on("task.add_to_other_config")
def add_to_other_config(context: Context, ref: str, key: str, new: str) -> str:
    """Note something about a task."""
    _assert_may_touch(context, ref)
    with context.db.transaction():
        if key in context.db.mapping("task", ref, "other_config"):
            raise ApiFailure("MAP_DUPLICATE_KEY", "task", "other_config", ref, key)
        context.db.put_key("task", ref, "other_config", key=key, value=new)
    return ""


@calls.on("task.remove_from_other_config")
def remove_from_other_config(context: Context, ref: str, key: str) -> str:
    """Forget a note about a task."""
    _assert_may_touch(context, ref)
    context.db.drop_key("task", ref, "other_config", key=key)
    return ""


@calls.on("task.set_other_config")
def set_other_config(context: Context, ref: str, new: dict[str, str]) -> str:
    """Replace all notes about a task."""
    _assert_may_touch(context, ref)
    context.db.set("task", ref, "other_config", new)
    return ""
