"""Budgets on the command line: how much, or for how long, something may work."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.core import GIB, KIB, MIB, TIB, ExitStatus, HoldfastError

__all__ = ["Budget", "BudgetInvalid", "parse_budget"]

_BUDGET = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(KiB|MiB|GiB|TiB|s|min|h)")
_BYTES = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class BudgetInvalid(HoldfastError):
    """A text is not a budget."""

    code = "cli.budget-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was done."
    advice = "Write for example 50GiB or 20min."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a budget")


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on bytes or on time; None is no bound."""

    length_bytes: int | None = None
    duration_s: float | None = None


def parse_budget(text: str | None) -> Budget:
    """Return the budget that a text names; without a text there is no bound. ``BudgetInvalid``."""
    if text is None:
        return Budget()
    found = _BUDGET.fullmatch(text.strip())
    if found is None:
        raise BudgetInvalid(text)
    number, unit = float(found[1]), found[2]
    if unit in _BYTES:
        return Budget(length_bytes=round(number * _BYTES[unit]))
    return Budget(duration_s=number * _SECONDS[unit])
