"""Amounts on the command line, in the units that people write: how much something may do, how fast, for how long."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.core import ExitStatus, HoldfastError

__all__ = ["Budget", "BudgetInvalid", "RateInvalid", "parse_budget", "parse_rate"]

_NUMBER = r"(\d{1,9}(?:\.\d{1,3})?) ?"
_SIZE = re.compile(_NUMBER + r"(?:([kKMGT])(i?))?(B|bit)?")
_DURATION = re.compile(_NUMBER + r"(s|min|h)")
_PREFIXES = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_OFF = "off"


class BudgetInvalid(HoldfastError):
    """A text is not a budget."""

    code = "cli.budget-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was done."
    advice = "Write for example 50GiB, 50GB or 20min."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a budget")


class RateInvalid(HoldfastError):
    """A text is not a rate."""

    code = "cli.rate-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Write for example 20MB, 1.5MiB or 100Mbit (each per second), or 'off' for no limit."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a rate")


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on bytes or on time; None is no bound."""

    length_bytes: int | None = None
    duration_s: float | None = None


def parse_budget(text: str | None) -> Budget:
    """Return the budget that a text names; without a text there is no bound. ``BudgetInvalid``."""
    if text is None:
        return Budget()
    duration = _DURATION.fullmatch(text.strip())
    if duration is not None:
        return Budget(duration_s=float(duration[1]) * _SECONDS[duration[2]])
    size = _SIZE.fullmatch(text.strip())
    # A number without a unit could mean bytes or seconds.
    if size is None or size[4] != "B":
        raise BudgetInvalid(text)
    return Budget(length_bytes=round(_bytes(size)))


def parse_rate(text: str) -> int | None:
    """Return bytes per second, None for ``off``; ``RateInvalid`` when the text is no rate."""
    if text.strip().lower() == _OFF:
        return None
    size = _SIZE.fullmatch(text.strip().removesuffix("/s"))
    bytes_per_s = 0 if size is None else int(_bytes(size))
    if bytes_per_s < 1:
        raise RateInvalid(text)
    return bytes_per_s


def _bytes(found: re.Match[str]) -> float:
    number, prefix, binary, unit = found.groups()
    factor: int = (1024 if binary else 1000) ** _PREFIXES[prefix or ""]
    return float(number) * factor / (8 if unit == "bit" else 1)
