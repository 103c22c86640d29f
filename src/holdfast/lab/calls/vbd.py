"""Calls of virtual disks (VBDs): how a VM, or the control domain, has a disk attached."""

from __future__ import annotations

import re

from holdfast.lab.attachments import remove_attachment
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import bad_power_state

__all__ = ["calls", "new_vbd", "taken_devices"]

calls = CallSet()

DEVICES_MAX = 255
"""How many virtual disks a VM can have."""

_DISK_NAME = re.compile(r"(?:xvd|sd|hd)([a-z]+)")


def taken_devices(context: Context, vm: str) -> set[int]:
    """Return the device numbers that the VM's disks use."""
    numbers = (device_number(context.db.text("VBD", vbd, "userdevice")) for vbd in context.db.texts("VM", vm, "VBDs"))
    return {number for number in numbers if number is not None}


def device_number(name: str) -> int | None:
    """Return the number that a device name stands for: ``3``, ``xvdd``; None for anything else."""
    if name.isdigit():
        return int(name)
    match = _DISK_NAME.fullmatch(name)
    if match is None:
        return None
    number = 0
    for letter in match[1]:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


@calls.on("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(context: Context, vm: str) -> list[str]:
    """Return the device numbers that are free."""
    context.db.row("VM", vm)
    taken = taken_devices(context, vm)
    return [str(number) for number in range(DEVICES_MAX) if number not in taken]


@calls.on("VBD.create")
def create(context: Context, record: Fields) -> str:
    """Give a VM a virtual disk; the VM does not see it before it starts or the disk is plugged."""
    db = context.db
    vm, vdi = str(record["VM"]), str(record["VDI"])
    db.row("VM", vm)
    is_empty_drive = bool(record["empty"])
    if not is_empty_drive or record["type"] == "Disk":
        db.row("VDI", vdi)
    if record["type"] == "CD" and record["mode"] != "RO":
        raise ApiFailure("VBD_CDS_MUST_BE_READONLY")
    with db.transaction():
        taken = taken_devices(context, vm)
        wanted = str(record["userdevice"])
        if wanted == "autodetect":
            wanted = str(next(number for number in range(DEVICES_MAX) if number not in taken))
        number = device_number(wanted)
        if number is None:
            raise ApiFailure("INVALID_DEVICE", wanted)
        if number in taken:
            raise ApiFailure("DEVICE_ALREADY_EXISTS", wanted)
        return new_vbd(context, {**record, "userdevice": wanted, "VDI": NULL_REF if is_empty_drive else vdi})


def new_vbd(context: Context, record: Fields) -> str:
    """Add the record as it is; a Suspended VM may have its disks marked as attached."""
    vm_is_suspended = context.db.text("VM", str(record["VM"]), "power_state") == "Suspended"
    attached = bool(record.get("currently_attached")) and vm_is_suspended
    fields: Fields = {**record, "currently_attached": attached, "metrics": f"OpaqueRef:{context.pool.new_uuid()}"}
    if not vm_is_suspended:
        fields["device"] = ""
    return context.db.create("VBD", fields)


@calls.on("VBD.destroy")
def destroy(context: Context, vbd: str) -> str:
    """Remove a virtual disk that is not attached."""
    if context.db.flag("VBD", vbd, "currently_attached"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VBD '{context.db.text('VBD', vbd, 'uuid')}' still attached to VM")
    context.db.destroy("VBD", vbd)
    return ""


def _check_running(context: Context, vbd: str) -> None:
    vm = context.db.text("VBD", vbd, "VM")
    power = context.db.text("VM", vm, "power_state")
    if power not in ("Running", "Paused"):
        raise bad_power_state(vm, wanted=("Running",), actual=power)


@calls.on("VBD.plug")
def plug(context: Context, vbd: str) -> str:
    """Attach the disk to its running VM."""
    db = context.db
    _check_running(context, vbd)
    with db.transaction():
        if db.flag("VBD", vbd, "currently_attached"):
            raise ApiFailure("DEVICE_ALREADY_ATTACHED", vbd)
        vdi = db.text("VBD", vbd, "VDI")
        if vdi != NULL_REF:
            check_attachable(context, vdi, is_writable=db.text("VBD", vbd, "mode") == "RW")
        attach_now(context, vbd)
    return ""


def check_attachable(context: Context, vdi: str, *, is_writable: bool) -> None:
    """Return when the disk can be attached in this way; ``VDI_IN_USE`` when another attachment forbids it."""
    db = context.db
    for vbd in db.texts("VDI", vdi, "VBDs"):
        fields = db.row("VBD", vbd).fields
        if fields["currently_attached"] and (is_writable or fields["mode"] == "RW"):
            raise ApiFailure("VDI_IN_USE", vdi, "attach")


def attach_now(context: Context, vbd: str) -> None:
    """Mark the disk as attached, with the name that the guest gives it."""
    db = context.db
    number = device_number(db.text("VBD", vbd, "userdevice")) or 0
    letters = chr(ord("a") + number % 26)
    prefix = chr(ord("a") + number // 26 - 1) if number >= 26 else ""
    db.update("VBD", vbd, {"currently_attached": True, "device": f"xvd{prefix}{letters}"})
    vdi = db.text("VBD", vbd, "VDI")
    if db.exists("VDI", vdi):
        db.touch("VDI", vdi)


@calls.on("VBD.unplug", "VBD.unplug_force")
def unplug(context: Context, vbd: str) -> str:
    """Detach the disk from its running VM. The control domain's own attachment vanishes with that."""
    db = context.db
    _check_running(context, vbd)
    with db.transaction():
        if not db.flag("VBD", vbd, "currently_attached"):
            raise ApiFailure("DEVICE_ALREADY_DETACHED", vbd)
        if db.text("VBD", vbd, "VM") == context.pool.control_domain_ref:
            remove_attachment(context.pool, vbd)
        else:
            detach_now(context, vbd)
    return ""


def detach_now(context: Context, vbd: str) -> None:
    """Mark the disk as detached."""
    db = context.db
    db.update("VBD", vbd, {"currently_attached": False, "device": ""})
    vdi = db.text("VBD", vbd, "VDI")
    if db.exists("VDI", vdi):
        db.touch("VDI", vdi)


@calls.on("VBD.assert_attachable")
def assert_attachable(context: Context, vbd: str) -> str:
    """Return when the disk could be attached now."""
    db = context.db
    vdi = db.text("VBD", vbd, "VDI")
    if vdi != NULL_REF:
        check_attachable(context, vdi, is_writable=db.text("VBD", vbd, "mode") == "RW")
    return ""


@calls.on("VBD.insert")
def insert(context: Context, vbd: str, vdi: str) -> str:
    """Put a disc into a drive."""
    db = context.db
    _check_removable(context, vbd)
    db.row("VDI", vdi)
    if not db.flag("VBD", vbd, "empty"):
        raise ApiFailure("VBD_NOT_EMPTY", vbd)
    db.update("VBD", vbd, {"VDI": vdi, "empty": False})
    return ""


@calls.on("VBD.eject")
def eject(context: Context, vbd: str) -> str:
    """Take the disc out of a drive."""
    db = context.db
    _check_removable(context, vbd)
    if db.flag("VBD", vbd, "empty"):
        raise ApiFailure("VBD_IS_EMPTY", vbd)
    db.update("VBD", vbd, {"VDI": NULL_REF, "empty": True})
    return ""


def _check_removable(context: Context, vbd: str) -> None:
    if context.db.text("VBD", vbd, "type") == "Disk":
        raise ApiFailure("VBD_NOT_REMOVABLE_MEDIA", vbd)
