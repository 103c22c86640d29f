"""Calls of the ways by which hosts reach storage repositories."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.lab.calls.storage_lock import repository_operation
from holdfast.lab.collector import collect_later, stop_collection
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Database, Fields
from holdfast.lab.driver_faults import meet_sr_fault
from holdfast.lab.errors import ApiFailure
from holdfast.lab.volumes import tell_sizes

__all__ = ["add_pbd", "as_storage_error", "calls", "check_one_way", "plug", "with_secrets"]

calls = CallSet()


def with_secrets(context: Context, device_config: Fields) -> Fields:
    """Return the configuration with each password replaced by the identity of a secret that holds it."""
    kept: Fields = {}
    for key, value in device_config.items():
        if key.endswith("password"):
            secret = context.db.create("secret", {"value": value})
            kept[f"{key}_secret"] = context.db.text("secret", secret, "uuid")
        else:
            kept[key] = value
    return kept


def add_pbd(context: Context, host: str, sr: str, device_config: Fields) -> str:
    """Make the record of a host's way to a repository; there is one at most."""
    db = context.db
    for pbd in db.texts("SR", sr, "PBDs"):
        if db.text("PBD", pbd, "host") == host:
            raise ApiFailure("PBD_EXISTS", sr, host, pbd)
    if "SRmaster" in device_config:
        text = "This key is for internal use only"
        raise ApiFailure("VALUE_NOT_SUPPORTED", "SRmaster", str(device_config["SRmaster"]), text)
    return db.create("PBD", {"host": host, "SR": sr, "device_config": device_config})


@calls.on("PBD.create")
def create(context: Context, record: Fields) -> str:
    """Make a way; other_config is dropped and the host is not looked at, as recorded from a real pool."""
    device_config = record["device_config"]
    assert isinstance(device_config, dict)
    sr = str(record["SR"])
    with repository_operation(context, sr, "pbd_create"):
        return add_pbd(context, str(record["host"]), sr, with_secrets(context, device_config))


@calls.on("PBD.destroy")
def destroy(context: Context, pbd: str) -> str:
    """Remove a way that is not in use, with the secrets that it names."""
    db = context.db
    with repository_operation(context, db.text("PBD", pbd, "SR"), "pbd_destroy"):
        drop_pbd(context, pbd)
    return ""


def drop_pbd(context: Context, pbd: str) -> None:
    """Remove the record of a way that is not in use."""
    db = context.db
    if db.flag("PBD", pbd, "currently_attached"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", "PBD is currently attached")
    for key, value in db.mapping("PBD", pbd, "device_config").items():
        if key.endswith("password_secret") and db.has_uuid("secret", value):
            db.destroy("secret", db.by_uuid("secret", value))
    db.destroy("PBD", pbd)


@calls.on("PBD.set_device_config")
def set_device_config(context: Context, pbd: str, value: Fields) -> str:
    """Only storage drivers may set it."""
    context.db.row("PBD", pbd)
    raise ApiFailure("PERMISSION_DENIED", "")


@calls.on("PBD.plug")
def plug(context: Context, pbd: str) -> str:
    """Attach the repository to the host. Doing it twice is harmless."""
    db, sr = context.db, context.db.text("PBD", pbd, "SR")
    host = db.text("PBD", pbd, "host")
    with repository_operation(context, sr, "plug"):
        if not db.exists("host", host):
            raise ApiFailure("HOST_OFFLINE", host)
        kind = db.text("SR", sr, "type")
        if not any(row.fields["type"] == kind for row in db.rows("SM")):
            raise ApiFailure("SR_UNKNOWN_DRIVER", kind)
        if not db.flag("PBD", pbd, "currently_attached"):
            _check_alone(context, sr, host)
            with as_storage_error():
                check_one_way(db, sr)
            meet_sr_fault(context.pool, sr, "attach")
            db.set("PBD", pbd, "currently_attached", True)
    if host == context.pool.master_ref:
        tell_sizes(context.pool, sr)
    collect_later(context.pool, sr)
    return ""


def check_one_way(db: Database, sr: str) -> None:
    """Return when it is clear which host works on the repository: a shared one has the master, any other one way."""
    pbds = db.texts("SR", sr, "PBDs")
    if len(pbds) > 1 and not db.flag("SR", sr, "shared"):
        raise ApiFailure("SR_HAS_MULTIPLE_PBDS", *(db.text("PBD", pbd, "uuid") for pbd in pbds))


@contextlib.contextmanager
def as_storage_error() -> Iterator[None]:
    """Tell a refusal inside the block as the pool's storage layer tells one that it did not expect."""
    try:
        yield
    except ApiFailure as refusal:
        code, *facts = refusal.description
        text = f"Storage_error ([S(Internal_error);S(Server_error({code}, [ {'; '.join(facts)} ]))])"
        raise ApiFailure("INTERNAL_ERROR", text) from refusal


def _check_alone(context: Context, sr: str, host: str) -> None:
    db = context.db
    if db.flag("SR", sr, "shared"):
        return
    for other in db.texts("SR", sr, "PBDs"):
        if db.flag("PBD", other, "currently_attached") and db.text("PBD", other, "host") != host:
            raise ApiFailure("SR_NOT_SHARABLE", sr, db.text("PBD", other, "host"))


@calls.on("PBD.unplug")
def unplug(context: Context, pbd: str) -> str:
    """Detach the repository from the host; refused while the host's VMs use a disk of it. Twice is harmless."""
    db, pool = context.db, context.pool
    sr, host = db.text("PBD", pbd, "SR"), db.text("PBD", pbd, "host")
    check_one_way(db, sr)
    for vdi in db.texts("SR", sr, "VDIs"):
        for task, operation in db.mapping("VDI", vdi, "current_operations").items():
            raise ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, operation, task)
    with repository_operation(context, sr, "unplug"):
        if not db.exists("host", host):
            raise ApiFailure("HOST_OFFLINE", host)
        if not db.flag("PBD", pbd, "currently_attached"):
            return ""
        used = _used_disks(context, sr, host)
        if used:
            raise ApiFailure("VDI_IN_USE", *used)
        stop_collection(pool, sr)
        db.set("PBD", pbd, "currently_attached", False)
    return ""


def _used_disks(context: Context, sr: str, host: str) -> list[str]:
    """Return the repository's disks that VMs on the host have attached."""
    db = context.db
    used: list[str] = []
    for vm in db.rows("VM"):
        if vm.fields["resident_on"] != host:
            continue
        for vbd in db.texts("VM", vm.ref, "VBDs"):
            fields = db.row("VBD", vbd).fields
            vdi = db.find("VDI", str(fields["VDI"]))
            is_active = (fields["currently_attached"] or fields["storage_lock"]) and not fields["empty"]
            if is_active and vdi is not None and vdi.fields["SR"] == sr and vdi.fields["type"] != "metadata":
                used.append(vdi.ref)
    return used
