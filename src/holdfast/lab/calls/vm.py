"""Calls of VMs: creation, destruction, and the fields that have rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.calls.common import vm_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import bad_power_state, check_vm_operation

__all__ = ["calls", "destroy_vm", "new_metrics", "vm_operation"]

calls = CallSet()

MEMORY_OVERHEAD_BYTES = 13_631_488
"""What a pool reserves beside a small HVM guest's memory, as recorded from a real one."""

BIOS_KEYS = (
    "bios-vendor",
    "bios-version",
    "system-manufacturer",
    "system-product-name",
    "system-version",
    "system-serial-number",
    "baseboard-manufacturer",
    "baseboard-product-name",
    "baseboard-version",
    "baseboard-serial-number",
    "baseboard-asset-tag",
    "baseboard-location-in-chassis",
    "enclosure-asset-tag",
)
_BIOS_VALUE_CHARACTERS_MAX = 512
_BIOS_DEFAULTS = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "baseboard-product-name": "",
    "baseboard-version": "",
    "baseboard-serial-number": "",
    "baseboard-asset-tag": "",
    "baseboard-location-in-chassis": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
    "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}


def new_metrics(context: Context) -> str:
    """Add the metrics of a VM that does not run."""
    return context.db.create("VM_metrics", {"last_updated": context.pool.now(), "start_time": EPOCH})


@calls.on("VM.create")
def create(context: Context, record: Fields) -> str:
    """Make a VM without disks and cards. Hardly anything of the record is checked, as recorded from a real pool."""
    db = context.db
    ref = f"OpaqueRef:{context.pool.new_uuid()}"
    fields: Fields = {**record, "blocked_operations": {}, "bios_strings": {}}
    _accept_power_state(context, ref, fields)
    other_config = {"mac_seed": context.pool.new_uuid(), **cast("dict[str, str]", record["other_config"])}
    if fields["domain_type"] == "unspecified":
        fields["domain_type"] = "hvm" if fields["HVM_boot_policy"] else "pv"
    with db.transaction():
        fields |= {
            "other_config": other_config,
            "metrics": new_metrics(context),
            "memory_overhead": MEMORY_OVERHEAD_BYTES,
            "domid": -1,
        }
        if not fields["hardware_platform_version"]:
            fields["hardware_platform_version"] = 2
        return db.create("VM", fields, ref=ref)


def _accept_power_state(context: Context, ref: str, fields: Fields) -> None:
    """A suspended VM needs what a resume needs; other states are taken as they are, or are Halted."""
    if fields.get("power_state") != "Suspended":
        return
    complete = fields.get("last_booted_record") and fields.get("last_boot_CPU_flags")
    if not complete or fields.get("suspend_VDI", NULL_REF) == NULL_REF:
        raise ApiFailure("VM_BAD_POWER_STATE", ref, "halted", "suspended")


@calls.on("VM.destroy")
def destroy(context: Context, vm: str) -> str:
    """Remove a VM that does not run, with its attachments and cards. Its disks stay."""
    with vm_operation(context, vm, "destroy"):
        destroy_vm(context, vm)
    return ""


def destroy_vm(context: Context, vm: str) -> None:
    """Remove the VM's rows; its children get its own parent."""
    db = context.db
    with db.transaction():
        row = db.row("VM", vm)
        for child in db.texts("VM", vm, "children"):
            db.set("VM", child, "parent", row.fields["parent"])
        for cls, name in (
            ("VBD", "VBDs"),
            ("VIF", "VIFs"),
            ("VTPM", "VTPMs"),
            ("VGPU", "VGPUs"),
            ("console", "consoles"),
        ):
            for ref in db.texts("VM", vm, name):
                db.destroy(cls, ref)
        for cls, name in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
            ref = str(row.fields[name])
            if db.exists(cls, ref):
                db.destroy(cls, ref)
        db.destroy("VM", vm)


# -- fields with rules


@calls.on("VM.set_VCPUs_max")
def set_vcpus_max(context: Context, vm: str, value: int) -> str:
    """Set how many processors the VM may have."""
    _check_vcpus(context.db.number("VM", vm, "VCPUs_at_startup"), value, named=value)
    context.db.set("VM", vm, "VCPUs_max", value)
    return ""


@calls.on("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(context: Context, vm: str, value: int) -> str:
    """Set how many processors the VM starts with."""
    _check_vcpus(value, context.db.number("VM", vm, "VCPUs_max"), named=value)
    context.db.set("VM", vm, "VCPUs_at_startup", value)
    return ""


def _check_vcpus(at_startup: int, maximum: int, *, named: int) -> None:
    if not 0 < at_startup <= maximum:
        text = "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max"
        raise ApiFailure("INVALID_VALUE", text, str(named))


def _make_non_negative_setter(name: str) -> Callable[[Context, str, int], str]:
    def set_value(context: Context, vm: str, value: int) -> str:
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
    if value not in ("", "best-effort", "restart"):
        raise ApiFailure("INVALID_VALUE", "ha_restart_priority", value)
    context.db.set("VM", vm, "ha_restart_priority", value)
    return ""


@calls.on("VM.set_bios_strings")
def set_bios_strings(context: Context, vm: str, value: dict[str, str]) -> str:
    """Give the VM its BIOS strings, once."""
    db = context.db
    if db.mapping("VM", vm, "bios_strings"):
        raise ApiFailure("VM_BIOS_STRINGS_ALREADY_SET")
    for key, text in value.items():
        if key not in BIOS_KEYS:
            raise ApiFailure("INVALID_VALUE", key, "Unknown key")
        if not text:
            raise ApiFailure("INVALID_VALUE", key, "Value provided is empty")
        if len(text) > _BIOS_VALUE_CHARACTERS_MAX:
            reason = f"{text} has length more than {_BIOS_VALUE_CHARACTERS_MAX} characters"
            raise ApiFailure("INVALID_VALUE", key, reason)
    db.set("VM", vm, "bios_strings", {**_BIOS_DEFAULTS, **value})
    return ""


@calls.on("VM.set_suspend_VDI")
def set_suspend_vdi(context: Context, vm: str, vdi: str) -> str:
    """Replace the image of a suspended VM's memory."""
    db = context.db
    power = db.text("VM", vm, "power_state")
    if power != "Suspended":
        raise bad_power_state(vm, wanted=("Suspended",), actual=power)
    db.row("VDI", vdi)
    db.set("VM", vm, "suspend_VDI", vdi)
    return ""


@calls.on("VM.set_is_default_template")
def set_is_default_template(context: Context, vm: str, value: bool) -> str:
    """Make a template one that comes with the pool, or an ordinary one."""
    db = context.db
    config = {k: v for k, v in db.mapping("VM", vm, "other_config").items() if k != "default_template"}
    if value:
        config["default_template"] = "true"
    db.update("VM", vm, {"is_default_template": value, "other_config": config})
    return ""


@calls.on("VM.assert_operation_valid")
def assert_operation_valid(context: Context, vm: str, operation: str) -> str:
    """Return when the operation may begin now."""
    check_vm_operation(context.db, vm, operation)
    return ""


@calls.on("VM.assert_agile", "VM.update_allowed_operations")
def accept(context: Context, vm: str) -> str:
    """Nothing to do, but the VM must exist."""
    context.db.row("VM", vm)
    return ""


@calls.on("VM.assert_can_boot_here")
def assert_can_boot_here(context: Context, vm: str, host: str) -> str:
    """Every host of the lab can run every VM."""
    context.db.row("VM", vm)
    context.db.row("host", host)
    return ""


@calls.on("VM.get_possible_hosts")
def get_possible_hosts(context: Context, vm: str) -> list[str]:
    """Return the hosts that have memory enough for the VM."""
    db = context.db
    needed = db.number("VM", vm, "memory_static_max")
    metrics = {row.ref: str(row.fields["metrics"]) for row in db.rows("host")}
    return [host for host, ref in metrics.items() if db.number("host_metrics", ref, "memory_free") >= needed]


@calls.on("VTPM.create")
def create_vtpm(context: Context, vm: str, is_unique: bool = False) -> str:
    """Give a halted VM its trusted platform module."""
    if context.pool.is_restricted("vtpm"):
        raise ApiFailure("FEATURE_RESTRICTED", "restrict_vtpm")
    with vm_operation(context, vm, "create_vtpm"):
        fields: Fields = {"VM": vm, "is_unique": is_unique, "is_protected": False, "persistence_backend": "xapi"}
        return context.db.create("VTPM", fields)


@calls.on("VM.recover")
def recover(context: Context, vm: str, session: str, force: bool) -> str:
    """Recovery into another pool needs a session there, which the lab never has."""
    context.db.row("VM", vm)
    raise ApiFailure("HANDLE_INVALID", "session", session)


@calls.on("VM.create_new_blob")
def create_new_blob(context: Context, vm: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give the VM a place for a small file."""
    db = context.db
    with db.transaction():
        fields: Fields = {"name_label": name, "mime_type": mime_type, "public": public, "last_updated": EPOCH}
        blob = db.create("blob", fields)
        db.put_key("VM", vm, "blobs", key=name, value=blob)
        return blob
