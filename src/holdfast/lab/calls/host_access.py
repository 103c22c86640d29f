"""Calls on who may reach a host's shell and for how long, and on the host's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from zoneinfo import available_timezones

from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import EPOCH, DateTime
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_SSH_TIMEOUT_S_MAX = 2 * 24 * 3600


# -- shell access


def _each_host(context: Context, work: Callable[[str], object]) -> str:
    with context.db.transaction():
        for row in context.db.rows("host"):
            work(row.ref)
    return ""


def _ssh_job(host: str) -> str:
    return f"ssh {host}"


def _close_ssh(context: Context, host: str) -> None:
    if context.db.exists("host", host):
        context.db.update("host", host, {"ssh_enabled": False, "ssh_expiry": context.pool.now()})


def _limit_ssh(context: Context, host: str, timeout_s: int) -> None:
    """Let shell access end after so long; never when it is zero."""
    pool = context.pool
    pool.chores.cancel(_ssh_job(host))
    if timeout_s == 0:
        context.db.set("host", host, "ssh_expiry", EPOCH)
        return
    ends = DateTime.of(pool.clock.now() + timedelta(seconds=timeout_s))
    context.db.set("host", host, "ssh_expiry", ends)
    pool.chores.after(_ssh_job(host), timeout_s, lambda: _close_ssh(context, host))


@calls.on("host.enable_ssh")
def enable_ssh(context: Context, host: str) -> str:
    """Let people log in at the host's shell, for as long as was set."""
    with context.db.transaction():
        context.db.update("host", host, {"ssh_enabled": True, "ssh_auto_mode": False})
        _limit_ssh(context, host, context.db.number("host", host, "ssh_enabled_timeout"))
    return ""


@calls.on("host.disable_ssh")
def disable_ssh(context: Context, host: str) -> str:
    """Let nobody log in at the host's shell."""
    context.db.row("host", host)
    context.pool.chores.cancel(_ssh_job(host))
    _close_ssh(context, host)
    return ""


@calls.on("host.set_ssh_enabled_timeout")
def set_ssh_enabled_timeout(context: Context, host: str, timeout_s: int) -> str:
    """Set for how long shell access stays open; at most two days."""
    if not 0 <= timeout_s <= _SSH_TIMEOUT_S_MAX:
        raise ApiFailure("INVALID_VALUE", "ssh_enabled_timeout", str(timeout_s))
    with context.db.transaction():
        context.db.set("host", host, "ssh_enabled_timeout", timeout_s)
        if context.db.flag("host", host, "ssh_enabled"):
            _limit_ssh(context, host, timeout_s)
    return ""


@calls.on("host.set_console_idle_timeout")
def set_console_idle_timeout(context: Context, host: str, timeout_s: int) -> str:
    """Set after how long an idle shell is closed."""
    if timeout_s < 0:
        raise ApiFailure("INVALID_VALUE", "console_timeout", str(timeout_s))
    context.db.set("host", host, "console_idle_timeout", timeout_s)
    return ""


@calls.on("pool.enable_ssh")
def enable_pool_ssh(context: Context, pool: str) -> str:
    """Open shell access on every host."""
    return _each_host(context, lambda host: enable_ssh(context, host))


@calls.on("pool.disable_ssh")
def disable_pool_ssh(context: Context, pool: str) -> str:
    """Close shell access on every host."""
    return _each_host(context, lambda host: disable_ssh(context, host))


@calls.on("pool.set_ssh_enabled_timeout")
def set_pool_ssh_enabled_timeout(context: Context, pool: str, timeout_s: int) -> str:
    """Limit shell access on every host; whoever refuses is named."""
    if not 0 <= timeout_s <= _SSH_TIMEOUT_S_MAX:
        raise ApiFailure("SET_SSH_TIMEOUT_PARTIALLY_FAILED", *(row.ref for row in context.db.rows("host")))
    return _each_host(context, lambda host: set_ssh_enabled_timeout(context, host, timeout_s))


@calls.on("pool.set_console_idle_timeout")
def set_pool_console_idle_timeout(context: Context, pool: str, timeout_s: int) -> str:
    """Limit idle shells on every host; whoever refuses is named."""
    if timeout_s < 0:
        raise ApiFailure("SET_CONSOLE_TIMEOUT_PARTIALLY_FAILED", *(row.ref for row in context.db.rows("host")))
    return _each_host(context, lambda host: set_console_idle_timeout(context, host, timeout_s))


@calls.on("pool.set_ssh_auto_mode")
def set_pool_ssh_auto_mode(context: Context, pool: str, value: bool) -> str:
    """Let every host open its shell only in an emergency, or not."""
    return _each_host(context, lambda host: context.db.set("host", host, "ssh_auto_mode", value))


@calls.on("pool.set_https_only")
def set_pool_https_only(context: Context, pool: str, value: bool) -> str:
    """Say for every host that clients may come over TLS only; the lab's plain port stays open."""
    return _each_host(context, lambda host: context.db.set("host", host, "https_only", value))


# -- time


@calls.on("host.set_timezone")
def set_timezone(context: Context, host: str, value: str) -> str:
    """Set the time zone of the host's own clock."""
    context.db.row("host", host)
    if value not in available_timezones():
        raise ApiFailure("INVALID_VALUE", "timezone", value)
    context.db.set("host", host, "timezone", value)
    return ""


@calls.on("host.list_timezones")
def list_timezones(context: Context, host: str) -> list[str]:
    """Return every time zone that can be set."""
    context.db.row("host", host)
    return sorted(available_timezones())


@calls.on("host.set_servertime")
def set_servertime(context: Context, host: str, value: str) -> str:
    """Accepted; the lab's clock is moved by its own control, not by clients."""
    context.db.row("host", host)
    return ""


@calls.on("host.get_ntp_synchronized")
def get_ntp_synchronized(context: Context, host: str) -> bool:
    """A host's clock is right unless its time service is off."""
    return context.db.text("host", host, "ntp_mode") != "Disabled"


@calls.on("host.get_ntp_servers_status")
def get_ntp_servers_status(context: Context, host: str) -> dict[str, str]:
    """Return the state of each time server that the host was given."""
    if context.db.text("host", host, "ntp_mode") != "Custom":
        return {}
    return dict.fromkeys(context.db.texts("host", host, "ntp_custom_servers"), "*")


@calls.on("host.set_ntp_mode")
def set_ntp_mode(context: Context, host: str, mode: str) -> str:
    """Choose where the host gets its time from."""
    db = context.db
    if mode == "Custom" and not db.texts("host", host, "ntp_custom_servers"):
        text = "Can't set ntp_mode to Custom when ntp_custom_servers is empty"
        raise ApiFailure("INVALID_NTP_CONFIG", text)
    db.set("host", host, "ntp_mode", mode)
    return ""


@calls.on("host.set_ntp_custom_servers")
def set_ntp_custom_servers(context: Context, host: str, servers: list[str]) -> str:
    """Name the time servers; not nobody while they are in use."""
    if context.db.text("host", host, "ntp_mode") == "Custom" and not servers:
        text = "Can't set ntp_custom_servers empty when ntp_mode is Custom"
        raise ApiFailure("INVALID_NTP_CONFIG", text)
    context.db.set("host", host, "ntp_custom_servers", servers)
    return ""
