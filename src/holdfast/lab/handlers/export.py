"""``GET /export_raw_vdi``: a disk as a raw image, VHD, qcow2 or tar, whole or as the difference from another disk.

The answer has no length: the end of the connection is the end of the disk, and errors come inside the body.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from holdfast.core import MIB
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
from holdfast.lab.handlers.disk_query import DiskFormat, assert_reachable, find_disk, is_kept_as_vhd, wanted_format
from holdfast.lab.handlers.faulty import with_faults
from holdfast.lab.handlers.qcow2 import qcow2_pieces
from holdfast.lab.handlers.tar import send_tar
from holdfast.lab.handlers.transfer import IO_ERROR, Refused, Transfer, refused_early
from holdfast.lab.http import pages
from holdfast.lab.volumes import disk_uuid
from holdfast.model import DataRun, Extent

__all__ = ["export_raw_vdi"]

_VHD_DISK_BYTES_MAX = 2040 << 30
_PIECE_BYTES = 4 * MIB
_SMALLEST_RAW_BYTES = 4096
"""A pool's copying tool fails on a disk smaller than a page."""

Piece = bytes | bytearray | memoryview


def export_raw_vdi(one: Transfer) -> None:
    """Send the disk."""
    pool = one.pool
    try:
        vdi = find_disk(one, "vdi")
        if vdi is None:
            raise internal_failure("Missing vdi query parameter")
        assert_reachable(one, pool.db.text("VDI", vdi, "SR"))
    except ApiFailure as failure:
        raise refused_early(one, failure) from failure
    kind = wanted_format(one)
    if isinstance(kind, str):
        raise Refused(pages.not_found(), ApiFailure("INTERNAL_ERROR", f"Unknown format {kind}"))
    one.head(
        f"task-id:{one.task}",
        f"content-type:{kind.content_type}",
        f'content-disposition: attachment; filename="{disk_uuid(pool, vdi)}.{kind.value}"',
    )
    if kind is DiskFormat.VHD and pool.db.number("VDI", vdi, "virtual_size") > _VHD_DISK_BYTES_MAX:
        raise ApiFailure("VDI_TOO_LARGE", vdi, str(_VHD_DISK_BYTES_MAX))
    with attached(pool, vdi, is_writable=False):
        if kind is DiskFormat.TAR:
            send_tar(one, vdi)
            return
        base = find_disk(one, "base")
        with nullcontext() if base is None else attached(pool, base, is_writable=False):
            if kind is DiskFormat.QCOW2:
                _send(one, qcow2_pieces(pool, vdi, base), None)
            elif base is None:
                _send(one, *_whole(pool, vdi, kind))
            else:
                _send(one, *_difference(pool, vdi, base, kind))


def _send(one: Transfer, pieces: Iterator[Piece], length_bytes: int | None) -> None:
    """Send the pieces; without a length nobody is told how far it is."""
    sent_bytes = 0
    for piece in with_faults(one.pool, pieces):
        one.connection.send(piece)
        if length_bytes is not None:
            sent_bytes += len(piece)
            one.progress(sent_bytes / length_bytes)


def _whole(pool: PoolCore, vdi: str, kind: DiskFormat) -> tuple[Iterator[Piece], int]:
    if kind is DiskFormat.VHD:
        return _vhd(pool, vdi, _allocated_blocks(pool, vdi))
    return _raw(pool, vdi, None)


def _difference(pool: PoolCore, vdi: str, base: str, kind: DiskFormat) -> tuple[Iterator[Piece], int]:
    if not is_kept_as_vhd(pool, vdi):
        raise internal_failure("Cannot compute differences on non-VHD images")
    if not is_kept_as_vhd(pool, base):
        text = "Vhd_tool_wrapper.send: base VDI is not a vhd; cannot compute differences: not backed by a vhd driver"
        raise internal_failure(text)
    blocks = pool.disks.difference_blocks(disk_uuid(pool, base), disk_uuid(pool, vdi))
    if kind is DiskFormat.VHD:
        return _vhd(pool, vdi, blocks, parent=_parent(pool, base))
    return _raw(pool, vdi, blocks)


def _raw(pool: PoolCore, vdi: str, blocks: NDArray[np.int64] | None) -> tuple[Iterator[Piece], int]:
    """Return the disk's bytes; with ``blocks``, only those, and zeros for all the others."""
    name = disk_uuid(pool, vdi)
    size_bytes = pool.disks.size_bytes(name)
    if size_bytes < _SMALLEST_RAW_BYTES:
        raise IO_ERROR()
    chosen = None if blocks is None else frozenset(blocks.tolist())
    piece_bytes = _PIECE_BYTES if chosen is None else VHD_BLOCK_BYTES

    def pieces() -> Iterator[Piece]:
        buffer = memoryview(bytearray(piece_bytes))
        zeros = bytes(piece_bytes)
        for offset in range(0, size_bytes, piece_bytes):
            length_bytes = min(piece_bytes, size_bytes - offset)
            if chosen is not None and offset // piece_bytes not in chosen:
                yield zeros[:length_bytes]
                continue
            pool.disks.read_into(name, offset, buffer[:length_bytes])
            yield buffer[:length_bytes]

    return pieces(), size_bytes


def _vhd(
    pool: PoolCore, vdi: str, blocks: NDArray[np.int64], *, parent: VhdParent | None = None
) -> tuple[Iterator[Piece], int]:
    source = _ChosenBlocks(pool.disks, disk_uuid(pool, vdi), blocks)
    identity = new_vhd_uuid(pool.entropy)
    try:
        plan = plan_vhd(
            source.size_bytes, blocks, uuid=identity, created_at=VHD_EPOCH, parent=parent, style=VhdStyle.POOL
        )
    except VhdDiskTooLarge as cause:
        raise ApiFailure("VDI_TOO_LARGE", vdi, str(_VHD_DISK_BYTES_MAX)) from cause
    return stream_vhd(plan, source), plan.length_bytes


def _allocated_blocks(pool: PoolCore, vdi: str) -> NDArray[np.int64]:
    name = disk_uuid(pool, vdi)
    if is_kept_as_vhd(pool, vdi):
        return pool.disks.allocated_blocks(name)
    return _blocks_with_data(pool.disks, name)


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
