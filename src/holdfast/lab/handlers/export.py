"""``GET /export_raw_vdi``: a disk as a raw image or a VHD, whole or as the difference from another disk.

The answer has no length: the end of the connection is the end of the disk, and errors come inside the body.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from holdfast.formats.vhd import (
    VHD_BLOCK_BYTES,
    VHD_EPOCH,
    VhdDiskTooLarge,
    VhdParent,
    VhdStyle,
    new_vhd_uuid,
    plan_vhd,
    stream_vhd,
)
from holdfast.lab.attachments import attached
from holdfast.lab.context import PoolCore
from holdfast.lab.disks import DiskStore
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.handlers.faulty import with_faults
from holdfast.lab.handlers.transfer import IO_ERROR, Refused, Transfer, find_disk
from holdfast.lab.http import pages
from holdfast.lab.rules import CBT_METADATA, has_vhd_disks
from holdfast.lab.volumes import disk_uuid
from holdfast.model import DataRun, Extent

__all__ = ["export_raw_vdi"]

_CONTENT_TYPES = {"raw": "application/octet-stream", "vhd": "application/vhd"}
_PIECE_BYTES = 4 << 20
_PROGRESS_STEP_BYTES = 64 << 20
_SMALLEST_RAW_BYTES = 4096
"""A pool's copying tool fails on a disk smaller than a page."""

Piece = bytes | bytearray | memoryview


def export_raw_vdi(one: Transfer) -> None:
    """Send the disk."""
    wanted = one.request.parameter("vdi")
    if wanted is None:
        failure = internal_failure("Missing vdi query parameter")
        raise Refused(pages.internal_error(failure.params[0]), failure)
    vdi = find_disk(one, wanted, "get_export_raw_vdi")
    kind = (one.request.parameter("format") or ("raw" if "format" not in one.request.query else "")).lower()
    if kind not in _CONTENT_TYPES:
        raise Refused(pages.not_found(), ApiFailure("INTERNAL_ERROR", f"Unknown format {kind}"))
    pool = one.pool
    one.assert_storage([pool.db.text("VDI", vdi, "SR")])
    one.head(
        f"task-id:{one.task}",
        f"content-type:{_CONTENT_TYPES[kind]}",
        f'content-disposition: attachment; filename="{disk_uuid(pool, vdi)}.{kind}"',
    )
    base = _find_base(one, vdi)
    with attached(pool, vdi, is_writable=False):
        pieces, length_bytes = _vhd(pool, vdi, base) if kind == "vhd" else _raw(pool, vdi)
        _send(one, pieces, length_bytes)


def _find_base(one: Transfer, vdi: str) -> str | None:
    wanted = one.request.parameter("base")
    if wanted is None:
        return None
    db = one.pool.db
    base = wanted if db.exists("VDI", wanted) else db.by_uuid("VDI", wanted)
    if db.text("VDI", base, "type") == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", base, "CBT metadata")
    for disk in (base, vdi):
        if not has_vhd_disks(db, db.text("VDI", disk, "SR")):
            raise internal_failure("Cannot compute differences on non-VHD images")
    return base


def _send(one: Transfer, pieces: Iterator[Piece], length_bytes: int) -> None:
    sent_bytes = told_bytes = 0
    for piece in with_faults(one.pool, pieces):
        one.connection.send(piece)
        sent_bytes += len(piece)
        if sent_bytes - told_bytes >= _PROGRESS_STEP_BYTES:
            told_bytes = sent_bytes
            one.progress(sent_bytes / length_bytes)


def _raw(pool: PoolCore, vdi: str) -> tuple[Iterator[Piece], int]:
    name = disk_uuid(pool, vdi)
    size_bytes = pool.disks.size_bytes(name)
    if size_bytes < _SMALLEST_RAW_BYTES:
        raise IO_ERROR()

    def pieces() -> Iterator[Piece]:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        for offset in range(0, size_bytes, _PIECE_BYTES):
            piece = buffer[: min(_PIECE_BYTES, size_bytes - offset)]
            pool.disks.read_into(name, offset, piece)
            yield piece

    return pieces(), size_bytes


def _vhd(pool: PoolCore, vdi: str, base: str | None) -> tuple[Iterator[Piece], int]:
    name = disk_uuid(pool, vdi)
    parent: VhdParent | None = None
    if base is not None:
        blocks = pool.disks.difference_blocks(disk_uuid(pool, base), name)
        parent = _parent(pool, base)
    elif has_vhd_disks(pool.db, pool.db.text("VDI", vdi, "SR")):
        blocks = pool.disks.allocated_blocks(name)
    else:
        blocks = _blocks_with_data(pool.disks, name)
    source = _ChosenBlocks(pool.disks, name, blocks)
    identity = new_vhd_uuid(pool.entropy)
    try:
        plan = plan_vhd(
            source.size_bytes, blocks, uuid=identity, created_at=VHD_EPOCH, parent=parent, style=VhdStyle.POOL
        )
    except VhdDiskTooLarge as cause:
        raise ApiFailure("VDI_TOO_LARGE", vdi, str(2040 << 30)) from cause
    return stream_vhd(plan, source), plan.length_bytes


def _parent(pool: PoolCore, base: str) -> VhdParent:
    """Return the parent as a pool names it: by the path of its file and that file's own identity, not the disk's."""
    name = disk_uuid(pool, base)
    sr = pool.db.text("SR", pool.db.text("VDI", base, "SR"), "uuid")
    digest = hashlib.sha256(f"vhd file of {name}".encode()).digest()
    identity = uuid.UUID(bytes=digest[:16], version=4)
    path = f"/var/run/sr-mount/{sr}/{name}.vhd"
    return VhdParent(uuid=identity, name=path, created_at=VHD_EPOCH + timedelta(days=1))


def _blocks_with_data(disks: DiskStore, name: str) -> NDArray[np.int64]:
    """Return the blocks of a plain image that hold anything but zeros; a pool looks at the bytes, too."""
    size_bytes = disks.size_bytes(name)
    found: list[int] = []
    buffer = memoryview(bytearray(VHD_BLOCK_BYTES))
    for block in disks.allocated_blocks(name).tolist():
        offset = block * VHD_BLOCK_BYTES
        piece = buffer[: min(VHD_BLOCK_BYTES, size_bytes - offset)]
        disks.read_into(name, offset, piece)
        if np.frombuffer(piece, dtype=np.uint8).any():
            found.append(block)
    return np.array(found, dtype=np.int64)


class _ChosenBlocks:
    """A disk as a ``DiskSource`` of whole blocks, only the chosen ones; its size is rounded up to them."""

    def __init__(self, disks: DiskStore, name: str, blocks: NDArray[np.int64]) -> None:
        self._disks = disks
        self._name = name
        self._blocks = blocks
        self._disk_bytes = disks.size_bytes(name)

    @property
    def size_bytes(self) -> int:
        """See ``DiskSource.size_bytes``."""
        return -(-self._disk_bytes // VHD_BLOCK_BYTES) * VHD_BLOCK_BYTES

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``."""
        for block in self._blocks.tolist():
            yield Extent(offset_bytes=block * VHD_BLOCK_BYTES, length_bytes=VHD_BLOCK_BYTES)

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``; the data of a run is overwritten by the next one."""
        buffer = memoryview(bytearray(VHD_BLOCK_BYTES))
        for extent in self.data_extents():
            self._fill(extent.offset_bytes, buffer)
            yield DataRun(extent.offset_bytes, buffer)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``."""
        buffer = bytearray(length_bytes)
        self._fill(offset_bytes, memoryview(buffer))
        return bytes(buffer)

    def _fill(self, offset_bytes: int, view: memoryview) -> None:
        inside = max(0, min(len(view), self._disk_bytes - offset_bytes))
        if inside:
            self._disks.read_into(self._name, offset_bytes, view[:inside])
        view[inside:] = bytes(len(view) - inside)
