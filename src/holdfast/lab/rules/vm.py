"""What may be done with a VM now, and why not: power states, running operations, templates, snapshots, blocked calls.

The order of the checks is the real pool's, because it decides which of several reasons a client sees.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.errors import ApiFailure

__all__ = ["allowed_appliance_operations", "allowed_vm_operations", "bad_power_state", "check_vm_operation"]

_ANY = ("Halted", "Paused", "Suspended", "Running")
_POWER_ORDER = {state: index for index, state in enumerate(_ANY)}

_POWER_STATES: dict[str, tuple[str, ...]] = {
    "snapshot": _ANY,
    "metadata_export": _ANY,
    "revert": _ANY,
    "power_state_reset": _ANY,
    "checkpoint": ("Paused", "Suspended", "Running"),
    "hard_shutdown": ("Paused", "Suspended", "Running"),
    "get_boot_record": ("Paused", "Suspended", "Running"),
    "hard_reboot": ("Paused", "Running"),
    "export": ("Halted", "Suspended"),
    "destroy": ("Halted", "Suspended"),
    "clone": ("Halted",),
    "copy": ("Halted",),
    "migrate_send": ("Halted", "Suspended", "Running"),
    "start": ("Halted",),
    "start_on": ("Halted",),
    "provision": ("Halted",),
    "make_into_template": ("Halted",),
    "changing_NVRAM": ("Halted",),
    "changing_shadow_memory": ("Halted",),
    "changing_static_range": ("Halted",),
    "changing_dynamic_range": ("Halted", "Running"),
    "create_vtpm": ("Halted",),
    "suspend": ("Running",),
    "pause": ("Running",),
    "unpause": ("Paused",),
    "pool_migrate": ("Running",),
    "clean_shutdown": ("Running",),
    "clean_reboot": ("Running",),
    "call_plugin": ("Running",),
    "changing_memory_live": ("Running",),
    "changing_VCPUs_live": ("Running",),
    "resume": ("Suspended",),
    "resume_on": ("Suspended",),
}

_OFFERED = (
    "create_vtpm",
    "changing_VCPUs_live",
    "changing_memory_live",
    "call_plugin",
    "destroy",
    "metadata_export",
    "export",
    "make_into_template",
    "provision",
    "changing_NVRAM",
    "changing_shadow_memory",
    "changing_static_range",
    "changing_dynamic_range",
    "migrate_send",
    "pool_migrate",
    "suspend",
    "resume",
    "resume_on",
    "hard_reboot",
    "hard_shutdown",
    "clean_reboot",
    "clean_shutdown",
    "pause",
    "unpause",
    "start_on",
    "start",
    "checkpoint",
    "revert",
    "copy",
    "clone",
    "snapshot",
)
"""What ``allowed_operations`` may mention."""

_ON_SNAPSHOTS = frozenset({"revert", "clone", "copy", "export", "destroy", "hard_shutdown", "metadata_export"})

_ON_TEMPLATES = frozenset(
    {
        "changing_NVRAM",
        "changing_shadow_memory",
        "changing_static_range",
        "changing_dynamic_range",
        "migrate_send",
        "provision",
        "copy",
        "clone",
        "export",
        "metadata_export",
        "destroy",
        "power_state_reset",
    }
)

_TOGETHER = (frozenset({"clone", "copy", "export"}), frozenset({"snapshot", "checkpoint"}))
"""Operations that may run on one VM at the same time."""

_ON_CONTROL_DOMAIN = frozenset({"metadata_export", "changing_dynamic_range", "call_plugin"})


def bad_power_state(ref: str, *, wanted: tuple[str, ...], actual: str) -> ApiFailure:
    """Return the refusal for a power state that does not fit."""
    ordered = sorted(wanted, key=_POWER_ORDER.__getitem__)
    return ApiFailure("VM_BAD_POWER_STATE", ref, ", ".join(ordered).lower(), actual.lower())


def check_vm_operation(db: Database, ref: str, operation: str, *, ignores_running: bool = False) -> None:
    """Return when the operation may begin now; the pool's refusal otherwise."""
    row = db.row("VM", ref)
    refusal = _refusal(row, operation, ignores_running=ignores_running)
    if refusal is not None:
        raise refusal


def _refusal(row: Row, operation: str, *, ignores_running: bool) -> ApiFailure | None:
    fields = row.fields
    blocked = cast("dict[str, str]", fields["blocked_operations"])
    if operation in blocked:
        return ApiFailure("OPERATION_BLOCKED", row.ref, blocked[operation])
    power = str(fields["power_state"])
    wanted = _POWER_STATES.get(operation, _ANY)
    if operation in ("clone", "copy") and fields["is_a_snapshot"]:
        wanted = ("Halted", "Suspended")
    if power not in wanted:
        return bad_power_state(row.ref, wanted=wanted, actual=power)
    if not ignores_running:
        collision = _collision(row, operation)
        if collision is not None:
            return collision
    return _refusal_by_kind(row, operation)


def _collision(row: Row, operation: str) -> ApiFailure | None:
    for task, running in cast("dict[str, str]", row.fields["current_operations"]).items():
        if not any({operation, running} <= pair for pair in _TOGETHER):
            return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM", row.ref, running, task)
    return None


def _refusal_by_kind(row: Row, operation: str) -> ApiFailure | None:
    fields = row.fields
    if fields["is_a_snapshot"]:
        if operation not in _ON_SNAPSHOTS:
            return ApiFailure("VM_IS_SNAPSHOT", row.ref, operation)
    elif operation == "revert":
        return ApiFailure("VM_REVERT_FAILED", row.ref, "OpaqueRef:NULL")
    elif fields["is_a_template"]:
        if operation not in _ON_TEMPLATES or (operation == "destroy" and fields["is_default_template"]):
            return ApiFailure("VM_IS_TEMPLATE", row.ref, operation)
    elif operation == "provision":
        return ApiFailure("ONLY_PROVISION_TEMPLATE")
    if fields["is_control_domain"] and operation not in _ON_CONTROL_DOMAIN:
        return ApiFailure("OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain")
    if operation == "create_vtpm" and fields["VTPMs"]:
        return ApiFailure("VTPM_MAX_AMOUNT_REACHED", "1")
    if operation in ("snapshot", "checkpoint") and fields["VUSBs"]:
        return ApiFailure("VM_HAS_VUSBS", row.ref)
    return None


def allowed_vm_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the VM now, for its record."""
    return [operation for operation in _OFFERED if _refusal(row, operation, ignores_running=False) is None]


def allowed_appliance_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with a group of VMs now, for its record."""
    states = {db.text("VM", vm, "power_state") for vm in cast("list[str]", row.fields["VMs"])}
    if states and "Halted" not in states:
        return ["clean_shutdown", "hard_shutdown", "shutdown"]
    return ["start"]
