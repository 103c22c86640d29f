"""A disk as qcow2, in both directions: 64 KiB clusters that hold anything, or that differ from another disk.

The pool's tools for it tell nothing of their progress. What is received is laid aside first, because a qcow2 may point
to and fro; it is complete when everything that it points to is there, however much was announced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from holdfast.core import MIB
from holdfast.formats.qcow2 import (
    QCOW2_CLUSTER_BYTES,
    ClusterKind,
    Qcow2Reader,
    Qcow2Truncated,
    plan_qcow2,
    stream_qcow2,
)
from holdfast.lab.context import PoolCore
from holdfast.lab.disks import VHD_BLOCK_BYTES, DiskStore
from holdfast.lab.handlers.disk_write import DiskWriter
from holdfast.lab.handlers.transfer import Transfer
from holdfast.lab.volumes import disk_uuid

__all__ = ["qcow2_pieces", "receive_qcow2"]

_PIECE_BYTES = MIB
_FIRST_LOOK_BYTES = 64 * 1024

Piece = bytes | bytearray | memoryview


def qcow2_pieces(pool: PoolCore, vdi: str, base: str | None) -> Iterator[Piece]:
    """Yield the disk, or what of it differs from the base."""
    disks, name = pool.disks, disk_uuid(pool, vdi)
    size_bytes = disks.size_bytes(name)
    clusters = _held_clusters(disks, name, None if base is None else disk_uuid(pool, base))
    plan = plan_qcow2(size_bytes, clusters)

    def read_into(offset: int, view: memoryview) -> None:
        inside = max(0, min(len(view), size_bytes - offset))
        disks.read_into(name, offset, view[:inside])
        view[inside:] = bytes(len(view) - inside)

    return stream_qcow2(plan, read_into)


def _held_clusters(disks: DiskStore, name: str, base: str | None) -> NDArray[np.int64]:
    """Return the clusters that are not all zeros, or not as in the base."""
    blocks = set(disks.allocated_blocks(name).tolist())
    if base is not None:
        blocks |= set(disks.allocated_blocks(base).tolist())
    per_block = VHD_BLOCK_BYTES // QCOW2_CLUSTER_BYTES
    found = [np.empty(0, dtype=np.int64)]
    size_bytes = disks.size_bytes(name)
    for block in sorted(blocks):
        offset = block * VHD_BLOCK_BYTES
        if offset < size_bytes:
            data = _block(disks, name, offset)
            differs = data != _block(disks, base, offset) if base is not None else data
            inner = np.flatnonzero(differs.reshape(per_block, -1).any(axis=1))
            found.append(inner + block * per_block)
    return np.concatenate(found)


def _block(disks: DiskStore, name: str, offset: int) -> NDArray[np.uint64]:
    buffer = bytearray(VHD_BLOCK_BYTES)
    inside = max(0, min(VHD_BLOCK_BYTES, disks.size_bytes(name) - offset))
    if inside:
        disks.read_into(name, offset, memoryview(buffer)[:inside])
    return np.frombuffer(buffer, dtype=np.uint64)


def receive_qcow2(one: Transfer, writer: DiskWriter) -> None:
    """Write what the qcow2 holds on top of what the disk holds. ``Qcow2Error`` when it is none."""
    with one.pool.disks.scratch() as folder, (folder / "upload.qcow2").open("w+b", buffering=0) as file:
        _lay_aside(one, file)
        reader = Qcow2Reader(file)
        for cluster in reader.clusters():
            if cluster.kind is ClusterKind.ZERO:
                writer.write(cluster.offset_bytes, memoryview(bytes(cluster.length_bytes)))
            else:
                writer.write(cluster.offset_bytes, memoryview(reader.read(cluster)))


def _lay_aside(one: Transfer, file: BinaryIO) -> None:
    """Receive until all is there that the file points to, or nothing comes any more."""
    announced_bytes = one.request.content_length
    buffer = memoryview(bytearray(_PIECE_BYTES))
    received_bytes, next_look_bytes = 0, _FIRST_LOOK_BYTES
    while announced_bytes is None or received_bytes < announced_bytes:
        room = _PIECE_BYTES if announced_bytes is None else min(_PIECE_BYTES, announced_bytes - received_bytes)
        count = one.connection.readinto(buffer[:room])
        if count == 0:
            return
        file.seek(received_bytes)
        file.write(buffer[:count])
        received_bytes += count
        if received_bytes >= next_look_bytes:
            try:
                next_look_bytes = Qcow2Reader(file).length_bytes()
            except Qcow2Truncated:
                next_look_bytes = 2 * received_bytes
            if received_bytes >= next_look_bytes:
                return
