"""The flow that turns a restore point into a VM of a pool."""

from holdfast.restore.description import DescriptionUnusable, adapt_description
from holdfast.restore.flow import RESTORE_KIND, RestoreFlow, fresh_generation_id
from holdfast.restore.order import RestoreArgs, RestoredDisk, RestoreResult, wishes_of
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
    SrUnsuitable,
    measure_data,
    plan_restore,
)

__all__ = [
    "RESTORE_KIND",
    "DescriptionUnusable",
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
    "SrUnsuitable",
    "adapt_description",
    "fresh_generation_id",
    "measure_data",
    "plan_restore",
    "wishes_of",
]
