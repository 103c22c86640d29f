"""Calls of virtual disks (VBDs): how a VM, or the control domain, has a disk attached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from holdfast.lab.calls.device_number import free_devices, is_valid_device, linux_name, readings, used_devices
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import (
    allowed_vbd_operations,
    check_power_state,
    check_vbd_operation,
    check_vdi_managed,
    has_vhd_disks,
    type_text,
)
from holdfast.lab.volumes import activate_vdi, check_sr_attached, deactivate_vdi

__all__ = ["attach_now", "calls", "check_devices", "create", "detach_now"]

calls = CallSet()

_ATTACHABLE = ("system", "user", "ephemeral", "suspend", "crashdump", "metadata", "rrd", "pvs_cache")
"""The types of disks that a VM can have."""


@contextmanager
def _vbd_operation(context: Context, vbd: str, operation: str) -> Iterator[None]:
    """Have the operation running on the virtual disk while the block runs; waits for a colliding one to end."""
    context.db.row("VBD", vbd)
    check = lambda: check_vbd_operation(context.db, vbd, operation)  # noqa: E731
    with context.pool.operations.running("VBD", vbd, operation, task=context.task, check=check):
        yield


@calls.on("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(context: Context, vm: str) -> list[str]:
    """Return the device numbers that are free."""
    return [str(device.disk) for device in free_devices(context.db, vm)]


@calls.on("VBD.create")
def create(context: Context, record: Fields) -> str:
    """Give a VM a virtual disk; the VM does not see it before it starts or the disk is plugged."""
    db = context.db
    vm = str(record["VM"])
    is_suspended = db.text("VM", vm, "power_state") == "Suspended"
    _check_disk(context, record)
    _check_not_migrating(context, vm)
    is_floppy = record["type"] == "Floppy"
    with db.transaction():
        wanted = str(record["userdevice"])
        if is_floppy and db.text("VM", vm, "domain_type") != "hvm":
            raise ApiFailure("NOT_IMPLEMENTED", "VBD of type 'floppy' is not supported on PV domain")
        if not is_valid_device(wanted, is_floppy=is_floppy):
            raise ApiFailure("INVALID_DEVICE", wanted)
        if wanted == "autodetect":
            free = free_devices(db, vm, is_floppy=is_floppy)
            if not free:
                raise ApiFailure("INVALID_DEVICE", wanted)
            wanted = linux_name(free[0]) if is_floppy else str(free[0].disk)
        if readings(wanted) & used_devices(db, vm):
            raise ApiFailure("DEVICE_ALREADY_EXISTS", wanted)
        fields: Fields = {
            **record,
            "userdevice": wanted,
            "device": record.get("device", "") if is_suspended else "",
            "currently_attached": bool(record.get("currently_attached")) and is_suspended,
            "metrics": f"OpaqueRef:{context.pool.new_uuid()}",
        }
        return db.create("VBD", fields)


def _check_disk(context: Context, record: Fields) -> None:
    db = context.db
    vdi = str(record["VDI"])
    if not record["empty"]:
        kind = db.text("VDI", vdi, "type")
        if kind not in _ATTACHABLE:
            raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, type_text(kind))
    if record["type"] == "CD" and record["mode"] != "RO":
        raise ApiFailure("VBD_CDS_MUST_BE_READONLY")
    if record["type"] != "CD" and record["empty"]:
        raise ApiFailure("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    if record["mode"] == "RW" and db.flag("VDI", vdi, "read_only"):
        raise ApiFailure("VDI_READONLY", vdi)


def _check_not_migrating(context: Context, vm: str) -> None:
    running = cast("dict[str, str]", context.db.row("VM", vm).fields["current_operations"])
    for task, operation in running.items():
        if operation in ("migrate_send", "pool_migrate"):
            raise ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM", vm, operation, task)


@calls.on("VBD.set_mode")
def set_mode(context: Context, vbd: str, mode: str) -> str:
    """Choose between reading only and writing, while the VM is halted."""
    check_power_state(context.db, context.db.text("VBD", vbd, "VM"), "Halted")
    context.db.set("VBD", vbd, "mode", mode)
    return ""


@calls.on("VBD.set_type")
def set_type(context: Context, vbd: str, kind: str) -> str:
    """Make a disk a drive or the other way round. The pool goes on listing what the old kind allowed."""
    db = context.db
    with db.transaction():
        allowed = allowed_vbd_operations(db, db.row("VBD", vbd))
        db.update("VBD", vbd, {"type": kind, "allowed_operations": allowed})
    return ""


@calls.on("VBD.destroy")
def destroy(context: Context, vbd: str) -> str:
    """Remove a virtual disk that is not attached."""
    db = context.db
    fields = db.row("VBD", vbd).fields
    if fields["currently_attached"]:
        vm = db.find("VM", str(fields["VM"]))
        owner = "" if vm is None else vm.fields["uuid"]
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VBD '{fields['uuid']}' still attached to '{owner}'")
    db.destroy("VBD", vbd)
    return ""


@calls.on("VBD.plug")
def plug(context: Context, vbd: str) -> str:
    """Attach the disk to its running VM."""
    db = context.db
    with _vbd_operation(context, vbd, "plug"), db.transaction():
        fields = db.row("VBD", vbd).fields
        is_emulated = db.text("VM", str(fields["VM"]), "domain_type") == "hvm"
        if is_emulated and fields["type"] != "CD" and fields["mode"] == "RO":
            raise ApiFailure("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", vbd)
        _check_reachable(context, str(fields["VDI"]))
        _check_backend(context, vbd)
        attach_now(context, vbd)
    return ""


def _check_reachable(context: Context, vdi: str) -> None:
    row = context.db.find("VDI", vdi)
    if row is not None:
        sr = str(row.fields["SR"])
        try:
            check_sr_attached(context.pool, sr)
        except ApiFailure as cause:
            raise ApiFailure("SR_NOT_ATTACHED", sr) from cause


def check_devices(context: Context, vm: str) -> None:
    """Return when every disk of the VM can be attached now; the first refusal otherwise."""
    for vbd in context.db.texts("VM", vm, "VBDs"):
        check_vbd_operation(context.db, vbd, "attach")
        _check_backend(context, vbd)


def _check_backend(context: Context, vbd: str) -> None:
    """Return when the storage can attach the disk; on a host it cannot be read by one and written by another."""
    db = context.db
    fields = db.row("VBD", vbd).fields
    vdi = db.find("VDI", str(fields["VDI"]))
    if fields["empty"] or fields["currently_attached"] or vdi is None or vdi.fields["sharable"]:
        return
    for other in cast("list[str]", vdi.fields["VBDs"]):
        found = db.row("VBD", other).fields
        if found["currently_attached"] and "RW" in (fields["mode"], found["mode"]):
            if not db.flag("VM", str(found["VM"]), "is_control_domain"):
                continue  # another VM: the pool's own rules have judged that
            if not has_vhd_disks(db, str(vdi.fields["SR"])):
                raise ApiFailure("VDI_IN_USE", vdi.ref, "attach")
            text = f"The VDI is not available [opterr=VDI {vdi.fields['uuid']} already attached {found['mode']}]"
            raise ApiFailure("SR_BACKEND_FAILURE_46", "", text, "")


def attach_now(context: Context, vbd: str) -> None:
    """Mark the disk as attached, with the name that the guest gives it; to a control domain it is a file."""
    db = context.db
    places = sorted(readings(db.text("VBD", vbd, "userdevice")), key=lambda place: place.bus)
    changes: Fields = {"currently_attached": True}
    if places:
        changes["device"] = linux_name(places[0])
    vdi = db.find("VDI", db.text("VBD", vbd, "VDI"))
    if vdi is not None and db.flag("VM", db.text("VBD", vbd, "VM"), "is_control_domain"):
        changes["device"] = f"sm/backend/{db.text('SR', str(vdi.fields['SR']), 'uuid')}/{vdi.fields['uuid']}"
    db.update("VBD", vbd, changes)
    activate_vdi(context.pool, db.text("VBD", vbd, "VDI"), is_writable=db.text("VBD", vbd, "mode") == "RW")
    _touch_disk(context, vbd)


@calls.on("VBD.unplug")
def unplug(context: Context, vbd: str) -> str:
    """Detach the disk from its running VM; the virtual disk stays on record, that of a control domain, too."""
    return _unplug(context, vbd, "unplug")


@calls.on("VBD.unplug_force", "VBD.unplug_force_no_safety_check")
def unplug_force(context: Context, vbd: str) -> str:
    """Detach the disk from its running VM whether the guest agrees or not."""
    return _unplug(context, vbd, "unplug_force")


@calls.on("VBD.pause")
def pause(context: Context, vbd: str) -> str:
    """Stop the disk of a running VM for a moment; no storage does it any more."""
    return _cannot_pause(context, vbd, "pause")


@calls.on("VBD.unpause")
def unpause(context: Context, vbd: str, token: str) -> str:
    """Let a stopped disk go on; there is none."""
    return _cannot_pause(context, vbd, "unpause")


def _cannot_pause(context: Context, vbd: str, operation: str) -> str:
    db = context.db
    with _vbd_operation(context, vbd, operation):
        raise ApiFailure("SR_OPERATION_NOT_SUPPORTED", db.text("VDI", db.text("VBD", vbd, "VDI"), "SR"))


def _unplug(context: Context, vbd: str, operation: str) -> str:
    with _vbd_operation(context, vbd, operation):
        detach_now(context, vbd)
    return ""


def detach_now(context: Context, vbd: str) -> None:
    """Mark the disk as detached; the name it had stays on record."""
    context.db.set("VBD", vbd, "currently_attached", False)
    deactivate_vdi(context.pool, context.db.text("VBD", vbd, "VDI"))
    _touch_disk(context, vbd)


def _touch_disk(context: Context, vbd: str) -> None:
    vdi = context.db.text("VBD", vbd, "VDI")
    if context.db.exists("VDI", vdi):
        context.db.touch("VDI", vdi)


@calls.on("VBD.assert_attachable")
def assert_attachable(context: Context, vbd: str) -> str:
    """Return when the disk could be attached now."""
    check_vbd_operation(context.db, vbd, "attach")
    return ""


@calls.on("VBD.insert")
def insert(context: Context, vbd: str, vdi: str) -> str:
    """Put a disc into a drive."""
    db = context.db
    with _vbd_operation(context, vbd, "insert"), db.transaction():
        check_vdi_managed(db, vdi)
        db.update("VBD", vbd, {"VDI": vdi, "empty": False})
    return ""


@calls.on("VBD.eject")
def eject(context: Context, vbd: str) -> str:
    """Take the disc out of a drive."""
    with _vbd_operation(context, vbd, "eject"):
        context.db.update("VBD", vbd, {"VDI": NULL_REF, "empty": True})
    return ""
