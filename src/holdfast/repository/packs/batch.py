"""Batches: runs of a disk that lie near each other, gathered until there is enough for one task of a worker.

Scattered writes come as hundreds of runs of one block. Together they cost one task, few requests for what was there
before, and one look at the map.
"""

from __future__ import annotations

import numpy as np

from holdfast.core import BLOCK_BYTES, limits
from holdfast.model import DataRun
from holdfast.repository.crew import BufferShelf
from holdfast.repository.layout import LEAF_BLOCKS
from holdfast.repository.packs.entries import Entries

__all__ = ["Batch"]

_BLOCKS_MAX = limits.RUN_BYTES_MAX // BLOCK_BYTES


class Batch:
    """Whole blocks of a disk, ascending, copied into one buffer. Its runs begin in one leaf of the map."""

    def __init__(self, buffers: BufferShelf, *, first_block: int) -> None:
        self.first_block = first_block
        self._buffers = buffers
        self._buffer = buffers.take()
        self._ranges: list[Entries] = []
        self._blocks = 0

    def has_room(self, first_block: int, run: DataRun) -> bool:
        """Return whether a run fits in and is near enough: runs far apart would keep many leaves of the map open."""
        is_near = first_block // LEAF_BLOCKS == self.first_block // LEAF_BLOCKS
        return is_near and self._blocks + _blocks_of(run) <= _BLOCKS_MAX

    @property
    def is_full(self) -> bool:
        """Whether nothing fits in any more."""
        return self._blocks == _BLOCKS_MAX

    def add(self, first_block: int, run: DataRun) -> None:
        """Copy a run; its last block is filled up with zeros when it is short, as the last one of a disk may be."""
        count = _blocks_of(run)
        start = self._blocks * BLOCK_BYTES
        end, padded_end = start + run.length_bytes, start + count * BLOCK_BYTES
        # numpy copies without holding the interpreter's lock, so the workers go on meanwhile.
        np.copyto(np.frombuffer(self._buffer, np.uint8, run.length_bytes, start), np.frombuffer(run.data, np.uint8))
        self._buffer[end:padded_end] = bytes(padded_end - end)
        self._ranges.append(np.arange(first_block, first_block + count))
        self._blocks += count

    @property
    def numbers(self) -> Entries:
        """The blocks' numbers."""
        return np.concatenate(self._ranges)

    @property
    def data(self) -> memoryview:
        """The blocks' bytes, one after the other; not to be used after ``release``."""
        return memoryview(self._buffer)[: self._blocks * BLOCK_BYTES]

    def release(self) -> None:
        """Let another batch use the memory."""
        self._buffers.give_back(self._buffer)


def _blocks_of(run: DataRun) -> int:
    return -(-run.length_bytes // BLOCK_BYTES)
