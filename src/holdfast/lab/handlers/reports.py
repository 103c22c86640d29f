"""What a host tells about itself over HTTP besides its data: statistics, audit log, support bundle, its own backup.

The lab measures nothing and has no control domain to pack up, so statistics are well formed and empty, and what needs a
program of the control domain fails as it does on a host that lacks the program.
"""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.transfer import Refused, Transfer
from holdfast.lab.http import pages

__all__ = ["audit_log", "host_backup", "host_rrd", "rrd_updates", "system_status", "vm_rrd"]

_ARCHIVES = ((5, 10 * 60), (60, 2 * 3600), (3600, 7 * 86400), (86400, 366 * 86400))
"""Step of each archive of statistics in seconds, and how far back it reaches."""

_STATUS_TYPES = {"tar": "appliation/x-tar", "tar.bz2": "application/x-bzip2", "zip": "application/zip"}
"""Misspelt as on every host."""


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([status, *headers, "", ""]).encode()


def rrd_updates(one: Transfer) -> None:
    """Send the statistics since a moment: none."""
    query = one.request.query
    if "start" not in query:
        raise Refused(pages.bad_request())
    now_s = int(one.pool.clock.now().timestamp())
    start_s = _whole(query["start"], name="Int64.of_string")
    start_s = now_s + start_s if start_s < 0 else start_s
    interval_s = _whole(query["interval"], name="") if query.get("interval", "").isdigit() else 0
    fitting = [step_s for step_s, reach_s in _ARCHIVES if step_s >= interval_s and now_s - start_s <= reach_s]
    step_s = fitting[0] if fitting else _ARCHIVES[-1][0]
    meta: dict[str, object] = {
        "start": start_s - start_s % step_s,
        "step": step_s,
        "end": now_s - now_s % step_s,
        "rows": 0,
        "columns": 0,
    }
    if _prefers_json(one):
        body = json.dumps({"meta": {**meta, "legend": []}, "data": []}, separators=(",", ":"))
    else:
        told = "".join(f"<{name}>{value}</{name}>" for name, value in meta.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<xport><meta>{told}<legend/></meta><data/></xport>'
    one.connection.send(
        _head(
            "HTTP/1.1 200 OK",
            "Connection: keep-alive",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-cache, no-store",
            _content_type(one),
            "Access-Control-Allow-Origin: *",
            "Access-Control-Allow-Headers: X-Requested-With",
        )
        + body.encode()
    )


def _whole(text: str, *, name: str) -> int:
    try:
        return int(text)
    except ValueError as cause:
        raise ApiFailure("INTERNAL_ERROR", f'Failure("{name}")') from cause


def _prefers_json(one: Transfer) -> bool:
    accepted = one.request.headers.get("accept")
    if accepted is None or ("json" not in accepted and "xml" not in accepted):
        return "json" in one.request.query
    return "application/json" in accepted


def _content_type(one: Transfer) -> str:
    return f"content-type: {'application/json' if _prefers_json(one) else 'text/xml'}"


def host_rrd(one: Transfer) -> None:
    """Send the host's whole archive of statistics: an empty one."""
    _send_archive(one)


def vm_rrd(one: Transfer) -> None:
    """Send a VM's whole archive of statistics: an empty one."""
    uuid = one.request.query.get("uuid")
    if uuid is None:
        raise Refused(pages.bad_request())
    if not one.pool.db.has_uuid("VM", uuid):
        raise Refused(pages.plain_head("HTTP/1.1 404 Not Found"))
    _send_archive(one)


def _send_archive(one: Transfer) -> None:
    now_s = int(one.pool.clock.now().timestamp())
    facts = {"version": "0003", "step": "5", "lastupdate": str(now_s)}
    if _prefers_json(one):
        body = json.dumps({**facts, "ds": [], "rra": []}, separators=(",", ":"))
    else:
        told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in facts.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<rrd>{told}</rrd>'
    one.connection.send(
        pages.plain_head("HTTP/1.0 200 OK", _content_type(one), "Access-Control-Allow-Origin: *") + body.encode()
    )


def audit_log(one: Transfer) -> None:
    """Send the log of who called what: the lab keeps none, and an empty one is a valid answer."""
    one.connection.send(
        _head(
            "HTTP/1.1 200 OK",
            "Connection: keep-alive",
            "Cache-Control: no-cache, no-store",
            "content-type: text/plain",
        )
    )


def system_status(one: Transfer) -> None:
    """Fail as a host without the program that packs the support bundle."""
    query = one.request.query
    kind = _STATUS_TYPES.get(query.get("output", ""), _STATUS_TYPES["tar"])
    if kind == _STATUS_TYPES["tar"] and "list" not in query:
        host = one.pool.db.text("host", one.host, "hostname")
        name = f"system_status-{one.pool.clock.now():%Y-%m-%dT%H:%M:%SZ}-{host}.tar"
        one.connection.send(
            pages.plain_head(
                "HTTP/1.0 200 OK",
                "Server: xapi/0.0",
                f"content-type: {kind}",
                f'content-disposition: attachment; filename="{name}"',
            )
        )
    raise ApiFailure("SYSTEM_STATUS_RETRIEVAL_FAILED", "xen-bugtool failed: the lab has no control domain to look into")


def host_backup(one: Transfer) -> None:
    """Fail as a host whose backup script does."""
    one.connection.send(_head("HTTP/1.1 200 OK", "Connection: keep-alive", "Cache-Control: no-cache, no-store"))
    raise ApiFailure("BACKUP_SCRIPT_FAILED", "the lab has no control domain to back up")
