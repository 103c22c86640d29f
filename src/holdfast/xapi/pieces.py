"""What will be read of a disk, cut into pieces of one read each, in the order of the disk.

Invariant: the pieces cover exactly the wanted blocks; none is longer than one read, none leaves the disk.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES, limits
from holdfast.formats.cbt import iter_extents
from holdfast.model import Extent, ZeroRun

__all__ = [
    "Blocks",
    "all_blocks",
    "blocks_of_qcow2",
    "blocks_of_vhd",
    "covered_bytes",
    "grown_zeros",
    "pieces_of",
    "with_grown_edge",
]

Blocks = NDArray[np.bool_]
"""One flag, a byte, for each 64 KiB of a disk: 16 MiB for each TiB, whatever the pattern."""


def block_count(size_bytes: int) -> int:
    """Return how many 64 KiB blocks a disk has."""
    return -(-size_bytes // BLOCK_BYTES)


def all_blocks(size_bytes: int) -> Blocks:
    """Return the whole disk."""
    return np.ones(block_count(size_bytes), dtype=np.bool_)


def blocks_of_vhd(vhd_blocks: NDArray[np.int64], *, vhd_block_bytes: int, size_bytes: int) -> Blocks:
    """Return the 64 KiB blocks that a VHD's table says are allocated, cut at the end of the disk."""
    assert vhd_block_bytes % BLOCK_BYTES == 0
    each = vhd_block_bytes // BLOCK_BYTES
    allocated = np.zeros(-(-block_count(size_bytes) // each) * each, dtype=np.bool_)
    # A pool rounds the disk up to whole blocks when it streams a raw one; what lies behind the end is not wanted.
    inside = vhd_blocks[vhd_blocks < allocated.size // each]
    allocated.reshape(-1, each)[inside] = True
    return allocated[: block_count(size_bytes)]


def blocks_of_qcow2(held: NDArray[np.bool_], *, cluster_bytes: int, size_bytes: int) -> Blocks:
    """Return the 64 KiB blocks of the clusters that a qcow2 holds, and a last cluster that the disk fills only partly.

    A pool counts data in whole clusters and rounds down, so such a last one is not in its tables whatever it holds.
    """
    assert cluster_bytes % BLOCK_BYTES == 0
    each = cluster_bytes // BLOCK_BYTES
    blocks: Blocks = (np.repeat(held, each) if each > 1 else held)[: block_count(size_bytes)]
    if size_bytes % cluster_bytes:
        blocks = blocks.copy()
        blocks[size_bytes // cluster_bytes * each :] = True
    return blocks


def covered_bytes(blocks: Blocks, *, size_bytes: int) -> int:
    """Return how much of the disk the blocks cover."""
    total = int(np.count_nonzero(blocks)) * BLOCK_BYTES
    if blocks.size and blocks[-1]:
        total -= blocks.size * BLOCK_BYTES - size_bytes
    return total


def with_grown_edge(blocks: Blocks, *, reference_size_bytes: int) -> Blocks:
    """Return the changed blocks of a disk that has grown, the block that held the old end among them."""
    edge, inside = divmod(reference_size_bytes, BLOCK_BYTES)
    if not inside or edge >= blocks.size:
        return blocks
    grown = blocks.copy()
    grown[edge] = True
    return grown


def grown_zeros(blocks: Blocks, *, reference_size_bytes: int, size_bytes: int) -> list[ZeroRun]:
    """Return the ranges behind the old end that were never written, so that nobody has to guess what they hold."""
    first = block_count(reference_size_bytes)
    unwritten = ~blocks
    unwritten[:first] = False
    return [
        ZeroRun(offset_bytes=each.offset_bytes, length_bytes=each.length_bytes)
        for each in iter_extents(unwritten, size_bytes=size_bytes)
    ]


def pieces_of(blocks: Blocks, *, size_bytes: int, piece_bytes: int = limits.NBD_READ_BYTES) -> Iterator[Extent]:
    """Yield the reads that cover the blocks, ascending."""
    assert piece_bytes % BLOCK_BYTES == 0
    for extent in iter_extents(blocks, size_bytes=size_bytes):
        for offset_bytes in range(extent.offset_bytes, extent.end_bytes, piece_bytes):
            yield Extent(offset_bytes=offset_bytes, length_bytes=min(piece_bytes, extent.end_bytes - offset_bytes))
