"""The little query language of ``get_all_records_where``: comparisons of fields and literals, and, or, not.

Field names are those of the pool's own database: ``name__label``, not ``name_label``. Everything is compared as the
database spells it, so only exact texts match. ``not`` binds weaker than ``and``, as recorded from a real pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from holdfast.lab.columns import column_of, spell
from holdfast.lab.errors import ApiFailure

__all__ = ["Matcher", "parse_where"]

Matcher = Callable[[Mapping[str, object]], bool]
_Value = Callable[[Mapping[str, object]], str]

_TOKEN = re.compile(r"\s*(?:(?P<word>field|true|false|and|or|not)|(?P<sign>[()=])|\"(?P<text>[^\"]*)\")")
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
        while self._text[position:].strip():
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise ApiFailure("INVALID_VALUE", self._text, 'Failure("lexing: empty token")')
            position = match.end()
            kind = match.lastgroup or ""
            value = match.group(kind)
            tokens.append(("text", value) if kind == "text" else (value, value))
        return [*tokens, ("end", "")]

    def _refuse(self) -> ApiFailure:
        return ApiFailure("INVALID_VALUE", self._text, "Xapi_database.Db_filter_parse.MenhirBasics.Error")

    def peek(self) -> str:
        return self._tokens[self._at][0]

    def expect(self, kind: str) -> str:
        found, value = self._tokens[self._at]
        if found != kind:
            raise self._refuse()
        self._at += 1
        return value

    def expression(self, depth: int) -> Matcher:
        if depth > _NESTING_MAX:
            raise self._refuse()
        if self.peek() == "not":
            self.expect("not")
            inner = self.expression(depth + 1)
            return lambda record: not inner(record)
        left = self._conjunction(depth)
        if self.peek() != "or":
            return left
        self.expect("or")
        right = self.expression(depth + 1)
        return lambda record: left(record) or right(record)

    def _conjunction(self, depth: int) -> Matcher:
        left = self._term(depth)
        if self.peek() != "and":
            return left
        self.expect("and")
        right = self.expression(depth + 1) if self.peek() == "not" else self._conjunction(depth + 1)
        return lambda record: left(record) and right(record)

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
    name = column.replace("__", "_")
    if name not in record or column_of(name, cls=cls) != column:
        raise ApiFailure("INTERNAL_ERROR", "missing field", column, "")
    return spell(record[name])
