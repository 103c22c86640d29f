"""What may be done with disks now, and why not. Repositories have their own rules beside.

Invariant: the order of the reasons is the pool's; a client that breaks two rules reads the one that a pool names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.drivers import ImageKind, driver_of
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules.repository import driver_features

__all__ = [
    "CBT_METADATA",
    "allowed_vdi_operations",
    "check_vdi_managed",
    "check_vdi_operation",
    "has_vhd_disks",
    "is_in_use",
    "type_text",
]

CBT_METADATA = "cbt_metadata"

_FEATURES = {
    "snapshot": "VDI_SNAPSHOT",
    "destroy": "VDI_DELETE",
    "resize": "VDI_RESIZE",
    "update": "VDI_UPDATE",
    "resize_online": "VDI_RESIZE_ONLINE",
    "generate_config": "VDI_GENERATE_CONFIG",
    "clone": "VDI_CLONE",
    "revert_to": "VDI_CLONE",
    "revert_from": "VDI_CLONE",
    "mirror": "VDI_MIRROR",
    "enable_cbt": "VDI_CONFIG_CBT",
    "disable_cbt": "VDI_CONFIG_CBT",
    "data_destroy": "VDI_CONFIG_CBT",
    "list_changed_blocks": "VDI_CONFIG_CBT",
    "set_on_boot": "VDI_RESET_ON_BOOT",
}
"""What the driver must be able to do for an operation; the others need nothing of it."""

_ON_METADATA = frozenset(
    {"blocked", "data_destroy", "destroy", "list_changed_blocks", "force_unlock", "forget", "generate_config", "update"}
)

_OFFERED = ("copy", "generate_config", "clone", "resize_online", "forget", "update", "resize", "snapshot", "destroy")
"""What a disk's ``allowed_operations`` may mention: tracking is never listed, for the sake of old clients."""

_WHILE_ATTACHED = frozenset(
    {
        "snapshot",
        "resize_online",
        "blocked",
        "clone",
        "revert_to",
        "mirror",
        "enable_cbt",
        "disable_cbt",
        "data_destroy",
    }
)
"""What a disk bears while somebody uses it. A copy bears readers; everything else needs the disk for itself."""

_TYPE_TEXTS = {
    CBT_METADATA: "CBT metadata",
    "ha_statefile": "HA statefile",
    "pvs_cache": "PVS cache",
    "redo_log": "Redo log",
    "rrd": "rrd",
}

_TRACKABLE = frozenset({"user", "system"})
_HA_TYPES = frozenset({"ha_statefile", "redo_log"})

_Reason = tuple[str, ...] | None
_Vbds = list[dict[str, object]]


def type_text(kind: str) -> str:
    """Return a disk's type as refusals spell it."""
    return _TYPE_TEXTS.get(kind) or kind.capitalize()


def has_vhd_disks(db: Database, sr: str) -> bool:
    """Whether the repository keeps its disks as VHD trees; one that does not keeps plain images."""
    return driver_of(db.text("SR", sr, "type")).kind is ImageKind.TREE


def is_in_use(db: Database, row: Row) -> bool:
    """Whether anything has the disk attached, or is about to."""
    return bool(_active(_vbds(db, row)))


def check_vdi_managed(db: Database, vdi: str) -> None:
    """Return when the disk is one that people see; ``VDI_NOT_MANAGED`` for a hidden base copy."""
    if not db.flag("VDI", vdi, "managed"):
        raise ApiFailure("VDI_NOT_MANAGED", vdi)


def check_vdi_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the disk now; the pool's refusal otherwise."""
    reason = _reasons(db, db.row("VDI", ref))(operation)
    if reason is not None:
        raise ApiFailure(*reason)


def allowed_vdi_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the disk now, for its record."""
    # A pool looks at a disk's possibilities when something happens to the disk; unplugging its repository is nothing.
    reason = _reasons(db, row, needs_plugged=False)
    return [operation for operation in _OFFERED if reason(operation) is None]


def _vbds(db: Database, row: Row) -> _Vbds:
    found = (db.find("VBD", vbd) for vbd in cast("list[str]", row.fields["VBDs"]))
    return [each.fields for each in found if each is not None]


def _active(vbds: _Vbds) -> _Vbds:
    return [vbd for vbd in vbds if vbd["currently_attached"] or vbd["storage_lock"]]


def _reasons(db: Database, row: Row, *, needs_plugged: bool = True) -> Callable[[str], _Reason]:
    """Return what says, for one operation after the other, why it may not begin on this disk."""
    fields, ref, sr = row.fields, row.ref, str(row.fields["SR"])
    vbds = _vbds(db, row)
    active = _active(vbds)
    features = driver_features(db, sr)
    is_ha_enabled = any(bool(pool.fields["ha_enabled"]) for pool in db.rows("pool"))

    def reason(operation: str) -> _Reason:
        found = _collision(fields, ref, operation)
        if found is None and operation == "resize" and needs_plugged and not _is_plugged(db, sr):
            found = ("SR_HAS_NO_PBDS", sr)
        if found is None:
            found = _use(db, ref, operation, vbds=vbds, active=active)
        needed = _FEATURES.get(operation)
        if found is None and needed is not None and needed not in features:
            found = ("SR_OPERATION_NOT_SUPPORTED", sr)
        if found is None and fields["type"] == CBT_METADATA and operation not in _ON_METADATA:
            found = ("VDI_INCOMPATIBLE_TYPE", ref, type_text(CBT_METADATA))
        if found is None and fields["cbt_enabled"] and operation in ("mirror", "set_on_boot"):
            found = ("VDI_CBT_ENABLED", ref)
        return found or _own_rule(db, row, operation, is_ha_enabled=is_ha_enabled)

    return reason


def _is_plugged(db: Database, sr: str) -> bool:
    row = db.find("SR", sr)
    pbds = [] if row is None else cast("list[str]", row.fields["PBDs"])
    return any(db.flag("PBD", pbd, "currently_attached") for pbd in pbds)


def _collision(fields: dict[str, object], ref: str, operation: str) -> _Reason:
    """A running copy excludes nothing here: it would block everybody for hours."""
    running = cast("dict[str, str]", fields["current_operations"])
    if operation == "destroy" and "mirror" in running.values():
        return None
    for task, other in running.items():
        if other != "copy":
            return ("OTHER_OPERATION_IN_PROGRESS", "VDI", ref, other, task)
    return None


def _use(db: Database, ref: str, operation: str, *, vbds: _Vbds, active: _Vbds) -> _Reason:
    if operation not in _WHILE_ATTACHED:
        users = [vbd for vbd in active if vbd["mode"] == "RW"] if operation == "copy" else active
        # A checkpoint leaves its own disks attached on record; comparing them must stay possible.
        if users and not (operation == "list_changed_blocks" and all(_is_of_snapshot(db, vbd) for vbd in active)):
            return ("VDI_IN_USE", ref, operation)
    if operation != "data_destroy":
        for vbd in vbds:
            for task, other in cast("dict[str, str]", vbd["current_operations"]).items():
                return ("OTHER_OPERATION_IN_PROGRESS", "VDI", ref, other, task)
    return None


def _is_of_snapshot(db: Database, vbd: dict[str, object]) -> bool:
    vm = db.find("VM", str(vbd["VM"]))
    return vm is not None and bool(vm.fields["is_a_snapshot"])


def _own_rule(db: Database, row: Row, operation: str, *, is_ha_enabled: bool) -> _Reason:
    fields, ref = row.fields, row.ref
    is_snapshot, kind = bool(fields["is_a_snapshot"]), str(fields["type"])
    is_protected = is_ha_enabled and kind in _HA_TYPES
    match operation:
        case "forget":
            return ("HA_IS_ENABLED",) if is_protected else _has_rrds(ref, kind)
        case "destroy" | "revert_from":
            return _destruction(db, row, is_protected=is_protected)
        case "data_destroy":
            if not is_snapshot:
                return ("OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {ref}")
            if not fields["cbt_enabled"]:
                return ("VDI_NO_CBT_METADATA", ref)
            return _destruction(db, row, is_protected=is_protected)
        case "resize" | "resize_online":
            return ("HA_IS_ENABLED",) if is_protected else None
        case "snapshot" | "copy":
            return _duplication(row, operation)
        case "enable_cbt" | "disable_cbt":
            return _tracking(row)
        case "revert_to":
            return None if is_snapshot else ("REVERT_ONLY_ALLOWED_ON_SNAPSHOT",)
    return None


def _has_rrds(ref: str, kind: str) -> _Reason:
    return ("VDI_HAS_RRDS", ref) if kind == "rrd" else None


def _destruction(db: Database, row: Row, *, is_protected: bool) -> _Reason:
    sr = db.find("SR", str(row.fields["SR"]))
    if sr is not None and sr.fields["type"] == "udev":
        return ("VDI_IS_A_PHYSICAL_DEVICE", row.ref)
    if sr is not None and sr.fields["is_tools_sr"]:
        return ("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    return _has_rrds(row.ref, str(row.fields["type"])) or (("HA_IS_ENABLED",) if is_protected else None)


def _duplication(row: Row, operation: str) -> _Reason:
    fields = row.fields
    if operation == "snapshot" and fields["sharable"]:
        return ("VDI_IS_SHARABLE", row.ref)
    if fields["on_boot"] == "reset":
        return ("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",)
    if operation == "snapshot" and "copy" in cast("dict[str, str]", fields["current_operations"]).values():
        return ("OPERATION_NOT_ALLOWED", "Snapshot operation not allowed during copy.")
    if operation == "copy" and fields["type"] in _HA_TYPES:
        text = "VDI containing HA statefile or redo log cannot be copied (check the VDI's allowed operations)."
        return ("OPERATION_NOT_ALLOWED", text)
    return None


def _tracking(row: Row) -> _Reason:
    fields, kind = row.fields, str(row.fields["type"])
    if fields["is_a_snapshot"]:
        return ("OPERATION_NOT_ALLOWED", f"VDI is a snapshot: {row.ref}")
    if kind not in _TRACKABLE:
        return ("VDI_INCOMPATIBLE_TYPE", row.ref, type_text(kind))
    if fields["on_boot"] == "reset":
        return ("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",)
    return None
