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


# -- groups of devices that are alike


@calls.on("USB_group.create")
def create_usb_group(
    context: Context, label: str = "", description: str = "", other_config: dict[str, str] | None = None
) -> str:
    """Make a group of USB devices, with none in it."""
    values = {"name_label": label, "name_description": description, "other_config": other_config or {}}
    return context.db.create("USB_group", dict(values))


@calls.on("GPU_group.create")
def create_gpu_group(
    context: Context, label: str = "", description: str = "", other_config: dict[str, str] | None = None
) -> str:
    """Make a group of graphics devices, with none in it."""
    values = {"name_label": label, "name_description": description, "other_config": other_config or {}}
    return context.db.create("GPU_group", dict(values))


def _destroy_group(context: Context, group: str, cls: str, kind: str) -> str:
    """Remove a group with what its VMs would get from it; not while one has it, or while devices are in it."""
    db = context.db
    given = db.texts(cls, group, f"V{kind}s")
    if busy := [each for each in given if db.flag(f"V{kind}", each, "currently_attached")]:
        raise ApiFailure(f"{kind}_GROUP_CONTAINS_V{kind}", *busy)
    if devices := db.texts(cls, group, f"P{kind}s"):
        raise ApiFailure(f"{kind}_GROUP_CONTAINS_P{kind}", *devices)
    with db.transaction():
        for each in given:
            db.destroy(f"V{kind}", each)
        db.destroy(cls, group)
    return ""


@calls.on("USB_group.destroy")
def destroy_usb_group(context: Context, group: str) -> str:
    """Remove a group of USB devices."""
    return _destroy_group(context, group, "USB_group", "USB")


@calls.on("GPU_group.destroy")
def destroy_gpu_group(context: Context, group: str) -> str:
    """Remove a group of graphics devices."""
    return _destroy_group(context, group, "GPU_group", "GPU")


@calls.on("GPU_group.get_remaining_capacity")
def get_group_capacity(context: Context, group: str, kind: str) -> int:
    """Return how many devices of the type would fit: there is nothing in the group that they could fit on."""
    context.db.row("GPU_group", group)
    return 0


@calls.on("GPU_group.update_enabled_VGPU_types", "GPU_group.update_supported_VGPU_types")
def update_group_types(context: Context, group: str) -> str:
    """Nothing to gather: there is nothing in the group."""
    context.db.row("GPU_group", group)
    return ""


@calls.on("PGPU.get_remaining_capacity")
def get_capacity(context: Context, device: str, kind: str) -> int:
    """Return how many devices of the type would fit: none, on a device that nobody knows, too."""
    return 0


@calls.on("PGPU.set_GPU_group")
def set_gpu_group(context: Context, device: str, group: str) -> str:
    """Put a graphics device into another group."""
    context.db.row("GPU_group", group)
    context.db.set("PGPU", device, "GPU_group", group)
    return ""


# -- graphics


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
