"""``GET /export_metadata``: everything the pool knows about VMs, without their disks' bytes."""

from __future__ import annotations

from typing import cast

from holdfast.lab.context import PoolCore
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.ova import OvaObject, pack_ova
from holdfast.lab.handlers.transfer import Refused, Transfer
from holdfast.lab.http import pages
from holdfast.lab.records import Records

__all__ = ["export_metadata", "query_flag"]

_DEVICES = ("vif", "vbd", "vgpu", "vtpm")
_REF_PREFIX = "OpaqueRef:"


def query_flag(one: Transfer, name: str, *, default: bool) -> bool:
    """Return a boolean parameter; anything but ``true`` and ``false`` is refused as a pool does."""
    text = one.request.parameter(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        failure = ApiFailure("INTERNAL_ERROR", "Invalid argument: bool_of_string")
        raise Refused(pages.internal_error('Invalid_argument("bool_of_string")'), failure)
    return text == "true"


def export_metadata(one: Transfer) -> None:
    """Send the description of the VMs asked for."""
    with_snapshots = query_flag(one, "export_snapshots", default=True)
    vms = _wanted(one, with_control_domain=query_flag(one, "include_dom0", default=True))
    excluded = frozenset((one.request.parameter("excluded_device_types") or "").split(","))
    body = pack_ova(_collect(one.pool, vms, with_snapshots=with_snapshots, excluded=excluded), _version(one.pool))
    one.connection.send(
        pages.plain_head(
            "HTTP/1.0 200 OK",
            f"task-id: {one.task}",
            "Server: xapi/0.0",
            "content-type: application/octet-stream",
            f"Content-Length: {len(body)}",
            'Content-Disposition: attachment; filename="export.xva"',
        )
    )
    one.connection.send(body)


def _wanted(one: Transfer, *, with_control_domain: bool) -> list[str]:
    db = one.pool.db
    if query_flag(one, "all", default=False):
        rows = [row for row in db.rows("VM") if not row.fields["is_a_snapshot"]]
        return [row.ref for row in rows if with_control_domain or not row.fields["is_control_domain"]]
    uuid, ref = one.request.parameter("uuid"), one.request.parameter("ref")
    if uuid is not None:
        if not db.has_uuid("VM", uuid):
            failure = ApiFailure("UUID_INVALID", "VM", uuid)
            raise Refused(pages.internal_error(str(failure)), failure)
        return [db.by_uuid("VM", uuid)]
    if ref is None or not db.exists("VM", ref):
        failure = ApiFailure("INTERNAL_ERROR", "Not_found")
        raise Refused(pages.internal_error("Not_found"), failure)
    return [ref]


def _version(pool: PoolCore) -> dict[str, object]:
    software = pool.db.mapping("host", pool.master_ref, "software_version")
    return {
        "hostname": pool.db.text("host", pool.master_ref, "hostname"),
        "date": str(pool.now()),
        "product_version": software.get("product_version", ""),
        "product_brand": software.get("product_brand", ""),
        "build_number": software.get("build_number", ""),
        "xapi_major": 1,
        "xapi_minor": 20,
        "export_vsn": 2,
    }


def _collect(pool: PoolCore, vms: list[str], *, with_snapshots: bool, excluded: frozenset[str]) -> list[OvaObject]:
    """Return the records in the pool's order: each class once, VMs with what hangs on them."""
    db = pool.db
    with db.lock:
        chosen = list(vms)
        if with_snapshots:
            for vm in vms:
                chosen += reversed(db.texts("VM", vm, "snapshots"))
        vbds = [] if "vbd" in excluded else [ref for vm in chosen for ref in reversed(db.texts("VM", vm, "VBDs"))]
        vifs = [] if "vif" in excluded else [ref for vm in chosen for ref in reversed(db.texts("VM", vm, "VIFs"))]
        vtpms = [] if "vtpm" in excluded else [ref for vm in chosen for ref in db.texts("VM", vm, "VTPMs")]
        vdis = [db.text("VBD", vbd, "VDI") for vbd in vbds] + [db.text("VM", vm, "suspend_VDI") for vm in chosen]
        vdis = [vdi for vdi in vdis if db.exists("VDI", vdi)]
        found: dict[str, list[str]] = {
            "host": [db.text("VM", vm, "resident_on") for vm in chosen],
            "VM": chosen,
            "VM_metrics": [db.text("VM", vm, "metrics") for vm in chosen],
            "VM_guest_metrics": [db.text("VM", vm, "guest_metrics") for vm in chosen],
            "VBD": vbds,
            "VIF": vifs,
            "network": [db.text("VIF", vif, "network") for vif in vifs],
            "VDI": vdis,
            "SR": [db.text("VDI", vdi, "SR") for vdi in vdis],
            "VTPM": vtpms,
        }
        unique = {cls: [ref for ref in dict.fromkeys(refs) if db.exists(cls, ref)] for cls, refs in found.items()}
        return _with_names(pool, unique)


def _with_names(pool: PoolCore, found: dict[str, list[str]]) -> list[OvaObject]:
    names = {ref: f"Ref:{number}" for number, ref in enumerate(ref for refs in found.values() for ref in refs)}
    records = Records(pool.db)
    return [
        OvaObject(
            cls, names[ref], cast("dict[str, object]", _renamed(records.record(cls, pool.db.row(cls, ref)), names))
        )
        for cls, refs in found.items()
        for ref in refs
    ]


def _renamed(value: object, names: dict[str, str]) -> object:
    """Return the value with references replaced by the file's names, or null for what the file does not hold."""
    match value:
        case DateTime():
            return value
        case str() if value.startswith(_REF_PREFIX):
            return names.get(value, NULL_REF)
        case list():
            kept = [_renamed(item, names) for item in value]
            return [item for item in kept if item != NULL_REF]
        case dict():
            return {key: _renamed(item, names) for key, item in value.items()}
        case _:
            return value
