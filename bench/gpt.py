"""A partition table with one partition, written by hand because no tool for it is present everywhere.

GUID Partition Table as of the UEFI specification 2.10, chapter 5: protective MBR, header and entries at both ends.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import BinaryIO

from holdfast.core import MIB, SECTOR_BYTES

__all__ = ["PARTITION_OFFSET_BYTES", "partition_bytes", "write_table"]

PARTITION_OFFSET_BYTES = MIB
_LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_DISK = uuid.UUID("aaaaaaaa-2222-3333-4444-555555555555")
_PARTITION = uuid.UUID("bbbbbbbb-2222-3333-4444-555555555555")
_ENTRIES = 128
_ENTRY_BYTES = 128
_ENTRIES_SECTORS = _ENTRIES * _ENTRY_BYTES // SECTOR_BYTES
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")


def partition_bytes(disk_bytes: int) -> int:
    """Return how long the partition is: from 1 MiB to 1 MiB before the end."""
    return disk_bytes - 2 * MIB


def write_table(file: BinaryIO, *, disk_bytes: int) -> None:
    """Write both copies of the table into an image of that size."""
    last_sector = disk_bytes // SECTOR_BYTES - 1
    first = PARTITION_OFFSET_BYTES // SECTOR_BYTES
    last = first + partition_bytes(disk_bytes) // SECTOR_BYTES - 1
    name = "root".encode("utf-16-le")
    entries = _ENTRY.pack(_LINUX_DATA.bytes_le, _PARTITION.bytes_le, first, last, 0, name)
    entries = entries.ljust(_ENTRIES * _ENTRY_BYTES, b"\0")
    backup_entries = last_sector - _ENTRIES_SECTORS

    _write(file, 0, _protective_mbr(last_sector))
    _write(file, 1, _header(entries, here=1, other=last_sector, entries_at=2, last_sector=last_sector))
    _write(file, 2, entries)
    _write(file, backup_entries, entries)
    _write(
        file,
        last_sector,
        _header(entries, here=last_sector, other=1, entries_at=backup_entries, last_sector=last_sector),
    )


def _header(entries: bytes, *, here: int, other: int, entries_at: int, last_sector: int) -> bytes:
    first_usable = 2 + _ENTRIES_SECTORS
    last_usable = last_sector - _ENTRIES_SECTORS - 1

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART",
            0x00010000,
            _HEADER.size,
            checksum,
            0,
            here,
            other,
            first_usable,
            last_usable,
            _DISK.bytes_le,
            entries_at,
            _ENTRIES,
            _ENTRY_BYTES,
            zlib.crc32(entries),
        )

    # The checksum covers the header with zero in its own place.
    return packed(zlib.crc32(packed(0)))


def _protective_mbr(last_sector: int) -> bytes:
    """Return a boot sector that tells old tools that the whole disk is in use."""
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last_sector, 0xFFFFFFFF))
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _write(file: BinaryIO, sector: int, content: bytes) -> None:
    file.seek(sector * SECTOR_BYTES)
    file.write(content)
