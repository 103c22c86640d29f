"""Calls that set one field of a VM and have a rule of their own: processors, firmware, what happens after a failure."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.calls.common import check_licence, vm_operation
from holdfast.lab.calls.vdi_copy import checksum
from holdfast.lab.calls.vm_memory import update_overhead
from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.rules import check_power_state
from holdfast.lab.volumes import disk_uuid

__all__ = ["calls"]

calls = CallSet()

_RESTART_PRIORITIES = ("restart", "best-effort", "")
_VENDOR_DEVICE_PLATFORM = 2
_VCPUS_RULE = "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max"
_EFI_VARIABLES = "EFI-variables"


# -- processors


@calls.on("VM.set_VCPUs_max")
def set_vcpus_max(context: Context, vm: str, value: int) -> str:
    """Set how many processors the VM may have."""
    db = context.db
    with vm_operation(context, vm, "changing_VCPUs"):
        if db.number("VM", vm, "domid") == 0:
            raise internal_failure("set_VCPUs_max is not allowed on dom0")
        if value < 1 or value < db.number("VM", vm, "VCPUs_at_startup"):
            raise ApiFailure("INVALID_VALUE", _VCPUS_RULE, str(value))
        db.set("VM", vm, "VCPUs_max", value)
        update_overhead(context, vm)
    return ""


@calls.on("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(context: Context, vm: str, value: int) -> str:
    """Set how many processors the VM starts with."""
    db = context.db
    if db.number("VM", vm, "domid") == 0:
        raise ApiFailure("OPERATION_NOT_ALLOWED", "set_VCPUs_at_startup is not allowed on dom0")
    if value < 1 or value > db.number("VM", vm, "VCPUs_max"):
        raise ApiFailure("INVALID_VALUE", _VCPUS_RULE, str(value))
    db.set("VM", vm, "VCPUs_at_startup", value)
    update_overhead(context, vm)
    return ""


@calls.on("VM.set_VCPUs_number_live")
def set_vcpus_number_live(context: Context, vm: str, count: int) -> str:
    """Set how many processors the running VM has."""
    db = context.db
    with vm_operation(context, vm, "changing_VCPUs_live"):
        check_licence(context, "set_vcpus_number_live", "Live_set_vcpus")
        if not 0 < count <= db.number("VM", vm, "VCPUs_max"):
            raise ApiFailure("INVALID_VALUE", _VCPUS_RULE, str(count))
        db.set("VM_metrics", db.text("VM", vm, "metrics"), "VCPUs_number", count)
    return ""


@calls.on("VM.add_to_VCPUs_params_live")
def add_to_vcpus_params_live(context: Context, vm: str, key: str, value: str) -> str:
    """No pool does this any more."""
    with vm_operation(context, vm, "changing_VCPUs_live"):
        raise ApiFailure("NOT_IMPLEMENTED", "add_to_VCPUs_params_live")


# -- order and failure


def _make_non_negative_setter(name: str) -> Callable[[Context, str, int], str]:
    def set_value(context: Context, vm: str, value: int) -> str:
        context.db.row("VM", vm)
        if value < 0:
            raise ApiFailure("INVALID_VALUE", f"{name} must be non-negative", str(value))
        context.db.set("VM", vm, name, value)
        return ""

    return set_value


for _name in ("order", "start_delay", "shutdown_delay"):
    calls.on(f"VM.set_{_name}")(_make_non_negative_setter(_name))


@calls.on("VM.set_ha_restart_priority")
def set_ha_restart_priority(context: Context, vm: str, value: str) -> str:
    """Set what high availability does with the VM."""
    db = context.db
    if value not in _RESTART_PRIORITIES:
        raise ApiFailure("INVALID_VALUE", "ha_restart_priority", value)
    if db.text("VM", vm, "ha_restart_priority") != value:
        db.set("VM", vm, "ha_restart_priority", value)
        if db.text("VM", vm, "power_state") == "Running":
            db.set("VM", vm, "ha_always_run", value == "restart")
    db.set("VM", vm, "allowed_operations", [])
    return ""


@calls.on("VM.set_ha_always_run")
def set_ha_always_run(context: Context, vm: str, value: bool) -> str:
    """The old way of saying the same."""
    return set_ha_restart_priority(context, vm, "restart" if value else "")


# -- what is blocked


@calls.on("VM.set_blocked_operations")
def set_blocked_operations(context: Context, vm: str, value: dict[str, str]) -> str:
    """Name the operations that the pool refuses, and why."""
    context.db.update("VM", vm, {"blocked_operations": value, "allowed_operations": []})
    return ""


@calls.on("VM.add_to_blocked_operations")
def add_to_blocked_operations(context: Context, vm: str, key: str, value: str) -> str:
    """Block one operation more."""
    db = context.db
    with db.transaction():
        blocked = db.mapping("VM", vm, "blocked_operations")
        if key in blocked:
            raise ApiFailure("MAP_DUPLICATE_KEY", "VM", "blocked_operations", vm, key)
        db.update("VM", vm, {"blocked_operations": {**blocked, key: value}, "allowed_operations": []})
    return ""


@calls.on("VM.remove_from_blocked_operations")
def remove_from_blocked_operations(context: Context, vm: str, key: str) -> str:
    """Block one operation less."""
    db = context.db
    with db.transaction():
        blocked = {name: why for name, why in db.mapping("VM", vm, "blocked_operations").items() if name != key}
        db.update("VM", vm, {"blocked_operations": blocked, "allowed_operations": []})
    return ""


# -- firmware and kind of machine


@calls.on("VM.set_NVRAM")
def set_nvram(context: Context, vm: str, value: dict[str, str]) -> str:
    """Replace what the firmware remembers."""
    with vm_operation(context, vm, "changing_NVRAM"):
        context.db.set("VM", vm, "NVRAM", value)
    return ""


@calls.on("VM.add_to_NVRAM")
def add_to_nvram(context: Context, vm: str, key: str, value: str) -> str:
    """Let the firmware remember one thing more."""
    db = context.db
    with vm_operation(context, vm, "changing_NVRAM"):
        if key in db.mapping("VM", vm, "NVRAM"):
            raise ApiFailure("MAP_DUPLICATE_KEY", "VM", "NVRAM", vm, key)
        db.put_key("VM", vm, "NVRAM", key=key, value=value)
    return ""


@calls.on("VM.remove_from_NVRAM")
def remove_from_nvram(context: Context, vm: str, key: str) -> str:
    """Let the firmware forget one thing."""
    with vm_operation(context, vm, "changing_NVRAM"):
        context.db.drop_key("VM", vm, "NVRAM", key=key)
    return ""


@calls.on("VM.set_NVRAM_EFI_variables")
def set_nvram_efi_variables(context: Context, vm: str, value: str) -> str:
    """What the firmware of a running VM writes."""
    context.db.put_key("VM", vm, "NVRAM", key=_EFI_VARIABLES, value=value)
    return ""


@calls.on("VM.get_secureboot_readiness")
def get_secureboot_readiness(context: Context, vm: str) -> str:
    """Return whether the VM's firmware has what it takes to check what it boots."""
    db = context.db
    fields = db.row("VM", vm).fields
    if fields["domain_type"] != "hvm" or db.mapping("VM", vm, "HVM_boot_params").get("firmware") != "uefi":
        return "not_supported"
    if db.mapping("VM", vm, "platform").get("secureboot", "").lower() not in ("1", "true"):
        return "disabled"
    return "ready" if _EFI_VARIABLES in db.mapping("VM", vm, "NVRAM") else "first_boot"


@calls.on("VM.set_domain_type")
def set_domain_type(context: Context, vm: str, value: str) -> str:
    """Set what kind of machine the VM is."""
    context.db.row("VM", vm)
    if value == "unspecified":
        raise ApiFailure("INVALID_VALUE", "domain_type", value)
    context.db.update("VM", vm, {"domain_type": value, "HVM_boot_policy": "BIOS order" if value == "hvm" else ""})
    return ""


@calls.on("VM.set_HVM_boot_policy")
def set_hvm_boot_policy(context: Context, vm: str, value: str) -> str:
    """The old way of saying the same: an emulated machine has a policy."""
    context.db.update("VM", vm, {"HVM_boot_policy": value, "domain_type": "hvm" if value else "pv"})
    return ""


@calls.on("VM.set_has_vendor_device")
def set_has_vendor_device(context: Context, vm: str, value: bool) -> str:
    """Offer the device by which Windows finds its drivers."""
    db = context.db
    check_power_state(db, vm, "Halted")
    db.set("VM", vm, "has_vendor_device", value)
    if value and db.number("VM", vm, "hardware_platform_version") < _VENDOR_DEVICE_PLATFORM:
        db.set("VM", vm, "hardware_platform_version", _VENDOR_DEVICE_PLATFORM)
    return ""


# -- the kept memory


@calls.on("VM.set_suspend_VDI")
def set_suspend_vdi(context: Context, vm: str, vdi: str) -> str:
    """Replace the image of a suspended VM's memory by an identical one."""
    db, pool = context.db, context.pool
    check_power_state(db, vm, "Suspended")
    if db.text("VDI", vdi, "type") == "cbt_metadata":
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vm, "CBT metadata")
    before = db.text("VM", vm, "suspend_VDI")
    if before == vdi:
        return ""
    if before != NULL_REF:
        hashes = [checksum(context, each) for each in (before, vdi)]
        if hashes[0] != hashes[1]:
            told = [f"{disk_uuid(pool, each)} : {found}" for each, found in zip((before, vdi), hashes, strict=True)]
            raise ApiFailure("SUSPEND_VDI_REPLACEMENT_IS_NOT_IDENTICAL", *told)
    db.set("VM", vm, "suspend_VDI", vdi)
    return ""
