"""JSON-RPC 1.0 and 2.0 as the pool speaks them, told apart by the presence of ``jsonrpc`` in the call."""

from __future__ import annotations

import json
from dataclasses import dataclass

from holdfast.lab.rpc.lexer import MalformedCall

__all__ = ["JsonCall", "parse_call", "write_result", "write_unready"]


@dataclass(frozen=True, slots=True)
class JsonCall:
    """One call and what its answer must repeat."""

    method: str
    parameters: list[object]
    id: str | int
    is_version_2: bool


def parse_call(body: bytes) -> JsonCall:
    """Return the call. ``MalformedCall`` when the body is none; batches and calls without a usable id are none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as cause:
        raise MalformedCall(_error_text(cause, body)) from cause
    if not isinstance(document, dict):
        raise _malformed("Invalid request body")
    method = document.get("method")
    if method is None:
        raise _malformed("Required field method is missing")
    if not isinstance(method, str):
        raise _malformed("Invalid field 'method' in request body")
    identity = document.get("id")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise _malformed("Invalid field 'id' in request body")
    parameters = document.get("params", [])
    if not isinstance(parameters, list):
        parameters = [parameters]  # named parameters arrive as one record, which no call takes
    return JsonCall(method, parameters, identity, document.get("jsonrpc") == "2.0")


def _malformed(text: str) -> MalformedCall:
    return MalformedCall(f'Jsonrpc.Malformed_method_request("{text}")')


def _error_text(cause: ValueError | RecursionError, body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    if isinstance(cause, json.JSONDecodeError) and not text[cause.pos :].strip():
        line = text.count("\n") + 1
        last = len(text.rpartition("\n")[2])
        return f'Yojson__Common.Json_error("Line {line}, bytes {max(0, last - 1)}-{last}:\\nUnexpected end of input")'
    line = getattr(cause, "lineno", 1)
    return f'Yojson__Common.Json_error("Line {line}:\\nInvalid token")'


def write_result(call: JsonCall, *, value: object = None, failure: list[str] | None = None) -> bytes:
    """Return the answer to ``call``: its value, or the failure's list."""
    answer: dict[str, object]
    if call.is_version_2 and failure is None:
        answer = {"jsonrpc": "2.0", "result": value, "id": call.id}
    elif call.is_version_2:
        assert failure is not None
        answer = {
            "jsonrpc": "2.0",
            "error": {"code": 1, "message": failure[0], "data": failure[1:]},
            "id": call.id,
        }
    else:
        answer = {"result": value if failure is None else None, "error": failure, "id": call.id}
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def write_unready(code: str) -> bytes:
    """Return the answer of a host that looks at no call: always version 2, no identity, the failure as a bare list."""
    return json.dumps({"jsonrpc": "2.0", "error": [code], "id": 0}, separators=(",", ":")).encode()
