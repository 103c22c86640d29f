"""A VHD as a pool takes it: read forward, block by block in the order of the file, with the pool's own tolerances.

Any size of block and any place of the table will do; of locators only their kind is looked at. Where the footer is
follows from the length that the client announced, so a wrong length fails however good the VHD is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from holdfast.core import MIB
from holdfast.lab.handlers.disk_write import DiskWriter
from holdfast.lab.http import Connection

__all__ = ["VhdRefused", "receive_vhd"]

_SECTOR_BYTES = 512
_HEADER_BYTES = 1024
_VERSION = 0x00010000
_UNUSED = 0xFFFFFFFF
_FOOTER = struct.Struct(">8sIIq")
_HEADER = struct.Struct(">8sQqIIII")
"""Offsets are signed: none at all, as fixed disks have it, is one in front of the start, and refused as such."""
_FOOTER_SUM_AT, _HEADER_SUM_AT = 64, 36
_DISK_TYPES = frozenset({2, 3, 4})
_NAME = slice(64, 576)
_LOCATORS_AT, _LOCATOR_BYTES, _LOCATORS = 576, 24, 8
_LOCATOR_KINDS = frozenset({b"\0\0\0\0", b"Wi2r", b"Wi2k", b"W2ru", b"W2ku", b"Mac ", b"MacX"})
_TABLE_BYTES_MAX = 64 * MIB
_BLOCK_BYTES_MAX = 64 * MIB
"""Far beyond what any tool writes; a hostile header must not cost the lab its memory."""
_SKIP_BYTES = 64 * 1024


class VhdRefused(Exception):
    """The stream is no VHD that a pool would take."""


class _Source:
    """The body, counted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._scratch = memoryview(bytearray(_SKIP_BYTES))
        self.offset_bytes = 0

    def fill(self, view: memoryview) -> None:
        """Read that much. Where the stream ends inside, the rest stays as it was, and only the next read fails."""
        if len(view) and self._connection.readinto_fully(view) == 0:
            raise VhdRefused("the stream ends too early")
        self.offset_bytes += len(view)

    def take(self, length_bytes: int) -> bytes:
        data = bytearray(length_bytes)
        self.fill(memoryview(data))
        return bytes(data)

    def skip_to(self, offset_bytes: int) -> None:
        if offset_bytes < self.offset_bytes:
            raise VhdRefused("the stream would have to go back")
        while self.offset_bytes < offset_bytes:
            self.fill(self._scratch[: min(_SKIP_BYTES, offset_bytes - self.offset_bytes)])


def receive_vhd(
    connection: Connection, writer: DiskWriter, *, announced_bytes: int, progress: Callable[[float], None]
) -> None:
    """Write every sector that the VHD claims on top of what the disk holds. ``VhdRefused`` at the first oddity."""
    source = _Source(connection)
    source.skip_to(_check_footer(source.take(_SECTOR_BYTES)))
    table_offset, entries, block_bytes = _check_header(source.take(_HEADER_BYTES))
    source.skip_to(table_offset)
    table_bytes = entries * 4
    if table_bytes > _TABLE_BYTES_MAX or not 8 * _SECTOR_BYTES <= block_bytes <= _BLOCK_BYTES_MAX:
        raise VhdRefused("a table or a block of this size")
    table = struct.unpack(f">{entries}I", source.take(-(-table_bytes // _SECTOR_BYTES) * _SECTOR_BYTES)[:table_bytes])
    by_place = {sector: index for index, sector in enumerate(table) if sector != _UNUSED}
    bitmap = memoryview(bytearray(block_bytes // _SECTOR_BYTES // 8))
    data = memoryview(bytearray(block_bytes))
    for done, sector in enumerate(sorted(by_place), start=1):
        source.skip_to(sector * _SECTOR_BYTES)
        source.fill(bitmap)
        for start, end, is_present in _spans(bytes(bitmap)):
            # Each span is read to the start of the one buffer, which shows when the stream ends inside of it.
            piece = data[: (end - start) * _SECTOR_BYTES]
            source.fill(piece)
            if is_present:
                writer.write(by_place[sector] * block_bytes + start * _SECTOR_BYTES, piece)
        progress(done / len(by_place))
    source.skip_to((announced_bytes - 1) // _SECTOR_BYTES * _SECTOR_BYTES)
    _check_footer(source.take(_SECTOR_BYTES))


def _check_footer(footer: bytes) -> int:
    """Return where the header is."""
    cookie, _, version, header_offset = _FOOTER.unpack_from(footer)
    (kind,) = struct.unpack_from(">I", footer, 60)
    if cookie != b"conectix" or version != _VERSION or kind not in _DISK_TYPES or not _adds_up(footer, _FOOTER_SUM_AT):
        raise VhdRefused("footer")
    return int(header_offset)


def _check_header(header: bytes) -> tuple[int, int, int]:
    """Return where the table is, how many entries it has, and the size of a block."""
    cookie, next_offset, table_offset, version, entries, block_bytes, _ = _HEADER.unpack_from(header)
    if cookie != b"cxsparse" or next_offset != 0xFFFFFFFFFFFFFFFF or version != _VERSION:
        raise VhdRefused("header")
    if block_bytes == 0 or block_bytes & (block_bytes - 1) or not _adds_up(header, _HEADER_SUM_AT):
        raise VhdRefused("header")
    for number in range(_LOCATORS):
        at = _LOCATORS_AT + number * _LOCATOR_BYTES
        if header[at : at + 4] not in _LOCATOR_KINDS:
            raise VhdRefused("locator")
    _check_name(header[_NAME])
    return int(table_offset), int(entries), int(block_bytes)


def _check_name(name: bytes) -> None:
    units = struct.unpack(f">{len(name) // 2}H", name)
    length = units.index(0) if 0 in units else len(units)
    try:
        name[: 2 * length].decode("utf-16-be" if units[0] != 0xFFFE else "utf-16-le")
    except UnicodeDecodeError as cause:
        raise VhdRefused("parent name") from cause


def _adds_up(record: bytes, at: int) -> bool:
    (stated,) = struct.unpack_from(">I", record, at)
    return bool(stated == ~(sum(record) - sum(record[at : at + 4])) & 0xFFFFFFFF)


def _spans(bitmap: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of sectors that are present or absent, as first, end and which; the first is the highest bit."""
    if bitmap == b"\xff" * len(bitmap):
        yield 0, len(bitmap) * 8, True
        return
    bits = "".join(f"{byte:08b}" for byte in bitmap)
    start = 0
    while start < len(bits):
        end = bits.find("0" if bits[start] == "1" else "1", start)
        end = len(bits) if end < 0 else end
        yield start, end, bits[start] == "1"
        start = end
