"""Where the files of a disk are, written on the disk itself, for file systems that the lab cannot read.

The table lies in the gap before the first partition, behind the boot record. Guests change files through it, in place:
a file's blocks stay where they are, so the file system's own structures stay true. Invariant: a table is believed only
when its checksum holds.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.core import KIB
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.model import Extent

__all__ = ["FileTable", "PlacedFile", "read_file_table", "write_file_table"]

_PLACE_BYTES = 640 * KIB
_TABLE_BYTES_MAX = 384 * KIB
_HEAD = struct.Struct(">8sII")
_MAGIC = b"LABFILES"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFile:
    """A file and the places of its bytes on the disk."""

    path: str
    size_bytes: int
    extents: tuple[Extent, ...]

    def pieces(self, offset_bytes: int, length_bytes: int) -> Iterator[Extent]:
        """Yield where that part of the file is on the disk, in file order."""
        assert offset_bytes >= 0 and offset_bytes + length_bytes <= self.size_bytes
        start = 0
        for extent in self.extents:
            low = max(offset_bytes, start)
            high = min(offset_bytes + length_bytes, start + extent.length_bytes)
            if low < high:
                yield Extent(offset_bytes=extent.offset_bytes + low - start, length_bytes=high - low)
            start += extent.length_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTable:
    """The files of one file system on one disk, and where the file system begins.

    A file system that spans disks has a table on each, of the files that lie there whole.
    """

    filesystem: FilesystemKind
    base_bytes: int
    files: tuple[PlacedFile, ...]


def write_file_table(store: DiskStore, uuid: str, table: FileTable) -> None:
    """Write the table to its place on the disk."""
    rows = [
        [file.path, file.size_bytes, [(extent.offset_bytes, extent.length_bytes) for extent in file.extents]]
        for file in table.files
    ]
    body = json.dumps([table.filesystem, table.base_bytes, rows], separators=(",", ":")).encode()
    assert _HEAD.size + len(body) <= _TABLE_BYTES_MAX
    store.write(uuid, _PLACE_BYTES, _HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body)


def read_file_table(store: DiskStore, uuid: str) -> FileTable | None:
    """Return the disk's table; None when there is none that can be believed."""
    if store.size_bytes(uuid) < _PLACE_BYTES + _TABLE_BYTES_MAX:
        return None
    magic, length_bytes, checksum = _HEAD.unpack(store.read(uuid, _PLACE_BYTES, _HEAD.size))
    if magic != _MAGIC or _HEAD.size + length_bytes > _TABLE_BYTES_MAX:
        return None
    body = store.read(uuid, _PLACE_BYTES + _HEAD.size, length_bytes)
    if zlib.crc32(body) != checksum:
        return None
    filesystem, base_bytes, rows = json.loads(body)
    files = tuple(
        PlacedFile(
            path=path,
            size_bytes=size_bytes,
            extents=tuple(Extent(offset_bytes=offset, length_bytes=length) for offset, length in extents),
        )
        for path, size_bytes, extents in rows
    )
    return FileTable(filesystem=filesystem, base_bytes=base_bytes, files=files)
