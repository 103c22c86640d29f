"""VHD files of every shape for tests, packed field by field without the code under test, and disks to put into them."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from holdfast.model import DataRun, Extent

__all__ = ["KIB64", "BlockSpec", "MemoryDisk", "VhdSpec", "pattern"]

KIB64 = 64 * 1024


def pattern(length_bytes: int, *, seed: int) -> bytes:
    """Return bytes without zeros that differ from seed to seed."""
    return np.random.default_rng(seed).integers(1, 256, length_bytes, dtype=np.uint8).tobytes()


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One block: where on the disk, which sectors are claimed, what follows the bitmap."""

    index: int
    data: bytes
    claims: Sequence[bool] | NDArray[np.bool_] | None = None
    """One flag a sector; ``None`` claims all."""


@dataclass(kw_only=True)
class VhdSpec:
    """A VHD to be packed. The defaults make a small valid file as a pool's storage lays it out."""

    size_bytes: int = 4 * KIB64
    blocks: Sequence[BlockSpec] = ()
    """In the order in which they follow each other in the file."""
    block_bytes: int = KIB64
    disk_type: int = 3
    identity: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=0xA))
    parent: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=0))
    header_offset: int = 512
    table_offset: int = 1536
    entries: int | None = None
    gap_bytes: int = 0
    """Unused bytes in front of each block and of the last footer."""
    places: dict[int, int] = field(default_factory=dict)
    """Table entries (in sectors) that lie about where a block is."""
    version: int = 0x0001_0000
    header_version: int = 0x0001_0000
    tail: bytes | None = None
    """Instead of the last footer."""
    tail_identity: uuid.UUID | None = None

    def footer(self, identity: uuid.UUID | None = None) -> bytes:
        """Return the footer's 512 bytes."""
        body = struct.pack(">8sIIQI4sI4s", b"conectix", 2, self.version, self.header_offset, 0, b"test", 1, b"")
        body += struct.pack(">QQHBBI", self.size_bytes, self.size_bytes, 0, 0, 0, self.disk_type)
        rest = (identity or self.identity).bytes + bytes(512 - 84)
        return body + struct.pack(">I", ~(sum(body) + sum(rest)) & 0xFFFF_FFFF) + rest

    def header(self) -> bytes:
        """Return the header's 1024 bytes."""
        entries = self.entries_needed if self.entries is None else self.entries
        body = struct.pack(">8sQQ", b"cxsparse", 2**64 - 1, self.table_offset)
        body += struct.pack(">III", self.header_version, entries, self.block_bytes)
        rest = self.parent.bytes + bytes(1024 - 56)
        return body + struct.pack(">I", ~(sum(body) + sum(rest)) & 0xFFFF_FFFF) + rest

    @property
    def entries_needed(self) -> int:
        """How many table entries the disk needs."""
        return -(-self.size_bytes // self.block_bytes)

    def pack(self) -> bytes:
        """Return the file."""
        table = np.full(-(-self.entries_needed // 128) * 128, 0xFFFF_FFFF, dtype=">u4")
        end = max(self.table_offset + table.nbytes, self.header_offset + 1024)
        body = bytearray()
        for block in self.blocks:
            body += b"\x55" * self.gap_bytes
            table[block.index] = (end + len(body)) // 512
            body += _bitmap(block, self.block_bytes) + block.data.ljust(self.block_bytes, b"\0")
        for index, sector in self.places.items():
            table[index] = sector
        front = bytearray(self.footer().ljust(end, b"\xee"))
        front[self.header_offset : self.header_offset + 1024] = self.header()
        front[self.table_offset : self.table_offset + table.nbytes] = table.tobytes()
        tail = self.footer(self.tail_identity) if self.tail is None else self.tail
        return bytes(front + body) + b"\x55" * self.gap_bytes + tail


def _bitmap(block: BlockSpec, block_bytes: int) -> bytes:
    sectors = block_bytes // 512
    flags = np.ones(sectors, dtype=np.bool_) if block.claims is None else np.asarray(block.claims, dtype=np.bool_)
    assert flags.size == sectors
    return np.packbits(flags).tobytes().ljust(-(-sectors // 8 // 512) * 512, b"\0")


@dataclass(frozen=True)
class MemoryDisk:
    """A ``DiskSource`` over bytes; its extents are the 64 KiB blocks that hold anything but zeros."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        """See ``DiskSource.size_bytes``."""
        return len(self.content)

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``; not merged, which consumers must bear."""
        for offset in range(0, len(self.content), KIB64):
            piece = self.content[offset : offset + KIB64]
            if piece.count(0) != len(piece):
                yield Extent(offset_bytes=offset, length_bytes=len(piece))

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``."""
        return self.content[offset_bytes : offset_bytes + length_bytes]

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``; every run re-uses one buffer, as the contract allows."""
        buffer = bytearray(KIB64)
        for extent in self.data_extents():
            view = memoryview(buffer)[: extent.length_bytes]
            view[:] = self.content[extent.offset_bytes : extent.end_bytes]
            yield DataRun(extent.offset_bytes, view)
