"""What was found out about a store, in words that say what it means for the data there."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Severity"]


class Severity(enum.Enum):
    """What a finding asks of its reader."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    RISK = "data at risk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found out."""

    name: str
    severity: Severity
    seen: str
    meaning: str
    """For the data that is or would be stored there."""
