"""The flow that turns VMs of a pool into restore points."""

from holdfast.backup.flow import BACKUP_KIND, BackupArgs, BackupFlow, BackupResult, DiskResult, NoPointMade, VmResult
from holdfast.backup.plan import BackupPlan, NothingToBackUp, VmPlan, plan_backup
from holdfast.backup.retention import Decision, RetentionPlan, apply_retention, plan_retention

__all__ = [
    "BACKUP_KIND",
    "BackupArgs",
    "BackupFlow",
    "BackupPlan",
    "BackupResult",
    "Decision",
    "DiskResult",
    "NoPointMade",
    "NothingToBackUp",
    "RetentionPlan",
    "VmPlan",
    "VmResult",
    "apply_retention",
    "plan_backup",
    "plan_retention",
]
