"""Where the fields of a qcow2 are: offsets, sizes and magic, nothing else.

All integers are big-endian. The format is QEMU's, described in its ``docs/interop/qcow2.txt``; the page
``docs/formats/qcow2.md`` explains the part that is read and written here.
"""

import struct

from holdfast.core import KIB, MIB

MAGIC = b"QFI\xfb"
VERSIONS = (2, 3)

HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
"""Magic, version, offset and length of the backing file's name, cluster bits, size, encryption, L1 entries, offset of
the L1 table, offset of the reference count table, its clusters, number of snapshots, their offset."""

HEADER_V3 = struct.Struct(">QQQIIB7x")
"""Behind the header of version 2: incompatible, compatible and autoclear features, order of the reference counts,
length of the header, compression."""

HEADER_V3_LENGTH = HEADER_V2.size + HEADER_V3.size
HEADER_V3_LENGTH_MIN = 104
"""Without the field for the compression."""

FEATURE_DIRTY = 1 << 0
FEATURE_CORRUPT = 1 << 1
FEATURE_DATA_FILE = 1 << 2
FEATURE_COMPRESSION = 1 << 3
FEATURE_EXTENDED_ENTRIES = 1 << 4
FEATURES_READ = FEATURE_DIRTY | FEATURE_COMPRESSION
"""A dirty image only has reference counts that cannot be trusted, and those are not read here."""

COMPRESSION_ZLIB, COMPRESSION_ZSTD = 0, 1

ENTRY_BYTES = 8
FLAG_COPIED = 1 << 63
FLAG_COMPRESSED = 1 << 62
FLAG_ZERO = 1
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00

CLUSTER_BITS_MIN, CLUSTER_BITS_MAX = 9, 21
CLUSTER_BITS_WRITTEN = 16
CLUSTER_BYTES_WRITTEN = 64 * KIB
REFERENCE_BITS_ORDER = 4
"""Sixteen bits each, which every reader knows."""

L1_BYTES_MAX = 32 * MIB
"""QEMU's own limit."""

ENTRIES_PER_TABLE = CLUSTER_BYTES_WRITTEN // ENTRY_BYTES
REFERENCES_PER_BLOCK = CLUSTER_BYTES_WRITTEN // 2

DISK_BYTES_MAX = 64 << 40
"""Far above the 16 TiB of pools; with our clusters the L1 table would allow 2 PiB."""

EXTENSION_FEATURE_NAMES = 0x6803_F857
FEATURE_NAME = struct.Struct(">BB46s")
EXTENSION_HEAD = struct.Struct(">II")

FEATURE_NAMES = (
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
)
"""Kind, bit and name of each feature, for readers that do not know one and want to say which."""
