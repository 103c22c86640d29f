"""Calls of devices that a VM gets from its host: graphics and USB. The lab's hosts have none, so these are records.

Invariant: a VM with such a device is tied to its host, which the rules of VMs know.
"""

from __future__ import annotations

from holdfast.lab.calls.common import check_licence
from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_power_state

__all__ = ["calls"]

calls = CallSet()

USB_DEVICES_MAX = 6
_GRAPHICS_DEVICES_MAX = 32


@calls.on("VUSB.create")
def create_vusb(context: Context, vm: str, group: str, other_config: dict[str, str] | None = None) -> str:
    """Give a VM the USB device of a group."""
    db = context.db
    check_licence(context, "usb_passthrough", "USB_passthrough")
    if len(db.texts("VM", vm, "VUSBs")) >= USB_DEVICES_MAX:
        raise ApiFailure("TOO_MANY_VUSBS", str(USB_DEVICES_MAX))
    if db.texts("USB_group", group, "VUSBs"):
        raise ApiFailure("USB_GROUP_CONFLICT", group)
    if db.text("VM", vm, "ha_restart_priority") == "restart":
        text = f"VM {vm} ha_restart_priority has been set to 'restart', cannot create VUSB for it. "
        raise ApiFailure("OPERATION_NOT_ALLOWED", text)
    return db.create("VUSB", {"VM": vm, "USB_group": group, "other_config": other_config or {}})


@calls.on("VUSB.unplug")
def unplug_vusb(context: Context, vusb: str) -> str:
    """Take the device from its running VM."""
    db = context.db
    check_power_state(db, db.text("VUSB", vusb, "VM"), "Running")
    if not db.flag("VUSB", vusb, "currently_attached"):
        raise ApiFailure("DEVICE_ALREADY_DETACHED", vusb)
    db.set("VUSB", vusb, "currently_attached", False)
    return ""


@calls.on("VUSB.destroy")
def destroy_vusb(context: Context, vusb: str) -> str:
    """Remove a device that its VM does not have now."""
    db = context.db
    fields = db.row("VUSB", vusb).fields
    if fields["currently_attached"]:
        owner = db.text("VM", str(fields["VM"]), "uuid")
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VUSB '{fields['uuid']}' still attached to '{owner}'")
    db.destroy("VUSB", vusb)
    return ""


@calls.on("VGPU.create")
def create_vgpu(
    context: Context,
    vm: str,
    group: str,
    device: str = "0",
    other_config: dict[str, str] | None = None,
    kind: str = NULL_REF,
) -> str:
    """Give a halted VM a graphics device; without a type it is a whole one."""
    db = context.db
    if not db.flag("VM", vm, "is_a_snapshot"):
        check_power_state(db, vm, "Halted")
    if kind != NULL_REF and not db.exists("VGPU_type", kind):
        raise ApiFailure("INVALID_VALUE", "type", kind)
    taken = {db.text("VGPU", vgpu, "device") for vgpu in db.texts("VM", vm, "VGPUs")}
    if not device.isdigit() or int(device) >= _GRAPHICS_DEVICES_MAX:
        raise ApiFailure("INVALID_DEVICE", device)
    if device in taken:
        raise ApiFailure("DEVICE_ALREADY_EXISTS", device)
    fields = {"VM": vm, "GPU_group": group, "device": device, "other_config": other_config or {}, "type": kind}
    return db.create("VGPU", dict(fields))


@calls.on("VGPU.destroy")
def destroy_vgpu(context: Context, vgpu: str) -> str:
    """Remove the graphics device of a VM that has no domain."""
    db = context.db
    vm = db.find("VM", db.text("VGPU", vgpu, "VM"))
    if vm is not None and vm.fields["domid"] != -1:
        raise ApiFailure("OPERATION_NOT_ALLOWED", "vGPU currently attached to a running VM")
    db.destroy("VGPU", vgpu)
    return ""
