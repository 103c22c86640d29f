"""From an HTTP request to whoever answers it: calls by XML and JSON, data handlers by the start of their path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import get_log
from holdfast.lab.call_faults import is_answer_lost, is_call_lost, unready_code
from holdfast.lab.context import PoolCore
from holdfast.lab.datamodel import Door, load_access
from holdfast.lab.dispatch import Dispatcher
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers import (
    Refused,
    Transfer,
    asks_nobody,
    audit_log,
    authenticated,
    closed_door,
    export_database,
    export_metadata,
    export_raw_vdi,
    export_vm,
    host_backup,
    host_rrd,
    import_database,
    import_metadata,
    import_raw_vdi,
    import_vm,
    rrd_updates,
    system_status,
    transfer,
    vm_rrd,
)
from holdfast.lab.http import Connection, Disconnected, Request, pages
from holdfast.lab.rpc import MalformedCall, json_rpc, xml_rpc

__all__ = ["CALL_BYTES_MAX", "Gateway"]

CALL_BYTES_MAX = 300 * 1024
"""The pool's own limit on the body of a call."""

_METHOD_TOLD_MAX = 100
"""A stranger's name for a method may be anything, of any length; the log shows no more of it."""

_CALLS = {"post_root": False, "post_RPC2": False, "post_json": False, "post_jsonrpc": True}
"""The handlers of calls, and whether they speak JSON; the one that is named after it does not."""

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class _Offer:
    """What stands behind a handler's name."""

    label: str
    """What its task is called."""
    work: Callable[[Transfer], None]


_OFFERS = {
    "get_export_raw_vdi": _Offer("Exporting raw VDI", export_raw_vdi),
    "put_import_raw_vdi": _Offer("Importing raw VDI", import_raw_vdi),
    "get_export_metadata": _Offer("VM.export_metadata", export_metadata),
    "put_import_metadata": _Offer("VM.metadata_import", import_metadata),
    "get_export": _Offer("VM.export", export_vm),
    "put_import": _Offer("VM.import", import_vm),
    "get_pool_xml_db_sync": _Offer("Dumping database as XML", export_database),
    "put_pool_xml_db_sync": _Offer("Reading database as XML", import_database),
    "rrd_updates": _Offer("Get RRD updates.", rrd_updates),
    "host_rrd": _Offer("Get Host RRD.", host_rrd),
    "get_host_rrds": _Offer("Get Host RRD.", host_rrd),
    "vm_rrd": _Offer("Get VM RRD.", vm_rrd),
    "get_vm_rrds": _Offer("Get VM RRD.", vm_rrd),
    "get_audit_log": _Offer("audit_log_get request", audit_log),
    "get_system_status": _Offer("Retrieving system status", system_status),
    "get_host_backup": _Offer("Downloading host backup", host_backup),
}
"""By the name of the handler; the others ask for credentials as on a real pool, and have nothing behind them."""


class Gateway:
    """Answers the requests of one pool."""

    def __init__(self, pool: PoolCore, dispatcher: Dispatcher) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._doors: dict[str, list[Door]] = {}
        for door in load_access().doors:
            if door.verb:
                self._doors.setdefault(door.verb, []).append(door)

    def serve_as(self, host: str) -> Callable[[Request, Connection], bool]:
        """Return what answers requests that arrive at ``host``."""
        return lambda request, connection: self._serve(request, connection, host)

    def _serve(self, request: Request, connection: Connection, host: str) -> bool:
        if self._pool.is_silent(host):
            raise Disconnected
        doors = self._doors.get(request.method)
        if doors is None:
            connection.send(pages.not_implemented(request.method, version=request.version))
            return False
        door = max((each for each in doors if request.path.startswith(each.path)), key=_path_length, default=None)
        if door is None:
            connection.send(pages.forbidden())
            return False
        if door.verb == "OPTIONS":
            wanted = request.headers.get("access-control-request-headers")
            connection.send(pages.options(wanted=wanted, version=request.version, is_keep_alive=request.is_keep_alive))
            return request.is_keep_alive
        if door.name in _CALLS:
            return self._serve_call(request, connection, host, is_json=_CALLS[door.name])
        return self._serve_door(door, request, connection, host)

    def _serve_door(self, door: Door, request: Request, connection: Connection, host: str) -> bool:
        offer = _OFFERS.get(door.name)
        if offer is not None:
            return transfer(
                self._pool, request, connection, host=host, realm=door.name, label=offer.label, work=offer.work
            )
        realm = "Blob handler" if door.name == "get_blob" else door.name
        if not asks_nobody(door.name, self._pool, request) and (not door.is_open or realm != door.name):
            try:
                with authenticated(self._pool, request, realm):
                    pass
            except Refused as refusal:
                connection.send(refusal.page)
                return False
        said = closed_door(door.name, self._pool, request)
        if said is not None:
            connection.send(said)
            return False
        if door.name == "get_root" and connection.is_encrypted:
            connection.send(pages.file_missing(request.path))
        else:
            connection.send(pages.forbidden(version=request.version))
        return request.is_keep_alive if request.method == "GET" else False

    def _serve_call(self, request: Request, connection: Connection, host: str, *, is_json: bool) -> bool:
        try:
            body = connection.read_body(_body_length(request.content_length))
            answer = self._answer_json(body, host) if is_json else self._answer_xml(body, host)
        except MalformedCall as cause:
            log.info("lab.call-malformed", peer=connection.peer, reason=str(cause))
            connection.send(pages.internal_error(str(cause), version=request.version))
            connection.linger(self._pool.delays.linger_s)
            return False
        content_type = "application/json" if is_json else "text/xml"
        version, is_keep_alive = request.version, request.is_keep_alive
        connection.send(
            pages.rpc_answer(answer, content_type=content_type, version=version, is_keep_alive=is_keep_alive)
        )
        return is_keep_alive

    def _answer_xml(self, body: bytes, host: str) -> bytes:
        method, parameters = xml_rpc.parse_call(body)
        unready = unready_code(self._pool)
        if unready is not None:
            return xml_rpc.write_result(failure=[unready])
        value, failure = self._call(method, parameters, host)
        if method == "system.listMethods":
            return xml_rpc.write_plain(value)
        return xml_rpc.write_result(value=value, failure=failure)

    def _answer_json(self, body: bytes, host: str) -> bytes:
        call = json_rpc.parse_call(body)
        unready = unready_code(self._pool)
        if unready is not None:
            return json_rpc.write_bare(unready)
        try:
            call.assert_text()
        except ApiFailure as refusal:
            return json_rpc.write_bare(*refusal.description)
        value, failure = self._call(call.method, call.parameters, host)
        return json_rpc.write_result(call, value=value, failure=failure)

    def _call(self, method: str, parameters: list[object], host: str) -> tuple[object, list[str] | None]:
        plain_name = method.removeprefix("Async.")
        if is_call_lost(self._pool, plain_name):
            raise Disconnected
        result = self._carried_out(method, parameters, host)
        if is_answer_lost(self._pool, plain_name):
            raise Disconnected
        return result

    def _carried_out(self, method: str, parameters: list[object], host: str) -> tuple[object, list[str] | None]:
        began_s = self._pool.clock.monotonic_s()
        try:
            result = self._dispatcher.call(method, parameters, host=host)
            log.debug("lab.call", method=method, seconds=round(self._pool.clock.monotonic_s() - began_s, 3))
            return result, None
        except ApiFailure as refusal:
            log.info("lab.call-refused", method=_shown(method), code=refusal.code)
            return None, refusal.description
        except Exception as cause:
            log.exception("lab.call-failed", method=method)
            return None, ["INTERNAL_ERROR", repr(cause)]


def _shown(method: str) -> str:
    """Return what a stranger calls a method, fit for a line of a log."""
    short = method[:_METHOD_TOLD_MAX]
    return short if short.isascii() and short.isprintable() else ascii(short)


def _path_length(door: Door) -> int:
    return len(door.path)


def _body_length(announced_bytes: int | None) -> int:
    """Return how long the body of a call is; ``MalformedCall`` when nothing says so, or too much."""
    if announced_bytes is None:
        raise MalformedCall('Failure("We require a content-length: HTTP header")')
    if announced_bytes > CALL_BYTES_MAX:
        raise MalformedCall("Http_svr.Client_requested_size_over_limit")
    if announced_bytes < 0:
        raise MalformedCall('Invalid_argument("Bytes.create")')
    return announced_bytes
