"""The two call wires: what is read, what is written, and how nonsense is refused."""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.lab.datamodel import DateTime, SmallInt
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rpc import MalformedCall, json_rpc, parse_value, write_value, xml_rpc

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)
"""A pool does not read a struct whose member has no name."""

_FLOATS = st.integers(-(10**12), 10**12).map(lambda number: number / 8)
"""A pool writes sixteen digits."""

_VALUES = st.recursive(
    st.one_of(st.booleans(), _FLOATS, _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=4)),
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
    assert write_value('a<"b\x01') == "<value>a&lt;&quot;b</value>"
    assert write_value(1.0) == "<value><double>1</double></value>"
    assert write_value(b"x") == "<value><base64>eA==</base64></value>"
    assert write_value(True) == "<value><boolean>1</boolean></value>"
    assert write_value(DateTime("20260101T00:00:00Z")) == (
        "<value><dateTime.iso8601>20260101T00:00:00Z</dateTime.iso8601></value>"
    )
    assert write_value({"vm": SmallInt(5)}) == (
        "<value><struct><member><name>vm</name><value><i4>5</i4></value></member></struct></value>"
    )
    assert write_value([]) == "<value><array><data></data></array></value>"


def test_strings_are_taken_with_and_without_a_tag_and_numbers_in_every_dress() -> None:
    assert xml_rpc.parse_call(_call("<value>x</value>"))[1] == ["x"]
    assert xml_rpc.parse_call(_call("<value><string>x</string></value>"))[1] == ["x"]
    assert xml_rpc.parse_call(_call("<value><i4>7</i4></value>"))[1] == [7]
    assert xml_rpc.parse_call(_call("<value> <double>0.5</double> </value>"))[1] == [0.5]


_UNSAID = "int/i8/i4/boolean/double/string/dateTime.iso8601/array/struct/nil"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<foo", 'Xmlm.Error(1:5, "unexpected end of input")'),
        (b"", 'Xmlm.Error(1:1, "unexpected end of input")'),
        (b"hello", 'Xmlm.Error(1:1, "expected root element")'),
        (
            b"<methodCall>\n<methodName></c>",
            'Xmlm.Error(2:16, "expected one of these character sequence: "methodName", found "c"")',
        ),
        (b"<a>&nope;</a>", 'Xmlm.Error(1:10, "unknown entity reference (nope)")'),
        (b"<a>&#1;</a>", 'Xmlm.Error(1:8, "illegal character reference (#1)")'),
        (b"<a>\x01</a>", 'Xmlm.Error(1:4, "malformed character stream")'),
        (b"<a>\xff</a>", 'Xmlm.Error(1:4, "malformed character stream")'),
        (b"<1/>", 'Xmlm.Error(1:2, "character sequence illegal here ("1")")'),
        (b"<methodCall></methodCall>", 'Xmlrpc.Parse_error("close_tag", "open_tag", _)'),
        (b"<foo/>", 'Xmlrpc.Parse_error("open_tag(foo)", "open_tag(methodCall)", _)'),
        (b"<methodCall><params/></methodCall>", 'Xmlrpc.Parse_error("open_tag(params)", "open_tag(methodName)", _)'),
        (b"<methodCall><methodName>m</methodName></methodCall>", 'Xmlrpc.Parse_error("close_tag", "open_tag", _)'),
        (_call("<value><int>five</int></value>"), 'Failure("Int64.of_string")'),
        (_call("<value><int></int></value>"), 'Xmlrpc.Parse_error("empty_int", "int", _)'),
        (_call("<value><odd>5</odd></value>"), f'Xmlrpc.Parse_error("open_tag(odd)", "open_tag({_UNSAID})", _)'),
        (b"<a><ex:nil/></a>", 'Xmlm.Error(1:11, "unknown namespace prefix (ex)")'),
        (b'<a><b c:d="e"/></a>', 'Xmlm.Error(1:14, "unknown namespace prefix (c)")'),
        (_call("<value><base64>###</base64></value>"), 'Invalid_argument("Wrong padding")'),
        (_call("<value><base64>aGVs#</base64></value>"), 'Invalid_argument("Wrong padding")'),
        (_call("<value><base64>aG=s</base64></value>"), 'Invalid_argument("Malformed input")'),
        (_call("<value>a<int>5</int></value>"), 'Xmlrpc.Parse_error("open_tag(int)", "close_tag(value)", _)'),
        (_call("<string>a</string>"), 'Xmlrpc.Parse_error("open_tag(value)", "open_tag(string)", _)'),
    ],
)
def test_what_is_no_call_is_refused_in_the_pools_words(body: bytes, text: str) -> None:
    with pytest.raises(MalformedCall) as caught:
        xml_rpc.parse_call(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("<value/>", ""),
        ("<value><string/></value>", ""),
        ("<value><array/></value>", []),
        ("<value> <nil/> </value>", None),
        ("<value><i8>0x10</i8></value>", 16),
        ("<value><boolean>true</boolean></value>", False),
        ("<value><base64>eHk=</base64></value>", b"xy"),
        ("<value><![CDATA[<&>]]></value>", "<&>"),
        ("<value>a<!-- x -->b</value>", "ab"),
        ("<value>&#x41;</value>", "A"),
        ("<value><base64>a===</base64></value>", b""),
        ('<value><string xmlns:p="x" p:q="y">a</string></value>', "a"),
        ("<value><xml:nil/></value>", None),
    ],
)
def test_a_value_is_read_in_every_dress_that_a_pool_knows(body: str, value: object) -> None:
    assert xml_rpc.parse_call(_call(body))[1] == [value]


@pytest.mark.parametrize(
    "body", [_call("<value>x</value>") + b"garbage <&", b"<!DOCTYPE x>" + _call("<value>x</value>")]
)
def test_an_odd_document_is_read_as_far_as_a_pool_reads_it(body: bytes) -> None:
    assert xml_rpc.parse_call(body) == ("m", ["x"])


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><methodCall><methodName>&a;</methodName></methodCall>",
        _call("<value><array><data>" * 200 + "</data></array></value>" * 200),
        b"<!DOCTYPE " + b"<" * 10_000,
        b"<a" * 10_000,
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


_MALFORMED = "Jsonrpc.Malformed_method_request"
_JUNK = r"""Yojson__Common.Json_error("Line 1, bytes 1-{last}:\nJunk after end of JSON value: '{junk}'")"""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", r'Yojson__Common.Json_error("Line 1, bytes 0-1:\nUnexpected end of input")'),
        (b"", 'Yojson__Common.Json_error("Blank input data")'),
        (b" \n ", 'Yojson__Common.Json_error("Blank input data")'),
        (b"hello", r"""Yojson__Common.Json_error("Line 1, bytes 0-5:\nInvalid token 'hello'")"""),
        (b'{"a":}', r"""Yojson__Common.Json_error("Line 1, bytes 5-6:\nInvalid token '}'")"""),
        (b'{"a" 1}', r"""Yojson__Common.Json_error("Line 1, bytes 5-7:\nExpected ':' but found '1}'")"""),
        (b"[1,\n \x01]", r"""Yojson__Common.Json_error("Line 2, bytes 1-3:\nInvalid token '\001]'")"""),
        (b"\xef\xbb\xbf{}", r"""Yojson__Common.Json_error("Line 1, bytes 0-5:\nInvalid token '\239\187\191{}'")"""),
        (b"1" + b"y" * 40, _JUNK.format(last=34, junk="y" * 32)),
        (b"1" + b"y" * 32, _JUNK.format(last=33, junk="y" * 32)),
        (b"/* a", r"""Yojson__Common.Json_error("Line 1, byte 4:\nUnterminated comment ''")"""),
        (b"{} x", r"""Yojson__Common.Json_error("Line 1, bytes 3-4:\nJunk after end of JSON value: 'x'")"""),
        (b'{\n"a', r'Yojson__Common.Json_error("Line 2, bytes 1-2:\nUnexpected end of input")'),
        (b"[]", f'{_MALFORMED}("Invalid request body")'),
        (b'""', f'{_MALFORMED}("Invalid request body")'),
        (b'{"id":3}', f'{_MALFORMED}("Required field method is missing")'),
        (b'{"method":5,"id":3}', f"""{_MALFORMED}("Invalid field 'method' in request body")"""),
        (b'{"method":"m","id":3}', f'{_MALFORMED}("Required field params is missing")'),
        (b'{"method":"m","params":{},"id":3}', f"""{_MALFORMED}("Invalid field 'params' in request body")"""),
        (b'{"jsonrpc":"1.0","method":"m"}', f"""{_MALFORMED}("Invalid field 'jsonrpc' in request body")"""),
        (b'{"jsonrpc":"2.0","method":"m"}', f"""{_MALFORMED}("Invalid field 'id' in request body")"""),
        (b'{"jsonrpc":"2.0","method":"m","id":null}', f"""{_MALFORMED}("Invalid field 'id' in request body")"""),
        (b'{"jsonrpc":"2.0","method":"m","id":1.5}', f"""{_MALFORMED}("Invalid field 'id' in request body")"""),
        (b'{"method":"m","params":[99999999999999999999],"id":3}', 'Failure("Int64.of_string")'),
    ],
)
def test_what_is_no_json_call_is_refused_in_the_pools_words(body: bytes, text: str) -> None:
    with pytest.raises(MalformedCall) as caught:
        json_rpc.parse_call(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        (b'{"jsonrpc":"2.0","method":"m","id":1}', []),
        (b'{"jsonrpc":"2.0","method":"m","params":null,"id":1}', []),
        (b'{"jsonrpc":"2.0","method":"m","params":{"a":1},"id":1}', [{"a": 1}]),
        (b'// said\n{method:"m",/* so */"params":["a\nb\\u00e9"],"id":1}', ["a\nb\u00e9"]),
        (b'{"method":"m","params":["\\ud83d\\ude00"],"id":1}', ["\U0001f600"]),
        (b'{"params":[{"a":"b","a":"c"}],"method":"m","params":[],"id":1}', [{"a": "c"}]),
    ],
)
def test_a_json_call_is_taken_as_loosely_as_a_pool_takes_it(body: bytes, parameters: list[object]) -> None:
    assert json_rpc.parse_call(body).parameters == parameters


def test_text_that_is_no_utf_8_is_refused_before_the_call_is_looked_at() -> None:
    call = json_rpc.parse_call(b'{"method":"m","params":["\xff"],"id":1}')
    with pytest.raises(ApiFailure) as caught:
        call.assert_text()
    assert caught.value.description[:2] == ["INVALID_VALUE", "Invalid UTF-8 string in parameter"]
