"""Doors behind which this pool has nothing: what a pool says there that has no statistics, no blobs, no services.

Invariant: a door that is named here is looked behind only after the caller's credentials were.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.context import PoolCore
from holdfast.lab.errors import quoted
from holdfast.lab.http import Request, pages

__all__ = ["asks_nobody", "closed_door"]

_Say = Callable[[PoolCore, Request], bytes]

_WITHOUT_BALANCING = "WLB_NOT_INITIALIZED: [  ]"
_MISSING = pages.plain_head("HTTP/1.1 404 Not Found")


def closed_door(name: str, pool: PoolCore, request: Request) -> bytes | None:
    """Return what is said at the door of that name before the connection ends; None when it is just shut."""
    say = _SAID.get(name)
    return None if say is None else say(pool, request)


def asks_nobody(name: str, pool: PoolCore, request: Request) -> bool:
    """Whether the door tells who has no credentials the same as everybody."""
    if name != "get_blob":
        return False
    return "ref" not in request.query and not pool.db.has_uuid("blob", request.query.get("uuid", ""))


def _statistics(pool: PoolCore, request: Request) -> bytes:
    return pages.not_found() if "uuid" in request.query else pages.bad_request()


def _blob(pool: PoolCore, request: Request) -> bytes:
    query, db = request.query, pool.db
    if "ref" not in query and "uuid" not in query:
        return pages.bad_request()
    if db.exists("blob", query.get("ref", "")) or db.has_uuid("blob", query.get("uuid", "")):
        return _MISSING
    return pages.text_missing("Unknown reference\n")


def _console(pool: PoolCore, request: Request) -> bytes:
    uuid = request.query.get("uuid")
    if uuid is not None and not pool.db.has_uuid("console", uuid):
        return pages.internal_error(f'Db_exn.Read_missing_uuid("console", "", {quoted(uuid)})')
    return pages.internal_error("Console.Failure")


def _report(pool: PoolCore, request: Request) -> bytes:
    return pages.internal_error(_WITHOUT_BALANCING if "report" in request.query else 'Failure("Bad request")')


def _bundle(pool: PoolCore, request: Request) -> bytes:
    taken = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
    return taken.encode() + pages.bad_request()


_SAID: dict[str, _Say] = {
    "connect_console_ws": _console,
    "get_blob": _blob,
    "get_config_sync": lambda pool, request: (
        pages.plain_head("HTTP/1.1 200 OK") + b"Warning: legacy dom0 config files not supported"
    ),
    "get_repository": lambda pool, request: pages.forbidden(version=request.version),
    "get_services": lambda pool, request: pages.not_found(),
    "get_updates": lambda pool, request: _MISSING,
    "get_vncsnapshot": _console,
    "get_wlb_diagnostics": lambda pool, request: pages.internal_error(_WITHOUT_BALANCING),
    "get_wlb_report": _report,
    "post_services": lambda pool, request: pages.not_found(),
    "put_blob": _blob,
    "put_bundle": _bundle,
    "put_services": lambda pool, request: pages.not_found(),
    "rrd": _statistics,
    "sr_rrd": _statistics,
}
