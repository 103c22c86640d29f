"""One node of a copy-on-write tree: the bytes that were written while it was the top, over a parent.

A layer is a sparse file in which every byte lies at its own disk offset, plus a map that says for each 64 KiB granule
whether this layer answers for it (with data, or with zeros) or leaves it to its parent. Space and differences are
counted as VHD counts: in whole 2 MiB blocks. Invariants: a granule marked as data is complete in the file, so a file
that ends before its last one is damaged; a layer that has children never changes, but for a merge that no reader can
see.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.lab.disks.errors import DiskStoreDamaged
from holdfast.lab.disks.files import OpenFiles, read_exactly, refused_when_full, write_all
from holdfast.lab.disks.granules import GranuleMap, granules_of

__all__ = ["DATA", "INHERITED", "VHD_BLOCK_BYTES", "ZERO", "Layer", "blocks_of"]

INHERITED, DATA, ZERO = 0, 1, 2
"""What a layer says about a granule: ask my parent; it is in my file; it is zeros, whatever my file holds there."""

VHD_BLOCK_BYTES = 2 * MIB
GRANULES_PER_VHD_BLOCK = VHD_BLOCK_BYTES // BLOCK_BYTES


class Layer:
    """The bytes of one node. Writers hold the lock of the disk whose top it is; readers need none."""

    def __init__(
        self,
        folder: Path,
        *,
        number: int,
        parent: Layer | None,
        size_bytes: int,
        files: OpenFiles,
        is_new: bool,
    ) -> None:
        self.number = number
        self.parent = parent
        self.size_bytes = size_bytes
        self.writes = 0
        self._files = files
        self._path = folder / f"layer-{number:08d}.data"
        self._reached_bytes = 0
        self.states = GranuleMap(
            folder / f"layer-{number:08d}.map", granules=granules_of(size_bytes), files=files, is_new=is_new
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written to it."""
        values = self.states.values()
        return values is None or not values.any()

    def lineage(self) -> list[Layer]:
        """Return this layer and everything below it, top first."""
        found = []
        layer: Layer | None = self
        while layer is not None:
            found.append(layer)
            layer = layer.parent
        return found

    def read_into(self, view: memoryview, offset_bytes: int) -> None:
        """Fill ``view`` from this layer's file. FileNotFoundError when the layer was merged away meanwhile."""
        with self._files.borrow(self._path) as descriptor:
            read_exactly(descriptor, view, offset_bytes)

    def write(self, data: memoryview | bytes, offset_bytes: int) -> None:
        """Put bytes into the file; ``mark`` makes them count."""
        with refused_when_full(self._path.parent), self._files.borrow(self._path, create=True) as descriptor:
            write_all(descriptor, data, offset_bytes)

    def mark(self, first: int, end: int, state: int) -> None:
        """Say what granules ``first`` to ``end`` are from now on."""
        if state == DATA:
            self._reach(end)
        self.states.mark(first, end, state)
        self.writes += 1

    def _reach(self, end: int) -> None:
        """Let the file reach to the end of the granules before ``end``; what nobody wrote there is a hole."""
        wanted_bytes = min(end * BLOCK_BYTES, self.size_bytes)
        if wanted_bytes <= self._reached_bytes:
            return
        with refused_when_full(self._path.parent), self._files.borrow(self._path, create=True) as descriptor:
            held_bytes = os.fstat(descriptor).st_size
            if held_bytes < wanted_bytes:
                os.ftruncate(descriptor, wanted_bytes)
        self._reached_bytes = max(held_bytes, wanted_bytes)

    def check(self) -> None:
        """Return when the files are what was written, as far as their map and their length tell.

        ``DiskStoreDamaged`` otherwise. The bytes themselves have no checksum: they are written in place.
        """
        values = self.states.stored()
        data = np.flatnonzero(values == DATA) if values is not None else np.empty(0)
        if len(data) == 0:
            return
        wanted_bytes = min((int(data[-1]) + 1) * BLOCK_BYTES, self.size_bytes)
        try:
            held_bytes = self._path.stat().st_size
        except FileNotFoundError as cause:
            raise DiskStoreDamaged(path=self._path, reason="it is missing") from cause
        if held_bytes < wanted_bytes:
            reason = f"it ends at byte {held_bytes}, its data at {wanted_bytes}"
            raise DiskStoreDamaged(path=self._path, reason=reason)

    def adopt(self, file: Path, data: NDArray[np.bool_]) -> None:
        """Take a file over as the layer's own; ``data`` says for each granule whether the file holds it."""
        assert self.is_empty
        self._files.remove(self._path)
        file.rename(self._path)
        held = np.flatnonzero(data)
        if len(held):
            self._reach(int(held[-1]) + 1)
        self.states.replace(data.astype(np.uint8) * DATA)
        self.writes += 1

    def vhd_blocks(self) -> NDArray[np.bool_]:
        """Return for each 2 MiB block whether a VHD of this layer would hold it."""
        blocks = -(-self.states.granules // GRANULES_PER_VHD_BLOCK)
        values = self.states.values()
        if values is None:
            return np.zeros(blocks, dtype=np.bool_)
        padded = np.zeros(blocks * GRANULES_PER_VHD_BLOCK, dtype=np.bool_)
        padded[: len(values)] = values != INHERITED
        held: NDArray[np.bool_] = np.any(padded.reshape(blocks, GRANULES_PER_VHD_BLOCK), axis=1)
        return held

    def held_bytes(self) -> int:
        """Return what its granules of data take."""
        values = self.states.values()
        return 0 if values is None else int(np.count_nonzero(values == DATA)) * BLOCK_BYTES

    def missing_blocks(self, offset_bytes: int, length_bytes: int) -> int:
        """Return how many 2 MiB blocks a VHD of this layer would gain by a write there."""
        blocks = range(offset_bytes // VHD_BLOCK_BYTES, -(-(offset_bytes + length_bytes) // VHD_BLOCK_BYTES))
        values = self.states.values()
        if values is None:
            return len(blocks)
        held = GRANULES_PER_VHD_BLOCK
        return sum(not values[block * held : (block + 1) * held].any() for block in blocks)

    def grow(self, size_bytes: int) -> None:
        """Cover a larger disk."""
        last = self.states.window(self.states.granules - 1, self.states.granules)
        self.states.grow(granules_of(size_bytes))
        ended, self.size_bytes = granules_of(self.size_bytes), size_bytes
        if last is not None and last[0] == DATA:
            self._reach(ended)  # the last granule was a short one and is longer now

    def remove(self) -> None:
        """Delete the files; a reader in the middle of one keeps it."""
        self.states.remove()
        self._files.remove(self._path)


def blocks_of(layers: list[Layer], *, size_bytes: int) -> NDArray[np.int64]:
    """Return the 2 MiB blocks of a disk of that size which any of the layers holds, ascending."""
    held = np.zeros(-(-size_bytes // VHD_BLOCK_BYTES), dtype=np.bool_)
    for layer in layers:
        blocks = layer.vhd_blocks()[: len(held)]
        held[: len(blocks)] |= blocks
    return np.flatnonzero(held).astype(np.int64)
