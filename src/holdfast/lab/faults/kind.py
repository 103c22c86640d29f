"""What a fault is: its name, its knobs, and whether it waits for its place, lasts until cleared, or happens at once."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["FaultKind", "FaultManner", "Value"]

Value = str | int | float | bool


class FaultManner(enum.Enum):
    """When a fault happens."""

    WAITS = "waits"
    """The next times its place is reached, as often as it was told."""
    LASTS = "lasts"
    """From now on until it is cleared: a state of the pool."""
    AT_ONCE = "at once"
    """Now, and it is over: an accident."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One way to fail. ``parameters`` are its knobs with their defaults; an empty string matches everything."""

    name: str
    summary: str
    parameters: dict[str, Value] = field(default_factory=dict)
    manner: FaultManner = FaultManner.WAITS
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Parameters that are one of a few words."""
