"""XML-RPC as the pool speaks it: strings without a tag, whole numbers as strings, and its own words for broken calls.

Invariant: a hostile document (nesting, entities, size) costs no more than its own length.
"""

from __future__ import annotations

import xml.parsers.expat
from xml.sax.saxutils import escape

from holdfast.lab.datamodel import DateTime

__all__ = ["MalformedCall", "parse_call", "parse_value", "position_text", "write_result", "write_value"]

NESTING_MAX = 64
"""Records nest four deep; more is an attack on the stack."""

_ROOT_EXPECTED = {xml.parsers.expat.errors.codes[xml.parsers.expat.errors.XML_ERROR_SYNTAX]}
_CUT_SHORT = {
    xml.parsers.expat.errors.codes[text]
    for text in (
        xml.parsers.expat.errors.XML_ERROR_NO_ELEMENTS,
        xml.parsers.expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        xml.parsers.expat.errors.XML_ERROR_PARTIAL_CHAR,
    )
}


class MalformedCall(Exception):
    """The body is no call; the text is the exception that the pool prints on its error page."""


class _Tokens:
    """The document as a flat list: ``("open", tag)``, ``("close", tag)``, ``("data", text)``."""

    def __init__(self, body: bytes) -> None:
        self.items: list[tuple[str, str]] = []
        self.at = 0
        parser = xml.parsers.expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = lambda tag, _: self.items.append(("open", tag))
        parser.EndElementHandler = lambda tag: self.items.append(("close", tag))
        parser.CharacterDataHandler = lambda text: self.items.append(("data", text))
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        try:
            parser.Parse(body, True)
        except xml.parsers.expat.ExpatError as cause:
            lines = body.decode("utf-8", "replace").split("\n")
            raise MalformedCall(position_text(cause, end=(len(lines), len(lines[-1])))) from cause

    @staticmethod
    def _refuse_doctype(*_: object) -> None:
        raise MalformedCall('Xmlm.Error(1:1, "illegal document type")')

    def peek(self) -> tuple[str, str]:
        return self.items[self.at] if self.at < len(self.items) else ("close", "")

    def skip_blank(self) -> None:
        while self.peek()[0] == "data" and not self.peek()[1].strip():
            self.at += 1

    def open(self, tag: str) -> None:
        self.skip_blank()
        if self.peek() != ("open", tag):
            raise self._unexpected(f"open_tag({tag})")
        self.at += 1

    def open_any(self) -> str:
        self.skip_blank()
        kind, tag = self.peek()
        if kind != "open":
            raise self._unexpected("open_tag")
        self.at += 1
        return tag

    def close(self) -> None:
        self.skip_blank()
        if self.peek()[0] != "close":
            raise self._unexpected("close_tag")
        self.at += 1

    def data(self) -> str:
        text = ""
        while self.peek()[0] == "data":
            text += self.peek()[1]
            self.at += 1
        return text

    def _unexpected(self, wanted: str) -> MalformedCall:
        kind, text = self.peek()
        found = {"open": f"open_tag({text})", "close": "close_tag", "data": "data"}[kind]
        if found == "close_tag":
            wanted = wanted.partition("(")[0]
        return MalformedCall(f'Xmlrpc.Parse_error("{found}", "{wanted}", _)')


def position_text(cause: xml.parsers.expat.ExpatError, *, end: tuple[int, int]) -> str:
    """Return how a pool prints that a document is broken; ``end`` is its last line and how long that is."""
    if cause.code in _CUT_SHORT:
        return f'Xmlm.Error({end[0]}:{end[1] + 1}, "unexpected end of input")'
    if cause.code in _ROOT_EXPECTED:
        return f'Xmlm.Error({cause.lineno}:{cause.offset + 1}, "expected root element")'
    return f'Xmlm.Error({cause.lineno}:{cause.offset + 1}, "malformed character stream")'


def parse_call(body: bytes) -> tuple[str, list[object]]:
    """Return the method and its parameters. ``MalformedCall`` when the body is no call."""
    tokens = _Tokens(body)
    tokens.open("methodCall")
    tokens.open("methodName")
    method = tokens.data()
    tokens.close()
    parameters: list[object] = []
    tokens.skip_blank()
    if tokens.peek()[0] == "open":
        tokens.open("params")
        tokens.skip_blank()
        while tokens.peek()[0] == "open":
            tokens.open("param")
            parameters.append(_read_value(tokens, 0))
            tokens.close()
            tokens.skip_blank()
        tokens.close()
    tokens.close()
    return method, parameters


def parse_value(body: bytes) -> object:
    """Return the value of a document that is one ``<value>``. ``MalformedCall`` when it is none."""
    tokens = _Tokens(body)
    return _read_value(tokens, 0)


def _read_value(tokens: _Tokens, depth: int) -> object:
    if depth > NESTING_MAX:
        raise MalformedCall("Stack overflow")
    tokens.open("value")
    text = tokens.data()
    if tokens.peek()[0] == "close":
        tokens.close()
        return text
    tag = tokens.open_any()
    value: object
    match tag:
        case "struct":
            value = _read_struct(tokens, depth)
        case "array":
            value = _read_array(tokens, depth)
        case _:
            value = _scalar(tag, tokens.data())
    tokens.close()
    tokens.close()
    return value


def _scalar(tag: str, text: str) -> object:
    try:
        match tag:
            case "int" | "i4" | "i8":
                return int(text)
            case "double":
                return float(text)
            case "boolean":
                return text.strip() == "1"
            case "nil":
                return None
            case _:
                return text
    except ValueError as cause:
        raise MalformedCall(f'Xmlrpc.Parse_error("{tag}", "value", _)') from cause


def _read_struct(tokens: _Tokens, depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    tokens.skip_blank()
    while tokens.peek()[0] == "open":
        tokens.open("member")
        tokens.open("name")
        name = tokens.data()
        tokens.close()
        value[name] = _read_value(tokens, depth + 1)
        tokens.close()
        tokens.skip_blank()
    return value


def _read_array(tokens: _Tokens, depth: int) -> list[object]:
    value: list[object] = []
    tokens.open("data")
    tokens.skip_blank()
    while tokens.peek()[0] == "open":
        value.append(_read_value(tokens, depth + 1))
        tokens.skip_blank()
    tokens.close()
    return value


def write_value(value: object) -> str:
    """Return ``<value>…</value>`` as the pool writes it; also the form of a task's result."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def _write(value: object, parts: list[str]) -> None:
    match value:
        case bool():
            parts.append(f"<value><boolean>{int(value)}</boolean></value>")
        case float():
            parts.append(f"<value><double>{value!r}</double></value>")
        case DateTime():
            parts.append(f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>")
        case str():
            parts.append(f"<value>{escape(value)}</value>")
        case int():
            parts.append(f"<value>{value}</value>")
        case list() | tuple():
            parts.append("<value><array><data>")
            for item in value:
                _write(item, parts)
            parts.append("</data></array></value>")
        case dict():
            parts.append("<value><struct>")
            for name, item in value.items():
                parts.append(f"<member><name>{escape(name)}</name>")
                _write(item, parts)
                parts.append("</member>")
            parts.append("</struct></value>")
        case None:
            parts.append("<value><nil/></value>")
        case _:
            raise AssertionError(type(value))


def write_result(*, value: object = None, failure: list[str] | None = None) -> bytes:
    """Return the answer to a call: its value, or the failure's list."""
    answer: dict[str, object]
    if failure is None:
        answer = {"Status": "Success", "Value": value}
    else:
        answer = {"Status": "Failure", "ErrorDescription": failure}
    document = f"<methodResponse><params><param>{write_value(answer)}</param></params></methodResponse>"
    return f'<?xml version="1.0"?>{document}'.encode("utf-8", "replace")
