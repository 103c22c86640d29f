"""One small number per 64 KiB of a disk: what a layer holds, or what a change log has seen.

The numbers live in memory and are mirrored in a file of pages, each with a checksum; a page comes into being with its
first mark, so that a fresh snapshot costs next to nothing, and the head of the file counts them. Invariants: the file
never says less than memory, so a lab that was killed finds every acknowledged mark again; a file that is missing, cut
short, emptied or changed by anybody else is noticed and never taken for "nothing was marked".
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES
from holdfast.lab.disks.errors import DiskStoreDamaged
from holdfast.lab.disks.files import OpenFiles, refused_when_full, write_all

__all__ = ["GranuleMap", "granules_of"]

# A page is one page of the system's cache: a process that is killed has written it whole or not at all.
_PAGE_BYTES = 4096
_PAGE_HEAD = struct.Struct(">4sI")
_PAGE_MAGIC = b"HFgp"
_PAGE_VALUES = _PAGE_BYTES - _PAGE_HEAD.size
_FILE_HEAD = struct.Struct(">8sQI")
_FILE_MAGIC = b"HFgmap01"


def granules_of(size_bytes: int) -> int:
    """Return how many 64 KiB granules a disk has; the last may be short."""
    return -(-size_bytes // BLOCK_BYTES)


class GranuleMap:
    """The map. Marking is for one thread at a time (the disk's lock); looking is free for all."""

    def __init__(self, path: Path, *, granules: int, files: OpenFiles, is_new: bool) -> None:
        self._path = path
        self._files = files
        self._granules = granules
        self._seed = zlib.crc32(path.name.encode())
        self._values: NDArray[np.uint8] | None = None
        self._held: set[int] = set()
        self._is_made = not is_new
        self._is_loaded = is_new

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

    def make(self) -> None:
        """Let the file exist. From then on a file that is missing is damage. Making it twice is harmless."""
        if not self._is_made:
            with refused_when_full(self._path.parent):
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    write_all(descriptor, self._file_head(), 0)
                finally:
                    os.close(descriptor)
            self._is_made = True

    def mark(self, first: int, end: int, value: int) -> None:
        """Set granules ``first`` to ``end``; they are in the file when this returns."""
        assert 0 <= first <= end <= self._granules
        values = self._writable()
        current = values[first:end]
        if bool((current == value).all()):
            return
        pages = range(first // _PAGE_VALUES, (end - 1) // _PAGE_VALUES + 1)
        low = pages.start * _PAGE_VALUES
        following = values[low : pages.stop * _PAGE_VALUES].copy()
        following[first - low : end - low] = value
        self._write(pages, following)
        current[:] = value

    def replace(self, values: NDArray[np.uint8]) -> None:
        """Set every number at once; a shorter array leaves the rest as it is."""
        assert len(values) <= self._granules
        following = self._writable().copy()
        following[: len(values)] = values
        pages = self._held.union((np.flatnonzero(following) // _PAGE_VALUES).tolist())
        for page in sorted(pages):
            self._write(range(page, page + 1), following[page * _PAGE_VALUES : (page + 1) * _PAGE_VALUES])
        self._values = following

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

    def stored(self) -> NDArray[np.uint8] | None:
        """Return what the file says, None when it says nothing. ``DiskStoreDamaged`` when it cannot be believed."""
        return self._read()[0]

    def _writable(self) -> NDArray[np.uint8]:
        values = self.values()
        if values is None:
            values = self._values = np.zeros(self._granules, dtype=np.uint8)
        return values

    def _load(self) -> None:
        try:
            self._values, self._held = self._read()
        except DiskStoreDamaged:
            if self._path.exists():
                raise
            self._values = None  # it was there when the lab started: a merge took the layer away just now
        self._is_loaded = True

    def _write(self, pages: range, values: NDArray[np.uint8]) -> None:
        """Put these pages into the file, whose numbers are ``values``, and count those that are new to it."""
        content = b"".join(
            self._page(page, values[index * _PAGE_VALUES : (index + 1) * _PAGE_VALUES].tobytes())
            for index, page in enumerate(pages)
        )
        with refused_when_full(self._path.parent), self._files.borrow(self._path, create=True) as descriptor:
            write_all(descriptor, content, (1 + pages.start) * _PAGE_BYTES)
            if not self._is_made or not self._held.issuperset(pages):
                # After the pages: a lab that is killed in between has one page more than the head counts.
                write_all(descriptor, self._file_head(held=len(self._held.union(pages))), 0)
        self._held.update(pages)
        self._is_made = True

    def _page(self, number: int, values: bytes) -> bytes:
        content = values.ljust(_PAGE_VALUES, b"\0")
        return _PAGE_HEAD.pack(_PAGE_MAGIC, zlib.crc32(content, self._seed + number & 0xFFFFFFFF)) + content

    def _file_head(self, *, held: int = 0) -> bytes:
        head = _FILE_HEAD.pack(_FILE_MAGIC, held, zlib.crc32(held.to_bytes(8), self._seed))
        return head.ljust(_PAGE_BYTES, b"\0")

    def _read(self) -> tuple[NDArray[np.uint8] | None, set[int]]:
        """Return the numbers in the file and the pages that it holds, all of it checked."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError as cause:
            raise DiskStoreDamaged(path=self._path, reason="it is missing") from cause
        if len(content) < _PAGE_BYTES or len(content) % _PAGE_BYTES:
            raise DiskStoreDamaged(path=self._path, reason="it is cut short")
        _, counted, _ = _FILE_HEAD.unpack_from(content)
        if content[:_PAGE_BYTES] != self._file_head(held=counted):
            raise DiskStoreDamaged(path=self._path, reason="its head is not what was written")
        pages = np.frombuffer(content, dtype=np.uint8, offset=_PAGE_BYTES).reshape(-1, _PAGE_BYTES)
        held = set(np.flatnonzero(pages.any(axis=1)).tolist())
        if len(held) < counted:
            raise DiskStoreDamaged(path=self._path, reason=f"{counted - len(held)} of its {counted} pages are gone")
        if not held:
            return None, held
        for number in held:
            start = (1 + number) * _PAGE_BYTES
            page = content[start : start + _PAGE_BYTES]
            if page != self._page(number, page[_PAGE_HEAD.size :]):
                raise DiskStoreDamaged(path=self._path, reason=f"page {number} is not what was written")
        stored = np.ascontiguousarray(pages[:, _PAGE_HEAD.size :]).reshape(-1)[: self._granules]
        values = np.zeros(self._granules, dtype=np.uint8)
        values[: len(stored)] = stored
        return values, held
