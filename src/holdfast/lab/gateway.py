"""From an HTTP request to whoever answers it: calls by XML and JSON, data handlers by the start of their path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import get_log
from holdfast.lab.call_faults import is_answer_lost, is_call_lost, unready_code
from holdfast.lab.context import PoolCore
from holdfast.lab.dispatch import Dispatcher
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers import (
    Refused,
    Transfer,
    authenticated,
    export_database,
    export_metadata,
    export_raw_vdi,
    export_vm,
    import_database,
    import_metadata,
    import_raw_vdi,
    import_vm,
    transfer,
)
from holdfast.lab.http import Connection, Disconnected, Request, pages
from holdfast.lab.rpc import MalformedCall, json_rpc, xml_rpc

__all__ = ["CALL_BYTES_MAX", "Gateway"]

CALL_BYTES_MAX = 300 * 1024
"""The pool's own limit on the body of a call."""

_METHODS = frozenset({"GET", "PUT", "POST", "OPTIONS", "CONNECT"})

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    realm: str
    label: str
    work: Callable[[Transfer], None]


_ROUTES = (
    _Route("GET", "/export_raw_vdi", "get_export_raw_vdi", "Exporting raw VDI", export_raw_vdi),
    _Route("PUT", "/import_raw_vdi", "put_import_raw_vdi", "Importing raw VDI", import_raw_vdi),
    _Route("GET", "/export_metadata", "get_export_metadata", "VM.export_metadata", export_metadata),
    _Route("PUT", "/import_metadata", "put_import_metadata", "VM.metadata_import", import_metadata),
    _Route("GET", "/export", "get_export", "VM.export", export_vm),
    _Route("PUT", "/import", "put_import", "VM.import", import_vm),
    _Route("GET", "/pool/xmldbdump", "get_pool_xml_db_sync", "Dumping database as XML", export_database),
    _Route("PUT", "/pool/xmldbdump", "put_pool_xml_db_sync", "Reading database as XML", import_database),
)

_GUARDED = {"/services": "get_services"}
"""Paths that ask for credentials first and have nothing behind them in the lab."""


class Gateway:
    """Answers the requests of one pool."""

    def __init__(self, pool: PoolCore, dispatcher: Dispatcher) -> None:
        self._pool = pool
        self._dispatcher = dispatcher

    def serve_as(self, host: str) -> Callable[[Request, Connection], bool]:
        """Return what answers requests that arrive at ``host``."""
        return lambda request, connection: self._serve(request, connection, host)

    def _serve(self, request: Request, connection: Connection, host: str) -> bool:
        if self._pool.is_silent(host):
            raise Disconnected
        match request.method:
            case "POST":
                return self._serve_call(request, connection, host)
            case "OPTIONS":
                connection.send(pages.options())
                return request.is_keep_alive
            case "GET" | "PUT":
                return self._serve_data(request, connection, host)
            case "CONNECT":
                connection.send(pages.forbidden())
                return False
            case _:
                connection.send(pages.not_implemented(request.method))
                return False

    def _serve_data(self, request: Request, connection: Connection, host: str) -> bool:
        for route in _ROUTES:
            if request.method == route.method and request.path.startswith(route.path):
                return transfer(
                    self._pool,
                    request,
                    connection,
                    host=host,
                    realm=route.realm,
                    label=route.label,
                    work=route.work,
                )
        for path, realm in _GUARDED.items():
            if request.path.startswith(path):
                try:
                    with authenticated(self._pool, request, realm):
                        break
                except Refused as refusal:
                    connection.send(refusal.page)
                    return False
        connection.send(pages.forbidden())
        return request.method == "GET"

    def _serve_call(self, request: Request, connection: Connection, host: str) -> bool:
        length_bytes = request.content_length or 0
        if length_bytes > CALL_BYTES_MAX:
            connection.send(pages.bad_request())
            connection.linger(self._pool.delays.linger_s)
            return False
        body = connection.read_body(length_bytes)
        is_json = request.path.startswith("/jsonrpc")
        unready = unready_code(self._pool)
        try:
            if unready is not None:
                answer = json_rpc.write_unready(unready) if is_json else xml_rpc.write_result(failure=[unready])
            else:
                answer = self._answer_json(body, host) if is_json else self._answer_xml(body, host)
        except MalformedCall as cause:
            connection.send(pages.internal_error(str(cause)))
            return False
        content_type = "application/json" if is_json else "text/xml"
        connection.send(pages.rpc_answer(answer, content_type=content_type))
        return request.is_keep_alive

    def _answer_xml(self, body: bytes, host: str) -> bytes:
        method, parameters = xml_rpc.parse_call(body)
        value, failure = self._call(method, parameters, host)
        return xml_rpc.write_result(value=value, failure=failure)

    def _answer_json(self, body: bytes, host: str) -> bytes:
        call = json_rpc.parse_call(body)
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
        try:
            return self._dispatcher.call(method, parameters, host=host), None
        except ApiFailure as refusal:
            return None, refusal.description
        except Exception as cause:
            log.exception("lab.call-failed", method=method)
            return None, ["INTERNAL_ERROR", repr(cause)]
