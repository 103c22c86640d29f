"""What may be done with a group of VMs now, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.errors import ApiFailure

__all__ = ["allowed_appliance_operations", "check_appliance_operation"]

_RULES: dict[str, tuple[Callable[[str], bool], str]] = {
    "start": (lambda state: state == "Halted", "There are no halted VMs in this appliance."),
    "clean_shutdown": (lambda state: state == "Running", "There are no running VMs in this appliance."),
    "hard_shutdown": (lambda state: state != "Halted", "All VMs in this appliance are halted."),
    "shutdown": (lambda state: state != "Halted", "All VMs in this appliance are halted."),
}


def check_appliance_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the group now; the pool's refusal otherwise."""
    refusal = _refusal(db, db.row("VM_appliance", ref), operation)
    if refusal is not None:
        raise refusal


def allowed_appliance_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the group now, for its record."""
    return [operation for operation in _RULES if _refusal(db, row, operation) is None]


def _refusal(db: Database, row: Row, operation: str) -> ApiFailure | None:
    for task, running in cast("dict[str, str]", row.fields["current_operations"]).items():
        return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM_appliance", row.ref, running, task)
    vms = cast("list[str]", row.fields["VMs"])
    if not vms:
        return ApiFailure("OPERATION_NOT_ALLOWED", "Appliance has no VMs.")
    fits, reason = _RULES[operation]
    if any(fits(db.text("VM", vm, "power_state")) for vm in vms):
        return None
    return ApiFailure("OPERATION_NOT_ALLOWED", reason)
