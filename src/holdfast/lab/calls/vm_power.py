"""Calls that start and stop VMs. A running VM has its disks attached; what its guest does is the lab's other half."""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.common import vm_operation
from holdfast.lab.calls.vbd import attach_now, check_devices, detach_now
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_vm_operation
from holdfast.lab.volumes import create_vdi, destroy_vdi

__all__ = ["bring_up", "calls", "new_suspend_image", "take_down"]

calls = CallSet()


def bring_up(context: Context, vm: str, *, state: str = "Running") -> None:
    """Attach disks and cards and let the VM run; ``VDI_IN_USE`` when a disk is taken."""
    db = context.db
    with db.transaction():
        vbds = [vbd for vbd in db.texts("VM", vm, "VBDs") if not db.flag("VBD", vbd, "empty")]
        check_devices(context, vm)
        for vbd in vbds:
            attach_now(context, vbd)
        for vif in db.texts("VM", vm, "VIFs"):
            db.set("VIF", vif, "currently_attached", True)
        host = context.pool.master_ref
        domid = 1 + max((cast(int, row.fields["domid"]) for row in db.rows("VM")), default=0)
        fields: Fields = {"power_state": state, "resident_on": host, "domid": domid}
        fields["last_booted_record"] = f"(booted {db.text('VM', vm, 'uuid')})"
        fields["last_boot_CPU_flags"] = {
            "vendor": "GenuineIntel",
            "features": db.mapping("host", host, "cpu_info").get("features_hvm", ""),
        }
        fields["guest_metrics"] = _new_guest_metrics(context)
        db.update("VM", vm, fields)
        started: Fields = {"start_time": context.pool.now(), "memory_actual": db.number("VM", vm, "memory_dynamic_max")}
        db.update("VM_metrics", db.text("VM", vm, "metrics"), started)


def _new_guest_metrics(context: Context) -> str:
    return context.db.create(
        "VM_guest_metrics",
        {
            "os_version": {"name": "Debian GNU/Linux 13 (trixie)", "distro": "debian", "major": "13", "uname": "6.12"},
            "PV_drivers_version": {"major": "8", "minor": "4", "micro": "0", "build": "1"},
            "PV_drivers_up_to_date": True,
            "PV_drivers_detected": True,
            "networks": {},
            "last_updated": context.pool.now(),
            "live": True,
        },
    )


def take_down(context: Context, vm: str, *, state: str = "Halted", suspend_vdi: str = NULL_REF) -> None:
    """Detach everything and let the VM be ``state``; a suspended one keeps its attachments on record."""
    db = context.db
    with db.transaction():
        if state == "Halted":
            for vbd in db.texts("VM", vm, "VBDs"):
                if db.flag("VBD", vbd, "currently_attached"):
                    detach_now(context, vbd)
            for vif in db.texts("VM", vm, "VIFs"):
                db.set("VIF", vif, "currently_attached", False)
        guest_metrics = db.text("VM", vm, "guest_metrics")
        if db.exists("VM_guest_metrics", guest_metrics):
            db.destroy("VM_guest_metrics", guest_metrics)
        fields: Fields = {"power_state": state, "resident_on": NULL_REF, "domid": -1, "guest_metrics": NULL_REF}
        db.update("VM", vm, {**fields, "suspend_VDI": suspend_vdi})
        db.update("VM_metrics", db.text("VM", vm, "metrics"), {"start_time": EPOCH})


def _start(context: Context, vm: str, *, is_paused: bool, operation: str) -> str:
    with vm_operation(context, vm, operation):
        bring_up(context, vm, state="Paused" if is_paused else "Running")
    return ""


@calls.on("VM.start")
def start(context: Context, vm: str, start_paused: bool, force: bool) -> str:
    """Start a halted VM."""
    return _start(context, vm, is_paused=start_paused, operation="start")


@calls.on("VM.start_on")
def start_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> str:
    """Start a halted VM on a host; the lab's VMs all run on the master."""
    context.db.row("host", host)
    return _start(context, vm, is_paused=start_paused, operation="start_on")


@calls.on("VM.hard_shutdown")
def hard_shutdown(context: Context, vm: str) -> str:
    """Pull the plug, or drop a suspended VM's memory."""
    with vm_operation(context, vm, "hard_shutdown"):
        _drop_suspend_image(context, vm)
        take_down(context, vm)
    return ""


@calls.on("VM.clean_shutdown", "VM.shutdown")
def clean_shutdown(context: Context, vm: str) -> str:
    """Let the guest shut itself down."""
    with vm_operation(context, vm, "clean_shutdown"):
        take_down(context, vm)
    return ""


@calls.on("VM.hard_reboot")
def hard_reboot(context: Context, vm: str) -> str:
    """Restart without asking the guest."""
    with vm_operation(context, vm, "hard_reboot"):
        take_down(context, vm)
        bring_up(context, vm)
    return ""


@calls.on("VM.clean_reboot")
def clean_reboot(context: Context, vm: str) -> str:
    """Let the guest restart itself."""
    with vm_operation(context, vm, "clean_reboot"):
        take_down(context, vm)
        bring_up(context, vm)
    return ""


@calls.on("VM.pause")
def pause(context: Context, vm: str) -> str:
    """Stop the VM's processors."""
    with vm_operation(context, vm, "pause"):
        context.db.set("VM", vm, "power_state", "Paused")
    return ""


@calls.on("VM.unpause")
def unpause(context: Context, vm: str) -> str:
    """Let the VM's processors go on."""
    with vm_operation(context, vm, "unpause"):
        context.db.set("VM", vm, "power_state", "Running")
    return ""


def new_suspend_image(context: Context, vm: str) -> str:
    """Make the disk that keeps a VM's memory; ``VM_NO_SUSPEND_SR`` when there is no repository for it."""
    db = context.db
    pool_row = db.row("pool", context.pool.pool_ref).fields
    candidates = (db.text("VM", vm, "suspend_SR"), str(pool_row["suspend_image_SR"]), str(pool_row["default_SR"]))
    sr = next((ref for ref in candidates if db.exists("SR", ref)), None)
    if sr is None:
        raise ApiFailure("VM_NO_SUSPEND_SR", vm)
    record: Fields = {
        "name_label": "Suspend image",
        "name_description": "Suspend image",
        "SR": sr,
        "virtual_size": db.number("VM", vm, "memory_static_max"),
        "type": "suspend",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }
    return create_vdi(context.pool, record)


def _drop_suspend_image(context: Context, vm: str) -> None:
    image = context.db.text("VM", vm, "suspend_VDI")
    if context.db.exists("VDI", image):
        destroy_vdi(context.pool, image)


@calls.on("VM.suspend")
def suspend(context: Context, vm: str) -> str:
    """Write the VM's memory to a disk and stop it."""
    with vm_operation(context, vm, "suspend"):
        take_down(context, vm, state="Suspended", suspend_vdi=new_suspend_image(context, vm))
    return ""


@calls.on("VM.resume")
def resume(context: Context, vm: str, start_paused: bool, force: bool) -> str:
    """Let a suspended VM go on."""
    with vm_operation(context, vm, "resume"):
        _drop_suspend_image(context, vm)
        bring_up(context, vm, state="Paused" if start_paused else "Running")
        context.db.set("VM", vm, "suspend_VDI", NULL_REF)
    return ""


@calls.on("VM.power_state_reset")
def power_state_reset(context: Context, vm: str) -> str:
    """Declare the VM halted, whatever it was."""
    check_vm_operation(context.db, vm, "power_state_reset")
    take_down(context, vm)
    return ""


@calls.on("VM.get_boot_record")
def get_boot_record(context: Context, vm: str) -> Fields:
    """Return the record the VM was started with."""
    check_vm_operation(context.db, vm, "get_boot_record")
    return dict(context.db.row("VM", vm).fields)
