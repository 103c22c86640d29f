"""Budgets and rates are read in the units that people write, and anything else is refused."""

from __future__ import annotations

import pytest

from holdfast.cli.amounts import Budget, BudgetInvalid, RateInvalid, parse_budget, parse_rate


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (None, Budget()),
        ("50GiB", Budget(length_bytes=50 << 30)),
        ("1.5 MiB", Budget(length_bytes=1_572_864)),
        ("50GB", Budget(length_bytes=50 * 10**9)),
        ("2 KB", Budget(length_bytes=2000)),
        ("20min", Budget(duration_s=1200.0)),
        ("90s", Budget(duration_s=90.0)),
        ("0.5h", Budget(duration_s=1800.0)),
    ],
)
def test_bytes_and_durations_are_told_by_their_units(text: str | None, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "20", "GiB", "-5min", "5 parsecs", "5G", "5Gbit", "1e3s", "20min please"])
def test_a_text_that_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetInvalid, match="is not a budget"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("20MB", 20_000_000),
        ("1.5MiB/s", 1_572_864),
        ("100Mbit", 12_500_000),
        ("9 k", 9000),
        ("800", 800),
        ("Off", None),
    ],
)
def test_a_rate_may_be_in_bytes_or_bits(text: str, bytes_per_s: int) -> None:
    assert parse_rate(text) == bytes_per_s


def test_off_is_no_limit() -> None:
    assert parse_rate("Off") is None


@pytest.mark.parametrize("text", ["", "fast", "0", "0.1", "5TBit", "1e9", "MB", "-1MB", "20min"])
def test_a_text_that_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(RateInvalid, match="is not a rate"):
        parse_rate(text)
