"""Writing a VHD as a stream whose length is known before its first byte, and as a file.

The layout is the one that pools export: footer, header, one sector for a parent locator, table at 2048, blocks in
ascending order each with a full bitmap, footer. Invariant: ``stream_vhd`` yields exactly ``plan.length_bytes``.
"""

from __future__ import annotations

import datetime
import enum
import os
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES, Entropy, limits
from holdfast.formats.vhd import layout
from holdfast.formats.vhd.errors import VhdDiskTooLarge
from holdfast.formats.vhd.head import VHD_EPOCH, DiskType, allocated_vhd_blocks, bitmap_bytes
from holdfast.formats.vhd.read import checksum
from holdfast.model import DataRun, DiskSource

__all__ = ["VhdParent", "VhdPlan", "VhdStyle", "new_vhd_uuid", "plan_vhd", "stream_vhd", "write_vhd_file"]

_BITMAP_BYTES = bitmap_bytes(layout.BLOCK_BYTES_USUAL)
_SPAN_BYTES = _BITMAP_BYTES + layout.BLOCK_BYTES_USUAL
_ZEROS = memoryview(bytes(layout.BLOCK_BYTES_USUAL))


class VhdStyle(enum.Enum):
    """Whose habits a VHD shows where the specification leaves room."""

    OWN = "own"
    """Ours: our creator's mark, the true time, parent locators with their data."""
    POOL = "pool"
    """A pool's export: its mark, time zero, and a parent locator whose data is missing. For simulated pools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdParent:
    """Whom a difference builds on. ``name`` is the parent's file name or path."""

    uuid: uuid.UUID
    name: str
    created_at: datetime.datetime

    def __post_init__(self) -> None:
        assert len(self.name.encode("utf-16-be")) < layout.PARENT_NAME_BYTES
        assert len(self.url) <= SECTOR_BYTES, "the locator has one sector"

    @property
    def url(self) -> bytes:
        """The name as the file URL that a parent locator holds; a bare name is relative to the child."""
        path = self.name if self.name.startswith(("/", "./", "../")) else f"./{self.name}"
        return b"file://" + urllib.parse.quote(path).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VhdPlan:
    """A VHD decided to the byte, except for the blocks' content."""

    size_bytes: int
    uuid: uuid.UUID
    is_difference: bool
    allocated_blocks: NDArray[np.int64]
    """Indexes of the blocks that the stream will carry, ascending."""
    head: bytes
    footer: bytes

    @property
    def length_bytes(self) -> int:
        """Exactly how long the stream will be."""
        return len(self.head) + self.allocated_blocks.size * _SPAN_BYTES + len(self.footer)


def plan_vhd(
    size_bytes: int,
    allocated_blocks: NDArray[np.int64],
    *,
    uuid: uuid.UUID,
    created_at: datetime.datetime,
    parent: VhdParent | None = None,
    style: VhdStyle = VhdStyle.OWN,
) -> VhdPlan:
    """Return the plan of a VHD that carries these 2 MiB blocks (indexes, ascending, each once).

    With a parent it is a difference, else every other block reads as zeros. Raises ``VhdDiskTooLarge``.
    """
    assert size_bytes > 0
    assert size_bytes % SECTOR_BYTES == 0
    if size_bytes > limits.VHD_DISK_BYTES_MAX:
        raise VhdDiskTooLarge(size_bytes)
    blocks = np.ascontiguousarray(allocated_blocks, dtype=np.int64)
    entries = -(-size_bytes // layout.BLOCK_BYTES_USUAL)
    if blocks.size:
        assert int(blocks[0]) >= 0
        assert int(blocks[-1]) < entries
        assert bool((np.diff(blocks) > 0).all()), "blocks ascend, each once"
    footer = _pack_footer(size_bytes, uuid=uuid, created_at=created_at, is_difference=parent is not None, style=style)
    header = _pack_header(entries, parent=parent, style=style)
    locator = parent.url if parent is not None and style is VhdStyle.OWN else b""
    head = footer + header + locator.ljust(SECTOR_BYTES, b"\0") + _pack_table(entries, blocks)
    return VhdPlan(
        size_bytes=size_bytes,
        uuid=uuid,
        is_difference=parent is not None,
        allocated_blocks=blocks,
        head=head,
        footer=footer,
    )


def stream_vhd(plan: VhdPlan, source: DiskSource) -> Iterator[bytes | memoryview]:
    """Yield the VHD of ``source`` as planned, ``plan.length_bytes`` in total.

    A whole disk is drawn from ``source.runs()``, which must not leave the planned blocks; of a difference only the
    planned blocks are read. The plan may round the disk up within its last block, as pools do. A piece is valid until
    the next one is asked for.
    """
    last_block = (plan.size_bytes - 1) // layout.BLOCK_BYTES_USUAL
    assert last_block * layout.BLOCK_BYTES_USUAL < source.size_bytes <= plan.size_bytes, "the plan is of another disk"
    yield plan.head
    yield from _blocks_by_reads(plan, source) if plan.is_difference else _blocks_from_runs(plan, source)
    yield plan.footer


def write_vhd_file(path: Path, source: DiskSource, *, entropy: Entropy, created_at: datetime.datetime) -> VhdPlan:
    """Write the whole disk into a dynamic VHD and return what was written.

    The file appears under its name complete and durable, or not at all; one that is there is replaced. Only its owner
    may read it: it is somebody's disk in the clear. Raises ``VhdDiskTooLarge`` before anything is written, and
    ``OSError`` as the file system gives it.
    """
    blocks = allocated_vhd_blocks(source.data_extents(), size_bytes=source.size_bytes)
    plan = plan_vhd(source.size_bytes, blocks, uuid=new_vhd_uuid(entropy), created_at=created_at)
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in stream_vhd(plan, source):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return plan


def new_vhd_uuid(entropy: Entropy) -> uuid.UUID:
    """Return a random identity for a VHD."""
    return uuid.UUID(bytes=entropy.token_bytes(16), version=4)


def _pack_footer(
    size_bytes: int, *, uuid: uuid.UUID, created_at: datetime.datetime, is_difference: bool, style: VhdStyle
) -> bytes:
    own = style is VhdStyle.OWN
    footer = layout.FOOTER.pack(
        layout.FOOTER_COOKIE,
        layout.FEATURES_RESERVED,
        layout.VERSION,
        layout.FOOTER_BYTES,
        _seconds_since_epoch(created_at) if own else 0,
        layout.CREATOR_OWN if own else layout.CREATOR_POOL,
        layout.CREATOR_OWN_VERSION if own else layout.CREATOR_POOL_VERSION,
        layout.CREATOR_OWN_SYSTEM if own else layout.CREATOR_POOL_SYSTEM,
        size_bytes,
        size_bytes,
        *_geometry(size_bytes // SECTOR_BYTES, style=style),
        DiskType.DIFFERENCE if is_difference else DiskType.DYNAMIC,
        0,
        uuid.bytes,
        0,
    )
    return _with_checksum(footer, field_offset=layout.FOOTER_CHECKSUM_OFFSET)


def _pack_header(entries: int, *, parent: VhdParent | None, style: VhdStyle) -> bytes:
    name, locators, parent_uuid, parent_time_s = b"", b"", bytes(16), 0
    if parent is not None:
        name = parent.name.encode("utf-16-be")
        parent_uuid, parent_time_s = parent.uuid.bytes, _seconds_since_epoch(parent.created_at)
        # The specification counts the locator's space in bytes; pools write a number of sectors into streams.
        space = SECTOR_BYTES if style is VhdStyle.OWN else 1
        locators = layout.LOCATOR.pack(layout.MAC_LOCATOR, space, len(parent.url), 0, layout.STREAM_LOCATOR_OFFSET)
    header = layout.HEADER.pack(
        layout.HEADER_COOKIE,
        layout.NO_OFFSET,
        layout.STREAM_TABLE_OFFSET,
        layout.VERSION,
        entries,
        layout.BLOCK_BYTES_USUAL,
        0,
        parent_uuid,
        parent_time_s,
        name,
        locators,
    )
    return _with_checksum(header, field_offset=layout.HEADER_CHECKSUM_OFFSET)


def _pack_table(entries: int, blocks: NDArray[np.int64]) -> bytes:
    table_sectors = -(-entries * layout.ENTRY_BYTES // SECTOR_BYTES)
    table = np.full(table_sectors * SECTOR_BYTES // layout.ENTRY_BYTES, layout.UNALLOCATED, dtype=">u4")
    first_sector = layout.STREAM_TABLE_OFFSET // SECTOR_BYTES + table_sectors
    table[blocks] = first_sector + np.arange(blocks.size) * (_SPAN_BYTES // SECTOR_BYTES)
    return table.tobytes()


def _blocks_from_runs(plan: VhdPlan, source: DiskSource) -> Iterator[memoryview]:
    """Gather ascending runs into whole blocks, one buffer for all of them."""
    buffer = _block_buffer()
    data = buffer[_BITMAP_BYTES:]
    pieces = _pieces_by_block(source.runs())
    piece = next(pieces, None)
    for block in plan.allocated_blocks.tolist():
        filled = 0
        while piece is not None and piece[0] == block:
            _, start, content = piece
            data[filled:start] = _ZEROS[filled:start]
            filled = start + len(content)
            data[start:filled] = content
            piece = next(pieces, None)
        assert piece is None or piece[0] > block, "the source has data where the plan has no block"
        data[filled:] = _ZEROS[filled:]
        yield buffer
    assert piece is None, "the source has data where the plan has no block"


def _pieces_by_block(runs: Iterator[DataRun]) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (block, offset within it, bytes), runs being cut where a block ends."""
    for run in runs:
        content = memoryview(run.data)
        offset_bytes = run.offset_bytes
        while content:
            block, start = divmod(offset_bytes, layout.BLOCK_BYTES_USUAL)
            head = content[: layout.BLOCK_BYTES_USUAL - start]
            yield block, start, head
            content = content[len(head) :]
            offset_bytes += len(head)


def _blocks_by_reads(plan: VhdPlan, source: DiskSource) -> Iterator[memoryview]:
    buffer = _block_buffer()
    data = buffer[_BITMAP_BYTES:]
    for block in plan.allocated_blocks.tolist():
        offset_bytes = block * layout.BLOCK_BYTES_USUAL
        length_bytes = min(layout.BLOCK_BYTES_USUAL, source.size_bytes - offset_bytes)
        data[:length_bytes] = source.read(offset_bytes, length_bytes)
        data[length_bytes:] = _ZEROS[length_bytes:]
        yield buffer


def _block_buffer() -> memoryview:
    return memoryview(bytearray(b"\xff" * _BITMAP_BYTES + bytes(_ZEROS)))


def _with_checksum(data: bytes, *, field_offset: int) -> bytes:
    value = checksum(data, field_offset=field_offset).to_bytes(layout.CHECKSUM_BYTES, "big")
    return data[:field_offset] + value + data[field_offset + layout.CHECKSUM_BYTES :]


def _seconds_since_epoch(moment: datetime.datetime) -> int:
    return max(0, min(int((moment - VHD_EPOCH).total_seconds()), 0xFFFF_FFFF))


def _geometry(sectors: int, *, style: VhdStyle) -> tuple[int, int, int]:
    """Return cylinders, heads and sectors per track.

    The specification's formula mostly denotes less than the disk, and qemu believes it from creators that it does not
    know: it would cut the end off, a GPT's second header with it. The largest geometry tells it to believe the size.
    """
    cylinders, heads, sectors_per_track = _specified_geometry(sectors)
    if style is VhdStyle.OWN and cylinders * heads * sectors_per_track != sectors:
        return layout.GEOMETRY_MAX
    return cylinders, heads, sectors_per_track


def _specified_geometry(sectors: int) -> tuple[int, int, int]:
    """Return the geometry as the specification's appendix computes it."""
    cylinders_max, heads_max, sectors_per_track_max = layout.GEOMETRY_MAX
    sectors = min(sectors, cylinders_max * heads_max * sectors_per_track_max)
    if sectors >= cylinders_max * heads_max * 63:
        return sectors // sectors_per_track_max // heads_max, heads_max, sectors_per_track_max
    tracks = sectors // 17
    heads = max(4, -(-tracks // 1024))
    if heads <= heads_max and tracks < heads * 1024:
        return tracks // heads, heads, 17
    if (tracks := sectors // 31) < heads_max * 1024:
        return tracks // heads_max, heads_max, 31
    return sectors // 63 // heads_max, heads_max, 63


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
