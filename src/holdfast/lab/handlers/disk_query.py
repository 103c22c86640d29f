"""What the query of a raw transfer says: which disk, which other disk it is compared with, and in which format.

Here the query comes before the cookies, unlike everywhere else, and any reference that exists at all counts as found.
"""

from __future__ import annotations

import enum

from holdfast.lab.context import PoolCore
from holdfast.lab.handlers.transfer import Refused, Transfer
from holdfast.lab.rules import has_vhd_disks

__all__ = ["DiskFormat", "assert_reachable", "find_disk", "find_repository", "is_kept_as_vhd", "wanted_format"]


class DiskFormat(enum.Enum):
    """What a disk is sent or received as."""

    RAW = "raw"
    VHD = "vhd"
    QCOW2 = "qcow2"
    TAR = "tar"

    @property
    def content_type(self) -> str:
        """What the answer's head calls it."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    DiskFormat.RAW: "application/octet-stream",
    DiskFormat.VHD: "application/vhd",
    DiskFormat.QCOW2: "application/x-qemu-disk",
    DiskFormat.TAR: "application/x-tar",
}


def wanted_format(one: Transfer) -> DiskFormat | str:
    """Return the format asked for, or the word that names none."""
    word = one.request.query.get("format", one.request.cookies.get("format"))
    if word is None:
        return DiskFormat.RAW
    try:
        return DiskFormat(word.lower())
    except ValueError:
        return word


def find_disk(one: Transfer, name: str) -> str | None:
    """Return the disk that a parameter names by reference or uuid; None when the parameter is absent.

    ``UUID_INVALID`` when nothing has this name, ``HANDLE_INVALID`` when something else than a disk has.
    """
    value = one.request.query.get(name, one.request.cookies.get(name))
    if value is None:
        return None
    db = one.pool.db
    if any(db.exists(cls, value) for cls in db.datamodel.classes):
        return db.row("VDI", value).ref
    return db.by_uuid("VDI", value)


def is_kept_as_vhd(pool: PoolCore, vdi: str) -> bool:
    """Whether the pool's storage has the disk as a VHD, whose table its tools read; other disks they read whole."""
    db = pool.db
    if not has_vhd_disks(db, db.text("VDI", vdi, "SR")):
        return False
    kinds = [db.mapping("VDI", vdi, "sm_config").get("image-format")]
    source = db.text("VDI", vdi, "snapshot_of")
    if kinds == [None] and db.exists("VDI", source):
        kinds.append(db.mapping("VDI", source, "sm_config").get("image-format"))
    return "qcow2" not in kinds


def find_repository(one: Transfer) -> str | None:
    """Return the storage repository for a new disk; a reference is taken as it is. ``UUID_INVALID`` for a bad uuid."""
    ref = one.request.parameter("sr_id")
    if ref is not None:
        return ref
    uuid = one.request.parameter("sr_uuid")
    return None if uuid is None else one.pool.db.by_uuid("SR", uuid)


def assert_reachable(one: Transfer, sr: str) -> None:
    """Return when this host has the repository; otherwise the client is sent elsewhere.

    ``NO_HOSTS_AVAILABLE`` when no host has it.
    """
    try:
        one.assert_storage([sr])
    except Refused as refusal:
        refusal.keeps_open = one.request.is_keep_alive
        raise
