"""Where the fields of a VHD are: offsets, sizes and magic, nothing else.

All integers are big-endian. The format is Microsoft's Virtual Hard Disk Image Format Specification 1.0; what the
storage manager of a pool adds is marked. The page ``docs/formats/vhd.md`` explains the fields.
"""

import struct

from holdfast.core import KIB, MIB, SECTOR_BYTES, limits

FOOTER_BYTES = 512
HEADER_BYTES = 1024

FOOTER_COOKIE = b"conectix"
HEADER_COOKIE = b"cxsparse"
VERSION = 0x0001_0000

FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
"""Cookie, features, version, offset of the header, time, creator, its version and system, original and current size,
cylinders, heads, sectors per track, type, checksum, uuid, saved state, reserved."""

HEADER = struct.Struct(">8sQQIIII16sI4x512s192s256x")
"""Cookie, next structure, offset of the table, version, entries, block size, checksum, parent's uuid and time,
reserved, parent's name (UTF-16, big-endian), eight parent locators, reserved."""

LOCATOR = struct.Struct(">4sIIIQ")
"""Platform code, space, length, reserved, offset."""

FOOTER_CHECKSUM_OFFSET = 64
HEADER_CHECKSUM_OFFSET = 36
CHECKSUM_BYTES = 4

FEATURES_RESERVED = 2
"""A bit that the specification wants always set."""

NO_OFFSET = 0xFFFF_FFFF_FFFF_FFFF
UNALLOCATED = 0xFFFF_FFFF
"""Table entry of a block that the file does not hold."""

ENTRY_BYTES = 4

BLOCK_BYTES_USUAL = 2 * MIB
"""The block size of every VHD that a pool makes, and of ours."""

BLOCK_BYTES_MIN = 64 * KIB
BLOCK_BYTES_MAX = limits.RUN_BYTES_MAX

TABLE_ENTRIES_MAX = limits.VHD_DISK_BYTES_MAX // BLOCK_BYTES_USUAL

SECTORS_PER_BITMAP_SECTOR = SECTOR_BYTES * 8

STREAM_TABLE_OFFSET = 2048
STREAM_LOCATOR_OFFSET = 1536
"""Where a stream that a pool exports has its table, and the sector that it reserves for a parent locator."""

GEOMETRY_MAX = (65535, 16, 255)
"""Cylinders, heads and sectors per track beyond which the fields cannot count: 127 GiB."""

PARENT_NAME_BYTES = 512
MAC_LOCATOR = b"MacX"
"""A parent named by a file URL in UTF-8; the one locator that pools write into streams."""

CREATOR_OWN = b"hldf"
CREATOR_OWN_VERSION = 0x0001_0000
CREATOR_OWN_SYSTEM = b"Lnux"
CREATOR_POOL = b"caml"
CREATOR_POOL_VERSION = 1
CREATOR_POOL_SYSTEM = b"\0\0\0\0"
