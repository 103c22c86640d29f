"""What a VHD says of itself: the values that footer, header and table are parsed into.

Invariant: a ``VhdHead`` that exists was checked whole. Its table agrees with the disk's size, no two blocks share a
byte, and its arrays are as small as a disk of 2040 GiB allows.
"""

from __future__ import annotations

import datetime
import enum
import itertools
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES
from holdfast.formats.vhd import layout
from holdfast.model import Extent

__all__ = ["VHD_EPOCH", "DiskType", "VhdFooter", "VhdHead", "VhdHeader", "allocated_vhd_blocks", "bitmap_bytes"]

VHD_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""VHD counts seconds from here."""


class DiskType(enum.IntEnum):
    """How a VHD holds its disk."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdFooter:
    """The 512 bytes that end a VHD, and begin it as a copy."""

    disk_type: DiskType
    size_bytes: int
    original_size_bytes: int
    header_offset_bytes: int
    created_at: datetime.datetime
    creator: bytes
    uuid: uuid.UUID

    def agrees_with(self, other: VhdFooter) -> bool:
        """Return whether two footers speak of one disk; tools rewrite the rest in one of the copies only."""
        return (
            self.disk_type == other.disk_type
            and self.size_bytes == other.size_bytes
            and self.header_offset_bytes == other.header_offset_bytes
            and self.uuid == other.uuid
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdHeader:
    """The 1024 bytes that say where the table is, how large a block is, and who the parent is."""

    table_offset_bytes: int
    table_entries: int
    block_bytes: int
    parent_uuid: uuid.UUID
    parent_created_at: datetime.datetime
    parent_name: str

    @property
    def table_end_bytes(self) -> int:
        """The first byte after the table and its padding."""
        table_bytes = self.table_entries * layout.ENTRY_BYTES
        return self.table_offset_bytes + -(-table_bytes // SECTOR_BYTES) * SECTOR_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VhdHead:
    """Everything but the data: which blocks a VHD holds, where they are, and how they are chained."""

    footer: VhdFooter
    header: VhdHeader
    allocated_blocks: NDArray[np.int64]
    """Indexes of the blocks that the file holds, ascending."""
    block_offsets: NDArray[np.int64]
    """Where in the file each of them is (its bitmap first), in the same order."""

    @property
    def size_bytes(self) -> int:
        """Provisioned size of the disk."""
        return self.footer.size_bytes

    @property
    def block_bytes(self) -> int:
        """How much of the disk one table entry covers."""
        return self.header.block_bytes

    @property
    def is_difference(self) -> bool:
        """Whether what the file does not hold is in its parent, instead of zero."""
        return self.footer.disk_type is DiskType.DIFFERENCE

    @property
    def footer_uuid(self) -> uuid.UUID:
        """The identity that children of this file name."""
        return self.footer.uuid

    @property
    def parent_uuid(self) -> uuid.UUID | None:
        """The parent's footer uuid. For a stream that a pool exports, that of the base's file *on the pool*."""
        return self.header.parent_uuid if self.is_difference else None

    @property
    def length_bytes(self) -> int:
        """How long the VHD is when nothing but the footer follows the last block; so with every pool's stream."""
        end_bytes = self.header.table_end_bytes
        if self.block_offsets.size:
            last = int(self.block_offsets.max()) + bitmap_bytes(self.block_bytes) + self.block_bytes
            end_bytes = max(end_bytes, last)
        return end_bytes + layout.FOOTER_BYTES


def bitmap_bytes(block_bytes: int) -> int:
    """Return the length of the sector bitmap in front of each block's data: one bit a sector, whole sectors."""
    return -(-block_bytes // (SECTOR_BYTES * layout.SECTORS_PER_BITMAP_SECTOR)) * SECTOR_BYTES


def allocated_vhd_blocks(extents: Iterable[Extent], *, size_bytes: int) -> NDArray[np.int64]:
    """Return the indexes of the 2 MiB blocks that the extents touch, ascending, each once."""
    block_bytes = layout.BLOCK_BYTES_USUAL
    count = -(-size_bytes // block_bytes)
    pairs = ((extent.offset_bytes, extent.end_bytes) for extent in extents)
    borders = np.fromiter(itertools.chain.from_iterable(pairs), dtype=np.int64)
    starts, ends = borders[0::2], borders[1::2]
    assert not ends.size or int(ends.max()) <= size_bytes, "an extent ends behind the disk"
    steps = np.zeros(count + 1, dtype=np.int64)
    np.add.at(steps, starts // block_bytes, 1)
    np.add.at(steps, -(-ends // block_bytes), -1)
    return np.flatnonzero(np.cumsum(steps[:count])).astype(np.int64)
