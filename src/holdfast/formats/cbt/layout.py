"""Which bit of a changed-block bitmap stands for which block: sizes, nothing else.

The bitmap that ``VDI.list_changed_blocks`` answers has one bit for each 64 KiB of the disk, the most significant bit
of each byte first, and comes as base64. (The pool's own log on disk has the least significant bit first; it never
leaves the pool.)
"""

from typing import Literal

from holdfast.core import BLOCK_BYTES

BLOCKS_PER_BYTE = 8
BIT_ORDER: Literal["big"] = "big"


def block_count(size_bytes: int) -> int:
    """Return how many blocks a disk has; the last may be short."""
    return -(-size_bytes // BLOCK_BYTES)


def bitmap_bytes(size_bytes: int) -> int:
    """Return how long the bitmap of a disk is."""
    return -(-block_count(size_bytes) // BLOCKS_PER_BYTE)
