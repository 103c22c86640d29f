"""What disks take in their repositories, and whether there is room for more.

A node of a thin tree takes its metadata and the blocks it holds; on a thick repository a writable disk takes its full
size at once and only what is frozen shrinks to what it holds. Invariant: nothing that the pool grants makes a
repository hold more than it has.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field

from holdfast.core import KIB, MIB, TIB
from holdfast.lab.database import Database
from holdfast.lab.disks import VHD_BLOCK_BYTES, DiskFull, DiskStore, DiskUnknown
from holdfast.lab.drivers import Driver, ImageKind, driver_of
from holdfast.lab.errors import ApiFailure

__all__ = ["SpaceLedger", "empty_bytes", "full_bytes", "image_format", "node_bytes"]

_EXTENT_BYTES = 4 * MIB
"""A logical volume is made of whole extents; a change log takes one."""

_VOLUME_METADATA_BYTES_MAX = 2 * TIB
"""Volumes keep room for the metadata of the largest disk, so that they can grow online."""

_FILE_BYTES = 4 * KIB
_BLOCK_BITMAP_BYTES = 4 * KIB
_LOG_HEADER_BYTES = 48

_UNBOUNDED_BYTES = 1 << 62
"""Room of a repository that nobody measured yet."""


def image_format(db: Database, vdi: str) -> str:
    """Return ``vhd`` or ``qcow2``. A snapshot does not say so itself: the disk that it was taken of does."""
    fields = db.row("VDI", vdi).fields
    live = db.find("VDI", str(fields["snapshot_of"]))
    for each in (fields, live.fields if live is not None else {}):
        config = each.get("sm_config")
        if isinstance(config, dict) and config.get("image-format"):
            return str(config["image-format"])
    return "vhd"


def empty_bytes(size_bytes: int, *, driver: Driver) -> int:
    """Return what an image of that size takes before anything is written to it."""
    if not driver.is_thick:
        return _metadata_bytes(size_bytes)
    return _round_up(_metadata_bytes(_VOLUME_METADATA_BYTES_MAX), _EXTENT_BYTES)


def full_bytes(size_bytes: int, *, driver: Driver) -> int:
    """Return what a writable disk of that size is given at once."""
    if not driver.is_thick:
        return _metadata_bytes(size_bytes)
    blocks = -(-size_bytes // VHD_BLOCK_BYTES)
    metadata_bytes = _metadata_bytes(_VOLUME_METADATA_BYTES_MAX)
    return _round_up(size_bytes + metadata_bytes + blocks * _BLOCK_BITMAP_BYTES, _EXTENT_BYTES)


def _metadata_bytes(size_bytes: int) -> int:
    """Two footers, a header, room for where the parent is, a block table and its bitmap."""
    blocks = -(-size_bytes // VHD_BLOCK_BYTES)
    return 3 * KIB + _round_up(4 * blocks, 512) + _round_up(blocks // 8, 4 * KIB)


def _round_up(length_bytes: int, step_bytes: int) -> int:
    return -(-length_bytes // step_bytes) * step_bytes


def node_bytes(db: Database, disks: DiskStore, vdi: str) -> int:
    """Return what this disk or base copy alone takes now, its change log left out."""
    fields = db.row("VDI", vdi).fields
    uuid, size_bytes = str(fields["uuid"]), db.number("VDI", vdi, "virtual_size")
    driver = driver_of(db.text("SR", str(fields["SR"]), "type"))
    if not disks.exists(uuid) or not disks.has_data(uuid):
        return _EXTENT_BYTES if driver.is_thick else _FILE_BYTES
    match driver.kind:
        case ImageKind.MEDIA:
            return size_bytes
        case ImageKind.PLAIN:
            return disks.held_bytes(uuid) + _FILE_BYTES
        case ImageKind.TREE:
            is_raw = db.mapping("VDI", vdi, "sm_config").get("type") == "raw"
            is_frozen = bool(fields["is_a_snapshot"]) or not fields["managed"]
            if driver.is_thick and is_raw:
                return _round_up(size_bytes, _EXTENT_BYTES)
            if driver.is_thick and not is_frozen:
                return full_bytes(size_bytes, driver=driver)
            held_bytes = disks.used_bytes(uuid)
            bitmaps_bytes = held_bytes // VHD_BLOCK_BYTES * _BLOCK_BITMAP_BYTES
            return empty_bytes(size_bytes, driver=driver) + _round_up(
                held_bytes + bitmaps_bytes, _EXTENT_BYTES if driver.is_thick else 1
            )


def _log_bytes(db: Database, disks: DiskStore, vdi: str) -> int:
    fields = db.row("VDI", vdi).fields
    uuid = str(fields["uuid"])
    if not disks.exists(uuid) or not disks.cbt_enabled(uuid):
        return 0
    if driver_of(db.text("SR", str(fields["SR"]), "type")).is_thick:
        return _EXTENT_BYTES
    return _LOG_HEADER_BYTES + -(-db.number("VDI", vdi, "virtual_size") // (8 * 64 * KIB))


@dataclass(slots=True)
class _Account:
    """What one repository holds, disk by disk."""

    used: dict[str, int] = field(default_factory=dict)
    total_bytes: int = 0

    def put(self, uuid: str, used_bytes: int) -> None:
        self.total_bytes += used_bytes - self.used.get(uuid, 0)
        self.used[uuid] = used_bytes

    def drop(self, uuid: str) -> None:
        self.total_bytes -= self.used.pop(uuid, 0)


class SpaceLedger:
    """The space of one pool's repositories. Safe to use from any thread.

    Every write that takes new space asks it; its lock is the last one taken, for a write has its disk locked.
    """

    def __init__(self, db: Database, disks: DiskStore) -> None:
        self._db = db
        self._disks = disks
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        disks.on_growth(self._grow)

    def used_bytes(self, sr: str) -> int:
        """Return what the repository holds."""
        with self._lock:
            return self._account(sr).total_bytes

    def free_bytes(self, sr: str) -> int:
        """Return what the repository has left; more than anybody needs when nobody said how large it is."""
        with self._lock:
            return self._free_bytes(sr)

    def check_room(self, sr: str, *, needed_bytes: int) -> None:
        """Return when the repository has room for so much; ``SR_BACKEND_FAILURE_44`` otherwise."""
        if needed_bytes > self.free_bytes(sr):
            raise ApiFailure("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")

    def measure(self, *vdis: str) -> None:
        """Look at these disks anew."""
        for vdi in vdis:
            sr, uuid = self._db.text("VDI", vdi, "SR"), self._db.text("VDI", vdi, "uuid")
            used_bytes = self._whole_bytes(vdi)
            with self._lock:
                account = self._accounts.get(sr)
                if account is not None:
                    account.put(uuid, used_bytes)

    def drop(self, sr: str, uuid: str) -> None:
        """Forget a disk that is gone."""
        with self._lock:
            account = self._accounts.get(sr)
            if account is not None:
                account.drop(uuid)

    def count_anew(self, sr: str) -> int:
        """Look at every disk of the repository and return what it holds."""
        with self._lock:
            self._accounts.pop(sr, None)
            return self._account(sr).total_bytes

    def _account(self, sr: str) -> _Account:
        account = self._accounts.get(sr)
        if account is None:
            account = _Account()
            for vdi in self._db.texts("SR", sr, "VDIs"):
                with contextlib.suppress(ApiFailure, DiskUnknown):  # gone meanwhile
                    account.put(self._db.text("VDI", vdi, "uuid"), self._whole_bytes(vdi))
            self._accounts[sr] = account
        return account

    def _whole_bytes(self, vdi: str) -> int:
        return node_bytes(self._db, self._disks, vdi) + _log_bytes(self._db, self._disks, vdi)

    def _free_bytes(self, sr: str) -> int:
        size_bytes = self._db.number("SR", sr, "physical_size")
        return _UNBOUNDED_BYTES if size_bytes < 0 else size_bytes - self._account(sr).total_bytes

    def _grow(self, uuid: str, grown_bytes: int) -> None:
        db = self._db
        if not db.has_uuid("VDI", uuid):
            return  # a disk whose record is still to be made, or was forgotten
        sr = db.text("VDI", db.by_uuid("VDI", uuid), "SR")
        if not db.exists("SR", sr) or driver_of(db.text("SR", sr, "type")).is_thick:
            return
        with self._lock:
            free_bytes = self._free_bytes(sr)
            if grown_bytes > free_bytes:
                raise DiskFull(disk=uuid, needed_bytes=grown_bytes, free_bytes=free_bytes)
            account = self._account(sr)
            account.put(uuid, account.used.get(uuid, 0) + grown_bytes)
