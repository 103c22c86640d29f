"""Calls of observers: who wants traces of what, and where they are to go. The lab traces nothing.

Invariant: an observer that is kept names only hosts, parts, places and attributes that a pool would take.
"""

from __future__ import annotations

import re
from typing import cast

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_PARTS = frozenset({"xapi", "xenopsd", "xapi-clusterd", "smapi"})
_BUGTOOL = "bugtool"
"""Traces stay on the host; every other place is refused until an administrator of the host allows it."""

_KEY = re.compile(r"[a-z0-9][a-z0-9._]{0,253}[a-z0-9]")
_VALUE_BYTES_MAX = 4095


def _check_parts(context: Context, parts: list[str]) -> None:
    for part in parts:
        if part not in _PARTS:
            raise ApiFailure("INVALID_VALUE", "component", part)


def _check_endpoints(context: Context, endpoints: list[str]) -> None:
    for endpoint in endpoints:
        if endpoint != _BUGTOOL:
            raise ApiFailure("INVALID_VALUE", "endpoint", endpoint)


def _check_hosts(context: Context, hosts: list[str]) -> None:
    for host in hosts:
        if not context.db.exists("host", host):
            raise ApiFailure("INVALID_VALUE", "host", host)


def _check_attributes(context: Context, attributes: dict[str, str]) -> None:
    for key, value in attributes.items():
        if not _KEY.fullmatch(key) or len(value.encode()) > _VALUE_BYTES_MAX:
            raise ApiFailure("INVALID_VALUE", "attributes", f"{key}:{value}")


@calls.on("Observer.create")
def create(context: Context, record: Fields) -> str:
    """Keep an observer."""
    _check_parts(context, cast("list[str]", record["components"]))
    _check_endpoints(context, cast("list[str]", record["endpoints"]))
    _check_hosts(context, cast("list[str]", record["hosts"]))
    _check_attributes(context, cast("dict[str, str]", record["attributes"]))
    return context.db.create("Observer", record)


@calls.on("Observer.set_components")
def set_components(context: Context, observer: str, value: list[str]) -> str:
    """Say which parts of a host are watched; none means all."""
    _check_parts(context, value)
    context.db.set("Observer", observer, "components", value)
    return ""


@calls.on("Observer.set_endpoints")
def set_endpoints(context: Context, observer: str, value: list[str]) -> str:
    """Say where traces go."""
    _check_endpoints(context, value)
    context.db.set("Observer", observer, "endpoints", value)
    return ""


@calls.on("Observer.set_hosts")
def set_hosts(context: Context, observer: str, value: list[str]) -> str:
    """Say which hosts are watched; none means all."""
    _check_hosts(context, value)
    context.db.set("Observer", observer, "hosts", value)
    return ""


@calls.on("Observer.set_attributes")
def set_attributes(context: Context, observer: str, value: dict[str, str]) -> str:
    """Say what is written on every trace."""
    _check_attributes(context, value)
    context.db.set("Observer", observer, "attributes", value)
    return ""


@calls.on("Observer.register", "Observer.unregister")
def accept(context: Context, observer: str, host: str) -> str:
    """Nothing to do: the lab traces nothing."""
    context.db.row("Observer", observer)
    context.db.row("host", host)
    return ""
