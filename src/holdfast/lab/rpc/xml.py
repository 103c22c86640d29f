"""XML-RPC as the pool speaks it: strings without a tag, whole numbers as strings, its own words for broken calls."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import cast
from xml.parsers.expat import ExpatError, errors
from xml.sax.saxutils import escape

from holdfast.lab.datamodel import DateTime, SmallInt, parse_float, parse_whole
from holdfast.lab.rpc.lexer import MalformedCall, Signals, read_signals

__all__ = ["parse_call", "parse_value", "position_text", "write_plain", "write_result", "write_value"]

NESTING_MAX = 64
"""Records nest four deep; more is an attack on the stack."""

_BLANK = " \t\n"
_SCALARS = "int/i8/i4/boolean/double/string/dateTime.iso8601/array/struct/nil"
_EMPTY: dict[str, object] = {"string": "", "array": [], "struct": {}, "nil": None, "value": ""}


# -- reading


def parse_call(body: bytes) -> tuple[str, list[object]]:
    """Return the method and its parameters. ``MalformedCall`` when the body is no call."""
    signals = read_signals(body)
    signals.peek()
    signals.take()
    _open(signals, "methodCall")
    _open(signals, "methodName")
    method = _data(signals)
    _close(signals, "methodName")
    _open(signals, "params")
    parameters: list[object] = []
    while _skip_blank(signals) != "close":
        _open(signals, "param")
        parameters.append(_read_value(signals, 0))
        _close(signals, "param")
    _close(signals, "params")
    _close(signals, "methodCall")
    return method, parameters


def parse_value(body: bytes) -> object:
    """Return the value of a document that is one ``<value>``. ``MalformedCall`` when it is none."""
    signals = read_signals(body)
    signals.peek()
    signals.take()
    return _read_value(signals, 0)


def _broken(found: str, wanted: str) -> MalformedCall:
    return MalformedCall(f'Xmlrpc.Parse_error("{found}", "{wanted}", _)')


def _is_blank(text: str) -> bool:
    return not text.strip(_BLANK)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode().replace('"', '\\"')


def _skip_blank(signals: Signals) -> str:
    """Skip texts of nothing but white space; return the kind of what comes then."""
    while signals.peek()[0] == "data" and _is_blank(signals.peek()[1]):
        signals.take()
    return signals.peek()[0]


def _open_any(signals: Signals) -> str:
    while True:
        kind, text = signals.take()
        if kind == "open":
            return text
        if kind == "data" and not _is_blank(text):
            raise _broken(f"data({_escaped(text)})", "open_tag")
        if kind in ("close", "end"):
            raise _broken("close_tag", "open_tag")


def _open(signals: Signals, tag: str) -> None:
    found = _open_any(signals)
    if found != tag:
        raise _broken(f"open_tag({found})", f"open_tag({tag})")


def _close(signals: Signals, tag: str) -> None:
    while True:
        kind, text = signals.take()
        if kind in ("close", "end"):
            return
        if kind == "open":
            raise _broken(f"open_tag({text})", f"close_tag({tag})")
        if not _is_blank(text):
            raise _broken(f"data({_escaped(text)})", f"close_tag({tag})")


def _data(signals: Signals) -> str:
    """Return the text that comes now. An end is taken for an empty text, so that the next end closes one level more."""
    kind, text = signals.take()
    if kind == "open":
        raise _broken(f"open_tag({text})", "data")
    return text if kind == "data" else ""


def _read_value(signals: Signals, depth: int) -> object:
    if depth > NESTING_MAX:
        raise MalformedCall("Stack_overflow")
    found = _open_any(signals)
    if found != "value":
        raise _broken("open_tag(value)", f"open_tag({found})")
    kind, text = signals.peek()
    value: object = ""
    if kind == "data":
        signals.take()
        value = _read_typed(signals, depth) if _is_blank(text) and signals.peek()[0] == "open" else text
    elif kind != "close":
        value = _read_typed(signals, depth)
    _close(signals, "value")
    return value


def _read_typed(signals: Signals, depth: int) -> object:
    tag = _open_any(signals)
    if signals.peek()[0] == "close":
        if tag not in _EMPTY:
            raise _broken(f"empty_{tag}", tag)
        value = _EMPTY[tag]
        value = value.copy() if isinstance(value, list | dict) else value
    elif tag == "struct":
        value = _read_struct(signals, depth)
    elif tag == "array":
        value = _read_array(signals, depth)
    elif tag == "nil":
        value = None
    else:
        value = _scalar(tag, signals)
    _close(signals, tag)
    return value


def _scalar(tag: str, signals: Signals) -> object:
    match tag:
        case "int" | "i4" | "i8":
            try:
                return parse_whole(_data(signals))
            except ValueError as cause:
                raise MalformedCall('Failure("Int64.of_string")') from cause
        case "double":
            try:
                return parse_float(_data(signals))
            except ValueError as cause:
                raise MalformedCall('Failure("float_of_string")') from cause
        case "boolean":
            return _data(signals) == "1"
        case "string":
            return _data(signals)
        case "dateTime.iso8601":
            return DateTime(_data(signals))
        case "base64":
            return _decoded(_data(signals))
        case _:
            raise _broken(f"open_tag({tag})", f"open_tag({_SCALARS})")


def _decoded(text: str) -> bytes:
    whole = text[: len(text) // 4 * 4]
    data = whole.rstrip("=") if whole.endswith("=") else whole
    if not _BASE64.fullmatch(data) or len(whole) - len(data) > _PADDING_MAX:
        raise MalformedCall('Invalid_argument("Malformed input")')
    if whole != text:
        raise MalformedCall('Invalid_argument("Wrong padding")')
    return base64.b64decode(data[: len(data) - (len(data) % 4 == 1)] + "==")


def _read_struct(signals: Signals, depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    while _skip_blank(signals) != "close":
        _open(signals, "member")
        _open(signals, "name")
        name = _data(signals)
        _close(signals, "name")
        value[name] = _read_value(signals, depth + 1)
        _close(signals, "member")
    return value


def _read_array(signals: Signals, depth: int) -> list[object]:
    value: list[object] = []
    _open(signals, "data")
    while _skip_blank(signals) != "close":
        value.append(_read_value(signals, depth + 1))
    _close(signals, "data")
    return value


_BASE64 = re.compile("[A-Za-z0-9+/]*")
_PADDING_MAX = 3


# -- writing


_UNPRINTABLE = {code: None for code in range(32) if chr(code) not in "\t\n\r"}
_SPECIAL = re.compile(r"[&<>\"\x00-\x08\x0b\x0c\x0e-\x1f]")
_QUOTE = {'"': "&quot;"}


def write_value(value: object) -> str:
    """Return ``<value>…</value>`` as the pool writes it; also the form of a task's result."""
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts)


_Put = Callable[[str], object]


def _write(value: object, put: _Put) -> None:
    """Write one value; records of a thousand VMs have 150,000 of them, so the type itself says which way to go."""
    _WRITERS[type(value)](value, put)


def _write_text(value: object, put: _Put) -> None:
    text = cast(str, value)
    if _SPECIAL.search(text):
        text = escape(text, _QUOTE).translate(_UNPRINTABLE)
    put(f"<value>{text}</value>")


def _write_list(value: object, put: _Put) -> None:
    put("<value><array><data>")
    for item in cast("list[object]", value):
        _write(item, put)
    put("</data></array></value>")


def _write_struct(value: object, put: _Put) -> None:
    put("<value><struct>")
    for name, item in cast("dict[str, object]", value).items():
        put(f"<member><name>{escape(name) if _SPECIAL.search(name) else name}</name>")
        _write(item, put)
        put("</member>")
    put("</struct></value>")


_WRITERS: dict[type, Callable[[object, _Put], object]] = {
    bool: lambda value, put: put(f"<value><boolean>{1 if value else 0}</boolean></value>"),
    float: lambda value, put: put(f"<value><double>{cast(float, value):.16g}</double></value>"),
    DateTime: lambda value, put: put(f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>"),
    SmallInt: lambda value, put: put(f"<value><i4>{value}</i4></value>"),
    str: _write_text,
    int: lambda value, put: put(f"<value>{value}</value>"),
    bytes: lambda value, put: put(f"<value><base64>{base64.b64encode(cast(bytes, value)).decode()}</base64></value>"),
    list: _write_list,
    tuple: _write_list,
    dict: _write_struct,
    type(None): lambda value, put: put("<value><nil/></value>"),
}


def write_result(*, value: object = None, failure: list[str] | None = None) -> bytes:
    """Return the answer to a call: its value, or the failure's list."""
    if failure is None:
        return write_plain({"Status": "Success", "Value": value})
    return write_plain({"Status": "Failure", "ErrorDescription": failure})


def write_plain(value: object) -> bytes:
    """Return an answer that is nothing but the value; only the list of methods is told so."""
    document = f"<methodResponse><params><param>{write_value(value)}</param></params></methodResponse>"
    return f'<?xml version="1.0"?>{document}'.encode("utf-8", "replace")


# -- the failures of documents that are read elsewhere

_ROOT_EXPECTED = {errors.codes[errors.XML_ERROR_SYNTAX]}
_CUT_SHORT = {
    errors.codes[text]
    for text in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN, errors.XML_ERROR_PARTIAL_CHAR)
}


def position_text(cause: ExpatError, *, end: tuple[int, int]) -> str:
    """Return how a pool prints that a document is broken; ``end`` is its last line and how long that is."""
    if cause.code in _CUT_SHORT:
        return f'Xmlm.Error({end[0]}:{end[1] + 1}, "unexpected end of input")'
    if cause.code in _ROOT_EXPECTED:
        return f'Xmlm.Error({cause.lineno}:{cause.offset + 1}, "expected root element")'
    return f'Xmlm.Error({cause.lineno}:{cause.offset + 1}, "malformed character stream")'
