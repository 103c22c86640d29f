"""The flow that turns VMs of a pool into restore points."""

from holdfast.backup.flow import BACKUP_KIND, BackupFlow
from holdfast.backup.outcome import BackupArgs, BackupResult, DiskResult, NoPointMade, VmResult
from holdfast.backup.plan import BackupPlan, NothingToBackUp, VmPlan, plan_backup
from holdfast.backup.retention import (
    Decision,
    HeldBack,
    KeepInvalid,
    RetentionPlan,
    RetentionResult,
    apply_retention,
    check_keep_points,
    newest_first,
    newest_of,
    plan_retention,
)

__all__ = [
    "BACKUP_KIND",
    "BackupArgs",
    "BackupFlow",
    "BackupPlan",
    "BackupResult",
    "Decision",
    "DiskResult",
    "HeldBack",
    "KeepInvalid",
    "NoPointMade",
    "NothingToBackUp",
    "RetentionPlan",
    "RetentionResult",
    "VmPlan",
    "VmResult",
    "apply_retention",
    "check_keep_points",
    "newest_first",
    "newest_of",
    "plan_backup",
    "plan_retention",
]
