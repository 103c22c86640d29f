"""What may be done with disks and storage repositories now, and why not."""

from __future__ import annotations

from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = [
    "CBT_METADATA",
    "allowed_sr_operations",
    "allowed_vdi_operations",
    "check_vdi_operation",
    "has_vhd_disks",
    "is_in_use",
]

CBT_METADATA = "cbt_metadata"

_ON_METADATA = frozenset({"generate_config", "forget", "update", "destroy", "data_destroy", "list_changed_blocks"})

_OFFERED = ("copy", "generate_config", "clone", "resize_online", "forget", "update", "resize", "snapshot", "destroy")
"""What a disk's ``allowed_operations`` may mention: tracking is never listed, for the sake of old clients."""

_NEEDS_DETACHED = frozenset({"destroy", "forget", "resize", "data_destroy"})

_SR_OPERATIONS = (
    "vdi_enable_cbt",
    "vdi_list_changed_blocks",
    "unplug",
    "plug",
    "pbd_create",
    "vdi_disable_cbt",
    "update",
    "pbd_destroy",
    "vdi_resize",
    "vdi_clone",
    "vdi_data_destroy",
    "scan",
    "vdi_snapshot",
    "vdi_mirror",
    "vdi_create",
    "vdi_destroy",
)

_RAW_TYPES = frozenset({"file", "udev", "iso", "dummy"})


def has_vhd_disks(db: Database, sr: str) -> bool:
    """Whether the repository keeps its disks as VHD trees; one that does not keeps plain images."""
    return db.text("SR", sr, "type") not in _RAW_TYPES


def is_in_use(db: Database, row: Row) -> bool:
    """Whether anything has the disk attached, or is about to."""
    return any(_is_attached(db, vbd) for vbd in cast("list[str]", row.fields["VBDs"]))


def _is_attached(db: Database, vbd: str) -> bool:
    found = db.find("VBD", vbd)
    return found is not None and bool(found.fields["currently_attached"] or found.fields["storage_lock"])


def _is_attached_writable(db: Database, row: Row) -> bool:
    vbds = cast("list[str]", row.fields["VBDs"])
    return any(_is_attached(db, vbd) and db.text("VBD", vbd, "mode") == "RW" for vbd in vbds)


def check_vdi_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the disk now; the pool's refusal otherwise."""
    refusal = _refusal(db, db.row("VDI", ref), operation)
    if refusal is not None:
        raise refusal


def _refusal(db: Database, row: Row, operation: str) -> ApiFailure | None:
    fields = row.fields
    for task, running in cast("dict[str, str]", fields["current_operations"]).items():
        return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VDI", row.ref, running, task)
    if fields["type"] == CBT_METADATA and operation not in _ON_METADATA:
        return ApiFailure("VDI_INCOMPATIBLE_TYPE", row.ref, "CBT metadata")
    if not fields["managed"] and operation not in ("forget", "update", "generate_config"):
        return ApiFailure("VDI_NOT_MANAGED", row.ref)
    if operation in _NEEDS_DETACHED and is_in_use(db, row):
        return ApiFailure("VDI_IN_USE", row.ref, operation)
    if operation == "copy" and _is_attached_writable(db, row):
        return ApiFailure("VDI_IN_USE", row.ref, operation)
    if operation == "destroy" and fields["type"] == "rrd":
        return ApiFailure("VDI_HAS_RRDS", row.ref)
    return None


def allowed_vdi_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the disk now, for its record."""
    return [operation for operation in _OFFERED if _refusal(db, row, operation) is None]


def allowed_sr_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the repository now, for its record."""
    pbds = cast("list[str]", row.fields["PBDs"])
    extra = [] if pbds else ["forget"]
    if any(running for running in cast("dict[str, str]", row.fields["current_operations"])):
        return []
    attached = any(pbd != NULL_REF and db.flag("PBD", pbd, "currently_attached") for pbd in pbds)
    return [*_SR_OPERATIONS, *extra] if attached or not pbds else ["plug", "update", "pbd_create", "pbd_destroy"]
