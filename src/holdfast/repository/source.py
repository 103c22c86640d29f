"""A stored disk as a ``DiskSource``: read at random, or as a whole with worker threads that decode ahead.

Invariant: what comes out is what was backed up, or an error that names the pack and slot.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from holdfast.core import BLOCK_BYTES, Cancellation, limits
from holdfast.model import DataRun, Extent
from holdfast.repository.block_reader import BlockReader, Wanted
from holdfast.repository.crew import in_order
from holdfast.repository.layout import LEAF_BLOCKS
from holdfast.repository.map_reader import MapReader
from holdfast.repository.stored_disk import NodeAddress

__all__ = ["RepositorySource"]

_CACHE_BLOCKS_MAX = 256
"""16 MiB of decoded blocks for random reads: a file system's metadata comes back again and again."""

_RUN_BLOCKS_MAX = limits.RUN_BYTES_MAX // BLOCK_BYTES


class RepositorySource:
    """A ``DiskSource`` over one stored disk. Thread-safe."""

    def __init__(self, reader: MapReader, blocks: BlockReader, *, workers: int, cancel: Cancellation) -> None:
        self._map = reader
        self._blocks = blocks
        self._workers = workers
        self._cancel = cancel
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """See ``DiskSource.size_bytes``."""
        return self._map.root.size_bytes

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``."""
        start = end = 0
        for first, count in self._data_ranges():
            if first != end:
                if end > start:
                    yield self._extent(start, end)
                start = first
            end = first + count
        if end > start:
            yield self._extent(start, end)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``."""
        assert 0 <= offset_bytes <= offset_bytes + length_bytes <= self.size_bytes
        self._cancel.check()
        first = offset_bytes // BLOCK_BYTES
        last = -(-(offset_bytes + length_bytes) // BLOCK_BYTES)
        content = b"".join(
            self._read_blocks(start, min(start + _RUN_BLOCKS_MAX, last))
            for start in range(first, last, _RUN_BLOCKS_MAX)
        )
        skipped = offset_bytes - first * BLOCK_BYTES
        return content[skipped : skipped + length_bytes]

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``."""
        pieces = (
            (start, min(_RUN_BLOCKS_MAX, first + count - start))
            for first, count in self._data_ranges()
            for start in range(first, first + count, _RUN_BLOCKS_MAX)
        )
        yield from in_order(self._run, pieces, workers=self._workers, ahead=2 * self._workers)

    def _run(self, piece: tuple[int, int]) -> DataRun:
        self._cancel.check()
        first, count = piece
        out = bytearray(count * BLOCK_BYTES)
        self._blocks.read_into(memoryview(out), self._wanted(first, count))
        offset_bytes = first * BLOCK_BYTES
        return DataRun(offset_bytes, memoryview(out)[: self.size_bytes - offset_bytes])

    def _data_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield first block and number of neighbouring blocks that are stored, leaf by leaf."""
        for number in range(len(self._map.root.leaves)):
            leaf = self._map.leaf(number)
            if leaf is None:
                continue
            edges = np.flatnonzero(np.diff(leaf.places > 0, prepend=False, append=False))
            for start, end in edges.reshape(-1, 2).tolist():
                yield number * LEAF_BLOCKS + start, end - start

    def _wanted(self, first: int, count: int) -> list[Wanted]:
        """Return the stored blocks of a range that lies in one leaf."""
        number, at = divmod(first, LEAF_BLOCKS)
        leaf = self._map.leaf(number)
        if leaf is None:
            return []
        places = leaf.places[at : at + count].tolist()
        slots = leaf.slots[at : at + count].tolist()
        return [
            Wanted(NodeAddress(leaf.packs[place - 1], slot), offset * BLOCK_BYTES)
            for offset, (place, slot) in enumerate(zip(places, slots, strict=True))
            if place
        ]

    def _read_blocks(self, first: int, last: int) -> bytes:
        """Return whole blocks, from the cache where it has them."""
        out = bytearray((last - first) * BLOCK_BYTES)
        missing = []
        with self._lock:
            for block in range(first, last):
                cached = self._cache.get(block)
                if cached is None:
                    missing.append(block)
                else:
                    self._cache.move_to_end(block)
                    out[(block - first) * BLOCK_BYTES : (block - first + 1) * BLOCK_BYTES] = cached
        wanted = [
            Wanted(each.place, (block - first) * BLOCK_BYTES) for block in missing for each in self._wanted(block, 1)
        ]
        self._blocks.read_into(memoryview(out), wanted)
        with self._lock:
            for each in wanted:
                self._cache[first + each.at // BLOCK_BYTES] = bytes(out[each.at : each.at + BLOCK_BYTES])
            while len(self._cache) > _CACHE_BLOCKS_MAX:
                self._cache.popitem(last=False)
        return bytes(out)

    def _extent(self, start: int, end: int) -> Extent:
        offset_bytes = start * BLOCK_BYTES
        return Extent(offset_bytes=offset_bytes, length_bytes=min(end * BLOCK_BYTES, self.size_bytes) - offset_bytes)
