"""Calls that start and stop VMs. A running VM has its disks attached; what its guest does is the lab's other half."""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.bios import generic_bios_strings
from holdfast.lab.calls.common import check_licence, tell, vm_operation
from holdfast.lab.calls.guest_agent import forget_guest
from holdfast.lab.calls.vbd import check_devices
from holdfast.lab.calls.vm_memory import update_overhead
from holdfast.lab.calls.vm_placement import check_can_boot, check_cpu, choose_host
from holdfast.lab.calls.vm_state import begin_boot, bring_up, let_run, take_down
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.guests import read_memory_image, write_memory_image
from holdfast.lab.rules import check_vif_operation, has_vhd_disks, is_live
from holdfast.lab.volumes import create_vdi, destroy_vdi, disk_uuid, mark_written

__all__ = ["calls", "drop_suspend_image", "go_on", "start", "stop", "suspend_now"]

calls = CallSet()

_SUSPEND_SPARE_BYTES = 104_857_600


# -- starting


@calls.on("VM.start")
def start(context: Context, vm: str, start_paused: bool, force: bool) -> str:
    """Start a halted VM on a host that can run it."""
    check_licence(context, "vm_start", "VM_start")
    return _start(context, vm, None, is_paused=start_paused)


@calls.on("VM.start_on")
def start_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> str:
    """Start a halted VM on one host."""
    check_licence(context, "vm_start", "VM_start")
    context.db.row("VM", vm)
    context.db.row("host", host)
    return _start(context, vm, host, is_paused=start_paused)


def _start(context: Context, vm: str, host: str | None, *, is_paused: bool) -> str:
    db = context.db
    with vm_operation(context, vm, "start" if host is None else "start_on"):
        _check_attachable(context, vm)
        update_overhead(context, vm)
        if not db.mapping("VM", vm, "bios_strings"):
            db.set("VM", vm, "bios_strings", generic_bios_strings())
        if host is None:
            host = choose_host(context, vm)
        else:
            check_can_boot(context, vm, host, checks_cpu=False)
        _complete_platform(context, vm)
        forget_guest(context, vm)
        if db.text("VM", vm, "ha_restart_priority") == "restart":
            db.set("VM", vm, "ha_always_run", True)
        begin_boot(context, vm)
        bring_up(context, vm, host=host, is_paused=is_paused)
        context.pool.clock.sleep(db.number("VM", vm, "start_delay"))
    _tell_placed(context, vm, host, "VM_STARTED", "started")
    return ""


def _check_attachable(context: Context, vm: str) -> None:
    check_devices(context, vm)
    for vif in context.db.texts("VM", vm, "VIFs"):
        check_vif_operation(context.db, vif, "attach")


def _complete_platform(context: Context, vm: str) -> None:
    """An emulated machine needs to know which devices it has."""
    db = context.db
    fields = db.row("VM", vm).fields
    platform = cast("dict[str, str]", fields["platform"])
    if fields["domain_type"] == "hvm" and "device-model" not in platform:
        is_uefi = cast("dict[str, str]", fields["HVM_boot_params"]).get("firmware") == "uefi"
        model = "qemu-upstream-uefi" if is_uefi else "qemu-upstream-compat"
        db.set("VM", vm, "platform", {"device-model": model, **platform})


def _tell_placed(context: Context, vm: str, host: str, name: str, verb: str) -> None:
    fields = context.db.row("host", host).fields
    tell(context, vm, name, f"{{vm}} {verb} on host: {fields['name_label']} (uuid: {fields['uuid']})")


# -- stopping


def stop(context: Context, vm: str) -> None:
    """Take the VM's domain or its kept memory away."""
    drop_suspend_image(context, vm)
    context.db.set("VM", vm, "ha_always_run", False)
    take_down(context, vm)


@calls.on("VM.hard_shutdown")
def hard_shutdown(context: Context, vm: str) -> str:
    """Pull the plug, or drop a suspended VM's memory."""
    with vm_operation(context, vm, "hard_shutdown"):
        stop(context, vm)
    tell(context, vm, "VM_SHUTDOWN", "{vm} shutdown forcibly")
    return ""


@calls.on("VM.clean_shutdown")
def clean_shutdown(context: Context, vm: str) -> str:
    """Let the guest shut itself down."""
    return _shutdown(context, vm, "clean_shutdown")


@calls.on("VM.shutdown")
def shutdown(context: Context, vm: str) -> str:
    """Let the guest shut itself down; pull the plug when it cannot."""
    return _shutdown(context, vm, "shutdown")


def _shutdown(context: Context, vm: str, operation: str) -> str:
    with vm_operation(context, vm, operation):
        stop(context, vm)
        context.pool.clock.sleep(context.db.number("VM", vm, "shutdown_delay"))
    tell(context, vm, "VM_SHUTDOWN", "{vm} shutdown")
    return ""


@calls.on("VM.hard_reboot")
def hard_reboot(context: Context, vm: str) -> str:
    """Restart without asking the guest."""
    return _reboot(context, vm, "hard_reboot", "forcibly")


@calls.on("VM.clean_reboot")
def clean_reboot(context: Context, vm: str) -> str:
    """Let the guest restart itself."""
    return _reboot(context, vm, "clean_reboot", "cleanly")


def _reboot(context: Context, vm: str, operation: str, manner: str) -> str:
    db = context.db
    with vm_operation(context, vm, operation), db.transaction():
        host = db.text("VM", vm, "resident_on")
        take_down(context, vm)
        forget_guest(context, vm)
        begin_boot(context, vm)
        bring_up(context, vm, host=host, is_paused=False)
    tell(context, vm, "VM_REBOOTED", f"{{vm}} rebooted {manner}")
    return ""


@calls.on("VM.power_state_reset")
def power_state_reset(context: Context, vm: str) -> str:
    """Declare a VM halted that the pool lost sight of; one that runs is refused."""
    db = context.db
    fields = db.row("VM", vm).fields
    if fields["is_control_domain"]:
        raise ApiFailure("CANNOT_RESET_CONTROL_DOMAIN", vm)
    host = str(fields["resident_on"])
    if is_live(fields) and db.exists("host", host):
        if host == context.pool.master_ref:
            raise ApiFailure("DOMAIN_EXISTS", vm)
        raise ApiFailure("HOST_IS_LIVE", host)
    image = str(fields["suspend_VDI"])
    take_down(context, vm, suspend_vdi=image)
    return ""


@calls.on("VM.pause")
def pause(context: Context, vm: str) -> str:
    """Stop the VM's processors."""
    with vm_operation(context, vm, "pause"):
        context.db.set("VM", vm, "power_state", "Paused")
    tell(context, vm, "VM_PAUSED", "{vm} paused")
    return ""


@calls.on("VM.unpause")
def unpause(context: Context, vm: str) -> str:
    """Let the VM's processors go on."""
    with vm_operation(context, vm, "unpause"):
        let_run(context, vm)
    tell(context, vm, "VM_UNPAUSED", "{vm} unpaused")
    return ""


# -- keeping the memory


def suspend_now(context: Context, vm: str) -> None:
    """Write the memory of a running VM to a new disk and take its domain away; ``VM_NO_SUSPEND_SR``."""
    db, pool = context.db, context.pool
    image = _new_suspend_image(context, vm)
    uuid = disk_uuid(pool, image)
    db.set("VM", vm, "power_state", "Paused")  # from here on its guest writes nothing any more
    write_memory_image(pool.disks, uuid, vm_uuid=db.text("VM", vm, "uuid"), entropy=pool.entropy)
    mark_written(pool, image)
    take_down(context, vm, state="Suspended", suspend_vdi=image)


def _new_suspend_image(context: Context, vm: str) -> str:
    db = context.db
    host = db.text("VM", vm, "resident_on")
    pool_row = db.row("pool", context.pool.pool_ref).fields
    candidates = [db.text("VM", vm, "suspend_SR"), str(pool_row["suspend_image_SR"])]
    if db.exists("host", host):
        candidates.append(db.text("host", host, "suspend_image_sr"))
    sr = next((ref for ref in candidates if _has_storage(context, host, ref)), None)
    if sr is None:
        raise ApiFailure("VM_NO_SUSPEND_SR", vm)
    size_bytes = int(db.number("VM", vm, "memory_static_max") * 1.2 * 1.05) + _SUSPEND_SPARE_BYTES
    hints = {"vmhint": db.text("VM", vm, "uuid"), "initial_allocation": str(size_bytes)}
    record: Fields = {
        "name_label": "Suspend image",
        "name_description": "Suspend image",
        "SR": sr,
        "virtual_size": size_bytes,
        "type": "suspend",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": hints if has_vhd_disks(db, sr) else {},
        "tags": [],
    }
    try:
        return create_vdi(context.pool, record)
    except ApiFailure as refusal:
        if refusal.code == "SR_BACKEND_FAILURE_44":
            raise ApiFailure("SR_SUSPEND_SPACE_INSUFFICIENT", sr) from refusal
        raise


def _has_storage(context: Context, host: str, sr: str) -> bool:
    db = context.db
    if not db.exists("SR", sr):
        return False
    pbds = [db.row("PBD", pbd).fields for pbd in db.texts("SR", sr, "PBDs")]
    return any(pbd["host"] == host and pbd["currently_attached"] for pbd in pbds)


def drop_suspend_image(context: Context, vm: str) -> None:
    """Remove the disk that keeps the VM's memory, when there is one."""
    db = context.db
    image = db.text("VM", vm, "suspend_VDI")
    db.set("VM", vm, "suspend_VDI", NULL_REF)
    if db.exists("VDI", image):
        destroy_vdi(context.pool, image)


@calls.on("VM.suspend")
def suspend(context: Context, vm: str) -> str:
    """Write the VM's memory to a disk and stop it."""
    with vm_operation(context, vm, "suspend"):
        context.db.set("VM", vm, "ha_always_run", False)
        suspend_now(context, vm)
    tell(context, vm, "VM_SUSPENDED", "{vm} suspended")
    return ""


def go_on(context: Context, vm: str, *, host: str, is_paused: bool) -> None:
    """Let a suspended VM go on from its memory image; one without an image is halted, a damaged image is refused."""
    db, pool = context.db, context.pool
    image = db.text("VM", vm, "suspend_VDI")
    if image == NULL_REF:
        take_down(context, vm)
        raise ApiFailure("VM_HAS_NO_SUSPEND_VDI", "VM", vm)
    if read_memory_image(pool.disks, disk_uuid(pool, image)) is None:
        text = "xenopsd internal error: restoring the domain failed: the suspend image is not valid"
        raise ApiFailure("INTERNAL_ERROR", text)
    bring_up(context, vm, host=host, is_paused=is_paused)
    drop_suspend_image(context, vm)


@calls.on("VM.resume")
def resume(context: Context, vm: str, start_paused: bool, force: bool) -> str:
    """Let a suspended VM go on, on a host that can run it."""
    with vm_operation(context, vm, "resume"):
        check_devices(context, vm)
        host = choose_host(context, vm)
        if not force:
            check_cpu(context, vm, host)
        go_on(context, vm, host=host, is_paused=start_paused)
    _tell_placed(context, vm, host, "VM_RESUMED", "resumed")
    return ""


@calls.on("VM.resume_on")
def resume_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> str:
    """Let a suspended VM go on, on one host."""
    with vm_operation(context, vm, "resume_on"):
        context.db.row("host", host)
        check_devices(context, vm)
        check_can_boot(context, vm, host, checks_cpu=False)
        if not force:
            check_cpu(context, vm, host)
        go_on(context, vm, host=host, is_paused=start_paused)
    _tell_placed(context, vm, host, "VM_RESUMED", "resumed")
    return ""


@calls.on("VM.get_boot_record")
def get_boot_record(context: Context, vm: str) -> Fields:
    """Return the record the VM was started with."""
    with vm_operation(context, vm, "get_boot_record"):
        return dict(context.db.row("VM", vm).fields)
