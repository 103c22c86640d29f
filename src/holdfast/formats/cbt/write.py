"""Writing a changed-block bitmap as a pool answers it; the lab pool's half of the format."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from holdfast.formats.cbt import layout

__all__ = ["encode_bitmap"]


def encode_bitmap(changed_blocks: NDArray[np.bool_] | NDArray[np.int64], *, size_bytes: int) -> str:
    """Return the base64 bitmap of the changed blocks, given as one flag for each block or as block indexes."""
    assert size_bytes > 0
    count = layout.block_count(size_bytes)
    if changed_blocks.dtype == np.bool_:
        assert changed_blocks.size == count, "one flag for each block of the disk"
        flags = changed_blocks
    else:
        assert not changed_blocks.size or 0 <= int(changed_blocks.min()) <= int(changed_blocks.max()) < count
        flags = np.zeros(count, dtype=np.bool_)
        flags[changed_blocks] = True
    return base64.b64encode(np.packbits(flags, bitorder=layout.BIT_ORDER).tobytes()).decode("ascii")
