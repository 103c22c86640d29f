"""XAPI's records are read with types, and a field in another form is named."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from holdfast.model import JsonObject
from holdfast.xapi import RecordInvalid
from holdfast.xapi.records import flag, integer, moment, position_key, refs, sr_from, strings, text


def test_integers_come_as_digits_or_as_numbers() -> None:
    record: JsonObject = {"a": "8388608", "b": 5, "c": "-1"}
    assert [integer(record, each) for each in "abc"] == [8388608, 5, -1]
    assert integer(record, "absent", 7) == 7


@pytest.mark.parametrize("value", ["", "12x", True, None, 1.5, []])
def test_what_is_no_integer_names_the_field(value: object) -> None:
    with pytest.raises(RecordInvalid, match="virtual_size"):
        integer({"virtual_size": value}, "virtual_size")  # type: ignore[dict-item]


def test_other_types_are_checked_too() -> None:
    for read in (text, flag, strings, refs, moment):
        with pytest.raises(RecordInvalid):
            read({"field": 5}, "field")


@pytest.mark.parametrize("value", ["20261120T08:57:36Z", "2026-11-20T08:57:36Z", "20261120T08:57:36.000Z"])
def test_times_are_read_in_every_form_that_versions_send(value: str) -> None:
    assert moment({"t": value}, "t") == datetime(2026, 11, 20, 8, 57, 36, tzinfo=UTC)


def test_positions_sort_as_people_count() -> None:
    assert sorted(["10", "2", "0", "xvda"], key=position_key) == ["0", "2", "10", "xvda"]


def test_an_sr_supports_cbt_only_with_all_of_its_operations() -> None:
    record: JsonObject = {
        "uuid": "u",
        "name_label": "n",
        "type": "ext",
        "physical_size": "100",
        "physical_utilisation": "130",
        "allowed_operations": ["vdi_enable_cbt", "vdi_list_changed_blocks"],
    }
    assert not sr_from(record).supports_cbt
    record["allowed_operations"] = ["vdi_enable_cbt", "vdi_list_changed_blocks", "vdi_data_destroy"]
    assert sr_from(record).supports_cbt
    assert sr_from(record).free_bytes == 0
