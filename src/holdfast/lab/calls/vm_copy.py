"""Calls that make one VM from another: snapshot, checkpoint, clone, copy, revert, provision.

Disks are copied one after the other; when one fails, what was made for the earlier ones is removed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.calls.common import vm_operation
from holdfast.lab.calls.vif import derived_mac
from holdfast.lab.calls.vm import new_metrics
from holdfast.lab.calls.vm_power import new_suspend_image, take_down
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure, quoted
from holdfast.lab.rules import check_vdi_operation
from holdfast.lab.volumes import clone_vdi, create_vdi, destroy_vdi, disk_uuid, snapshot_vdi

__all__ = ["calls"]

calls = CallSet()

CopyDisk = Callable[[str], str]

_RESET: Fields = {
    "power_state": "Halted",
    "current_operations": {},
    "resident_on": NULL_REF,
    "scheduled_to_be_resident_on": NULL_REF,
    "domid": -1,
    "guest_metrics": NULL_REF,
    "suspend_VDI": NULL_REF,
    "blocked_operations": {},
    "appliance": NULL_REF,
    "snapshot_schedule": NULL_REF,
    "protection_policy": NULL_REF,
    "order": 0,
    "start_delay": 0,
    "shutdown_delay": 0,
    "ha_always_run": False,
    "is_default_template": False,
    "last_booted_record": "",
    "last_boot_CPU_flags": {},
    "version": 0,
    "blobs": {},
    "requires_reboot": False,
    "memory_target": 0,
}
"""What no copy takes over."""

_REVERTED = (
    "memory_static_max",
    "memory_dynamic_max",
    "memory_dynamic_min",
    "memory_static_min",
    "VCPUs_params",
    "VCPUs_max",
    "VCPUs_at_startup",
    "actions_after_shutdown",
    "actions_after_reboot",
    "actions_after_crash",
    "PV_bootloader",
    "PV_kernel",
    "PV_ramdisk",
    "PV_args",
    "PV_bootloader_args",
    "PV_legacy_args",
    "HVM_boot_policy",
    "HVM_boot_params",
    "HVM_shadow_multiplier",
    "platform",
    "PCI_bus",
    "other_config",
    "recommendations",
    "xenstore_data",
    "tags",
    "NVRAM",
    "domain_type",
    "has_vendor_device",
)
"""What going back to a snapshot restores beside the disks; names and start-up order stay."""


@calls.on("VM.snapshot")
def snapshot(context: Context, vm: str, label: str, ignore_vdis: list[str] | None = None) -> str:
    """Freeze the VM as it is, crash-consistent."""
    with vm_operation(context, vm, "snapshot"):
        return _snapshot(context, vm, label, ignored=frozenset(ignore_vdis or ()))


@calls.on("VM.checkpoint")
def checkpoint(context: Context, vm: str, label: str) -> str:
    """Freeze the VM with its memory; a running one goes on afterwards."""
    with vm_operation(context, vm, "checkpoint"):
        image = new_suspend_image(context, vm)
        made = _snapshot(context, vm, label, ignored=frozenset())
        row = context.db.row("VM", vm).fields
        kept: Fields = {name: row[name] for name in ("last_booted_record", "last_boot_CPU_flags")}
        context.db.update("VM", made, {**kept, "power_state": "Suspended", "suspend_VDI": image})
        return made


def _snapshot(context: Context, vm: str, label: str, *, ignored: frozenset[str]) -> str:
    db, pool = context.db, context.pool
    row = db.row("VM", vm)
    taken_at = pool.now()
    overrides: Fields = {
        "name_label": label,
        "is_a_snapshot": True,
        "is_a_template": True,
        "snapshot_of": vm,
        "snapshot_time": taken_at,
        "snapshot_info": {
            "disk-snapshot-type": "crash_consistent",
            "power-state-at-snapshot": row.fields["power_state"],
        },
        "snapshot_metadata": _spell_record(row.fields),
        "parent": row.fields["parent"],
        "generation_id": _fresh_generation(context, vm),
    }
    numbers: dict[str, int] = {}

    def copy_disk(vdi: str) -> str:
        number = numbers.setdefault(vdi, len(numbers))
        fault = pool.faults.take("snapshot-fails", disk=number)
        if fault is not None:
            raise ApiFailure(fault.text("code"), "", fault.text("text"), "")
        return snapshot_vdi(pool, vdi, taken_at=taken_at)

    disks = _copy_disks(context, vm, copy_disk, operation="snapshot", ignored=ignored)
    with db.transaction():
        made = _copy_vm(context, vm, overrides, disks, ignored=ignored)
        for vif in reversed(db.texts("VM", vm, "VIFs")):
            _copy_card(context, vif, made)
        db.set("VM", vm, "parent", made)
        return made


def _copy_disks(
    context: Context, vm: str, copy_disk: CopyDisk, *, operation: str, ignored: frozenset[str]
) -> dict[str, str]:
    """Return the copy of each disk of the VM by the original; on a failure nothing is left."""
    made: dict[str, str] = {}
    try:
        for vbd in _disks_in_order(context, vm):
            vdi = context.db.text("VBD", vbd, "VDI")
            if vdi not in ignored and vdi not in made:
                check_vdi_operation(context.db, vdi, operation)
                made[vdi] = copy_disk(vdi)
    except BaseException:
        for copy in made.values():
            destroy_vdi(context.pool, copy)
        raise
    return made


def _disks_in_order(context: Context, vm: str) -> list[str]:
    db = context.db
    disks = [vbd for vbd in db.texts("VM", vm, "VBDs") if db.text("VBD", vbd, "type") == "Disk"]
    return sorted(disks, key=lambda vbd: (len(db.text("VBD", vbd, "userdevice")), db.text("VBD", vbd, "userdevice")))


def _copy_vm(
    context: Context, vm: str, overrides: Fields, disks: dict[str, str], *, ignored: frozenset[str] = frozenset()
) -> str:
    """Add the VM's row and its virtual disks. The caller holds a transaction."""
    db = context.db
    table = db.table("VM")
    fields: Fields = {
        name: value for name, value in db.row("VM", vm).fields.items() if table.fields[name].computed_from is None
    }
    fields |= {**_RESET, "uuid": context.pool.new_uuid(), "metrics": new_metrics(context), **overrides}
    made = db.create("VM", fields)
    for vbd in reversed(db.texts("VM", vm, "VBDs")):
        vdi = db.text("VBD", vbd, "VDI")
        if vdi not in ignored:
            _copy_vbd(context, vbd, made, disks.get(vdi, vdi))
    for vtpm in db.texts("VM", vm, "VTPMs"):
        db.create("VTPM", {**db.row("VTPM", vtpm).fields, "uuid": context.pool.new_uuid(), "VM": made})
    return made


def _copy_vbd(context: Context, vbd: str, vm: str, vdi: str) -> None:
    fields = context.db.row("VBD", vbd).fields
    other_config = {**cast("dict[str, str]", fields["other_config"])}
    if fields["type"] == "Disk":
        other_config["owner"] = ""
    changes: Fields = {
        "uuid": context.pool.new_uuid(),
        "VM": vm,
        "VDI": vdi,
        "device": "",
        "currently_attached": False,
        "current_operations": {},
        "other_config": other_config,
        "metrics": f"OpaqueRef:{context.pool.new_uuid()}",
    }
    context.db.create("VBD", {**fields, **changes})


def _copy_card(context: Context, vif: str, vm: str, *, mac_seed: str = "") -> None:
    fields = context.db.row("VIF", vif).fields
    changes: Fields = {
        "uuid": context.pool.new_uuid(),
        "VM": vm,
        "currently_attached": False,
        "current_operations": {},
        "metrics": f"OpaqueRef:{context.pool.new_uuid()}",
    }
    if mac_seed:
        changes |= {"MAC": derived_mac(mac_seed, str(fields["device"])), "MAC_autogenerated": True}
    context.db.create("VIF", {**fields, **changes})


def _fresh_generation(context: Context, vm: str) -> str:
    """Return a new generation id when the VM has one; guests notice by it that they were copied."""
    if context.db.text("VM", vm, "generation_id") in ("", "0:0"):
        return context.db.text("VM", vm, "generation_id")
    digits = int.from_bytes(context.pool.entropy.token_bytes(16), "big")
    return f"{digits >> 65}:{digits & ((1 << 63) - 1)}"


def _spell_record(fields: Fields) -> str:
    """Return a record as the pool keeps it inside a snapshot: one long expression of strings."""
    return "(" + " ".join(f"({quoted(name)} {_spell(value)})" for name, value in fields.items()) + ")"


def _spell(value: object) -> str:
    match value:
        case list():
            return "(" + " ".join(_spell(item) for item in value) + ")"
        case dict():
            return "(" + " ".join(f"({quoted(str(key))} {_spell(item)})" for key, item in value.items()) + ")"
        case bool():
            return quoted(str(value).lower())
        case _:
            return quoted(str(value))


# -- independent copies


def _clone(context: Context, vm: str, label: str, copy_disk: CopyDisk, *, operation: str) -> str:
    db = context.db
    with vm_operation(context, vm, operation):
        disks = _copy_disks(context, vm, copy_disk, operation=operation, ignored=frozenset())
        with db.transaction():
            row = db.row("VM", vm).fields
            seed = context.pool.new_uuid()
            other_config = {**cast("dict[str, str]", row["other_config"]), "mac_seed": seed}
            if row["is_a_template"] and not row["is_a_snapshot"]:
                other_config["base_template_name"] = str(row["name_label"])
            overrides: Fields = {
                "name_label": label,
                "is_a_snapshot": False,
                "snapshot_of": NULL_REF,
                "snapshot_time": EPOCH,
                "snapshot_info": {},
                "snapshot_metadata": "",
                "transportable_snapshot_id": "",
                "parent": NULL_REF,
                "other_config": other_config,
                "generation_id": _fresh_generation(context, vm),
            }
            made = _copy_vm(context, vm, overrides, disks)
            for vif in reversed(db.texts("VM", vm, "VIFs")):
                _copy_card(context, vif, made, mac_seed=seed)
            return made


@calls.on("VM.clone")
def clone(context: Context, vm: str, label: str) -> str:
    """Make an independent VM whose disks share blocks with the original."""
    return _clone(context, vm, label, lambda vdi: clone_vdi(context.pool, vdi), operation="clone")


@calls.on("VM.copy")
def copy(context: Context, vm: str, label: str, sr: str) -> str:
    """Make an independent VM with full copies of the disks, on the given repository or where they are."""

    def copy_disk(vdi: str) -> str:
        fields = dict(context.db.row("VDI", vdi).fields)
        target = sr if context.db.exists("SR", sr) else str(fields["SR"])
        made = create_vdi(context.pool, {**fields, "SR": target, "read_only": False, "type": "user", "sm_config": {}})
        context.pool.disks.copy(disk_uuid(context.pool, vdi), disk_uuid(context.pool, made))
        return made

    return _clone(context, vm, label, copy_disk, operation="copy")


@calls.on("VM.provision")
def provision(context: Context, vm: str) -> str:
    """Turn a template into a VM."""
    with vm_operation(context, vm, "provision"):
        context.db.set("VM", vm, "is_a_template", False)
    return ""


@calls.on("VM.revert")
def revert(context: Context, made: str) -> str:
    """Give the VM the disks and settings of its snapshot. Its disks get new identities, so a backup begins anew."""
    db = context.db
    vm = db.text("VM", made, "snapshot_of")
    if not db.exists("VM", vm):
        raise ApiFailure("VM_REVERT_FAILED", made, vm)
    with vm_operation(context, made, "revert"):
        if db.text("VM", vm, "power_state") != "Halted":
            take_down(context, vm)
        disks = _copy_disks(
            context, made, lambda vdi: clone_vdi(context.pool, vdi), operation="clone", ignored=frozenset()
        )
        with db.transaction():
            _repoint(context, disks)
            _drop_devices(context, vm)
            for vbd in reversed(db.texts("VM", made, "VBDs")):
                vdi = db.text("VBD", vbd, "VDI")
                _copy_vbd(context, vbd, vm, disks.get(vdi, vdi))
            for vif in reversed(db.texts("VM", made, "VIFs")):
                _copy_card(context, vif, vm)
            fields: Fields = {name: db.get("VM", made, name) for name in _REVERTED}
            db.update("VM", vm, {**fields, "parent": made, "generation_id": _fresh_generation(context, vm)})
    return ""


def _repoint(context: Context, disks: dict[str, str]) -> None:
    """Let the snapshots of a disk that goes away belong to the disk that takes its place."""
    db = context.db
    for original, new in disks.items():
        live = db.text("VDI", original, "snapshot_of")
        for row in db.rows("VDI"):
            if row.fields["snapshot_of"] == live and live != NULL_REF:
                db.set("VDI", row.ref, "snapshot_of", new)


def _drop_devices(context: Context, vm: str) -> None:
    db = context.db
    for vbd in db.texts("VM", vm, "VBDs"):
        vdi = db.text("VBD", vbd, "VDI")
        is_disk = db.text("VBD", vbd, "type") == "Disk"
        db.destroy("VBD", vbd)
        if is_disk and db.exists("VDI", vdi):
            destroy_vdi(context.pool, vdi)
    for vif in db.texts("VM", vm, "VIFs"):
        db.destroy("VIF", vif)
