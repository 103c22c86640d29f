"""Reading a changed-block bitmap as the pool answers it.

Invariant: what comes back lies on the disk. A bitmap of another length, or with a bit behind the disk's end, is refused
whole: guessing here would leave changed blocks out of a backup.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES, ExitStatus, HoldfastError
from holdfast.formats.cbt import layout
from holdfast.model import Extent

__all__ = ["CbtBitmapDamaged", "decode_bitmap", "decode_blocks", "iter_extents"]


class CbtBitmapDamaged(HoldfastError):
    """The pool's answer about changed blocks does not fit the disk."""

    code = "cbt.bitmap-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "The changes of this disk are not known from it; existing restore points are untouched."
    advice = "The disk is read by another way. If it happens again, disable and enable change tracking on the disk."

    def __init__(self, what: str) -> None:
        super().__init__(f"the changed-block bitmap is damaged: {what}")
        self.what = what


def decode_bitmap(text_base64: str, *, size_bytes: int) -> list[Extent]:
    """Return the changed ranges of the disk, ascending, merged, the last clipped to the disk's end.

    Raises ``CbtBitmapDamaged``.
    """
    return list(iter_extents(decode_blocks(text_base64, size_bytes=size_bytes), size_bytes=size_bytes))


def decode_blocks(text_base64: str, *, size_bytes: int) -> NDArray[np.bool_]:
    """Return one flag for each 64 KiB block of the disk; raises ``CbtBitmapDamaged``."""
    assert size_bytes > 0
    expected_bytes = layout.bitmap_bytes(size_bytes)
    text = text_base64.strip()
    if len(text) > 4 * (expected_bytes // 3 + 1):
        raise CbtBitmapDamaged(f"it has {len(text)} characters, too many for a disk of {size_bytes} bytes")
    try:
        bitmap = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise CbtBitmapDamaged(f"it is not base64 ({cause})") from cause
    if len(bitmap) != expected_bytes:
        raise CbtBitmapDamaged(f"it has {len(bitmap)} bytes, but a disk of {size_bytes} bytes needs {expected_bytes}")
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder=layout.BIT_ORDER)
    count = layout.block_count(size_bytes)
    if bits[count:].any():
        raise CbtBitmapDamaged("it marks blocks behind the end of the disk")
    return bits[:count].view(np.bool_)


def iter_extents(blocks: NDArray[np.bool_], *, size_bytes: int) -> Iterator[Extent]:
    """Yield the ranges of the flagged blocks, ascending, merged, clipped; one at a time, for disks full of changes."""
    assert size_bytes > 0
    assert blocks.size == layout.block_count(size_bytes)
    borders = np.flatnonzero(blocks[1:] != blocks[:-1]) + 1
    if blocks[0]:
        borders = np.concatenate(([0], borders))
    if blocks[-1]:
        borders = np.concatenate((borders, [blocks.size]))
    for start, end in (borders.reshape(-1, 2) * BLOCK_BYTES).tolist():
        yield Extent(offset_bytes=start, length_bytes=min(end, size_bytes) - start)
