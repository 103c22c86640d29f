"""What a backup run is going to do, decided before anything is touched: which VMs, and per VM against which point.

The plan is a value: the command line prints it, the run's record keeps it, the tests read it. It is made from what the
pool and the repository say now; making it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.backup.retention import check_keep_points
from holdfast.core import ExitStatus, HoldfastError, format_bytes
from holdfast.model import Finding, Severity, Vm, VmUuid
from holdfast.repository import RestorePoint

__all__ = ["BackupPlan", "NothingToBackUp", "VmPlan", "plan_backup"]


class NothingToBackUp(HoldfastError):
    """The selection names no VM that has anything to back up."""

    code = "backup.nothing-selected"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was backed up, so no new restore point exists."
    advice = "Name VMs of this pool; 'holdfast vm list' shows them."

    def __init__(self) -> None:
        super().__init__("the selection names no VM")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPlan:
    """One VM of the run."""

    vm: Vm
    previous: RestorePoint | None
    """The newest point of this VM in the repository; its reference on the pool tells what changed since."""

    def explain(self) -> str:
        """Return one line for people."""
        against = f"changes since {self.previous.id}" if self.previous else "first point: everything allocated is read"
        disks = f"{len(self.vm.disks)} disk{'s' if len(self.vm.disks) != 1 else ''}"
        return f"{self.vm.name}: {disks}, {format_bytes(self.vm.provisioned_bytes)} provisioned; {against}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPlan:
    """The whole run."""

    vms: tuple[VmPlan, ...]
    force_full: bool
    keep_points: int | None
    findings: tuple[Finding, ...]

    def explain(self) -> str:
        """Return the plan for people, a line per VM."""
        lines = [each.explain() for each in self.vms]
        if self.force_full:
            lines.append("a full read was asked for: change information is not used")
        if self.keep_points is not None:
            lines.append(f"afterwards the newest {self.keep_points} points of each VM are kept")
        lines.extend(f"{finding.severity.value}: {finding.subject}: {finding.message}" for finding in self.findings)
        return "\n".join(lines)


def plan_backup(
    vms: Sequence[Vm],
    newest_points: Mapping[VmUuid, RestorePoint],
    *,
    force_full: bool,
    keep_points: int | None,
) -> BackupPlan:
    """Return what a run over these VMs would do. ``NothingToBackUp`` when there is none, ``KeepInvalid``.

    ``newest_points`` holds the newest undamaged point of each VM that has one.
    """
    if not vms:
        raise NothingToBackUp
    check_keep_points(keep_points)
    findings = tuple(
        Finding(
            severity=Severity.WARNING,
            subject=vm.name,
            message="the VM has no disks; only its configuration is backed up",
        )
        for vm in vms
        if not vm.disks
    )
    plans = tuple(VmPlan(vm=vm, previous=newest_points.get(vm.uuid)) for vm in vms)
    return BackupPlan(vms=plans, force_full=force_full, keep_points=keep_points, findings=findings)
