"""Change tracking that stops by itself: when its log cannot be trusted, cannot grow, or has no room.

Invariant: a disk whose ``cbt_enabled`` is true has a change log that saw every write; when that cannot be kept, the
log goes, the field is false and a message says why.
"""

from __future__ import annotations

from typing import Literal

from holdfast.core import KIB, MIB
from holdfast.lab.context import PoolCore
from holdfast.lab.drivers import driver_of
from holdfast.lab.errors import ApiFailure

__all__ = ["check_trackable_size", "keep_tracking_room", "stop_tracking"]

_LOG_VOLUME_BYTES = 4 * MIB
_LOG_HEADER_BYTES = 48
_TRACKED_BYTES_MAX = (_LOG_VOLUME_BYTES - _LOG_HEADER_BYTES) * 8 * 64 * KIB
"""What a log on a logical volume can describe: a bit per 64 KiB, in one extent. A little less than 2 TiB."""

_WHY = {
    "VDI_CBT_METADATA_INCONSISTENT": "its log may lack writes from before its host died",
    "VDI_CBT_RESIZE_FAILED": "its log cannot describe a disk of the new size",
    "VDI_CBT_SNAPSHOT_FAILED": "the repository has no room for a new log",
}

_Alarm = Literal["VDI_CBT_METADATA_INCONSISTENT", "VDI_CBT_RESIZE_FAILED", "VDI_CBT_SNAPSHOT_FAILED"]


def stop_tracking(pool: PoolCore, vdi: str, alarm: _Alarm) -> None:
    """Throw the disk's change log away and raise the message of that name."""
    db = pool.db
    uuid = db.text("VDI", vdi, "uuid")
    with db.transaction():
        pool.disks.disable_cbt(uuid)
        db.set("VDI", vdi, "cbt_enabled", False)
        db.create(
            "message",
            {
                "name": alarm,
                "priority": 3,
                "cls": "VDI",
                "obj_uuid": uuid,
                "timestamp": pool.now(),
                "body": f"Changes of disk {uuid} are tracked no more: {_WHY[alarm]}.",
            },
        )


def check_trackable_size(pool: PoolCore, vdi: str) -> None:
    """Return when a change log of the disk can be made; the driver's refusal otherwise."""
    if not _fits(pool, vdi):
        text = "Unable to activate changed block tracking. [opterr=the log has no room for a disk of this size]"
        raise ApiFailure("SR_BACKEND_FAILURE_457", "", text, "")
    if _is_thick(pool, vdi) and pool.space.free_bytes(pool.db.text("VDI", vdi, "SR")) < _LOG_VOLUME_BYTES:
        text = "Unable to activate changed block tracking. [opterr=there is insufficient space]"
        raise ApiFailure("SR_BACKEND_FAILURE_457", "", text, "")


def keep_tracking_room(pool: PoolCore, vdi: str) -> None:
    """Stop tracking a disk whose log does not fit any more: it grew too large, or its new log found no room."""
    if not pool.db.flag("VDI", vdi, "cbt_enabled") or not _is_thick(pool, vdi):
        return
    if not _fits(pool, vdi):
        stop_tracking(pool, vdi, "VDI_CBT_RESIZE_FAILED")
    elif pool.space.free_bytes(pool.db.text("VDI", vdi, "SR")) < 0:
        stop_tracking(pool, vdi, "VDI_CBT_SNAPSHOT_FAILED")


def _fits(pool: PoolCore, vdi: str) -> bool:
    return not _is_thick(pool, vdi) or pool.db.number("VDI", vdi, "virtual_size") <= _TRACKED_BYTES_MAX


def _is_thick(pool: PoolCore, vdi: str) -> bool:
    return driver_of(pool.db.text("SR", pool.db.text("VDI", vdi, "SR"), "type")).is_thick
