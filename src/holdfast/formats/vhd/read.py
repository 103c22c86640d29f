"""Unpacking footer, header and table, each checked whole before anything of it is believed.

Invariant: no size that a VHD claims is used for memory or for a seek before it was held against the limits. Every
function takes the offset at which its bytes were found, so that a refusal can name the byte.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES, format_bytes, limits
from holdfast.formats.vhd import layout
from holdfast.formats.vhd.errors import VhdDamaged, VhdUnsupported
from holdfast.formats.vhd.head import VHD_EPOCH, DiskType, VhdFooter, VhdHead, VhdHeader, bitmap_bytes

__all__ = ["checksum", "unpack_footer", "unpack_head", "unpack_header"]


def unpack_footer(data: bytes, *, offset_bytes: int) -> VhdFooter:
    """Return the footer; raises ``VhdDamaged`` when it is none, and ``VhdUnsupported`` for other kinds of disks."""
    assert len(data) == layout.FOOTER_BYTES
    (cookie, _, version, header_offset_bytes, time_s, creator, _, _, original_size_bytes, size_bytes) = (
        layout.FOOTER.unpack(data)[:10]
    )
    disk_type, stored_checksum, identity = layout.FOOTER.unpack(data)[13:16]
    if cookie != layout.FOOTER_COOKIE:
        raise VhdDamaged(offset_bytes, "there is no VHD footer")
    if stored_checksum != checksum(data, field_offset=layout.FOOTER_CHECKSUM_OFFSET):
        raise VhdDamaged(offset_bytes, "the footer's checksum does not match")
    if version >> 16 != layout.VERSION >> 16:
        raise VhdUnsupported(offset_bytes, f"its version is {version:#x}")
    if disk_type not in (DiskType.DYNAMIC, DiskType.DIFFERENCE):
        raise VhdUnsupported(offset_bytes, f"it is of type {disk_type}, neither dynamic (3) nor differencing (4)")
    if size_bytes == 0 or size_bytes % SECTOR_BYTES:
        raise VhdDamaged(offset_bytes, f"it claims a disk of {size_bytes} bytes")
    if size_bytes > limits.VHD_DISK_BYTES_MAX:
        raise VhdDamaged(offset_bytes, f"it claims a disk of {format_bytes(size_bytes)}, more than a VHD can hold")
    return VhdFooter(
        disk_type=DiskType(disk_type),
        size_bytes=size_bytes,
        original_size_bytes=original_size_bytes,
        header_offset_bytes=header_offset_bytes,
        created_at=VHD_EPOCH + datetime.timedelta(seconds=time_s),
        creator=creator,
        uuid=uuid.UUID(bytes=identity),
    )


def unpack_header(data: bytes, *, offset_bytes: int, footer: VhdFooter) -> VhdHeader:
    """Return the header, checked against the footer's disk; raises ``VhdDamaged`` or ``VhdUnsupported``."""
    assert len(data) == layout.HEADER_BYTES
    cookie, _, table_offset_bytes, version, entries, block_bytes, stored_checksum, parent, parent_time_s, name, _ = (
        layout.HEADER.unpack(data)
    )
    if cookie != layout.HEADER_COOKIE:
        raise VhdDamaged(offset_bytes, "there is no dynamic disk header")
    if stored_checksum != checksum(data, field_offset=layout.HEADER_CHECKSUM_OFFSET):
        raise VhdDamaged(offset_bytes, "the header's checksum does not match")
    if version >> 16 != layout.VERSION >> 16:
        raise VhdUnsupported(offset_bytes, f"the header's version is {version:#x}")
    if not _is_block_size(block_bytes):
        raise VhdUnsupported(offset_bytes, f"its blocks are of {block_bytes} bytes")
    if entries > layout.TABLE_ENTRIES_MAX:
        raise VhdDamaged(offset_bytes, f"its table of {entries} entries is larger than any disk needs")
    if entries * block_bytes < footer.size_bytes:
        raise VhdDamaged(offset_bytes, f"its table of {entries} entries is too small for the disk")
    return VhdHeader(
        table_offset_bytes=table_offset_bytes,
        table_entries=entries,
        block_bytes=block_bytes,
        parent_uuid=uuid.UUID(bytes=parent),
        parent_created_at=VHD_EPOCH + datetime.timedelta(seconds=parent_time_s),
        parent_name=name.decode("utf-16-be", errors="replace").partition("\0")[0],
    )


def unpack_head(
    table: bytes | memoryview, *, footer: VhdFooter, header: VhdHeader, taken: Sequence[tuple[int, int, str]]
) -> VhdHead:
    """Return the whole head from a table's bytes.

    ``taken`` lists the ranges of the file (start, end, name) that no block may touch. Raises ``VhdDamaged`` when a
    block lies behind the disk, in a taken range, or in another block.
    """
    entries = np.frombuffer(table, dtype=">u4", count=header.table_entries)
    blocks = np.flatnonzero(entries != layout.UNALLOCATED).astype(np.int64)
    offsets = entries[blocks].astype(np.int64) * SECTOR_BYTES
    if blocks.size:
        _check_blocks(blocks, footer=footer, header=header)
        _check_offsets(offsets, blocks=blocks, header=header, taken=taken)
    return VhdHead(footer=footer, header=header, allocated_blocks=blocks, block_offsets=offsets)


def checksum(data: bytes, *, field_offset: int) -> int:
    """Return the ones' complement of the sum of all bytes, the checksum's own field counted as zeros."""
    field_end = field_offset + layout.CHECKSUM_BYTES
    return ~(sum(data) - sum(data[field_offset:field_end])) & 0xFFFF_FFFF


def _is_block_size(block_bytes: int) -> bool:
    is_power_of_two = block_bytes & (block_bytes - 1) == 0
    return is_power_of_two and layout.BLOCK_BYTES_MIN <= block_bytes <= layout.BLOCK_BYTES_MAX


def _check_blocks(blocks: NDArray[np.int64], *, footer: VhdFooter, header: VhdHeader) -> None:
    last = int(blocks[-1])
    if last * header.block_bytes >= footer.size_bytes:
        entry_offset = header.table_offset_bytes + last * layout.ENTRY_BYTES
        raise VhdDamaged(entry_offset, f"block {last} lies behind the end of the disk")


def _check_offsets(
    offsets: NDArray[np.int64],
    *,
    blocks: NDArray[np.int64],
    header: VhdHeader,
    taken: Sequence[tuple[int, int, str]],
) -> None:
    """Refuse blocks that share bytes with each other or with the file's own structures."""
    span_bytes = bitmap_bytes(header.block_bytes) + header.block_bytes
    order = np.argsort(offsets, kind="stable")
    in_file_order = offsets[order]
    close = np.flatnonzero(np.diff(in_file_order) < span_bytes)
    if close.size:
        first, second = (int(blocks[order[close[0] + step]]) for step in (0, 1))
        entry_offset = header.table_offset_bytes + second * layout.ENTRY_BYTES
        raise VhdDamaged(entry_offset, f"blocks {first} and {second} share bytes")
    for start, end, name in taken:
        touching = np.flatnonzero((offsets < end) & (offsets + span_bytes > start))
        if touching.size:
            block = int(blocks[touching[0]])
            entry_offset = header.table_offset_bytes + block * layout.ENTRY_BYTES
            raise VhdDamaged(entry_offset, f"block {block} lies in {name}")
