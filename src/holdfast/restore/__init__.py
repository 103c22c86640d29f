"""The flow that turns a restore point into a VM of a pool."""

from holdfast.restore.flow import (
    RESTORE_KIND,
    RestoreArgs,
    RestoredDisk,
    RestoreFlow,
    RestoreResult,
    fresh_generation_id,
    wishes_of,
)
from holdfast.restore.plan import (
    DiskTarget,
    Fidelity,
    MacPolicy,
    NicTarget,
    NoTargetSr,
    Note,
    RestorePlan,
    RestoreWishes,
    SrTooSmall,
    measure_data,
    plan_restore,
)

__all__ = [
    "RESTORE_KIND",
    "DiskTarget",
    "Fidelity",
    "MacPolicy",
    "NicTarget",
    "NoTargetSr",
    "Note",
    "RestoreArgs",
    "RestoreFlow",
    "RestorePlan",
    "RestoreResult",
    "RestoreWishes",
    "RestoredDisk",
    "SrTooSmall",
    "fresh_generation_id",
    "measure_data",
    "plan_restore",
    "wishes_of",
]
