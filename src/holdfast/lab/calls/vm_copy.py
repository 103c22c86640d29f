"""Calls that make one VM from another: snapshot, checkpoint, clone, copy.

Disks are copied one after the other; when one fails, what was made for the earlier ones is removed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from holdfast.lab.calls import vdi_copy
from holdfast.lab.calls.common import check_licence, tell, vm_operation
from holdfast.lab.calls.vif import copy_card
from holdfast.lab.calls.vm_placement import choose_storage_host
from holdfast.lab.calls.vm_power import go_on, stop, suspend_now
from holdfast.lab.calls.vm_state import new_metrics
from holdfast.lab.calls.vtpm import copy_vtpm
from holdfast.lab.columns import column_of, spell
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import allowed_vm_operations, driver_features
from holdfast.lab.volumes import destroy_vdi

__all__ = [
    "calls",
    "copy_disks",
    "copy_guest_metrics",
    "copy_metrics",
    "copy_vbd",
    "disk_vbds",
    "drop_disks",
    "fresh_generation",
    "vm_vdis",
]

calls = CallSet()

CopyDisk = Callable[[str], str]

_RESET: Fields = {
    "allowed_operations": [],
    "current_operations": {},
    "resident_on": NULL_REF,
    "scheduled_to_be_resident_on": NULL_REF,
    "domid": -1,
    "domarch": "",
    "suspend_VDI": NULL_REF,
    "suspend_SR": NULL_REF,
    "blocked_operations": {},
    "appliance": NULL_REF,
    "groups": [],
    "snapshot_schedule": NULL_REF,
    "is_vmss_snapshot": False,
    "protection_policy": NULL_REF,
    "order": 0,
    "start_delay": 0,
    "shutdown_delay": 0,
    "ha_always_run": False,
    "is_default_template": False,
    "transportable_snapshot_id": "",
    "version": 0,
    "blobs": {},
    "requires_reboot": False,
    "pending_guidances": [],
    "pending_guidances_recommended": [],
    "pending_guidances_full": [],
}
"""What no copy takes over."""

_INTERNAL_KEYS = ("default_template", "xensource_internal")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manner:
    """How a VM is copied."""

    operation: str
    copy_disk: CopyDisk
    label: str
    power_state: str
    snapshot_info: dict[str, str] | None = None
    """None for a copy that is a VM of its own."""
    keeps_memory: bool = False

    @property
    def is_snapshot(self) -> bool:
        return self.snapshot_info is not None


# -- snapshots


@calls.on("VM.snapshot")
def snapshot(context: Context, vm: str, label: str, ignore_vdis: list[str] | None = None) -> str:
    """Freeze the VM as it is, crash-consistent."""
    with vm_operation(context, vm, "snapshot"):
        choose_storage_host(context, vm)
        manner = _Manner(
            operation="snapshot",
            copy_disk=_snapshot_disk(context),
            label=label,
            power_state="Halted",
            snapshot_info=_snapshot_info(context, vm),
        )
        made = _make(context, vm, manner, ignored=frozenset(ignore_vdis or ()))
    tell(context, vm, "VM_SNAPSHOTTED", f"{{vm}} snapshotted, snapshot name: {label}")
    return made


@calls.on("VM.checkpoint")
def checkpoint(context: Context, vm: str, label: str) -> str:
    """Freeze the VM with its memory; a running one goes on afterwards."""
    db = context.db
    with vm_operation(context, vm, "checkpoint"):
        check_licence(context, "checkpoint", "Checkpoint")
        was_running = db.text("VM", vm, "power_state") == "Running"
        info = _snapshot_info(context, vm) if was_running else {}
        host = db.text("VM", vm, "resident_on")
        if was_running:
            _check_can_snapshot(context, vm)
            suspend_now(context, vm)
        try:
            manner = _Manner(
                operation="checkpoint",
                copy_disk=_snapshot_disk(context),
                label=label,
                power_state="Suspended" if db.text("VM", vm, "power_state") == "Suspended" else "Halted",
                snapshot_info=info,
                keeps_memory=True,
            )
            made = _make(context, vm, manner)
        finally:
            if was_running:
                go_on(context, vm, host=host, is_paused=False)
    tell(context, vm, "VM_CHECKPOINTED", f"{{vm}} checkpointed, snapshot name: {label}")
    return made


def _check_can_snapshot(context: Context, vm: str) -> None:
    for vdi in vm_vdis(context, vm):
        if "VDI_SNAPSHOT" not in driver_features(context.db, context.db.text("VDI", vdi, "SR")):
            raise ApiFailure("SR_OPERATION_NOT_SUPPORTED", vm)


def _snapshot_info(context: Context, vm: str) -> dict[str, str]:
    power_state = context.db.text("VM", vm, "power_state")
    return {"disk-snapshot-type": "crash_consistent", "power-state-at-snapshot": power_state}


def _snapshot_disk(context: Context) -> CopyDisk:
    numbers: dict[str, int] = {}

    def copy_disk(vdi: str) -> str:
        number = numbers.setdefault(vdi, len(numbers))
        fault = context.pool.faults.take("snapshot-fails", disk=number)
        if fault is not None:
            raise ApiFailure(fault.text("code"), "", fault.text("text"), "")
        return vdi_copy.snapshot(context, vdi)

    return copy_disk


# -- VMs of their own


@calls.on("VM.clone")
def clone(context: Context, vm: str, label: str) -> str:
    """Make an independent VM whose disks share blocks with the original."""
    with vm_operation(context, vm, "clone"):
        choose_storage_host(context, vm)
        return _copy_vm(context, vm, label, lambda vdi: vdi_copy.clone(context, vdi), operation="clone")


@calls.on("VM.csvm")
def clone_suspended(context: Context, vm: str) -> str:
    """Make an independent VM from a suspended one, suspended as well."""
    label = f"{context.db.text('VM', vm, 'name_label')}-cloned-suspended"
    image = context.db.text("VM", vm, "suspend_VDI")
    context.db.row("VDI", image)
    with vm_operation(context, vm, "csvm"):
        made = _copy_vm(context, vm, label, lambda vdi: vdi_copy.clone(context, vdi), operation="clone")
    tell(context, vm, "VM_CLONED", f"{{vm}} cloned (new uuid: {context.db.text('VM', made, 'uuid')})")
    return made


@calls.on("VM.copy")
def copy(context: Context, vm: str, label: str, sr: str) -> str:
    """Make an independent VM with full copies of the disks, on the given repository or where they are."""
    db = context.db
    with vm_operation(context, vm, "copy"):
        target = sr if db.exists("SR", sr) else None
        if target is not None and db.text("SR", target, "content_type") == "iso":
            raise ApiFailure("OPERATION_NOT_ALLOWED", "Cannot copy a VM's disks to an ISO SR")

        def copy_disk(vdi: str) -> str:
            return vdi_copy.copy(context, vdi, target or db.text("VDI", vdi, "SR"))

        return _copy_vm(context, vm, label, copy_disk, operation="copy")


def _copy_vm(context: Context, vm: str, label: str, copy_disk: CopyDisk, *, operation: str) -> str:
    db = context.db
    power_state = "Suspended" if db.text("VM", vm, "power_state") == "Suspended" else "Halted"
    manner = _Manner(operation=operation, copy_disk=copy_disk, label=label, power_state=power_state, keeps_memory=True)
    made = _make(context, vm, manner)
    if db.flag("VM", vm, "is_a_snapshot") and power_state != "Halted":
        stop(context, made)
    return made


# -- the parts of a copy


def _make(context: Context, vm: str, manner: _Manner, *, ignored: frozenset[str] = frozenset()) -> str:
    db = context.db
    disks = copy_disks(context, disk_vbds(context, vm), manner.copy_disk, ignored=ignored)
    try:
        image = db.text("VM", vm, "suspend_VDI")
        kept = manner.copy_disk(image) if manner.keeps_memory and image != NULL_REF else NULL_REF
    except BaseException:
        drop_disks(context, disks)
        raise
    with db.transaction():
        fields = _fields(context, vm, manner)
        made = db.create("VM", {**fields, "suspend_VDI": kept})
        for vbd in db.texts("VM", vm, "VBDs"):
            vdi = db.text("VBD", vbd, "VDI")
            if vdi not in ignored:
                copy_vbd(context, vbd, made, disks.get(vbd, vdi), owns=True)
        for vif in db.texts("VM", vm, "VIFs"):
            copy_card(context, vif, made, keeps_address=manner.is_snapshot)
        for vtpm in db.texts("VM", vm, "VTPMs"):
            copy_vtpm(context, vtpm, made)
        if manner.power_state == "Halted":
            _detach_everything(context, made)
        if manner.is_snapshot:
            db.set("VM", vm, "parent", made)
        return made


def disk_vbds(context: Context, vm: str) -> list[str]:
    """Return the VM's virtual disks, without its drives, in the order of their devices."""
    db = context.db
    rows = {vbd: db.row("VBD", vbd).fields for vbd in db.texts("VM", vm, "VBDs")}
    found = [vbd for vbd, row in rows.items() if row["type"] != "CD" and not row["empty"]]
    return sorted(found, key=lambda vbd: (len(str(rows[vbd]["userdevice"])), str(rows[vbd]["userdevice"])))


def vm_vdis(context: Context, vm: str) -> list[str]:
    """Return the VM's disks, without the discs in its drives, in the order of their devices."""
    return list(dict.fromkeys(context.db.text("VBD", vbd, "VDI") for vbd in disk_vbds(context, vm)))


def copy_disks(
    context: Context, vbds: list[str], copy_disk: CopyDisk, *, ignored: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return a copy of the disk of each virtual disk; on a failure nothing is left.

    A disk that a VM has twice is copied twice, as on a real pool.
    """
    made: dict[str, str] = {}
    try:
        for vbd in vbds:
            vdi = context.db.text("VBD", vbd, "VDI")
            if vdi not in ignored:
                made[vbd] = copy_disk(vdi)
    except BaseException:
        drop_disks(context, made)
        raise
    return made


def drop_disks(context: Context, disks: dict[str, str]) -> None:
    """Remove copies that nobody will use, as far as it goes: what brought us here is told already."""
    for made in disks.values():
        with contextlib.suppress(ApiFailure):
            destroy_vdi(context.pool, made)


def _fields(context: Context, vm: str, manner: _Manner) -> Fields:
    """Return the copy's own fields."""
    db = context.db
    source = db.row("VM", vm).fields
    table = db.table("VM")
    fields: Fields = {name: value for name, value in source.items() if table.fields[name].computed_from is None}
    other_config = dict(cast("dict[str, str]", source["other_config"]))
    if not manner.is_snapshot:
        other_config["mac_seed"] = context.pool.new_uuid()
    if source["is_a_template"]:
        other_config.setdefault("base_template_name", str(source["name_label"]))
    fields |= {
        **_RESET,
        "uuid": context.pool.new_uuid(),
        "name_label": manner.label,
        "power_state": manner.power_state,
        "other_config": {key: value for key, value in other_config.items() if key not in _INTERNAL_KEYS},
        "metrics": copy_metrics(context, vm),
        "guest_metrics": copy_guest_metrics(context, vm),
        "generation_id": fresh_generation(context, vm),
        "is_a_template": manner.is_snapshot or source["is_a_template"],
        "is_a_snapshot": manner.is_snapshot,
        "snapshot_of": vm if manner.is_snapshot else NULL_REF,
        "snapshot_time": context.pool.now() if manner.is_snapshot else EPOCH,
        "snapshot_info": manner.snapshot_info or {},
        "snapshot_metadata": _spell_record(context, vm) if manner.is_snapshot else "",
        "parent": source["parent"] if manner.is_snapshot else NULL_REF,
    }
    return fields


def copy_metrics(context: Context, vm: str) -> str:
    """Return a copy of the VM's metrics; new ones when it has none."""
    row = context.db.find("VM_metrics", context.db.text("VM", vm, "metrics"))
    return new_metrics(context, {**row.fields, "uuid": context.pool.new_uuid()} if row is not None else None)


def copy_guest_metrics(context: Context, vm: str) -> str:
    """Return a copy of what the guest reported; null when it reported nothing."""
    row = context.db.find("VM_guest_metrics", context.db.text("VM", vm, "guest_metrics"))
    if row is None:
        return NULL_REF
    return context.db.create("VM_guest_metrics", {**row.fields, "uuid": context.pool.new_uuid()})


def copy_vbd(context: Context, vbd: str, vm: str, vdi: str, *, owns: bool) -> None:
    """Give another VM a virtual disk like this one; a copy that owns its disks says so, whoever owned the original."""
    fields = context.db.row("VBD", vbd).fields
    other_config = dict(cast("dict[str, str]", fields["other_config"]))
    if owns and fields["type"] == "Disk":
        other_config.setdefault("owner", "")
    changes: Fields = {
        "uuid": context.pool.new_uuid(),
        "VM": vm,
        "VDI": vdi,
        "empty": fields["empty"] or vdi == NULL_REF,
        "allowed_operations": [],
        "current_operations": {},
        "other_config": other_config,
        "metrics": f"OpaqueRef:{context.pool.new_uuid()}",
    }
    context.db.create("VBD", {**fields, **changes})


def _detach_everything(context: Context, vm: str) -> None:
    db = context.db
    for cls, name in (("VBD", "VBDs"), ("VIF", "VIFs")):
        for ref in db.texts("VM", vm, name):
            db.update(cls, ref, {"currently_attached": False, "current_operations": {}})


def fresh_generation(context: Context, vm: str) -> str:
    """Return a new generation id, by which a guest notices that it was copied; none for a VM that has none."""
    if not context.db.text("VM", vm, "generation_id"):
        return ""
    digits = int.from_bytes(context.pool.entropy.token_bytes(16), "big")
    return f"{digits >> 65}:{digits & ((1 << 63) - 1)}"


def _spell_record(context: Context, vm: str) -> str:
    """Return a record as the pool keeps it inside a snapshot: its database row, one pair for each column."""
    row = context.db.row("VM", vm)
    columns = {column_of(name): value for name, value in row.fields.items()}
    columns |= {"_ref": vm, "allowed_operations": allowed_vm_operations(context.db, row), "recommended_guidances": []}
    return spell({name: columns[name] for name in sorted(columns, reverse=True)})
