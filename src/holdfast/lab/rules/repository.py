"""What may be done with storage repositories now, and why not.

Invariant: a repository offers what its driver can do, as the driver's ``SM`` record says, and one thing at a time:
only attaching it on several hosts goes on together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.errors import ApiFailure

__all__ = ["allowed_sr_operations", "check_sr_operation", "driver_features"]

_OPERATIONS = (
    "scan",
    "destroy",
    "forget",
    "plug",
    "unplug",
    "vdi_create",
    "vdi_destroy",
    "vdi_resize",
    "vdi_clone",
    "vdi_snapshot",
    "vdi_mirror",
    "vdi_enable_cbt",
    "vdi_disable_cbt",
    "vdi_data_destroy",
    "vdi_list_changed_blocks",
    "vdi_set_on_boot",
    "vdi_introduce",
    "vdi_revert",
    "update",
    "pbd_create",
    "pbd_destroy",
)
"""What ``allowed_operations`` may mention."""

_FEATURES = {
    "vdi_create": "VDI_CREATE",
    "vdi_destroy": "VDI_DELETE",
    "vdi_resize": "VDI_RESIZE",
    "vdi_introduce": "VDI_INTRODUCE",
    "vdi_mirror": "VDI_MIRROR",
    "vdi_enable_cbt": "VDI_CONFIG_CBT",
    "vdi_disable_cbt": "VDI_CONFIG_CBT",
    "vdi_data_destroy": "VDI_CONFIG_CBT",
    "vdi_list_changed_blocks": "VDI_CONFIG_CBT",
    "vdi_set_on_boot": "VDI_RESET_ON_BOOT",
    "update": "SR_UPDATE",
    "vdi_revert": "VDI_REVERT",
    "vdi_snapshot": "VDI_SNAPSHOT",
}
"""What the driver must be able to do. A clone is missing here: the pool copies where a driver cannot."""

_TOOLS_LACK = frozenset({"VDI_CREATE", "VDI_DELETE"})

_Reason = tuple[str, ...] | None


def driver_features(db: Database, sr: str) -> frozenset[str]:
    """Return what the driver of a repository can do; nothing when the pool has no such driver."""
    row = db.find("SR", sr)
    if row is None:
        return frozenset()
    for driver in db.rows("SM"):
        if driver.fields["type"] == row.fields["type"]:
            return frozenset(cast("dict[str, int]", driver.fields["features"]))
    return frozenset()


def check_sr_operation(db: Database, ref: str, operation: str) -> None:
    """Return when the operation may begin on the repository now; the pool's refusal otherwise."""
    reason = _reasons(db, db.row("SR", ref))(operation)
    if reason is not None:
        raise ApiFailure(*reason)


def allowed_sr_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the repository now, for its record."""
    reason = _reasons(db, row)
    return [operation for operation in _OPERATIONS if reason(operation) is None]


def _reasons(db: Database, row: Row) -> Callable[[str], _Reason]:
    """Return what says, for one operation after the other, why it may not begin on this repository."""
    features = driver_features(db, row.ref)
    if row.fields["is_tools_sr"]:
        features -= _TOOLS_LACK
    running = cast("dict[str, str]", row.fields["current_operations"])
    removal: dict[str, _Reason] = {operation: _removal(db, row, operation) for operation in ("destroy", "forget")}

    def reason(operation: str) -> _Reason:
        needed = _FEATURES.get(operation)
        if needed is not None and needed not in features:
            return ("SR_OPERATION_NOT_SUPPORTED", row.ref)
        return removal.get(operation) or _collision(row.ref, running, operation)

    return reason


def _removal(db: Database, row: Row, operation: str) -> _Reason:
    pbds = cast("list[str]", row.fields["PBDs"])
    if any(db.flag("PBD", pbd, "currently_attached") for pbd in pbds):
        return ("SR_HAS_PBD", row.ref)
    if operation == "forget":
        return None
    if not pbds:
        return ("SR_HAS_NO_PBDS", row.ref)
    vdis = (db.row("VDI", vdi).fields for vdi in cast("list[str]", row.fields["VDIs"]))
    return ("SR_NOT_EMPTY",) if any(vdi["managed"] and vdi["type"] != "rrd" for vdi in vdis) else None


def _collision(ref: str, running: dict[str, str], operation: str) -> _Reason:
    for task, other in running.items():
        if operation != "plug" or other != "plug":
            return ("OTHER_OPERATION_IN_PROGRESS", "SR", ref, _text(other), task)
    return None


def _text(operation: str) -> str:
    """Return an operation as refusals spell it."""
    return operation.replace("vdi_", "VDI.").replace("pbd_", "PBD.") if "_" in operation else operation
