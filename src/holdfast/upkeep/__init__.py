"""Keeping house: what runs left on pools is found by the ledger and removed."""

from holdfast.upkeep.references import CleaningPlan, DroppedReference, plan_cleaning
from holdfast.upkeep.removal import MarkNotUnique, NotASnapshot, remove_line
from holdfast.upkeep.sweep import (
    NOTHING_SWEPT,
    LeftOnPool,
    SweepReport,
    describe_line,
    lines_to_sweep,
    sweep_ledger,
)

__all__ = [
    "NOTHING_SWEPT",
    "CleaningPlan",
    "DroppedReference",
    "LeftOnPool",
    "MarkNotUnique",
    "NotASnapshot",
    "SweepReport",
    "describe_line",
    "lines_to_sweep",
    "plan_cleaning",
    "remove_line",
    "sweep_ledger",
]
