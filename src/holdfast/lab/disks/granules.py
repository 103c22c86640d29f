"""One small number per 64 KiB of a disk: what a layer holds, or what a change log has seen.

The numbers live in memory and are mirrored, byte for byte, in a file that exists only once something was marked, so
that a fresh snapshot costs nothing. Invariant: the file never says less than memory, so a lab that was killed finds
every acknowledged mark again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES
from holdfast.lab.disks.files import OpenFiles, write_all

__all__ = ["GranuleMap", "granules_of"]


def granules_of(size_bytes: int) -> int:
    """Return how many 64 KiB granules a disk has; the last may be short."""
    return -(-size_bytes // BLOCK_BYTES)


class GranuleMap:
    """The map. Marking is for one thread at a time (the disk's lock); looking is free for all."""

    def __init__(self, path: Path, *, granules: int, files: OpenFiles) -> None:
        self._path = path
        self._files = files
        self._granules = granules
        self._values: NDArray[np.uint8] | None = None
        self._is_loaded = False

    @property
    def granules(self) -> int:
        """How many granules it describes."""
        return self._granules

    def values(self) -> NDArray[np.uint8] | None:
        """Return all numbers, not to be changed by the caller; None when nothing was ever marked."""
        if not self._is_loaded:
            self._load()
        return self._values

    def window(self, first: int, end: int) -> NDArray[np.uint8] | None:
        """Return the numbers of granules ``first`` to ``end``, fewer at the end of the map; None when all are zero."""
        values = self._values if self._is_loaded else self.values()
        if values is None or first >= len(values):
            return None
        return values[first:end]

    def mark(self, first: int, end: int, value: int) -> None:
        """Set granules ``first`` to ``end``; they are in the file when this returns."""
        assert 0 <= first <= end <= self._granules
        values = self._writable()
        current = values[first:end]
        if bool((current == value).all()):
            return
        with self._files.borrow(self._path, create=True) as descriptor:
            write_all(descriptor, bytes([value]) * (end - first), first)
        current[:] = value

    def replace(self, values: NDArray[np.uint8]) -> None:
        """Set every number at once; a shorter array leaves the rest zero."""
        assert len(values) <= self._granules
        writable = self._writable()
        with self._files.borrow(self._path, create=True) as descriptor:
            write_all(descriptor, values.tobytes(), 0)
        writable[: len(values)] = values

    def grow(self, granules: int) -> None:
        """Describe a larger disk; the new granules are zero."""
        assert granules >= self._granules
        values = self.values()
        if values is not None and granules > len(values):
            larger = np.zeros(granules, dtype=np.uint8)
            larger[: len(values)] = values
            self._values = larger
        self._granules = granules

    def remove(self) -> None:
        """Delete the file."""
        self._files.remove(self._path)

    def _writable(self) -> NDArray[np.uint8]:
        values = self.values()
        if values is None:
            values = self._values = np.zeros(self._granules, dtype=np.uint8)
        return values

    def _load(self) -> None:
        try:
            stored = np.fromfile(self._path, dtype=np.uint8, count=self._granules)
        except FileNotFoundError:
            stored = None
        if stored is not None:
            values = np.zeros(self._granules, dtype=np.uint8)
            values[: len(stored)] = stored
            self._values = values
        self._is_loaded = True
