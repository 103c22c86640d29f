"""What a backup run was asked, and what came of it, as its record keeps both."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.core import ExitStatus, HoldfastError
from holdfast.model import ChangeSource

__all__ = ["BackupArgs", "BackupResult", "DiskResult", "NoPointMade", "VmResult"]


class BackupArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup run was asked to do, as its record keeps it."""

    pool: str
    repository: str
    vms: tuple[str, ...]
    vm_names: dict[str, str] = {}
    """How the VMs were called when the run began, for telling of one that is gone since."""
    force_full: bool = False
    keep_points: int | None = None
    job: str = "manual"
    heir_of: tuple[str, ...] = ()
    """Runs that were closed in favour of this one; what they stored is re-used."""


class DiskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one disk cost and how it was read."""

    position: str
    name: str
    source: ChangeSource
    reason: str
    provisioned_bytes: int
    read_bytes: int
    new_bytes: int
    stored_bytes: int


class VmResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one VM: a point, or an error."""

    vm: str
    vm_name: str
    point: str | None = None
    disks: tuple[DiskResult, ...] = ()
    dropped_points: tuple[str, ...] = ()
    error_code: str = ""
    error: str = ""
    next_step: str = ""
    exit_status: int = 0


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the run."""

    vms: tuple[VmResult, ...]


class NoPointMade(HoldfastError):
    """Not one VM of the run has a new restore point."""

    code = "backup.no-point-made"
    effect = "No new restore point exists; older points are untouched."

    def __init__(self, failed: Sequence[VmResult]) -> None:
        first = failed[0]
        count = len(failed) - 1
        others = f" (and {count} more VM{'s' if count > 1 else ''})" if count else ""
        super().__init__(f"{first.vm_name}: {first.error}{others}")
        self.cause_code = first.error_code
        self._next_step = first.next_step
        self.exit_status = ExitStatus(first.exit_status)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return self._next_step
