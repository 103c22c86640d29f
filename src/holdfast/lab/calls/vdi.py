"""Calls of disks: their life, sizes and settings."""

from __future__ import annotations

import re
import xmlrpc.client

from holdfast.lab.calls.pbd import check_one_way
from holdfast.lab.calls.storage_lock import disk_operation, repository_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import bad_power_state, check_vdi_managed, type_text
from holdfast.lab.shelf import find_volume, shelve, take_up
from holdfast.lab.trees import show_base, show_parents
from holdfast.lab.volumes import check_sr_attached, create_vdi, destroy_vdi, disk_uuid, refresh_vdi, resize_vdi

__all__ = ["calls"]

calls = CallSet()

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


@calls.on("VDI.create")
def create(context: Context, record: Fields) -> str:
    """Make an empty disk."""
    with repository_operation(context, str(record["SR"]), "vdi_create"):
        if context.db.exists("SR", str(record["SR"])):
            check_sr_attached(context.pool, str(record["SR"]))
            check_one_way(context.db, str(record["SR"]))
        return create_vdi(context.pool, record)


@calls.on("VDI.destroy")
def destroy(context: Context, vdi: str) -> str:
    """Remove a disk that nobody uses."""
    with disk_operation(context, vdi, "destroy", needs_managed=True):
        destroy_vdi(context.pool, vdi)
    return ""


@calls.on("VDI.resize")
def resize(context: Context, vdi: str, size_bytes: int) -> str:
    """Grow a disk that nobody uses."""
    with disk_operation(context, vdi, "resize", needs_managed=True):
        resize_vdi(context.pool, vdi, size_bytes)
    return ""


@calls.on("VDI.resize_online")
def resize_online(context: Context, vdi: str, size_bytes: int) -> str:
    """Grow a disk while its VM runs, where the driver can."""
    with disk_operation(context, vdi, "resize_online", needs_managed=True):
        resize_vdi(context.pool, vdi, size_bytes)
    return ""


@calls.on("VDI.introduce")
def introduce(
    context: Context,
    uuid: str,
    label: str,
    description: str,
    sr: str,
    kind: str,
    sharable: bool,
    read_only: bool,
    other_config: Fields,
    location: str,
    xenstore_data: Fields | None = None,
    *ignored: object,
) -> str:
    """Make the record of a volume that the repository holds but nobody has a record of."""
    db = context.db
    with repository_operation(context, sr, "vdi_introduce"):
        check_sr_attached(context.pool, sr)
        for vdi in db.texts("SR", sr, "VDIs"):
            if db.text("VDI", vdi, "location") == location and db.text("VDI", vdi, "uuid") != uuid:
                raise ApiFailure("LOCATION_NOT_UNIQUE", sr, location)
        volume = find_volume(context.pool, sr, location)
        if volume is None:
            text = f"The VDI is not available [opterr=Could not find: {location}]"
            raise ApiFailure("SR_BACKEND_FAILURE_46", "", text, "")
        vdi = take_up(context.pool, sr, volume)
        named = {"name_label": label, "name_description": description}
        given: Fields = {"other_config": other_config, "sharable": sharable, "type": kind}
        given |= {name: text for name, text in named.items() if text}
        db.update("VDI", vdi, {**given, "xenstore_data": xenstore_data or {}})
        return vdi


@calls.on("VDI.pool_introduce")
def pool_introduce(
    context: Context,
    uuid: str,
    label: str,
    description: str,
    sr: str,
    kind: str,
    sharable: bool,
    read_only: bool,
    other_config: Fields,
    location: str,
    xenstore_data: Fields | None = None,
    sm_config: Fields | None = None,
    managed: bool = True,
    virtual_size: int = 0,
    physical_utilisation: int = 0,
    *ignored: object,
) -> str:
    """Make a record and nothing else, as a host that joins does for the disks of its repositories."""
    db = context.db
    if any(db.text("VDI", vdi, "location") == location for vdi in db.texts("SR", sr, "VDIs")):
        raise ApiFailure("LOCATION_NOT_UNIQUE", sr, location)
    if not _UUID.match(uuid):
        raise ApiFailure("UUID_INVALID", "VDI", uuid)
    fields: Fields = {"uuid": uuid, "name_label": label, "name_description": description, "SR": sr, "type": kind}
    fields |= {"sharable": sharable, "read_only": read_only, "other_config": other_config, "location": location}
    fields |= {"xenstore_data": xenstore_data or {}, "sm_config": sm_config or {}, "managed": managed}
    fields |= {"virtual_size": virtual_size, "physical_utilisation": physical_utilisation, "parent": NULL_REF}
    return db.create("VDI", fields)


@calls.on("VDI.forget")
def forget(context: Context, vdi: str) -> str:
    """Remove the record alone: the repository keeps the bytes, and its next scan finds them."""
    with disk_operation(context, vdi, "forget", needs_attached=False):
        shelve(context.pool, vdi)
        context.db.destroy("VDI", vdi)
    return ""


@calls.on("VDI.update")
def update(context: Context, vdi: str) -> str:
    """Look at the disk again."""
    with disk_operation(context, vdi, "update"):
        refresh_vdi(context.pool, vdi)
    return ""


@calls.on(
    "VDI.db_forget",
    "VDI.set_cbt_enabled",
    "VDI.set_is_a_snapshot",
    "VDI.set_managed",
    "VDI.set_metadata_of_pool",
    "VDI.set_missing",
    "VDI.set_physical_utilisation",
    "VDI.set_read_only",
    "VDI.set_sharable",
    "VDI.set_snapshot_of",
    "VDI.set_snapshot_time",
    "VDI.set_virtual_size",
)
def refuse_internal(context: Context, vdi: str, *ignored: object) -> str:
    """Only the session of the disk's storage driver may do these."""
    context.db.row("VDI", vdi)
    raise ApiFailure("PERMISSION_DENIED", "")


@calls.on("VDI.db_introduce")
def refuse_introduction(context: Context, *ignored: object) -> str:
    """Only the session of a storage driver may do this; nothing else is looked at."""
    raise ApiFailure("PERMISSION_DENIED", "")


@calls.on("VDI.force_unlock")
def force_unlock(context: Context, vdi: str) -> str:
    """Refuse: nobody locks disks that way any more."""
    with disk_operation(context, vdi, "force_unlock"):
        raise ApiFailure("MESSAGE_DEPRECATED")


@calls.on("VDI.set_name_label")
def set_name_label(context: Context, vdi: str, value: str) -> str:
    """Name the disk; its driver keeps the name as well, so it must be attached."""
    return _set_text(context, vdi, "name_label", value)


@calls.on("VDI.set_name_description")
def set_name_description(context: Context, vdi: str, value: str) -> str:
    """Describe the disk."""
    return _set_text(context, vdi, "name_description", value)


def _set_text(context: Context, vdi: str, name: str, value: str) -> str:
    check_sr_attached(context.pool, context.db.text("VDI", vdi, "SR"))
    context.db.set("VDI", vdi, name, value)
    return ""


def _check_vms_halted(context: Context, vdi: str) -> None:
    db = context.db
    for vbd in db.texts("VDI", vdi, "VBDs"):
        vm = db.text("VBD", vbd, "VM")
        state = db.text("VM", vm, "power_state")
        if state != "Halted":
            raise bad_power_state(vm, wanted=("Halted",), actual=state)


@calls.on("VDI.set_on_boot")
def set_on_boot(context: Context, vdi: str, value: str) -> str:
    """Make the disk forget at each start of its VM, or not; refused while changes are tracked."""
    _check_vms_halted(context, vdi)
    with disk_operation(context, vdi, "set_on_boot"):
        if value == "reset" and context.db.text("VDI", vdi, "on_boot") != "reset":
            _keep_state(context, vdi)
        context.db.set("VDI", vdi, "on_boot", value)
    return ""


def _keep_state(context: Context, vdi: str) -> None:
    """Put the disk on a base copy of its present content, which each start of its VM goes back to."""
    made = context.pool.disks.freeze(disk_uuid(context.pool, vdi))
    show_base(context.pool, str(made.base_uuid), like=vdi)
    show_parents(context.pool, [disk_uuid(context.pool, vdi)])


@calls.on("VDI.set_allow_caching")
def set_allow_caching(context: Context, vdi: str, value: bool) -> str:
    """Let hosts cache the disk; only its VM must be halted."""
    _check_vms_halted(context, vdi)
    context.db.set("VDI", vdi, "allow_caching", value)
    return ""


@calls.on("VDI.generate_config")
def generate_config(context: Context, host: str, vdi: str) -> str:
    """Return what a host needs to attach the disk while the pool is away."""
    db = context.db
    with disk_operation(context, vdi, "generate_config", needs_attached=False):
        if not db.exists("host", host):
            raise ApiFailure("HOST_OFFLINE", host)
        sr = db.text("VDI", vdi, "SR")
        check_sr_attached(context.pool, sr)
        check_vdi_managed(db, vdi)
        config = {
            "command": "vdi_attach_from_config",
            "sr_uuid": db.text("SR", sr, "uuid"),
            "vdi_uuid": disk_uuid(context.pool, vdi),
        }
        return xmlrpc.client.dumps((config,), "vdi_attach_from_config")


@calls.on("VDI.open_database")
def open_database(context: Context, vdi: str) -> str:
    """Refuse: no disk of the lab holds another pool's database."""
    kind = context.db.text("VDI", vdi, "type")
    if kind != "metadata":
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, type_text(kind))
    raise ApiFailure("COULD_NOT_IMPORT_DATABASE", "Database does not match local schema.")


@calls.on("VDI.read_database_pool_uuid")
def read_database_pool_uuid(context: Context, vdi: str) -> str:
    """Return nothing: no disk of the lab holds another pool's database, nor is asked whether it exists."""
    return ""
