"""Calls of VMs: creation, destruction, templates, and what VMs belong to."""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.common import check_licence, vm_operation
from holdfast.lab.calls.vm_memory import update_overhead
from holdfast.lab.calls.vm_state import new_metrics
from holdfast.lab.calls.vtpm import drop_vtpm
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import allowed_vm_operations, check_vm_operation

__all__ = ["calls", "create", "destroy_vm", "leave_templates", "update_allowed"]

calls = CallSet()

_VENDOR_DEVICE_PLATFORM = 2
"""The virtual hardware that a vendor device needs at least."""


@calls.on("VM.create")
def create(context: Context, record: Fields) -> str:
    """Make a VM without disks and cards. Hardly anything of the record is checked, as recorded from a real pool."""
    db = context.db
    ref = f"OpaqueRef:{context.pool.new_uuid()}"
    other_config = {"mac_seed": context.pool.new_uuid(), **cast("dict[str, str]", record["other_config"])}
    domain_type = record["domain_type"]
    if domain_type == "unspecified":
        domain_type = "hvm" if record["HVM_boot_policy"] else "pv"
    fields: Fields = {
        **record,
        **_suspended_part(record, ref),
        "blocked_operations": {},
        "bios_strings": {},
        "is_vmss_snapshot": False,
        "is_snapshot_from_vmpp": False,
        "protection_policy": NULL_REF,
        "snapshot_schedule": NULL_REF,
        "other_config": other_config,
        "domain_type": domain_type,
        "domid": -1,
    }
    if record["has_vendor_device"]:
        version = cast(int, record["hardware_platform_version"])
        fields["hardware_platform_version"] = max(version, _VENDOR_DEVICE_PLATFORM)
    is_suspended = fields["power_state"] == "Suspended"
    with db.transaction():
        current: Fields = {"current_domain_type": record["domain_type"] if is_suspended else "unspecified"}
        current["VCPUs_utilisation"] = {"0": 0.0}
        made = db.create("VM", {**fields, "metrics": new_metrics(context, current)}, ref=ref)
        update_overhead(context, made)
        return made


def _suspended_part(record: Fields, ref: str) -> Fields:
    """Return what only a suspended VM takes from its record; any other is halted, whatever was asked for."""
    halted: Fields = {
        "power_state": "Halted",
        "suspend_VDI": NULL_REF,
        "last_booted_record": "",
        "last_boot_CPU_flags": {},
    }
    if record.get("power_state") != "Suspended":
        return halted
    kept: Fields = {name: record.get(name, halted[name]) for name in halted}
    if not kept["last_booted_record"] or not kept["last_boot_CPU_flags"] or kept["suspend_VDI"] == NULL_REF:
        raise ApiFailure("VM_BAD_POWER_STATE", ref, "halted", "suspended")
    return kept


@calls.on("VM.destroy")
def destroy(context: Context, vm: str) -> str:
    """Remove a VM that does not run, with its attachments and cards. Its disks stay."""
    with vm_operation(context, vm, "destroy"):
        destroy_vm(context, vm)
    return ""


def destroy_vm(context: Context, vm: str) -> None:
    """Remove the VM's rows; its children get its own parent. One that came with the pool stays, without its files."""
    db = context.db
    with db.transaction():
        fields = db.row("VM", vm).fields
        for child in db.texts("VM", vm, "children"):
            db.set("VM", child, "parent", fields["parent"])
        for vtpm in db.texts("VM", vm, "VTPMs"):
            drop_vtpm(context, vtpm)
        for blob in cast("dict[str, str]", fields["blobs"]).values():
            if db.exists("blob", blob):
                db.destroy("blob", blob)
        if cast("dict[str, str]", fields["other_config"]).get("default_template") == "true":
            raise ApiFailure("VM_CANNOT_DELETE_DEFAULT_TEMPLATE")
        for cls, name in (
            ("VBD", "VBDs"),
            ("VIF", "VIFs"),
            ("VGPU", "VGPUs"),
            ("VUSB", "VUSBs"),
            ("console", "consoles"),
        ):
            for ref in db.texts("VM", vm, name):
                db.destroy(cls, ref)
        for cls, name in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
            ref = str(fields[name])
            if db.exists(cls, ref):
                db.destroy(cls, ref)
        db.destroy("VM", vm)


# -- what may be done


@calls.on("VM.assert_operation_valid")
def assert_operation_valid(context: Context, vm: str, operation: str) -> str:
    """Return when the operation may begin now."""
    check_vm_operation(context.db, vm, operation)
    return ""


@calls.on("VM.update_allowed_operations")
def update_allowed_operations(context: Context, vm: str) -> str:
    """Compute anew what may be done with the VM."""
    update_allowed(context, vm)
    return ""


def update_allowed(context: Context, vm: str) -> None:
    """Forget a list that was computed before something changed."""
    context.db.set("VM", vm, "allowed_operations", [])


# -- templates


@calls.on("VM.set_is_a_template")
def set_is_a_template(context: Context, vm: str, value: bool) -> str:
    """Make a halted VM a template, or a template a VM."""
    if value:
        with vm_operation(context, vm, "make_into_template"):
            _become_template(context, vm)
    else:
        leave_templates(context, vm)
    return ""


def _become_template(context: Context, vm: str) -> None:
    db = context.db
    with db.transaction():
        metrics = db.text("VM", vm, "metrics")
        for vusb in db.texts("VM", vm, "VUSBs"):
            db.destroy("VUSB", vusb)
        db.update("VM", vm, {"ha_always_run": False, "groups": [], "metrics": NULL_REF})
        # One that was a template before has none any more, and cannot become one again.
        db.destroy("VM_metrics", metrics)
        db.set("VM", vm, "is_a_template", True)


def leave_templates(context: Context, vm: str) -> None:
    """Make a template a VM: it is installed now. The pool goes on listing what the template allowed."""
    db = context.db
    with db.transaction():
        row = db.row("VM", vm)
        metrics = str(row.fields["metrics"])
        if db.exists("VM_metrics", metrics):
            db.set("VM_metrics", metrics, "install_time", context.pool.now())
        if row.fields["is_a_template"]:
            allowed = allowed_vm_operations(db, row)
            db.update("VM", vm, {"is_a_template": False, "allowed_operations": allowed})


@calls.on("VM.set_is_default_template")
def set_is_default_template(context: Context, vm: str, value: bool) -> str:
    """Make a template one that comes with the pool, or an ordinary one."""
    db = context.db
    if value and not db.flag("VM", vm, "is_a_template"):
        with vm_operation(context, vm, "make_into_template"):
            _become_template(context, vm)
    with db.transaction():
        config = {**db.mapping("VM", vm, "other_config"), "default_template": str(value).lower()}
        db.update("VM", vm, {"is_default_template": value, "other_config": config, "allowed_operations": []})
    return ""


# -- what it belongs to


def _check_ordinary(context: Context, vm: str, text: str) -> None:
    fields = context.db.row("VM", vm).fields
    if fields["is_control_domain"] or fields["is_a_template"] or fields["is_a_snapshot"]:
        raise ApiFailure("OPERATION_NOT_ALLOWED", text)


@calls.on("VM.set_appliance")
def set_appliance(context: Context, vm: str, appliance: str) -> str:
    """Make the VM part of a group that starts and stops together. Groups that do not exist are accepted."""
    _check_ordinary(context, vm, "Control domains, templates and snapshots cannot be assigned to appliances.")
    context.db.update("VM", vm, {"appliance": appliance, "allowed_operations": []})
    return ""


@calls.on("VM.set_groups")
def set_groups(context: Context, vm: str, groups: list[str]) -> str:
    """Make the VM part of a group that is placed together."""
    context.db.row("VM", vm)
    check_licence(context, "vm_groups", "VM_groups")
    _check_ordinary(context, vm, "Control domains, templates, and snapshots cannot be added to VM groups.")
    if len(groups) > 1:
        raise ApiFailure("TOO_MANY_GROUPS")
    context.db.set("VM", vm, "groups", groups)
    return ""


@calls.on("VM_group.create")
def create_group(context: Context, record: Fields) -> str:
    """Make a group of VMs that are placed together or apart."""
    check_licence(context, "vm_groups", "VM_groups")
    return context.db.create("VM_group", record)


@calls.on("VM_group.destroy")
def destroy_group(context: Context, group: str) -> str:
    """Remove a group; its VMs belong to it no longer."""
    db = context.db
    with db.transaction():
        for vm in db.texts("VM_group", group, "VMs"):
            db.set("VM", vm, "groups", [each for each in db.texts("VM", vm, "groups") if each != group])
        db.destroy("VM_group", group)
    return ""


@calls.on("VM.set_protection_policy")
def set_protection_policy(context: Context, vm: str, policy: str) -> str:
    """Policies of this kind are gone."""
    raise ApiFailure("MESSAGE_REMOVED")


@calls.on("VM.set_snapshot_schedule")
def set_snapshot_schedule(context: Context, vm: str, schedule: str) -> str:
    """Let the pool snapshot the VM by itself."""
    db = context.db
    check_licence(context, "vmss", "VMSS")
    is_there = db.exists("VMSS", schedule)
    if not is_there and schedule not in (NULL_REF, ""):
        raise ApiFailure("INVALID_VALUE", schedule)
    if is_there and db.flag("VM", vm, "is_control_domain"):
        raise ApiFailure("INVALID_VALUE", schedule)
    if is_there and db.flag("VM", vm, "is_a_template"):
        raise ApiFailure("VM_IS_TEMPLATE", vm)
    db.update("VM", vm, {"snapshot_schedule": schedule, "allowed_operations": []})
    return ""


@calls.on("VM.create_new_blob")
def create_new_blob(context: Context, vm: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give the VM a place for a small file."""
    db = context.db
    with db.transaction():
        db.row("VM", vm)
        fields: Fields = {"mime_type": mime_type or "application/octet-stream", "public": public, "last_updated": EPOCH}
        blob = db.create("blob", fields)
        if name in db.mapping("VM", vm, "blobs"):
            raise ApiFailure("MAP_DUPLICATE_KEY", "VM", "blobs", vm, name)
        db.put_key("VM", vm, "blobs", key=name, value=blob)
        return blob
