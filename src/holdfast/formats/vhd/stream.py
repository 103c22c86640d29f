"""Reading a VHD that arrives once, from front to back: the body of an export or of an upload.

Invariant: a block is handed out only after the table that names it was checked; a stream counts as complete only after
its last footer was seen and agrees with the first. Memory is one block, whatever the stream claims.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES, limits
from holdfast.formats.vhd import layout
from holdfast.formats.vhd.errors import VhdDamaged, VhdError
from holdfast.formats.vhd.forward import ByteStream, ForwardReader
from holdfast.formats.vhd.head import VhdHead, bitmap_bytes
from holdfast.formats.vhd.read import unpack_footer, unpack_head, unpack_header
from holdfast.model import Extent

__all__ = ["VhdBlock", "VhdStreamReader", "read_vhd_head"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VhdBlock:
    """One block of a stream. ``data`` and ``bitmap`` are valid until the next block is asked for."""

    index: int
    offset_bytes: int
    """Where on the disk the block begins."""
    bitmap: memoryview
    data: memoryview
    """The block's bytes up to the end of the disk; sectors that the bitmap does not claim are zeros."""

    @property
    def is_whole(self) -> bool:
        """Whether the bitmap claims every sector that the disk has here."""
        return bool(self._present().all())

    def present_extents(self) -> list[Extent]:
        """Return the ranges of the disk that the bitmap claims, ascending, merged. A difference changes only these."""
        edges = np.flatnonzero(np.diff(self._present().view(np.int8), prepend=np.int8(0), append=np.int8(0)))
        return [
            Extent(
                offset_bytes=self.offset_bytes + start * SECTOR_BYTES,
                length_bytes=(end - start) * SECTOR_BYTES,
            )
            for start, end in edges.reshape(-1, 2).tolist()
        ]

    def _present(self) -> NDArray[np.bool_]:
        return present_sectors(self.bitmap, count=len(self.data) // SECTOR_BYTES)


class VhdStreamReader:
    """A VHD read once, forward. Construction reads the head; ``blocks`` reads the rest.

    ``expects_end`` says whether the stream must end after its last footer. A server that takes an upload of unknown
    length stops there instead.

    Raises ``VhdTruncated``, ``VhdDamaged``, ``VhdUnsupported`` or ``VhdInterrupted``, from construction and from
    ``blocks`` alike; then nothing that was read may be believed.
    """

    def __init__(self, stream: ByteStream, *, expects_end: bool = True) -> None:
        self._reader = ForwardReader(stream)
        self._expects_end = expects_end
        self._is_started = False
        self.head = _read_head_explained(self._reader)

    @property
    def size_bytes(self) -> int:
        """Provisioned size of the disk."""
        return self.head.size_bytes

    @property
    def block_bytes(self) -> int:
        """How much of the disk one block covers."""
        return self.head.block_bytes

    @property
    def is_difference(self) -> bool:
        """Whether what the stream does not carry is as in the parent, instead of zero."""
        return self.head.is_difference

    @property
    def footer_uuid(self) -> uuid.UUID:
        """The identity that this VHD gives itself; a pool's export draws a new one each time."""
        return self.head.footer_uuid

    @property
    def parent_uuid(self) -> uuid.UUID | None:
        """The footer uuid of the base's file on the pool, for a difference."""
        return self.head.parent_uuid

    @property
    def allocated_blocks(self) -> NDArray[np.int64]:
        """Indexes of the blocks that the stream will carry, ascending."""
        return self.head.allocated_blocks

    @property
    def length_bytes(self) -> int:
        """How long the stream is when nothing but blocks follows the table, as in every export of a pool."""
        return self.head.length_bytes

    @property
    def offset_bytes(self) -> int:
        """How much of the stream has been read; for progress."""
        return self._reader.offset_bytes

    def blocks(self) -> Iterator[VhdBlock]:
        """Yield every block in the order of the stream, once, and check the end of the stream after the last."""
        assert not self._is_started, "a stream is read once"
        self._is_started = True
        try:
            yield from self._blocks()
            self._check_end()
        except VhdError as error:
            raise self._reader.explained(error) from None

    def _blocks(self) -> Iterator[VhdBlock]:
        block_bytes = self.head.block_bytes
        bitmap_length = bitmap_bytes(block_bytes)
        buffer = memoryview(bytearray(bitmap_length + block_bytes))
        self._reader.skip_to(self.head.header.table_end_bytes, expected="the end of the block table")
        bitmap, data = buffer[:bitmap_length], buffer[bitmap_length:]
        for position in np.argsort(self.head.block_offsets, kind="stable").tolist():
            index = int(self.head.allocated_blocks[position])
            expected = f"block {index}"
            self._reader.skip_to(int(self.head.block_offsets[position]), expected=expected)
            self._reader.fill_whole(buffer, expected=expected)
            offset_bytes = index * block_bytes
            on_disk = data[: self.head.size_bytes - offset_bytes]
            clear_absent_sectors(on_disk, bitmap=bitmap)
            yield VhdBlock(index=index, offset_bytes=offset_bytes, bitmap=bitmap, data=on_disk)

    def _check_end(self) -> None:
        """Find the last footer, behind a short gap if need be, and hold it against the first."""
        expected = "the footer"
        search_end = self._reader.offset_bytes + limits.VHD_GAP_BYTES_MAX
        offset_bytes = self._reader.offset_bytes
        sector = self._reader.take(layout.FOOTER_BYTES, expected=expected)
        while not sector.startswith(layout.FOOTER_COOKIE):
            if sector.startswith(b"HTTP/1.") or offset_bytes >= search_end:
                raise VhdDamaged(offset_bytes, "there is no footer behind the last block")
            offset_bytes = self._reader.offset_bytes
            sector = self._reader.take(layout.FOOTER_BYTES, expected=expected)
        footer = unpack_footer(sector, offset_bytes=offset_bytes)
        if not footer.agrees_with(self.head.footer):
            raise VhdDamaged(offset_bytes, "the footers at the two ends speak of different disks")
        if self._expects_end and self._reader.fill(memoryview(bytearray(SECTOR_BYTES))):
            raise VhdDamaged(offset_bytes + layout.FOOTER_BYTES, "there is more behind the footer")


def read_vhd_head(stream: ByteStream) -> VhdHead:
    """Return what a VHD holds, having read no further than its table; the rest of the stream is left alone.

    Raises ``VhdTruncated``, ``VhdDamaged``, ``VhdUnsupported`` or ``VhdInterrupted``.
    """
    return _read_head_explained(ForwardReader(stream))


def present_sectors(bitmap: memoryview | bytes, *, count: int) -> NDArray[np.bool_]:
    """Return one flag for each of the first ``count`` sectors of a block."""
    return np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), count=count).view(np.bool_)


def clear_absent_sectors(data: memoryview, *, bitmap: memoryview | bytes) -> None:
    """Zero the sectors that the bitmap does not claim; on a pool's block devices they hold what was there before."""
    present = present_sectors(bitmap, count=len(data) // SECTOR_BYTES)
    if not present.all():
        np.frombuffer(data, dtype=np.uint8).reshape(-1, SECTOR_BYTES)[~present] = 0


def _read_head_explained(reader: ForwardReader) -> VhdHead:
    try:
        return _read_head(reader)
    except VhdError as error:
        raise reader.explained(error) from None


def _read_head(reader: ForwardReader) -> VhdHead:
    footer = unpack_footer(reader.take(layout.FOOTER_BYTES, expected="the copy of the footer"), offset_bytes=0)
    reader.skip_to(footer.header_offset_bytes, expected="the header")
    header_offset = reader.offset_bytes
    header = unpack_header(
        reader.take(layout.HEADER_BYTES, expected="the header"), offset_bytes=header_offset, footer=footer
    )
    reader.skip_to(header.table_offset_bytes, expected="the block table")
    table = reader.take(header.table_entries * layout.ENTRY_BYTES, expected="the block table")
    taken = [(0, header.table_end_bytes, "front of the block table's end, where a stream has no blocks")]
    return unpack_head(table, footer=footer, header=header, taken=taken)
