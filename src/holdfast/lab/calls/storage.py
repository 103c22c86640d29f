"""Calls of storage repositories and of their attachment to hosts."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure
from holdfast.lab.volumes import check_sr_attached, refresh_sr

__all__ = ["calls"]

calls = CallSet()


@calls.on("SR.scan")
def scan(context: Context, sr: str) -> str:
    """Count the repository anew."""
    context.db.row("SR", sr)
    check_sr_attached(context.pool, sr)
    refresh_sr(context.pool, sr)
    return ""


@calls.on("SR.update", "SR.assert_can_host_ha_statefile")
def accept(context: Context, sr: str) -> str:
    """Nothing to do, but the repository must exist."""
    context.db.row("SR", sr)
    return ""


@calls.on("SR.assert_supports_database_replication")
def refuse_replication(context: Context, sr: str) -> str:
    """No repository of the lab holds a copy of the database."""
    raise ApiFailure("SR_OPERATION_NOT_SUPPORTED", context.db.row("SR", sr).ref)


@calls.on("SR.set_virtual_allocation", "SR.set_physical_size", "PBD.set_device_config")
def refuse_internal(context: Context, ref: str, value: object) -> str:
    """Only storage drivers may set these."""
    raise ApiFailure("PERMISSION_DENIED", "")


def _driver_exists(context: Context, kind: str) -> bool:
    return any(row.fields["type"] == kind for row in context.db.rows("SM"))


@calls.on("SR.get_supported_types")
def get_supported_types(context: Context) -> list[str]:
    """Return the drivers' names."""
    return [str(row.fields["type"]) for row in context.db.rows("SM")]


@calls.on("SR.probe")
def probe(context: Context, host: str, device_config: Fields, kind: str, sm_config: Fields | None = None) -> str:
    """Find nothing, with a driver that exists."""
    context.db.row("host", host)
    if not _driver_exists(context, kind):
        raise ApiFailure("SR_UNKNOWN_DRIVER", kind)
    return "<SRlist/>"


@calls.on("SR.create")
def create(
    context: Context,
    host: str,
    device_config: Fields,
    physical_size: int,
    label: str,
    description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Fields | None = None,
) -> str:
    """Make a repository and attach it to the host."""
    if not context.db.exists("host", host):
        raise ApiFailure("HOST_OFFLINE", host)
    if not _driver_exists(context, kind):
        raise ApiFailure("SR_UNKNOWN_DRIVER", kind)
    with context.db.transaction():
        sr = introduce(context, context.pool.new_uuid(), label, description, kind, content_type, shared, sm_config)
        sizes: Fields = {"physical_size": physical_size or 1 << 40, "physical_utilisation": 0}
        context.db.update("SR", sr, {**sizes, "virtual_allocation": 0})
        attachment: Fields = {"host": host, "SR": sr, "device_config": device_config, "currently_attached": True}
        context.db.create("PBD", attachment)
        return sr


@calls.on("SR.introduce")
def introduce(
    context: Context,
    uuid: str,
    label: str,
    description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Fields | None = None,
) -> str:
    """Make the record of a repository that exists elsewhere; nothing is checked, as recorded from a real pool."""
    return context.db.create(
        "SR",
        {
            "uuid": uuid or context.pool.new_uuid(),
            "name_label": label,
            "name_description": description,
            "type": kind,
            "content_type": content_type or "user",
            "shared": shared,
            "sm_config": sm_config or {},
            "physical_size": -1,
            "physical_utilisation": -1,
        },
    )


@calls.on("SR.forget", "SR.destroy")
def forget(context: Context, sr: str) -> str:
    """Remove the records of a repository that no host has attached."""
    db = context.db
    with db.transaction():
        pbds = db.texts("SR", sr, "PBDs")
        if any(db.flag("PBD", pbd, "currently_attached") for pbd in pbds):
            raise ApiFailure("SR_HAS_PBD", sr)
        for pbd in pbds:
            db.destroy("PBD", pbd)
        for vdi in db.texts("SR", sr, "VDIs"):
            db.destroy("VDI", vdi)
        db.destroy("SR", sr)
    return ""


@calls.on("PBD.create")
def create_pbd(context: Context, record: Fields) -> str:
    """Make the record of a host's way to a repository; other_config is dropped, as recorded from a real pool."""
    db = context.db
    host, sr = str(record["host"]), str(record["SR"])
    db.row("SR", sr)
    db.row("host", host)
    for pbd in db.texts("SR", sr, "PBDs"):
        if db.text("PBD", pbd, "host") == host:
            raise ApiFailure("PBD_EXISTS", sr, host, pbd)
    return db.create("PBD", {"host": host, "SR": sr, "device_config": record["device_config"]})


@calls.on("PBD.destroy")
def destroy_pbd(context: Context, pbd: str) -> str:
    """Remove the record of a way that is not in use."""
    if context.db.flag("PBD", pbd, "currently_attached"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", "PBD is currently attached")
    context.db.destroy("PBD", pbd)
    return ""


@calls.on("PBD.plug")
def plug_pbd(context: Context, pbd: str) -> str:
    """Attach the repository to the host."""
    if not context.db.flag("PBD", pbd, "currently_attached"):
        context.db.set("PBD", pbd, "currently_attached", True)
    return ""


@calls.on("PBD.unplug")
def unplug_pbd(context: Context, pbd: str) -> str:
    """Detach the repository from the host; refused while a disk of it is in use."""
    db = context.db
    with db.transaction():
        for vdi in db.texts("SR", db.text("PBD", pbd, "SR"), "VDIs"):
            if any(db.flag("VBD", vbd, "currently_attached") for vbd in db.texts("VDI", vdi, "VBDs")):
                raise ApiFailure("VDI_IN_USE", vdi, "destroy")
        if db.flag("PBD", pbd, "currently_attached"):
            db.set("PBD", pbd, "currently_attached", False)
    return ""
