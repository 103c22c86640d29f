"""What differs between two disks of one repository, told by their maps: no block is read to find out.

Leaves that both disks share are passed over; in the others entries are compared by place. Invariant: a range that is
not yielded has the same bytes in both disks; one that is may still have them, when the same block lies in two places.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from holdfast.core import BLOCK_BYTES, Cancellation, limits
from holdfast.model import Coverage, DataRun, DiskSource, Run, ZeroRun
from holdfast.repository.crew import in_order
from holdfast.repository.layout import LEAF_BLOCKS
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.packs.disk_map import blocks_of_leaf
from holdfast.repository.packs.entries import Entries, PackNumbers

__all__ = ["ChangeReader"]

_RUN_BLOCKS_MAX = limits.RUN_BYTES_MAX // BLOCK_BYTES


class ChangeReader:
    """A ``DiskReader`` of what one disk has changed since an older one that is not larger."""

    def __init__(
        self, older: MapReader, newer: MapReader, source: DiskSource, *, workers: int, cancel: Cancellation
    ) -> None:
        assert older.root.size_bytes <= newer.root.size_bytes
        self._older = older
        self._newer = newer
        self._source = source
        self._workers = workers
        self._cancel = cancel

    @property
    def size_bytes(self) -> int:
        """See ``DiskReader.size_bytes``."""
        return self._newer.root.size_bytes

    @property
    def coverage(self) -> Coverage:
        """See ``DiskReader.coverage``."""
        return Coverage.CHANGES

    @property
    def planned_bytes(self) -> int:
        """See ``DiskReader.planned_bytes``. Walks both maps where they differ."""
        return sum(count * BLOCK_BYTES for _, count, is_zero in self._ranges() if not is_zero)

    def runs(self) -> Iterator[Run]:
        """See ``DiskReader.runs``. Reads ahead with the reader's workers."""
        pieces = (
            (start, first + count - start if is_zero else min(_RUN_BLOCKS_MAX, first + count - start), is_zero)
            for first, count, is_zero in self._ranges()
            for start in range(first, first + count, count if is_zero else _RUN_BLOCKS_MAX)
        )
        yield from in_order(self._run, pieces, workers=self._workers, ahead=2 * self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _run(self, piece: tuple[int, int, bool]) -> Run:
        self._cancel.check()
        first, count, is_zero = piece
        offset_bytes = first * BLOCK_BYTES
        length_bytes = min(count * BLOCK_BYTES, self.size_bytes - offset_bytes)
        if is_zero:
            return ZeroRun(offset_bytes, length_bytes)
        return DataRun(offset_bytes, self._source.read(offset_bytes, length_bytes))

    def _ranges(self) -> Iterator[tuple[int, int, bool]]:
        """Yield first block, number of blocks, and whether they are zero now, for neighbours that changed alike."""
        older, newer = self._older.root, self._newer.root
        for number, address in enumerate(newer.leaves):
            blocks = blocks_of_leaf(newer.size_bytes, number)
            is_old = number < len(older.leaves) and blocks_of_leaf(older.size_bytes, number) == blocks
            if is_old and older.leaves[number] == address:
                continue
            self._cancel.check()
            numbers = PackNumbers()
            entries = self._newer.entries(number, numbers)
            before = self._entries_before(number, numbers, blocks=blocks)
            # 0 unchanged, 1 changed to zero, 2 changed to data.
            state = np.where(entries == before, 0, np.where(entries == 0, 1, 2))
            borders = np.flatnonzero(np.diff(state, prepend=state[:1])).tolist()
            for start, end in zip([0, *borders], [*borders, blocks], strict=True):
                if state[start]:
                    yield number * LEAF_BLOCKS + start, end - start, int(state[start]) == 1

    def _entries_before(self, number: int, numbers: PackNumbers, *, blocks: int) -> Entries:
        """Return the older disk's entries of a leaf, lengthened with zeros where that disk had ended."""
        entries = np.zeros(blocks, dtype=np.int64)
        if number < len(self._older.root.leaves):
            found = self._older.entries(number, numbers)
            entries[: len(found)] = found
        return entries
