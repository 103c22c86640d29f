"""A stored disk as a ``DiskSource``: read as a whole, ahead and in pack order, or at random through a cache.

Invariant: what comes out is what was backed up, or an error that names the pack and slot. Only a source that was given
a ``MissingLog`` goes on past damage, and then everything that it leaves out is in the log.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holdfast.core import BLOCK_BYTES, Cancellation, limits
from holdfast.model import DataRun, Extent
from holdfast.repository.damage import Damage
from holdfast.repository.layout import LEAF_BLOCKS, PackId
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.packs.disk_map import Leaf, blocks_of_leaf
from holdfast.repository.packs.read_plan import Numbers
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.gather import WantedSlots
from holdfast.repository.reading.missing import MissingLog
from holdfast.repository.reading.random_reader import RandomReader
from holdfast.repository.reading.read_ahead import WINDOW_BLOCKS, Window, WindowPlan, read_windows

__all__ = ["RepositorySource"]

_RUN_BLOCKS_MAX = limits.RUN_BYTES_MAX // BLOCK_BYTES


class RepositorySource:
    """A ``DiskSource`` over one stored disk. Thread-safe."""

    def __init__(
        self,
        reader: MapReader,
        blocks: BlockReader,
        *,
        workers: int,
        cancel: Cancellation,
        missing: MissingLog | None = None,
    ) -> None:
        """With ``missing``, ``runs`` leaves out what cannot be read and tells it there."""
        self._map = reader
        self._blocks = blocks
        self._workers = workers
        self._cancel = cancel
        self._missing = missing
        self._random = RandomReader(reader, blocks, ahead=workers > 0)

    @property
    def size_bytes(self) -> int:
        """See ``DiskSource.size_bytes``."""
        return self._map.root.size_bytes

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``. What a damaged leaf held is left out where damage is tolerated."""
        start = end = 0
        for number, leaf in self._leaves(missing=None):
            edges = np.flatnonzero(np.diff(leaf.places > 0, prepend=False, append=False)) + number * LEAF_BLOCKS
            for first, after in edges.reshape(-1, 2).tolist():
                if first != end:
                    if end > start:
                        yield self._extent(start, end)
                    start = first
                end = after
        if end > start:
            yield self._extent(start, end)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``. Damage is always an error here."""
        assert 0 <= offset_bytes <= offset_bytes + length_bytes <= self.size_bytes
        self._cancel.check()
        return self._random.read(offset_bytes, length_bytes)

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``."""
        windows = read_windows(
            self._blocks,
            self._plans(),
            workers=self._workers,
            tolerant=self._missing is not None,
            cancel=self._cancel,
        )
        for window in windows:
            yield from self._runs_of(window)

    def _runs_of(self, window: Window) -> Iterator[DataRun]:
        blocks = window.plan.blocks
        at = np.arange(len(blocks))
        if window.lost:
            self._note_lost(window)
            at = np.delete(at, sorted(window.lost))
        breaks = np.flatnonzero(np.diff(blocks[at]) != 1) + 1
        for neighbours in np.split(at, breaks):
            for piece in range(0, len(neighbours), _RUN_BLOCKS_MAX):
                first = int(neighbours[piece])
                count = min(_RUN_BLOCKS_MAX, len(neighbours) - piece)
                offset_bytes = int(blocks[first]) * BLOCK_BYTES
                data = window.data[first * BLOCK_BYTES : (first + count) * BLOCK_BYTES]
                yield DataRun(offset_bytes, data[: self.size_bytes - offset_bytes])

    def _note_lost(self, window: Window) -> None:
        assert self._missing is not None
        for index, damage in sorted(window.lost.items()):
            self._missing.add(int(window.plan.blocks[index]), 1, damage, disk_bytes=self.size_bytes)

    def _plans(self) -> Iterator[WindowPlan]:
        """Yield windows of the same number of stored blocks each, in the order of the disk."""
        filling = _Filling()
        for number, leaf in self._leaves(missing=self._missing):
            stored = np.flatnonzero(leaf.places)
            while stored.size:
                part, stored = np.split(stored, [min(len(stored), filling.room)])
                filling.add(number, leaf, part)
                if not filling.room:
                    yield filling.plan()
                    filling = _Filling()
        if filling.room < WINDOW_BLOCKS:
            yield filling.plan()

    def _leaves(self, *, missing: MissingLog | None) -> Iterator[tuple[int, Leaf]]:
        """Yield the leaves that are not all zero; those that cannot be read are told to ``missing``."""
        for number in range(len(self._map.root.leaves)):
            try:
                leaf = self._map.leaf(number)
            except Damage as damage:
                if self._missing is None:
                    raise
                if missing is not None:
                    count = blocks_of_leaf(self.size_bytes, number)
                    missing.add(number * LEAF_BLOCKS, count, damage, disk_bytes=self.size_bytes)
                continue
            if leaf is not None:
                yield number, leaf

    def _extent(self, start: int, end: int) -> Extent:
        offset_bytes = start * BLOCK_BYTES
        return Extent(offset_bytes=offset_bytes, length_bytes=min(end * BLOCK_BYTES, self.size_bytes) - offset_bytes)


class _Filling:
    """A window that is being planned."""

    def __init__(self) -> None:
        self.room = WINDOW_BLOCKS
        self._blocks: list[Numbers] = []
        self._wanted: dict[PackId, list[tuple[Numbers, Numbers]]] = {}

    def add(self, number: int, leaf: Leaf, at: Numbers) -> None:
        """Add stored blocks of a leaf, by their places in it."""
        places, slots = leaf.places[at], leaf.slots[at].astype(np.int64)
        offsets = (np.arange(len(at)) + WINDOW_BLOCKS - self.room) * BLOCK_BYTES
        for place in np.unique(places).tolist():
            mask = places == place
            self._wanted.setdefault(leaf.packs[place - 1], []).append((slots[mask], offsets[mask]))
        self._blocks.append(at + number * LEAF_BLOCKS)
        self.room -= len(at)

    def plan(self) -> WindowPlan:
        """Return the window."""
        wanted: WantedSlots = {
            pack: (np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts]))
            for pack, parts in self._wanted.items()
        }
        return WindowPlan(np.concatenate(self._blocks), wanted)
