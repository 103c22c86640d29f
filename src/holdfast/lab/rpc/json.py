"""JSON-RPC 1.0 and 2.0 as the pool speaks them, told apart by the presence of ``jsonrpc`` in the call."""

from __future__ import annotations

import json
from dataclasses import dataclass

from holdfast.lab.errors import ApiFailure
from holdfast.lab.rpc.json_lexer import read_json
from holdfast.lab.rpc.lexer import MalformedCall

__all__ = ["JsonCall", "parse_call", "write_bare", "write_result"]


@dataclass(frozen=True, slots=True)
class JsonCall:
    """One call and what its answer must repeat."""

    method: str
    parameters: list[object]
    id: str | int
    is_version_2: bool

    def assert_text(self) -> None:
        """Return when every parameter is text that can be written; ``INVALID_VALUE`` otherwise."""
        for parameter in self.parameters:
            text = json.dumps(parameter, ensure_ascii=False)
            if any("\ud800" <= character <= "\udfff" for character in text):
                spelled = parameter if isinstance(parameter, str) else text
                raise ApiFailure("INVALID_VALUE", "Invalid UTF-8 string in parameter", f"S({spelled})")


def parse_call(body: bytes) -> JsonCall:
    """Return the call. ``MalformedCall`` when the body is none; batches and calls without a usable id are none."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise _malformed("Invalid request body")
    method = document["method"] if "method" in document else _missing("method")
    if not isinstance(method, str):
        raise _invalid("method")
    version = document.get("jsonrpc", "1.0")
    if "jsonrpc" in document and version != "2.0":
        raise _invalid("jsonrpc")
    parameters = _parameters(document, is_version_2=version == "2.0")
    identity = document.get("id")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise _invalid("id")
    return JsonCall(method, parameters, identity, version == "2.0")


def _parameters(document: dict[str, object], *, is_version_2: bool) -> list[object]:
    """Version 1 takes a list only; version 2 also nothing, and named ones as one record, which no call takes."""
    if not is_version_2 and "params" not in document:
        _missing("params")
    parameters = document.get("params")
    if isinstance(parameters, list):
        return parameters
    if is_version_2 and parameters is None:
        return []
    if is_version_2 and isinstance(parameters, dict):
        return [parameters]
    raise _invalid("params")


def _malformed(text: str) -> MalformedCall:
    return MalformedCall(f'Jsonrpc.Malformed_method_request("{text}")')


def _missing(field: str) -> object:
    raise _malformed(f"Required field {field} is missing")


def _invalid(field: str) -> MalformedCall:
    return _malformed(f"Invalid field '{field}' in request body")


def _written(answer: object) -> bytes:
    text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode("utf-8", "surrogateescape")


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
    return _written(answer)


def write_bare(*failure: str) -> bytes:
    """Return the answer of a host that does not look at the call: version 2, no identity, the failure as a list."""
    return _written({"jsonrpc": "2.0", "error": list(failure), "id": 0})
