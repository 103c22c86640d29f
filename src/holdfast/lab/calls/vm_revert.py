"""Going back to a snapshot: the VM gets the snapshot's settings, copies of its disks, its cards and its memory.

Invariant: the snapshot stays as it was; the VM's own disks are gone even when copying the snapshot's fails later, as on
a real pool, which frees their space first.
"""

from __future__ import annotations

from holdfast.lab.calls import vdi_copy
from holdfast.lab.calls.common import tell, vm_operation
from holdfast.lab.calls.guest_agent import forget_guest
from holdfast.lab.calls.vif import copy_card
from holdfast.lab.calls.vm_copy import (
    copy_disks,
    copy_guest_metrics,
    copy_metrics,
    copy_vbd,
    disk_vbds,
    drop_disks,
    fresh_generation,
    vm_vdis,
)
from holdfast.lab.calls.vm_power import stop
from holdfast.lab.calls.vtpm import copy_vtpm, drop_vtpm
from holdfast.lab.columns import SpellingInvalid, column_of, parse
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF, parse_type
from holdfast.lab.errors import ApiFailure
from holdfast.lab.volumes import destroy_vdi

__all__ = ["calls"]

calls = CallSet()

_KEPT = frozenset(
    """
    uuid suspend_VDI power_state parent current_operations allowed_operations metrics guest_metrics resident_on domid
    protection_policy snapshot_schedule scheduled_to_be_resident_on tags affinity groups attached_PCIs
    is_snapshot_from_vmpp generation_id
    """.split()
)
"""What going back leaves as it is."""

_KEPT_FROM_RECORD = _KEPT | {
    "name_label",
    "is_a_snapshot",
    "is_a_template",
    "is_default_template",
    "snapshot_of",
    "snapshot_time",
    "snapshot_info",
    "snapshot_metadata",
    "transportable_snapshot_id",
}
"""What stays besides when the snapshot does not hold the old record, so that its own is taken instead."""

_TOLD_AS_THEY_ARE = ("SR_BACKEND_FAILURE_44", "SR_BACKEND_FAILURE_109", "VDI_INCOMPATIBLE_TYPE")


@calls.on("VM.revert")
def revert(context: Context, made: str) -> str:
    """Give the VM the disks and settings of its snapshot. Its disks get new identities, so a backup begins anew."""
    db = context.db
    vm = db.text("VM", made, "snapshot_of")
    if not db.exists("VM", vm):
        vm = _recreate(context, made)
    with vm_operation(context, made, "revert"), vm_operation(context, vm, "reverting"):
        if db.text("VM", vm, "power_state") != "Halted":
            stop(context, vm)
        _take_fields(context, made, vm)
        db.set("VM", vm, "generation_id", fresh_generation(context, vm))
        try:
            _take_devices(context, made, vm)
        except ApiFailure as refusal:
            db.set("VM", vm, "power_state", "Halted")
            if refusal.code in _TOLD_AS_THEY_ARE:
                raise
            raise ApiFailure("VM_REVERT_FAILED", made, vm) from refusal
    snapshot = db.row("VM", made).fields
    body = f"{{vm}} reverted to snapshot: {snapshot['name_label']} (uuid {snapshot['uuid']})"
    tell(context, vm, "VM_SNAPSHOT_REVERTED", body)
    return ""


def _recreate(context: Context, made: str) -> str:
    """Make the VM of an orphaned snapshot anew, from the record that the snapshot holds; ``VM_REVERT_FAILED``."""
    db = context.db
    gone = db.text("VM", made, "snapshot_of")
    old = _old_record(context, made)
    if "uuid" not in old or db.has_uuid("VM", str(old["uuid"])):
        raise ApiFailure("VM_REVERT_FAILED", made, gone)
    siblings = [row.ref for row in db.rows("VM") if row.fields["snapshot_of"] == gone]
    with db.transaction():
        table = db.table("VM")
        source = db.row("VM", made).fields
        fields = {name: value for name, value in source.items() if table.fields[name].computed_from is None}
        vm = db.create(
            "VM",
            {
                **fields,
                "uuid": old["uuid"],
                "metrics": copy_metrics(context, made),
                "guest_metrics": NULL_REF,
                "suspend_VDI": NULL_REF,
                "power_state": "Halted",
                "is_a_snapshot": False,
                "is_a_template": False,
                "snapshot_of": NULL_REF,
                "current_operations": {},
                "allowed_operations": [],
                "parent": NULL_REF,
            },
        )
        for sibling in siblings:
            db.set("VM", sibling, "snapshot_of", vm)
    return vm


def _old_record(context: Context, made: str) -> Fields:
    """Return what the snapshot holds of the VM's record; nothing when it holds none that can be read."""
    db = context.db
    text = db.text("VM", made, "snapshot_metadata")
    if not text:
        return {}
    try:
        columns = parse(text, parse_type("(string -> string) map"))
    except SpellingInvalid:
        return {}
    assert isinstance(columns, dict)
    found: Fields = {}
    for name, spec in db.table("VM").fields.items():
        column = column_of(name)
        if column in columns and spec.computed_from is None:
            try:
                found[name] = parse(columns[column], spec.type)
            except SpellingInvalid:
                continue  # a column of another release; what the VM has stays
    return found


def _take_fields(context: Context, made: str, vm: str) -> None:
    db = context.db
    old, kept = _old_record(context, made), _KEPT
    if not old:
        table = db.table("VM")
        source = db.row("VM", made).fields
        old = {name: value for name, value in source.items() if table.fields[name].computed_from is None}
        kept = _KEPT_FROM_RECORD
    changes = {name: value for name, value in old.items() if name not in kept}
    db.update("VM", vm, {**changes, "ha_always_run": False})


def _take_devices(context: Context, made: str, vm: str) -> None:
    db = context.db
    vbds = disk_vbds(context, made)
    replaced = {vbd: db.text("VDI", db.text("VBD", vbd, "VDI"), "snapshot_of") for vbd in vbds}
    _drop_devices(context, vm, replaced=set(replaced.values()))
    disks = copy_disks(context, vbds, lambda vdi: vdi_copy.clone(context, vdi))
    try:
        image = db.text("VM", made, "suspend_VDI")
        kept = vdi_copy.clone(context, image) if image != NULL_REF else NULL_REF
    except BaseException:
        drop_disks(context, disks)
        raise
    with db.transaction():
        _repoint(context, {disks[vbd]: live for vbd, live in replaced.items()})
        for vbd in reversed(db.texts("VM", made, "VBDs")):
            vdi = db.text("VBD", vbd, "VDI")
            copy_vbd(context, vbd, vm, disks.get(vbd, vdi), owns=False)
        for vif in reversed(db.texts("VM", made, "VIFs")):
            copy_card(context, vif, vm, keeps_address=True)
        forget_guest(context, vm)
        for vtpm in db.texts("VM", vm, "VTPMs"):
            drop_vtpm(context, vtpm)
        for vtpm in db.texts("VM", made, "VTPMs"):
            copy_vtpm(context, vtpm, vm)
        old_metrics = db.text("VM", vm, "metrics")
        fields: Fields = {
            "suspend_VDI": kept,
            "metrics": copy_metrics(context, made),
            "guest_metrics": copy_guest_metrics(context, made),
            "parent": made,
            "power_state": db.text("VM", made, "power_state"),
            "domid": -1,
            "resident_on": NULL_REF,
        }
        db.update("VM", vm, fields)
        if db.exists("VM_metrics", old_metrics):
            db.destroy("VM_metrics", old_metrics)


def _drop_devices(context: Context, vm: str, *, replaced: set[str]) -> None:
    """Remove the VM's attachments and cards, and the disks that the snapshot has; others are left to nobody."""
    db = context.db
    for vdi in vm_vdis(context, vm):
        if vdi in replaced:
            destroy_vdi(context.pool, vdi)
    with db.transaction():
        for cls, name in (("VBD", "VBDs"), ("VIF", "VIFs"), ("VUSB", "VUSBs")):
            for ref in db.texts("VM", vm, name):
                db.destroy(cls, ref)


def _repoint(context: Context, taken: dict[str, str]) -> None:
    """Let the snapshots of a disk that went away belong to the disk that takes its place."""
    db = context.db
    for new, gone in taken.items():
        for row in db.rows("VDI"):
            if row.fields["snapshot_of"] == gone and gone != NULL_REF:
                db.set("VDI", row.ref, "snapshot_of", new)
