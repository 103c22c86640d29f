"""The query language of ``get_all_records_where``: what binds how, and where nonsense is noticed."""

from __future__ import annotations

import pytest

from holdfast.lab.errors import ApiFailure
from holdfast.lab.where import parse_where

_RECORD = {"_ref": "OpaqueRef:1", "name_label": "a", "tags": ["b"]}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("true or true and false", False),
        ("false and true or true", True),
        ("true or not true and false", True),
        ("not true or true", False),
        ("not not true and false", False),
        ("true and not false or false and false", True),
        ("not (false) and false", True),
        ('field"name__label"="a"and\n\t"x"="x"', True),
        ('"a"=field "name__label"', True),
        ('field "_ref"="OpaqueRef:1"', True),
        ('field "tags"="(\'b\')"', True),
    ],
)
def test_and_and_or_bind_alike_and_not_takes_all_that_follows(text: str, matches: bool) -> None:
    assert parse_where(text)(_RECORD) is matches


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Xapi_database.Db_filter_parse.MenhirBasics.Error"),
        ("true true $", "Xapi_database.Db_filter_parse.MenhirBasics.Error"),
        ("not true = true", "Xapi_database.Db_filter_parse.MenhirBasics.Error"),
        ("true $", 'Failure("lexing: empty token")'),
        ("true\r", 'Failure("lexing: empty token")'),
        ('field "a', 'Failure("lexing: empty token")'),
    ],
)
def test_nonsense_is_noticed_where_it_is_read(text: str, reason: str) -> None:
    with pytest.raises(ApiFailure) as caught:
        parse_where(text)
    assert caught.value.description == ["INVALID_VALUE", text, reason]


@pytest.mark.parametrize("name", ["name_label", "Name__label", "nope", "__ref", ""])
def test_a_column_that_the_database_does_not_have_is_missing(name: str) -> None:
    with pytest.raises(ApiFailure) as caught:
        parse_where(f'field "{name}"="a"', cls="VM")(_RECORD)
    assert caught.value.description == ["INTERNAL_ERROR", "missing field", name, ""]
