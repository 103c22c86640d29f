"""The two call wires: what is read, what is written, and how nonsense is refused."""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.lab.datamodel import DateTime
from holdfast.lab.rpc import MalformedCall, json_rpc, parse_value, write_value, xml_rpc

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_VALUES = st.recursive(
    st.one_of(st.booleans(), st.floats(allow_nan=False, allow_infinity=False), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=12,
)


def _call(value: str) -> bytes:
    return f"<methodCall><methodName>m</methodName><params><param>{value}</param></params></methodCall>".encode()


@given(_VALUES)
def test_what_is_written_as_xml_is_read_back_equal(value: object) -> None:
    assert parse_value(write_value(value).encode()) == value


@given(_VALUES)
def test_the_standard_librarys_client_is_understood(value: Any) -> None:
    body = xmlrpc.client.dumps((value,), "VM.x").encode()
    assert xml_rpc.parse_call(body) == ("VM.x", [value])


def test_values_are_written_as_a_pool_writes_them() -> None:
    assert write_value(5) == "<value>5</value>"
    assert write_value("a<b") == "<value>a&lt;b</value>"
    assert write_value(True) == "<value><boolean>1</boolean></value>"
    assert write_value(DateTime("20260101T00:00:00Z")) == (
        "<value><dateTime.iso8601>20260101T00:00:00Z</dateTime.iso8601></value>"
    )
    assert write_value([]) == "<value><array><data></data></array></value>"


def test_strings_are_taken_with_and_without_a_tag_and_numbers_in_every_dress() -> None:
    assert xml_rpc.parse_call(_call("<value>x</value>"))[1] == ["x"]
    assert xml_rpc.parse_call(_call("<value><string>x</string></value>"))[1] == ["x"]
    assert xml_rpc.parse_call(_call("<value><i4>7</i4></value>"))[1] == [7]
    assert xml_rpc.parse_call(_call("<value> <double>0.5</double> </value>"))[1] == [0.5]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<foo", 'Xmlm.Error(1:5, "unexpected end of input")'),
        (b"", 'Xmlm.Error(1:1, "unexpected end of input")'),
        (b"hello", 'Xmlm.Error(1:1, "expected root element")'),
        (b"<methodCall></methodCall>", 'Xmlrpc.Parse_error("close_tag", "open_tag", _)'),
        (b"<methodCall><params/></methodCall>", 'Xmlrpc.Parse_error("open_tag(params)", "open_tag(methodName)", _)'),
    ],
)
def test_what_is_no_call_is_refused_in_the_pools_words(body: bytes, text: str) -> None:
    with pytest.raises(MalformedCall) as caught:
        xml_rpc.parse_call(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><methodCall/>",
        _call("<value><array><data>" * 200 + "</data></array></value>" * 200),
        _call("<value><int>five</int></value>"),
        _call("<value><struct><member><value>1</value></member></struct></value>"),
    ],
)
def test_a_hostile_document_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedCall):
        xml_rpc.parse_call(body)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(body: bytes) -> None:
    for parse in (xml_rpc.parse_call, json_rpc.parse_call):
        try:
            parse(body)
        except MalformedCall as refused:
            assert str(refused)


def test_json_answers_repeat_the_version_and_the_id() -> None:
    new = json_rpc.parse_call(b'{"jsonrpc":"2.0","method":"m","params":[],"id":"x"}')
    old = json_rpc.parse_call(b'{"method":"m","params":[],"id":1}')
    assert json_rpc.write_result(new, value=["é"]).decode() == '{"jsonrpc":"2.0","result":["é"],"id":"x"}'
    assert json_rpc.write_result(old, value=1) == b'{"result":1,"error":null,"id":1}'
    assert json.loads(json_rpc.write_result(new, failure=["A", "b"]))["error"] == {
        "code": 1,
        "message": "A",
        "data": ["b"],
    }
    assert json_rpc.write_result(old, failure=["A", "b"]) == b'{"result":null,"error":["A","b"],"id":1}'


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'""', b'{"method":"m"}', b'{"method":"m","id":null}', b'{"method":"m","id":1.5}', b'{"id":3}'],
)
def test_what_is_no_json_call_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedCall):
        json_rpc.parse_call(body)
