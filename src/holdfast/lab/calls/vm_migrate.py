"""Moving VMs: to another host of the pool that sees the same storage, or with their disks to other storage.

Invariant: a disk that moves becomes another disk, with all of the old one's bytes; its change tracking does not move,
so a disk that is tracked is refused.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.common import check_licence, tell, vm_operation
from holdfast.lab.calls.vm_copy import vm_vdis
from holdfast.lab.calls.vm_placement import check_can_boot, check_cpu
from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_vdi_operation, driver_features, is_live
from holdfast.lab.volumes import check_sr_attached, create_vdi, destroy_vdi, disk_uuid, mark_written

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_DESTINATION_KEYS = ("host", "session_id", "SM", "xenops", "master")


@calls.on("VM.pool_migrate")
def pool_migrate(context: Context, vm: str, host: str, options: Map) -> str:
    """Move a running VM to another host of the pool, which must see its disks."""
    db = context.db
    is_forced = options.get("force") == "true"
    if not is_forced:
        check_cpu(context, vm, host)
    source = db.text("VM", vm, "resident_on")
    with vm_operation(context, vm, "pool_migrate", is_strict=not is_forced):
        db.row("host", host)
        check_can_boot(context, vm, host, checks_cpu=False)
        db.set("VM", vm, "resident_on", host)
    _tell(context, vm, source, host)
    return ""


def _tell(context: Context, vm: str, source: str, target: str) -> None:
    said = []
    for host in (source, target):
        row = context.db.find("host", host)
        said.append(f"host '{row.fields['name_label']}' (uuid: {row.fields['uuid']})" if row is not None else "nowhere")
    tell(context, vm, "VM_MIGRATED", f"{{vm}} migrated from {said[0]} to {said[1]}")


@calls.on("VM.restart_device_models")
def restart_device_models(context: Context, vm: str) -> str:
    """Move a running VM to where it is, which starts its emulated devices anew."""
    power_state = context.db.text("VM", vm, "power_state")
    if power_state != "Running":
        raise ApiFailure("VM_BAD_POWER_STATE", vm, "Running", power_state)
    return pool_migrate(context, vm, context.db.text("VM", vm, "resident_on"), {"live": "true"})


@calls.on("host.migrate_receive")
def migrate_receive(context: Context, host: str, network: str, options: Map) -> Map:
    """Return what a sender needs to know to move a VM to the host."""
    db = context.db
    here = [pif for pif in db.texts("network", network, "PIFs") if db.text("PIF", pif, "host") == host]
    if not here:
        raise ApiFailure("HOST_CANNOT_ATTACH_NETWORK", host, network)
    if not any(db.text("PIF", pif, "IP") for pif in here):
        raise ApiFailure("INTERFACE_HAS_NO_IP", here[0])
    address = db.text("host", host, "address")
    return {
        "host": host,
        "session_id": context.session,
        "SM": f"http://{address}/services/SM?session_id={context.session}",
        "xenops": f"http://{address}/services/xenops?session_id={context.session}",
        "master": f"http://{context.pool.master_address}/",
    }


@calls.on("VM.assert_can_migrate", "VM.assert_can_migrate_sender")
def assert_can_migrate(
    context: Context, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, *others: object
) -> str:
    """Return when the VM could be moved so; the pool's first reason otherwise."""
    _check(context, vm, dest, vdi_map, vif_map)
    return ""


def _check(context: Context, vm: str, dest: Map, vdi_map: Map, vif_map: Map) -> None:
    db = context.db
    db.row("VM", vm)
    check_licence(context, "storage_xen_motion", "Storage_motion")
    if any(key not in dest for key in _DESTINATION_KEYS):
        raise ApiFailure("INTERNAL_ERROR", "Not_found")
    host = dest["host"]
    if not db.exists("host", host):
        raise ApiFailure("HOST_OFFLINE", host)  # the lab knows no pool but itself
    for vdi, sr in _moves(context, vm, vdi_map).items():
        for place, features in ((db.text("VDI", vdi, "SR"), ("VDI_SNAPSHOT", "VDI_MIRROR")), (sr, ("VDI_SNAPSHOT",))):
            if not set(features) <= driver_features(db, place):
                raise ApiFailure("SR_DOES_NOT_SUPPORT_MIGRATION", place)
        if db.flag("VDI", vdi, "cbt_enabled"):
            raise ApiFailure("VDI_CBT_ENABLED", vdi)
        check_vdi_operation(db, vdi, "mirror")
    _check_boot(context, vm, host, vdi_map)
    if vif_map:
        text = "VIF mapping is not allowed for intra-pool migration -all VIFs must be on the same network"
        raise ApiFailure("OPERATION_NOT_ALLOWED", text)


def _check_boot(context: Context, vm: str, host: str, vdi_map: Map) -> None:
    """The host must be able to run the VM, and to see each disk where it will be."""
    db = context.db
    pbds = [row.fields for row in db.rows("PBD") if row.fields["host"] == host and row.fields["currently_attached"]]
    seen = {str(pbd["SR"]) for pbd in pbds}
    for vdi in vm_vdis(context, vm):
        sr = vdi_map.get(vdi, db.text("VDI", vdi, "SR"))
        if sr not in seen:
            raise ApiFailure("VM_REQUIRES_SR", vm, sr)
    try:
        check_can_boot(context, vm, host)
    except ApiFailure as refusal:
        if refusal.code != "VM_REQUIRES_SR":
            raise


def _moves(context: Context, vm: str, vdi_map: Map) -> Map:
    """Return the disks that change their place, with the place."""
    db = context.db
    for vdi, sr in vdi_map.items():
        db.row("VDI", vdi)
        db.row("SR", sr)
    wanted = vdi_map.items()
    return {vdi: sr for vdi, sr in wanted if vdi in vm_vdis(context, vm) and db.text("VDI", vdi, "SR") != sr}


@calls.on("VM.migrate_send")
def migrate_send(
    context: Context, vm: str, dest: Map, live: bool, vdi_map: Map, vif_map: Map, options: Map, *others: object
) -> str:
    """Move the VM to a host of the pool, and those of its disks that the map names to other repositories."""
    db = context.db
    db.row("VM", vm)
    if "host" not in dest:
        raise ApiFailure("INTERNAL_ERROR", "Not_found")
    with vm_operation(context, vm, "migrate_send"):
        _check(context, vm, dest, vdi_map, vif_map)
        for vdi, sr in _moves(context, vm, vdi_map).items():
            _move_disk(context, vdi, sr)
        source = db.text("VM", vm, "resident_on")
        if is_live(db.row("VM", vm).fields):
            db.set("VM", vm, "resident_on", dest["host"])
    if source != NULL_REF:
        _tell(context, vm, source, dest["host"])
    return vm


def _move_disk(context: Context, vdi: str, sr: str) -> None:
    pool, db = context.pool, context.db
    check_sr_attached(pool, sr)
    fields = dict(db.row("VDI", vdi).fields)
    made = create_vdi(pool, {**fields, "SR": sr, "sm_config": {}})
    pool.disks.copy(disk_uuid(pool, vdi), disk_uuid(pool, made))
    with db.transaction():
        for vbd in db.texts("VDI", vdi, "VBDs"):
            db.set("VBD", vbd, "VDI", made)
        for snapshot in cast("list[str]", fields["snapshots"]):
            db.set("VDI", snapshot, "snapshot_of", made)
        mark_written(pool, made)
    destroy_vdi(pool, vdi)
