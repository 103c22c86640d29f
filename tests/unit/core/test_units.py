"""Sizes and durations are shown the same way everywhere, and never mislead by a unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, GIB, KIB, MIB, SECTOR_BYTES, TIB, format_bytes, format_duration, format_rate


def test_the_constants_are_powers_of_1024_and_a_block_holds_whole_sectors() -> None:
    assert (KIB, MIB, GIB, TIB) == (2**10, 2**20, 2**30, 2**40)
    assert BLOCK_BYTES == 65536
    assert BLOCK_BYTES % SECTOR_BYTES == 0


@pytest.mark.parametrize(
    ("length_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (65536, "64.0 KiB"),
        (150 * KIB, "150 KiB"),
        (int(1.38 * GIB), "1.38 GiB"),
        (4 * GIB, "4.00 GiB"),
        (999 * GIB, "999 GiB"),
        (1000 * GIB, "0.98 TiB"),
        (5000 * 1024 * TIB, "5000 PiB"),
        (-3 * MIB, "-3.00 MiB"),
    ],
)
def test_a_size_has_three_digits_and_a_binary_unit(length_bytes: int, text: str) -> None:
    assert format_bytes(length_bytes) == text


@given(st.integers(min_value=1, max_value=900 * 1024 * TIB))
def test_a_shown_size_is_within_one_percent_of_the_truth(length_bytes: int) -> None:
    number, unit = format_bytes(length_bytes).split(" ")
    factor = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "PiB": 1024 * TIB}[unit]
    assert abs(float(number) * factor - length_bytes) <= length_bytes * 0.01


def test_a_rate_is_a_size_per_second() -> None:
    assert format_rate(412.3 * MIB) == "412 MiB/s"
    assert format_rate(0.0) == "0 B/s"


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0.00 s"),
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (60.0, "1 min 00 s"),
        (245.0, "4 min 05 s"),
        (3 * 3600 + 125, "3 h 02 min"),
        (50 * 3600, "50 h 00 min"),
    ],
)
def test_a_duration_names_its_units(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text
