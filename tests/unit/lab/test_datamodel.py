"""The lab's own tables of the API against the datamodel of a real pool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.lab.datamodel import ClassTable, Kind, load_access, load_datamodel, parse_type
from holdfast.lab.errors import ApiFailure
from tests.support.golden import golden_path

UNDOCUMENTED = ("Diagnostics",)
"""Classes whose calls a real pool answers without documenting them."""

_ACCESS = {"RW": "rw", "RO/constructor": "new", "RO/runtime": "ro"}


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """The real datamodel by class."""
    return {each["name"]: each for each in json.loads(golden_path("datamodel.json").read_bytes())}


def _documented() -> list[tuple[str, ClassTable]]:
    return [(name, table) for name, table in load_datamodel().classes.items() if name not in UNDOCUMENTED]


def test_every_class_of_a_real_pool_is_there(real: dict[str, Any]) -> None:
    assert set(load_datamodel().classes) == {*real, *UNDOCUMENTED}


def test_every_field_has_the_real_name_type_and_mutability(real: dict[str, Any]) -> None:
    for name, table in _documented():
        ours = [(field.name, field.type.spelling, field.access) for field in table.fields.values()]
        theirs = [(f["name"], f["type"], _ACCESS[f["qualifier"]]) for f in real[name]["fields"]]
        assert ours == theirs, name


def test_a_field_has_a_default_exactly_where_the_real_one_has(real: dict[str, Any]) -> None:
    for name, table in _documented():
        constructed = [field for field in real[name]["fields"] if field["qualifier"] != "RO/runtime"]
        theirs = {field["name"]: field.get("default") is not None for field in constructed}
        ours = {field.name: field.has_default for field in table.fields.values() if field.is_given_at_creation}
        assert ours == theirs, name


def test_every_call_has_the_real_parameters_result_and_role(real: dict[str, Any]) -> None:
    for name, table in _documented():
        theirs = {m["name"]: m for m in real[name]["messages"] if not m["implicit"]}
        listed = {call.name: call for call in table.calls.values() if "hidden" not in call.flags}
        assert set(listed) == set(theirs), name
        for call in listed.values():
            message = theirs[call.name]
            parameters = [p for p in message["params"] if p["type"] != "session ref" or p["name"] != "session_id"]
            assert [(p.name, p.type.spelling, p.is_required) for p in call.parameters] == [
                (p["name"], p["type"], p["required"]) for p in parameters
            ], (name, call.name)
            assert call.result.spelling == message["result"][0], (name, call.name)
            roles = [role for role in message["roles"] if role != "client-cert"]
            assert call.role == (roles[-1] if roles else "none"), (name, call.name)
            assert ("removed" in call.flags) == (message["lifecycle"]["state"] == "Removed_s"), (name, call.name)


def test_what_a_real_pool_has_removed_is_marked_as_removed(real: dict[str, Any]) -> None:
    is_gone = {False: set[str](), True: set[str]()}
    for name, table in _documented():
        removed = "removed" in table.flags
        assert all(m["lifecycle"]["state"] == "Removed_s" for m in real[name]["messages"][:1]) or not removed
        for field in real[name]["fields"]:
            gone = field["lifecycle"]["state"] == "Removed_s"
            assert table.fields[field["name"]].is_removed == gone, (name, field["name"])
            is_gone[gone].add(field["name"])
        for message in real[name]["messages"]:
            if not message["implicit"]:
                gone = message["lifecycle"]["state"] == "Removed_s"
                assert ("removed" in table.calls[message["name"]].flags) == gone, (name, message["name"])
    assert all(is_gone.values())


def test_every_derived_call_needs_the_role_that_it_really_needs(real: dict[str, Any]) -> None:
    for name, each in real.items():
        for message in each["messages"]:
            if message["implicit"]:
                roles = [role for role in message["roles"] if role != "client-cert"]
                assert load_access().role_of_derived(name, message["name"]) == roles[-1], (name, message["name"])


def test_a_client_certificate_opens_what_it_really_opens(real: dict[str, Any]) -> None:
    theirs = {
        f"{name}.{message['name']}"
        for name, each in real.items()
        for message in each["messages"]
        if "client-cert" in message["roles"] and "read-only" not in message["roles"]
    }
    assert load_access().certificate == theirs


def test_every_enumeration_has_the_real_words(real: dict[str, Any]) -> None:
    theirs = {
        enum["name"]: frozenset(value["name"] for value in enum["values"])
        for each in real.values()
        for enum in each["enums"]
    }
    ours = dict(load_datamodel().enums)
    del ours["hello_return"]  # only undocumented calls use it
    assert ours == theirs


def test_every_relation_joins_a_reference_with_a_set_on_the_other_side() -> None:
    datamodel = load_datamodel()
    for (cls, name), (other, set_name) in datamodel.relations.items():
        source, target = datamodel.classes[cls].fields[name].type, datamodel.classes[other].fields[set_name].type
        assert target.kind is Kind.SET
        assert target.item is not None
        assert target.item.name == cls
        assert (source.item.name if source.item else source.name) == other


def test_a_type_is_read_from_its_spelling() -> None:
    type_ = parse_type("(VM ref -> (string -> string) map) map")
    assert type_.kind is Kind.MAP
    assert type_.key == parse_type("VM ref")
    assert type_.item == parse_type("(string -> string) map")


@pytest.mark.parametrize(
    ("spelling", "value", "text"),
    [
        ("bool", "yes", "Expected bool, got 'S(yes)'"),
        ("int", "abc", "Int64.of_string"),
        ("int", "9223372036854775808", "Int64.of_string"),
        ("string", 5, "Expected string, got 'I(5)'"),
        ("string", {"a": True}, "Expected string, got '{a:B(true)}'"),
        ("string set", "pool", "Expecting Rpc.Enum, but found 'S(pool)'"),
        ("(string -> string) map", [], "Expecting Rpc.Dict, but found '[]'"),
        ("enum vdi_type", "nope", "Unknown tag/contents"),
        ("float", True, "Expected float, got 'B(true)'"),
        ("float", "1 ", "float_of_string"),
        ("bool", "\u00e9\t", r"Expected bool, got 'S(\195\169\t)'"),
    ],
)
def test_a_value_that_does_not_fit_fails_in_the_pools_words(spelling: str, value: object, text: str) -> None:
    with pytest.raises(ApiFailure) as caught:
        parse_type(spelling).accept(value, load_datamodel().enums)
    assert caught.value.description == ["INTERNAL_ERROR", f'Failure("{text}")']


@pytest.mark.parametrize(
    ("spelling", "value", "kept"),
    [
        ("int", "8388608", 8388608),
        ("int", "0x10", 16),
        ("float", "0.5", 0.5),
        ("float", " 0x1_0", 16.0),
        ("datetime", "20200101T00:00:60Z", "20200101T00:01:00Z"),
        ("datetime", "2020-01-01T00:00:00", "20200101T00:00:00Z"),
        ("string set", ["a", "a"], ["a", "a"]),
        ("(string -> int) map", {"a": "1"}, {"a": 1}),
        ("enum on_boot", "reset", "reset"),
    ],
)
def test_a_value_is_kept_as_its_type_says(spelling: str, value: object, kept: object) -> None:
    assert parse_type(spelling).accept(value, load_datamodel().enums) == kept


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (
            "20200101T000000Z",
            r"""Stdlib.Scanf.Scan_failure("scanf: bad input at char number 11: looking for ':', found '0'")""",
        ),
        (
            "202001Z",
            """Stdlib.Scanf.Scan_failure("scanf: bad input at char number 6: character 'Z' is not a decimal digit")""",
        ),
        ("20201301T00:00:00Z", "Invalid argument: Clock__Date.of_iso8601.(fun): 20201301T00:00:00Z"),
        ("2020Z", "Invalid argument: Clock__Date.of_iso8601: 2020Z"),
    ],
)
def test_a_time_that_is_none_fails_where_a_pool_stops_reading(text: str, failure: str) -> None:
    with pytest.raises(ApiFailure) as caught:
        parse_type("datetime").accept(text, {})
    assert caught.value.description == ["INTERNAL_ERROR", failure]
