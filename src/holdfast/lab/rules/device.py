"""What may be done with a VM's virtual disks and network cards now, and why not.

The checks come in the real pool's order; each names the operations it forbids, and the first reason found for an
operation is the one a client sees. Invariant: a rule only reads.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.database import Database, Fields, Row
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules.guest import hotplug_refusal

__all__ = ["allowed_vbd_operations", "allowed_vif_operations", "check_vbd_operation", "check_vif_operation"]

_VBD_OPERATIONS = ("attach", "eject", "unplug", "unplug_force", "insert", "plug", "pause", "unpause")
_VIF_OPERATIONS = ("attach", "plug", "unplug")
_PLUGGING = ("plug", "unplug", "unplug_force")
_QUIET = ("pause", "unpause")
"""What may go on while something else does."""
_VM_GOES_DOWN = ("clean_shutdown", "hard_shutdown", "suspend", "pause")
_HARMLESS_ON_DISK = ("mirror", "copy")

Error = tuple[str, ...]


class _Refusals:
    """The first reason against each operation."""

    def __init__(self, operations: tuple[str, ...]) -> None:
        self._operations = operations
        self._errors: dict[str, Error] = {}

    def add(self, operations: tuple[str, ...], *error: str) -> None:
        for operation in operations:
            self._errors.setdefault(operation, error)

    def allowed(self) -> list[str]:
        return [operation for operation in self._operations if operation not in self._errors]

    def check(self, operation: str) -> None:
        error = self._errors.get(operation)
        if error is not None:
            raise ApiFailure(*error)


def check_vbd_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the virtual disk now; the pool's refusal otherwise."""
    _vbd_refusals(db, db.row("VBD", ref), checks_sharing=True).check(operation)


def allowed_vbd_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the virtual disk now, for its record; who else uses the disk is not looked at."""
    held = cast("list[str]", row.fields["allowed_operations"])
    return held or _vbd_refusals(db, row, checks_sharing=False).allowed()


def check_vif_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the network card now; the pool's refusal otherwise."""
    _vif_refusals(db, db.row("VIF", ref)).check(operation)


def allowed_vif_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the network card now, for its record."""
    return _vif_refusals(db, row).allowed()


# -- virtual disks


def _vbd_refusals(db: Database, row: Row, *, checks_sharing: bool) -> _Refusals:
    refusals = _Refusals(_VBD_OPERATIONS)
    fields = row.fields
    vm = db.find("VM", str(fields["VM"]))
    if vm is None:
        refusals.add(_VBD_OPERATIONS, "HANDLE_INVALID", "VM", str(fields["VM"]))
        return refusals
    _refuse_running(row, refusals)
    if not fields["unpluggable"]:
        refusals.add(("unplug", "unplug_force"), "VBD_NOT_UNPLUGGABLE", row.ref)
    if fields["type"] != "CD":
        refusals.add(("insert", "eject"), "VBD_NOT_REMOVABLE_MEDIA", row.ref)
    if fields["empty"]:
        refusals.add(("eject",), "VBD_IS_EMPTY", row.ref)
    else:
        refusals.add(("insert",), "VBD_NOT_EMPTY", row.ref)
    _refuse_by_power_state(row, vm, refusals)
    _refuse_going_down(vm, refusals)
    if vm.fields["power_state"] == "Running":
        _refuse_by_guest(db, fields, vm, refusals)
    if fields["type"] == "CD" and vm.fields["power_state"] == "Suspended":
        refusals.add(("insert", "eject"), "VM_BAD_POWER_STATE", vm.ref, "halted, running", "suspended")
    if not fields["empty"]:
        _refuse_by_disk(db, row, vm, refusals, checks_sharing=checks_sharing)
    return refusals


def _refuse_running(row: Row, refusals: _Refusals) -> None:
    running = cast("dict[str, str]", row.fields["current_operations"])
    loud = {task: operation for task, operation in running.items() if operation not in _QUIET}
    for found, operations in (
        (running, tuple(operation for operation in _VBD_OPERATIONS if operation not in _QUIET)),
        (loud, ("pause",)),
        ({task: operation for task, operation in loud.items() if operation != "attach"}, ("unpause",)),
    ):
        for task, operation in list(found.items())[:1]:
            refusals.add(operations, "OTHER_OPERATION_IN_PROGRESS", "VBD", row.ref, operation, task)


def _refuse_by_power_state(row: Row, vm: Row, refusals: _Refusals) -> None:
    power = str(vm.fields["power_state"])
    is_plugged = bool(row.fields["currently_attached"])
    if power == "Running":
        if is_plugged:
            refusals.add(("plug",), "DEVICE_ALREADY_ATTACHED", row.ref)
        else:
            refusals.add(("unplug", "unplug_force"), "DEVICE_ALREADY_DETACHED", row.ref)
        return
    forbidden = _PLUGGING if power == "Paused" else (*_QUIET, *_PLUGGING)
    refusals.add(forbidden, "VM_BAD_POWER_STATE", vm.ref, "running", power.lower())


def _refuse_going_down(vm: Row, refusals: _Refusals) -> None:
    for operation in cast("dict[str, str]", vm.fields["current_operations"]).values():
        if operation in _VM_GOES_DOWN:
            text = f"Current operation on VM:{vm.ref} is {operation}"
            refusals.add(("plug", "unplug"), "OPERATION_NOT_ALLOWED", text)


def _refuse_by_guest(db: Database, fields: Fields, vm: Row, refusals: _Refusals) -> None:
    error = hotplug_refusal(db, vm.fields, vm=vm.ref, field="can_use_hotplug_vbd", kind="VBD")
    if error is not None:
        refusals.add(_PLUGGING, *error)
    if fields["type"] == "CD" and vm.fields["domain_type"] == "hvm":
        text = "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"
        refusals.add(_PLUGGING, "OPERATION_NOT_ALLOWED", text)


def _refuse_by_disk(db: Database, row: Row, vm: Row, refusals: _Refusals, *, checks_sharing: bool) -> None:
    vdi = db.find("VDI", str(row.fields["VDI"]))
    if vdi is None:
        if not checks_sharing:
            return  # nobody looks at a virtual disk again when its disk is forgotten
        refusals.add(_VBD_OPERATIONS, "HANDLE_INVALID", "VDI", str(row.fields["VDI"]))
        return
    if not vdi.fields["managed"]:
        refusals.add(_VBD_OPERATIONS, "VDI_NOT_MANAGED", row.ref)
    for task, operation in cast("dict[str, str]", vdi.fields["current_operations"]).items():
        if operation not in _HARMLESS_ON_DISK:
            error = ("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref, operation, task)
            refusals.add(("attach", "plug", "insert"), *error)
    if row.fields["currently_attached"] or not checks_sharing:
        return
    wants_write = row.fields["mode"] == "RW"
    others = _attachments(db, vdi, besides=row.ref)
    is_written = any(other["mode"] == "RW" for other in others)
    is_system = bool(vm.fields["is_control_domain"])
    if not vdi.fields["sharable"] and not is_system and (is_written or (wants_write and others)):
        refusals.add(("attach", "insert", "plug"), "VDI_IN_USE", vdi.ref)
    if wants_write and vdi.fields["read_only"]:
        refusals.add(("attach", "insert", "plug"), "VDI_READONLY", vdi.ref)


def _attachments(db: Database, vdi: Row, *, besides: str) -> list[Fields]:
    """Return who else has the disk, or is about to; suspended VMs and control domains do not count."""
    found = []
    for ref in cast("list[str]", vdi.fields["VBDs"]):
        vbd = db.find("VBD", ref)
        if vbd is None or ref == besides:
            continue
        vm = db.find("VM", str(vbd.fields["VM"]))
        is_quiet = vm is None or vm.fields["power_state"] == "Suspended" or vm.fields["is_control_domain"]
        if not is_quiet and (vbd.fields["currently_attached"] or vbd.fields["current_operations"]):
            found.append(vbd.fields)
    return found


# -- network cards


def _vif_refusals(db: Database, row: Row) -> _Refusals:
    refusals = _Refusals(_VIF_OPERATIONS)
    vm = db.find("VM", str(row.fields["VM"]))
    if vm is None:
        refusals.add(_VIF_OPERATIONS, "HANDLE_INVALID", "VM", str(row.fields["VM"]))
        return refusals
    running = cast("dict[str, str]", row.fields["current_operations"])
    if running:
        operations, tasks = "; ".join(running.values()), "; ".join(running)
        error = ("OTHER_OPERATION_IN_PROGRESS", "VIF", row.ref, f"{{{operations}}}", f"{{{tasks}}}")
        refusals.add(_VIF_OPERATIONS, *error)
    if vm.fields["is_control_domain"]:
        refusals.add(("plug",), "OPERATION_NOT_ALLOWED", "Control domain does not support hotplug")
    power = str(vm.fields["power_state"])
    if power != "Running":
        refusals.add(("plug", "unplug"), "VM_BAD_POWER_STATE", vm.ref, "running", power.lower())
    elif row.fields["currently_attached"]:
        refusals.add(("plug",), "DEVICE_ALREADY_ATTACHED", row.ref)
    else:
        refusals.add(("unplug",), "DEVICE_ALREADY_DETACHED", row.ref)
    _refuse_going_down(vm, refusals)
    if power == "Running":
        error_or_none = hotplug_refusal(db, vm.fields, vm=vm.ref, field="can_use_hotplug_vif", kind="VIF")
        if error_or_none is not None:
            refusals.add(("plug", "unplug"), *error_or_none)
    return refusals
