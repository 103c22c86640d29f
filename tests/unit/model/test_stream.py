"""Runs and extents keep the seam's invariants: block borders, positive lengths, nothing shared by accident."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.core import BLOCK_BYTES
from holdfast.model import Coverage, DataRun, Extent, ZeroRun


def test_an_extent_ends_where_the_next_byte_begins() -> None:
    assert Extent(offset_bytes=BLOCK_BYTES, length_bytes=512).end_bytes == BLOCK_BYTES + 512


@pytest.mark.parametrize(("offset_bytes", "length_bytes"), [(-1, 1), (0, 0), (0, -5)])
def test_an_extent_that_is_no_range_is_our_mistake(offset_bytes: int, length_bytes: int) -> None:
    with pytest.raises(AssertionError):
        Extent(offset_bytes=offset_bytes, length_bytes=length_bytes)


@pytest.mark.parametrize("offset_bytes", [1, 512, BLOCK_BYTES - 1, BLOCK_BYTES + 4096])
def test_a_run_starts_on_a_block_border(offset_bytes: int) -> None:
    with pytest.raises(AssertionError):
        DataRun(offset_bytes, b"x")
    with pytest.raises(AssertionError):
        ZeroRun(offset_bytes, BLOCK_BYTES)


def test_a_zero_run_is_never_empty() -> None:
    with pytest.raises(AssertionError):
        ZeroRun(0, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_data_run_is_as_long_as_its_bytes_whatever_holds_them(
    kind: type[bytes] | type[bytearray] | type[memoryview],
) -> None:
    assert DataRun(3 * BLOCK_BYTES, kind(bytes(700))).length_bytes == 700


def test_a_data_run_hands_on_the_buffer_without_a_copy() -> None:
    buffer = bytearray(BLOCK_BYTES)
    assert DataRun(0, buffer).data is buffer


def test_runs_and_extents_cannot_be_changed() -> None:
    for value in (DataRun(0, b"x"), ZeroRun(0, 1), Extent(offset_bytes=0, length_bytes=1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, "offset_bytes", 0)  # noqa: B010 - an assignment would not pass the type check, as it should


def test_coverage_has_the_two_meanings_a_gap_can_have() -> None:
    assert {each.value for each in Coverage} == {"whole", "changes"}
