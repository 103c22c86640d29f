"""Reading VHD files at random, one alone or a chain of differences, as one complete disk.

Files of a pool's storage differ from streams: the table may be anywhere, a batmap and locators lie between, and sector
bitmaps may be partly set. Invariant: a sector comes from the newest file that claims it, and is zero when none does.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES, SECTOR_BYTES, limits
from holdfast.formats.vhd import layout
from holdfast.formats.vhd.errors import VhdChainBroken, VhdDamaged, VhdTruncated
from holdfast.formats.vhd.head import VhdHead, bitmap_bytes
from holdfast.formats.vhd.read import unpack_footer, unpack_head, unpack_header
from holdfast.formats.vhd.stream import present_sectors
from holdfast.model import DataRun, Extent

__all__ = ["VhdFile", "open_chain"]

_SECTORS_PER_GRANULE = BLOCK_BYTES // SECTOR_BYTES


class VhdFile:
    """A complete disk in VHD files: a ``DiskSource`` and a context manager.

    Give one dynamic file, or a chain with the newest difference first and the full file last. Paths are opened and
    closed here; open binary files stay the caller's. Raises ``VhdTruncated``, ``VhdDamaged``, ``VhdUnsupported`` and
    ``VhdChainBroken``. ``checks_parents=False`` accepts a chain whose uuids do not link: a difference that a pool
    exported names the pool's own file, not the earlier export.
    """

    def __init__(self, *sources: Path | BinaryIO, checks_parents: bool = True) -> None:
        assert sources
        self._layers: list[_Layer] = []
        try:
            for source in sources:
                self._layers.append(_Layer(_Positioned(source)))
            _check_chain([layer.head for layer in self._layers], checks_parents=checks_parents)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> VhdHead:
        """What the newest file says of itself."""
        return self._layers[0].head

    @property
    def size_bytes(self) -> int:
        """Provisioned size of the disk: that of the newest file."""
        return self.head.size_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range, zeros where no file claims it. Any alignment. Thread-safe."""
        assert offset_bytes >= 0
        assert 0 <= length_bytes <= self.size_bytes - offset_bytes
        start = offset_bytes // SECTOR_BYTES
        end = -(-(offset_bytes + length_bytes) // SECTOR_BYTES)
        data = bytearray((end - start) * SECTOR_BYTES)
        self._fill(memoryview(data), start)
        skipped = offset_bytes - start * SECTOR_BYTES
        return bytes(memoryview(data)[skipped : skipped + length_bytes])

    def data_extents(self) -> Iterator[Extent]:
        """Yield the 64 KiB granules that some file claims a sector of, ascending, merged, clipped to the disk."""
        start = end = 0
        for granule_start, granule_end in self._claimed_ranges():
            if granule_start > end:
                if end > start:
                    yield Extent(offset_bytes=start, length_bytes=end - start)
                start = granule_start
            end = granule_end
        if end > start:
            yield Extent(offset_bytes=start, length_bytes=end - start)

    def runs(self) -> Iterator[DataRun]:
        """Yield all data in ascending order; ranges that no file claims are skipped."""
        for extent in self.data_extents():
            for offset_bytes in range(extent.offset_bytes, extent.end_bytes, limits.RUN_BYTES_MAX):
                length_bytes = min(limits.RUN_BYTES_MAX, extent.end_bytes - offset_bytes)
                yield DataRun(offset_bytes, self.read(offset_bytes, length_bytes))

    def close(self) -> None:
        """Close the files that were opened here; safe to call twice."""
        for layer in self._layers:
            layer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, view: memoryview, start_sector: int) -> None:
        """Fill a zeroed view from the newest file down, each giving what the newer ones do not claim."""
        missing = np.ones(len(view) // SECTOR_BYTES, dtype=np.bool_)
        for layer in self._layers:
            layer.fill_missing(view, missing, start_sector)
            if not missing.any():
                return

    def _claimed_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) in bytes of granule ranges, ascending, block by block of the coarsest kind."""
        step = max(layer.head.block_bytes for layer in self._layers)
        steps = np.unique(np.concatenate([layer.offsets_of_blocks() // step for layer in self._layers]))
        for index in steps.tolist():
            start_bytes = index * step
            if start_bytes >= self.size_bytes:
                return
            length_bytes = min(step, self.size_bytes - start_bytes)
            granules = np.zeros(-(-length_bytes // BLOCK_BYTES), dtype=np.int8)
            for layer in self._layers:
                granules |= layer.claimed_granules(start_bytes, granules.size)
            edges = np.flatnonzero(np.diff(granules, prepend=np.int8(0), append=np.int8(0)))
            for start, end in (edges.reshape(-1, 2) * BLOCK_BYTES).tolist():
                yield start_bytes + start, min(start_bytes + end, self.size_bytes)


def open_chain(sources: Sequence[Path | BinaryIO], *, checks_parents: bool = True) -> VhdFile:
    """Return the disk of a chain, newest difference first; see ``VhdFile``."""
    return VhdFile(*sources, checks_parents=checks_parents)


class _Positioned:
    """Reads at an offset from a path or a seekable file, from any thread."""

    def __init__(self, source: Path | BinaryIO) -> None:
        self._lock = threading.Lock()
        self._is_ours = isinstance(source, Path)
        self._file: BinaryIO = source.open("rb", buffering=0) if isinstance(source, Path) else source
        self.length_bytes = self._file.seek(0, os.SEEK_END)

    def fill(self, view: memoryview, offset_bytes: int, *, expected: str) -> None:
        """Fill the view, or raise ``VhdTruncated``."""
        filled = 0
        while filled < len(view):
            got = self._read_some(view[filled:], offset_bytes + filled)
            if not got:
                raise VhdTruncated(offset_bytes + filled, expected=expected)
            filled += got

    def take(self, offset_bytes: int, length_bytes: int, *, expected: str) -> bytes:
        """Return exactly that range, or raise ``VhdTruncated`` before memory is used."""
        if offset_bytes < 0 or offset_bytes + length_bytes > self.length_bytes:
            raise VhdTruncated(self.length_bytes, expected=expected)
        data = bytearray(length_bytes)
        self.fill(memoryview(data), offset_bytes, expected=expected)
        return bytes(data)

    def close(self) -> None:
        if self._is_ours:
            self._file.close()

    def _read_some(self, view: memoryview, offset_bytes: int) -> int:
        if self._is_ours:
            return os.preadv(self._file.fileno(), [view], offset_bytes)
        with self._lock:
            self._file.seek(offset_bytes)
            piece = self._file.read(len(view))
        view[: len(piece)] = piece
        return len(piece)


class _Layer:
    """One file of a chain: which sectors it claims, and their bytes."""

    def __init__(self, file: _Positioned) -> None:
        self._file = file
        try:
            self.head = _read_head(file)
        except BaseException:
            file.close()
            raise
        self._bitmap_bytes = bitmap_bytes(self.head.block_bytes)
        self._block_sectors = self.head.block_bytes // SECTOR_BYTES

    def close(self) -> None:
        self._file.close()

    def offsets_of_blocks(self) -> NDArray[np.int64]:
        """Return where on the disk each block of this file begins."""
        return self.head.allocated_blocks * self.head.block_bytes

    def fill_missing(self, view: memoryview, missing: NDArray[np.bool_], start_sector: int) -> None:
        """Copy the missing sectors that this file claims, and clear their flags."""
        end_sector = min(start_sector + missing.size, self.head.size_bytes // SECTOR_BYTES)
        sector = start_sector
        while sector < end_sector:
            block, within = divmod(sector, self._block_sectors)
            count = min(self._block_sectors - within, end_sector - sector)
            window = slice(sector - start_sector, sector - start_sector + count)
            place = self._place(block)
            if place is not None and missing[window].any():
                piece = view[window.start * SECTOR_BYTES : window.stop * SECTOR_BYTES]
                self._fill_piece(piece, missing[window], place=place, within=within)
            sector += count

    def claimed_granules(self, start_bytes: int, count: int) -> NDArray[np.int8]:
        """Return a flag for each 64 KiB from ``start_bytes`` on: whether this file claims a sector of it."""
        flags = np.zeros(count, dtype=np.int8)
        granules_per_block = self.head.block_bytes // BLOCK_BYTES
        for first in range(0, count, granules_per_block):
            place = self._place((start_bytes + first * BLOCK_BYTES) // self.head.block_bytes)
            if place is not None:
                by_granule = self._claims(place).reshape(-1, _SECTORS_PER_GRANULE)
                claims = np.logical_or.reduce(by_granule, axis=1)
                flags[first : first + granules_per_block] = claims[: count - first]
        return flags

    def _fill_piece(self, piece: memoryview, missing: NDArray[np.bool_], *, place: int, within: int) -> None:
        """Copy from one block; ``missing`` is a window into the caller's flags."""
        take = self._claims(place)[within : within + missing.size] & missing
        if not take.any():
            return
        offset_bytes = place + self._bitmap_bytes + within * SECTOR_BYTES
        if take.all():
            self._file.fill(piece, offset_bytes, expected="block data")
        else:
            data = np.frombuffer(self._file.take(offset_bytes, len(piece), expected="block data"), dtype=np.uint8)
            into = np.frombuffer(piece, dtype=np.uint8).reshape(-1, SECTOR_BYTES)
            into[take] = data.reshape(-1, SECTOR_BYTES)[take]
        missing[take] = False

    def _place(self, block: int) -> int | None:
        """Return where in the file a block begins, if it is held."""
        position = int(np.searchsorted(self.head.allocated_blocks, block))
        if position == self.head.allocated_blocks.size or int(self.head.allocated_blocks[position]) != block:
            return None
        return int(self.head.block_offsets[position])

    def _claims(self, place: int) -> NDArray[np.bool_]:
        bitmap = self._file.take(place, self._bitmap_bytes, expected="a sector bitmap")
        return present_sectors(bitmap, count=self._block_sectors)


def _read_head(file: _Positioned) -> VhdHead:
    """Read and check the head of one file against both of its footers and its length."""
    first = unpack_footer(file.take(0, layout.FOOTER_BYTES, expected="the copy of the footer"), offset_bytes=0)
    end_bytes = file.length_bytes - layout.FOOTER_BYTES
    last = unpack_footer(file.take(end_bytes, layout.FOOTER_BYTES, expected="the footer"), offset_bytes=end_bytes)
    if not last.agrees_with(first):
        raise VhdDamaged(end_bytes, "the footers at the two ends speak of different disks")
    header_offset = first.header_offset_bytes
    header = unpack_header(
        file.take(header_offset, layout.HEADER_BYTES, expected="the header"), offset_bytes=header_offset, footer=first
    )
    table_bytes = header.table_entries * layout.ENTRY_BYTES
    table = file.take(header.table_offset_bytes, table_bytes, expected="the block table")
    taken = [
        (0, layout.FOOTER_BYTES, "the copy of the footer"),
        (header_offset, header_offset + layout.HEADER_BYTES, "the header"),
        (header.table_offset_bytes, header.table_offset_bytes + table_bytes, "the block table"),
        (end_bytes, layout.NO_OFFSET >> 1, "the footer or behind the file's end"),
    ]
    return unpack_head(table, footer=first, header=header, taken=taken)


def _check_chain(heads: Sequence[VhdHead], *, checks_parents: bool) -> None:
    for child, parent in itertools.pairwise(heads):
        if not child.is_difference:
            raise VhdChainBroken("a full file stands in front of others, so those would never be read")
        if checks_parents and child.parent_uuid != parent.footer_uuid:
            raise VhdChainBroken(f"a difference names the parent {child.parent_uuid}, but {parent.footer_uuid} follows")
    if heads[-1].is_difference:
        raise VhdChainBroken(f"the last file is a difference; its parent {heads[-1].parent_uuid} is not given")
