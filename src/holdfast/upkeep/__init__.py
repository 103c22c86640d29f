"""Keeping house: what runs left on pools is found by the ledger and removed; repositories are mirrored."""

from holdfast.upkeep.mirror import (
    MirrorFailure,
    MirrorPlan,
    MirrorReport,
    MirrorToItself,
    apply_mirror,
    plan_mirror,
)
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
    "MirrorFailure",
    "MirrorPlan",
    "MirrorReport",
    "MirrorToItself",
    "NotASnapshot",
    "SweepReport",
    "apply_mirror",
    "describe_line",
    "lines_to_sweep",
    "plan_cleaning",
    "plan_mirror",
    "remove_line",
    "sweep_ledger",
]
