"""Bringing back what a restore point holds: a VM on a pool, or a disk in a file."""

from holdfast.restore.description import DescriptionUnusable, adapt_description
from holdfast.restore.disk_image import FormatUnknown, ImageFormat, format_of, write_image, write_raw
from holdfast.restore.disk_restore import RestoredFile, find_disk, restore_disk
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
    "FormatUnknown",
    "ImageFormat",
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
    "RestoredFile",
    "SrTooSmall",
    "SrUnsuitable",
    "adapt_description",
    "find_disk",
    "format_of",
    "fresh_generation_id",
    "measure_data",
    "plan_restore",
    "restore_disk",
    "wishes_of",
    "write_image",
    "write_raw",
]
