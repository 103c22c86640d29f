"""The little query language of ``get_all_records_where``: comparisons of fields and literals, and, or, not.

Field names are those of the pool's own database: ``name__label``, not ``name_label``. Everything is compared as the
database spells it, so only exact texts match. ``and`` and ``or`` bind alike, from the left; ``not`` takes all that
follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from holdfast.lab.columns import column_of, spell
from holdfast.lab.errors import ApiFailure

__all__ = ["REFERENCE_COLUMN", "Matcher", "parse_where"]

Matcher = Callable[[Mapping[str, object]], bool]
_Value = Callable[[Mapping[str, object]], str]

REFERENCE_COLUMN = "_ref"
"""The name of an object's own reference, which is no field of its record."""

_TOKEN = re.compile(r"[ \t\n]*(?:(?P<word>field|true|false|and|or|not)|(?P<sign>[()=])|\"(?P<text>[^\"]*)\")")
_NESTING_MAX = 100
"""A deeper expression is an attack on the stack."""


def parse_where(text: str, *, cls: str = "") -> Matcher:
    """Return what tells whether a record of the class matches. ``INVALID_VALUE`` when the expression is none."""
    parser = _Parser(text, cls)
    matcher = parser.expression(0)
    parser.expect("end")
    return matcher


class _Parser:
    def __init__(self, text: str, cls: str) -> None:
        self._text = text
        self._cls = cls
        self._tokens = self._split()
        self._at = 0

    def _split(self) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        position = 0
        while self._text[position:].strip(" \t\n"):
            match = _TOKEN.match(self._text, position)
            if match is None:
                return [*tokens, ("", "")]
            position = match.end()
            kind = match.lastgroup or ""
            value = match.group(kind)
            tokens.append(("text", value) if kind == "text" else (value, value))
        return [*tokens, ("end", "")]

    def _refuse(self) -> ApiFailure:
        return ApiFailure("INVALID_VALUE", self._text, "Xapi_database.Db_filter_parse.MenhirBasics.Error")

    def peek(self) -> str:
        kind = self._tokens[self._at][0]
        if not kind:
            raise ApiFailure("INVALID_VALUE", self._text, 'Failure("lexing: empty token")')
        return kind

    def expect(self, kind: str) -> str:
        if self.peek() != kind:
            raise self._refuse()
        self._at += 1
        return self._tokens[self._at - 1][1]

    def expression(self, depth: int) -> Matcher:
        if depth > _NESTING_MAX:
            raise self._refuse()
        matcher = self._operand(depth)
        while self.peek() in ("and", "or"):
            matcher = self._joined(matcher, self.expect(self.peek()), depth)
        return matcher

    def _operand(self, depth: int) -> Matcher:
        if self.peek() != "not":
            return self._term(depth)
        self.expect("not")
        inner = self.expression(depth + 1)
        return lambda record: not inner(record)

    def _joined(self, left: Matcher, sign: str, depth: int) -> Matcher:
        right = self._operand(depth)
        if sign == "and":
            return lambda record: left(record) and right(record)
        return lambda record: left(record) or right(record)

    def _term(self, depth: int) -> Matcher:
        kind = self.peek()
        if kind == "(":
            self.expect("(")
            inner = self.expression(depth + 1)
            self.expect(")")
            return inner
        if kind in ("true", "false"):
            self.expect(kind)
            return lambda record: kind == "true"
        left = self._value()
        self.expect("=")
        right = self._value()
        return lambda record: left(record) == right(record)

    def _value(self) -> _Value:
        if self.peek() == "field":
            self.expect("field")
            column = self.expect("text")
            return lambda record: _read_column(record, column, self._cls)
        literal = self.expect("text")
        return lambda record: literal


def _read_column(record: Mapping[str, object], column: str, cls: str) -> str:
    if column == REFERENCE_COLUMN and column in record:
        return str(record[REFERENCE_COLUMN])
    name = column.replace("__", "_")
    if name not in record or column_of(name, cls=cls) != column:
        raise ApiFailure("INTERNAL_ERROR", "missing field", column, "")
    return spell(record[name])
