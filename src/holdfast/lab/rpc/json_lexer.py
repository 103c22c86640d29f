"""JSON as the pool reads it, and its own words where a text is none.

Ordinary texts go through the standard library. Whatever that one refuses, or takes differently, is read again by the
rules of the pool's parser: comments and names without quotes are fine, control characters may stand in strings, and an
error names line and bytes. Invariant: bytes that are no UTF-8 survive as lone surrogates, for the pool to complain of.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from holdfast.lab.errors import quoted
from holdfast.lab.rpc.lexer import MalformedCall

__all__ = ["read_json"]

_NESTING_MAX = 200
"""Records nest four deep; more is an attack on the stack."""

_INT_MAX = (1 << 63) - 1
_JUNK_BYTES = 32
_CUT_SHORT = "Unexpected end of input"

_FLOAT = re.compile(rb"-?(?:0|[1-9][0-9]*|[0-9])(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_INT = re.compile(rb"-?(?:[1-9][0-9]*|[0-9])")
_NAME = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")
_PLAIN = re.compile(rb'[^"\\]+')
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")
_LOW = re.compile(rb"\\u([0-9A-Fa-f]{4})")
_WORDS: dict[bytes, object] = {
    b"-Infinity": float("-inf"),
    b"Infinity": float("inf"),
    b"NaN": float("nan"),
    b"false": False,
    b"null": None,
    b"true": True,
}
_ESCAPES = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}


def read_json(body: bytes) -> object:
    """Return the value of a JSON text. ``MalformedCall`` when it is none."""
    if b"\\u" not in body:
        try:
            return _checked(json.loads(body.decode(), object_pairs_hook=_unambiguous))
        except (ValueError, RecursionError):
            pass  # to be told by the pool's own parser
    return _Reader(body).whole()


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object; ``ValueError`` when it has a name twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(pairs)
    return value


def _checked(value: object) -> object:
    """Return the value when every whole number in it fits the pool; ``ValueError`` otherwise."""
    match value:
        case bool():
            pass
        case int():
            if not -_INT_MAX - 1 <= value <= _INT_MAX:
                raise ValueError(value)
        case list():
            for item in value:
                _checked(item)
        case dict():
            for item in value.values():
                _checked(item)
    return value


class _Reader:
    """A text and a place in it; ``start`` and ``end`` are those of the last token."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._start = self._end = 0
        self._line, self._line_start = 1, 0
        self._depth = 0

    def whole(self) -> object:
        self._space()
        if self._end >= len(self._body):
            raise MalformedCall('Yojson__Common.Json_error("Blank input data")')
        value = self._value()
        self._space()
        if self._end < len(self._body):
            self._token(0)
            self._fail_junk("Junk after end of JSON value:")
        return value

    # -- places and failures

    def _token(self, length_bytes: int) -> bytes:
        self._start, self._end = self._end, min(len(self._body), self._end + length_bytes)
        return self._body[self._start : self._end]

    def _fail(self, text: str) -> NoReturn:
        first = self._start - self._line_start - 1
        last = max(first, self._end - self._line_start)
        place = f"byte {first}" if first == last else f"bytes {first}-{last}"
        told = f"Line {self._line}, {place}:\n{text}"
        raise MalformedCall(f"Yojson__Common.Json_error({quoted(told)})")

    def _fail_junk(self, text: str) -> NoReturn:
        """Fail at the last token, showing it and a little of what follows."""
        junk = self._body[self._start : self._end + _JUNK_BYTES].decode("utf-8", "surrogateescape")
        # Whether more follows is only seen by reading one byte further, which the place then tells.
        self._start, self._end = self._start + 1, min(len(self._body), self._end + _JUNK_BYTES + 1)
        self._fail(f"{text} '{junk}'")

    def _expect(self, wanted: bytes, text: str) -> bytes:
        if self._end >= len(self._body):
            self._token(0)
            self._fail(_CUT_SHORT)
        found = self._token(1)
        if found not in wanted:
            self._fail_junk(text)
        return found

    # -- grammar

    def _space(self) -> None:
        body = self._body
        while self._end < len(body):
            here = body[self._end : self._end + 2]
            if here[:1] == b"\n":
                self._token(1)
                self._line, self._line_start = self._line + 1, self._end
            elif here[:1] in b" \t\r":
                self._token(1)
            elif here == b"//":
                line_end = body.find(b"\n", self._end)
                self._token((line_end if line_end >= 0 else len(body)) - self._end)
            elif here == b"/*":
                self._comment()
            else:
                break
        self._token(0)

    def _comment(self) -> None:
        end = self._body.find(b"*/", self._end + 2)
        text = self._body[self._end : end if end >= 0 else len(self._body)]
        if b"\n" in text:
            self._line += text.count(b"\n")
            self._line_start = self._end + text.rindex(b"\n") + 1
        self._token(len(text) + 2)
        if end < 0:
            self._token(0)
            self._fail_junk("Unterminated comment")

    def _value(self) -> object:
        self._space()
        if self._end >= len(self._body):
            self._fail(_CUT_SHORT)
        for word, value in _WORDS.items():
            if self._body.startswith(word, self._end):
                self._token(len(word))
                return value
        number = _FLOAT.match(self._body, self._end)
        if number:
            return float(self._token(len(number[0])))
        number = _INT.match(self._body, self._end)
        if number:
            return self._whole_number(self._token(len(number[0])))
        first = self._token(1)
        if first == b'"':
            return self._string()
        if first not in b"{[":
            self._fail_junk("Invalid token")
        return self._nested(is_object=first == b"{")

    def _nested(self, *, is_object: bool) -> object:
        self._depth += 1
        if self._depth > _NESTING_MAX:
            raise MalformedCall("Stack_overflow")
        value = self._object() if is_object else self._array()
        self._depth -= 1
        return value

    @staticmethod
    def _whole_number(text: bytes) -> int:
        number = int(text)
        if not -_INT_MAX - 1 <= number <= _INT_MAX:
            raise MalformedCall('Failure("Int64.of_string")')
        return number

    def _object(self) -> dict[str, object]:
        pairs: list[tuple[str, object]] = []
        self._space()
        if self._body[self._end : self._end + 1] == b"}":
            self._token(1)
            return {}
        while True:
            name = self._name()
            self._space()
            self._expect(b":", "Expected ':' but found")
            pairs.append((name, self._value()))
            self._space()
            if self._expect(b",}", "Expected ',' or '}' but found") == b"}":
                # Of the parts of a call the pool takes the first of a name, of a map's entries the last.
                return dict(reversed(pairs) if self._depth == 1 else pairs)
            self._space()

    def _name(self) -> str:
        bare = _NAME.match(self._body, self._end)
        if bare:
            return self._token(len(bare[0])).decode()
        self._expect(b'"', "Expected string or identifier but found")
        return self._string()

    def _array(self) -> list[object]:
        items: list[object] = []
        self._space()
        if self._body[self._end : self._end + 1] == b"]":
            self._token(1)
            return items
        while True:
            items.append(self._value())
            self._space()
            if self._expect(b",]", "Expected ',' or ']' but found") == b"]":
                return items

    def _string(self) -> str:
        parts: list[str] = []
        while True:
            plain = _PLAIN.match(self._body, self._end)
            if plain:
                parts.append(self._token(len(plain[0])).decode("utf-8", "surrogateescape"))
            if self._end >= len(self._body):
                self._token(0)
                self._fail(_CUT_SHORT)
            if self._token(1) == b'"':
                return "".join(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        if self._end >= len(self._body):
            self._token(0)
            self._fail(_CUT_SHORT)
        digits = _HEX.match(self._body, self._end + 1)
        if self._body[self._end : self._end + 1] == b"u" and digits:
            self._token(5)
            return self._code(int(digits[0], 16))
        character = self._token(1)
        if character not in _ESCAPES:
            self._fail_junk("Invalid escape sequence")
        return _ESCAPES[character]

    def _code(self, high: int) -> str:
        if not 0xD800 <= high <= 0xDBFF:
            return chr(high)
        if self._end >= len(self._body):
            self._token(0)
            self._fail(_CUT_SHORT)
        low = _LOW.match(self._body, self._end)
        if low is None:
            self._token(1)
            self._fail_junk("Missing escape sequence representing low surrogate for code point beyond U+FFFF")
        self._token(6)
        number = int(low[1], 16)
        if not 0xDC00 <= number <= 0xDFFF:
            self._fail_junk("Invalid low surrogate for code point beyond U+FFFF")
        return chr(0x10000 + ((high - 0xD800) << 10) + (number - 0xDC00))
