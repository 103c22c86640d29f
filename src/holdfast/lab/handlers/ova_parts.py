"""What belongs to VMs out of a file: hosts, repositories, disks, networks, and the devices that connect them.

A full import makes disks on one repository; an import of the description alone looks for disks that are there, by an
explicit mapping, by their place, or by a hint that a migration left. Discs are looked up by name in any library, or the
drive is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.calls import create_network, create_vbd, create_vif
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.ova_document import OvaObject
from holdfast.lab.handlers.ova_import import Import
from holdfast.lab.handlers.ova_vm import handle_guest_metrics, handle_metrics, handle_vm, link_snapshots
from holdfast.lab.volumes import create_vdi, destroy_vdi
from holdfast.lab.vtpm import forget_vtpm_contents, set_vtpm_contents

__all__ = ["complete_import", "handle_all"]

_IMPORT_TASK = "import_task"
_MIGRATED_DISK = "maps_to"
_MIGRATED_NETWORK = "maps_to"
_KEPT_ON_FOUND_DISK = "config-drive"
_SCSI_ID = "SCSIid"


def handle_all(one: Import) -> None:
    """Make or find everything that the file lists; on a failure, unless forced, everything made goes again."""
    try:
        for cls, handle in _HANDLERS:
            for each in one.of(cls):
                handle(one, each)
        if not one.wishes.is_dry:
            link_snapshots(one)
    except BaseException:
        if not one.wishes.is_forced:
            one.clean_up()
        raise


def complete_import(one: Import) -> list[str]:
    """Let the VMs be free for other work and return them: without their snapshots, unless those are all there is."""
    db = one.context.db
    vms = list(dict.fromkeys(reversed(one.vms)))[::-1]
    with db.transaction():
        for vm in vms:
            db.drop_key("VM", vm, "current_operations", key=one.context.task)
            db.set("VM", vm, "allowed_operations", [])
    return [vm for vm in vms if not db.flag("VM", vm, "is_a_snapshot")] or vms


# -- found in the pool


def _handle_host(one: Import, each: OvaObject) -> None:
    uuid = str(one.fields(each)["uuid"])
    db = one.context.db
    one.refs[each.id] = db.by_uuid("host", uuid) if db.has_uuid("host", uuid) else NULL_REF


def _handle_sr(one: Import, each: OvaObject) -> None:
    fields, db = one.fields(each), one.context.db
    if one.wishes.sr is None:
        if db.has_uuid("SR", str(fields["uuid"])):
            one.found(each, db.by_uuid("SR", str(fields["uuid"])))
    elif fields["content_type"] != "iso":
        one.found(each, one.wishes.sr)


def _handle_network(one: Import, each: OvaObject) -> None:
    """Networks are the same when they are called the same, or else when their bridges are."""
    fields, db = one.fields(each), one.context.db
    for name in ("name_label", "bridge"):
        for row in db.rows("network"):
            if row.fields[name] == fields[name]:
                one.found(each, row.ref)
                return
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    network = create_network(one.context, one.creation_fields(each))
    db.put_key("network", network, "other_config", key=_IMPORT_TASK, value=one.context.task)
    one.made(each, network, lambda: db.destroy("network", network))


# -- disks


def _handle_disk(one: Import, each: OvaObject) -> None:
    fields = one.fields(each)
    library = one.fields(one.in_file(fields["SR"]), cls="SR")
    if library["content_type"] == "iso":
        disc = _find_disc(one, str(fields["location"]))
        if disc is not None:
            one.found(each, disc)
    elif one.wishes.sr is None:
        _find_disk(one, each, fields)
    elif one.wishes.is_dry:
        one.dreamt(each)
    else:
        _make_disk(one, each)


def _find_disc(one: Import, location: str) -> str | None:
    db = one.context.db
    libraries = {
        row.ref for row in db.rows("SR") if row.fields["content_type"] == "iso" and row.fields["type"] != "udev"
    }
    rows = (row for row in db.rows("VDI") if row.fields["location"] == location and row.fields["SR"] in libraries)
    return next((row.ref for row in rows), None)


def _find_disk(one: Import, each: OvaObject, fields: Fields) -> None:
    vdi = _mapped_disk(one, fields) or _disk_in_place(one, fields)
    if vdi is None:
        if one.wishes.is_forced:
            return
        if one.wishes.is_dry and one.wishes.is_live:
            one.dreamt(each)  # the migration brings it along
            return
        if one.has(fields["SR"]):
            raise ApiFailure("VDI_LOCATION_MISSING", one.ref(fields["SR"]), str(fields["location"]))
        raise ApiFailure("VDI_CONTENT_ID_MISSING")
    one.found(each, vdi)
    if one.wishes.is_dry:
        return
    db = one.context.db
    config = _without(db.mapping("VDI", vdi, "other_config"), _KEPT_ON_FOUND_DISK)
    offered = cast("dict[str, str]", fields["other_config"])
    if _KEPT_ON_FOUND_DISK in offered:
        config[_KEPT_ON_FOUND_DISK] = offered[_KEPT_ON_FOUND_DISK]
    db.set("VDI", vdi, "other_config", config)


def _without(config: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in config.items() if name != key}


def _mapped_disk(one: Import, fields: Fields) -> str | None:
    """Return the disk that the query names for this one; without a word about it, one with the same SCSI id."""
    db, mapping = one.context.db, one.wishes.disks
    scsi_id = cast("dict[str, str]", fields["sm_config"]).get(_SCSI_ID)
    wanted = mapping.get(str(fields["uuid"])) or (mapping.get(scsi_id) if scsi_id else None)
    if wanted is not None and db.has_uuid("VDI", wanted):
        return db.by_uuid("VDI", wanted)
    wanted = wanted or scsi_id
    for row in db.rows("VDI") if wanted else ():
        if cast("dict[str, str]", row.fields["sm_config"]).get(_SCSI_ID) == wanted:
            return row.ref
    return None


def _disk_in_place(one: Import, fields: Fields) -> str | None:
    """Return the disk at the same place in the same repository, or the one that a migration says it has become."""
    db = one.context.db
    if one.has(fields["SR"]):
        for vdi in db.texts("SR", one.ref(fields["SR"]), "VDIs"):
            if db.text("VDI", vdi, "location") == fields["location"]:
                return vdi
    return cast("dict[str, str]", fields["other_config"]).get(_MIGRATED_DISK)


def _make_disk(one: Import, each: OvaObject) -> None:
    record, pool = one.creation_fields(each), one.context.pool
    config = _without(cast("dict[str, str]", record["sm_config"]), "vhd-parent")
    record |= {"SR": one.ref(record["SR"]), "sm_config": {**config, _IMPORT_TASK: one.context.task}}
    vdi = create_vdi(pool, record)
    one.made(each, vdi, lambda: destroy_vdi(pool, vdi))


# -- devices


def _handle_vbd(one: Import, each: OvaObject) -> None:
    fields, db = one.fields(each), one.context.db
    if one.wishes.keeps_identity and db.has_uuid("VBD", str(fields["uuid"])):
        one.found(each, db.by_uuid("VBD", str(fields["uuid"])))
        return
    vm = one.ref(fields["VM"])
    owner = one.fields(one.in_file(fields["VM"]), cls="VM")
    is_there = one.has(fields["VDI"])
    _check_attached(one, fields, owner, is_there=is_there)
    record = one.creation_fields(each) | {"VM": vm, "VDI": one.ref_or_null(fields["VDI"])}
    if not is_there:
        if fields["type"] == "Disk":
            return
        if _is_emulated(owner) or owner["power_state"] != "Suspended":
            record["empty"] = True
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    vbd = create_vbd(one.context, {**record, "device": "", "currently_attached": False})
    one.made(each, vbd, lambda: db.destroy("VBD", vbd))
    if one.wishes.keeps_identity:
        db.rename("VBD", vbd, str(fields["uuid"]))
    db.set("VBD", vbd, "currently_attached", fields["currently_attached"])


def _is_emulated(vm: Fields) -> bool:
    return vm["domain_type"] == "hvm" or (vm["domain_type"] == "unspecified" and bool(vm["HVM_boot_policy"]))


def _check_attached(one: Import, fields: Fields, owner: Fields, *, is_there: bool) -> None:
    """A disk that a sleeping guest has attached must be there; the drive of an emulated machine may be empty."""
    if is_there or not fields["currently_attached"]:
        return
    ejects = one.wishes.is_dry and one.wishes.is_live and owner["power_state"] != "Suspended"
    if fields["type"] != "CD" or not (_is_emulated(owner) or ejects):
        raise ApiFailure("IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND")


def _handle_vif(one: Import, each: OvaObject) -> None:
    fields, db = one.fields(each), one.context.db
    if one.wishes.keeps_identity and db.has_uuid("VIF", str(fields["uuid"])):
        one.found(each, db.by_uuid("VIF", str(fields["uuid"])))
        return
    vm = one.ref(fields["VM"])
    config = cast("dict[str, str]", fields["other_config"])
    network = config[_MIGRATED_NETWORK] if _MIGRATED_NETWORK in config else one.ref(fields["network"])
    record = one.creation_fields(each) | {"VM": vm, "network": network}
    record["other_config"] = _without(config, _MIGRATED_NETWORK)
    if not one.wishes.keeps_identity:
        record["MAC"] = ""
    if one.context.pool.is_restricted("vif_locking"):
        record |= {"ipv4_allowed": [], "ipv6_allowed": []}
        if record["locking_mode"] == "locked":
            record["locking_mode"] = "network_default"
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    vif = create_vif(one.context, {**record, "currently_attached": False})
    one.made(each, vif, lambda: db.destroy("VIF", vif))
    if one.wishes.keeps_identity:
        db.rename("VIF", vif, str(fields["uuid"]))
    if db.text("VM", vm, "power_state") != "Halted":
        db.set("VIF", vif, "currently_attached", fields["currently_attached"])


def _handle_vtpm(one: Import, each: OvaObject) -> None:
    """Trusted platform modules bring their contents along; no other call carries them."""
    db, pool = one.context.db, one.context.pool
    fields = _vtpm_fields(each)
    uuid = str(fields["uuid"])
    if one.wishes.keeps_identity and db.has_uuid("VTPM", uuid):
        raise ApiFailure("IMPORT_ERROR", f"A VTPM with UUID {uuid} already exists")
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    vm = one.ref(fields["VM"])
    if db.texts("VM", vm, "VTPMs"):
        raise ApiFailure("VTPM_MAX_AMOUNT_REACHED", "1")
    kept = {name: fields[name] for name in ("is_unique", "is_protected")}
    identity = {"uuid": uuid} if one.wishes.keeps_identity else {}
    vtpm = db.create("VTPM", {**kept, **identity, "VM": vm, "persistence_backend": "xapi"})
    set_vtpm_contents(pool, vtpm, str(fields["content"]))
    one.made(each, vtpm, lambda: forget_vtpm_contents(pool, vtpm))


def _vtpm_fields(each: OvaObject) -> Fields:
    record = each.record if isinstance(each.record, dict) else {}
    fields: Fields = {}
    for name in ("content", "is_protected", "is_unique", "uuid", "VM"):
        if f"vTPM'_{name}" not in record:
            raise ApiFailure("INTERNAL_ERROR", f"Failure(\"Undefined field: Expecting 'vTPM'_{name}'\")")
        fields[name] = record[f"vTPM'_{name}"]
    return fields


Handler = Callable[[Import, OvaObject], None]

_HANDLERS: tuple[tuple[str, Handler], ...] = (
    ("host", _handle_host),
    ("SR", _handle_sr),
    ("VDI", _handle_disk),
    ("VM_guest_metrics", handle_guest_metrics),
    ("VM_metrics", handle_metrics),
    ("VM", handle_vm),
    ("network", _handle_network),
    ("VBD", _handle_vbd),
    ("VIF", _handle_vif),
    ("VTPM", _handle_vtpm),
)
"""In this order. Graphics cards and their like are left out: the lab has none."""
