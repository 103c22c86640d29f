"""Budgets are read in the units that people write, and anything else is refused."""

from __future__ import annotations

import pytest

from holdfast.cli.budget import Budget, BudgetInvalid, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (None, Budget()),
        ("50GiB", Budget(length_bytes=50 << 30)),
        ("1.5 MiB", Budget(length_bytes=1_572_864)),
        ("20min", Budget(duration_s=1200.0)),
        ("90s", Budget(duration_s=90.0)),
        ("0.5h", Budget(duration_s=1800.0)),
    ],
)
def test_bytes_and_durations_are_told_by_their_units(text: str | None, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "20", "GiB", "-5min", "5 parsecs", "1e3s", "20min please"])
def test_a_text_that_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetInvalid, match="is not a budget"):
        parse_budget(text)
