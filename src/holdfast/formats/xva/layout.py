"""Where things are in an XVA: names, sizes and the old tar header, nothing else.

The page is ``docs/formats/xva.md``.
"""

from __future__ import annotations

import re
import struct

from holdfast.core import MIB

__all__ = [
    "BLOCK_BYTES",
    "CHECKSUM_CHARACTERS",
    "CHECKSUM_SUFFIX",
    "CHECKSUM_WORD",
    "DESCRIPTION_NAME",
    "DISK_MEMBER",
    "END_BYTES",
    "HEADER",
    "LEGACY_CHECKSUM_SUFFIX",
    "MODE_WORD",
    "NUMBERS_MAX",
    "OWNER_WORD",
    "RECORD_BYTES",
    "SUM_AT",
    "SUM_WORD",
    "TIME_WORD",
]

RECORD_BYTES = 512
"""Headers are one record; data is padded with zeros to whole records."""

HEADER = struct.Struct("100s8s8s8s12s12s8s")
"""Name, mode, owner, group, length, time, header checksum. What follows in the record is zero: an old header has no
magic and no type."""

MODE_WORD = b"0000400\0"
OWNER_WORD = b"0000000\0"
SUM_WORD = b"%07o\0"
SUM_AT = slice(148, 156)
"""The checksum is the sum of the header's bytes with eight spaces in its own place."""

TIME_WORD = b"%011o\0"
"""Eleven octal digits, for the length and for the time in seconds since 1970."""

END_BYTES = 2 * RECORD_BYTES
"""Two zero records end the archive; it is not padded any further."""

DESCRIPTION_NAME = "ova.xml"

BLOCK_BYTES = MIB
"""How much of a disk one member holds; only a disk's last member is shorter."""

DISK_MEMBER = re.compile(r"(?P<disk>Ref:[0-9]+)/(?P<number>[0-9]{8,})(?P<suffix>\.[a-z]+)?")

NUMBERS_MAX = 100_000_000
"""Eight digits: what sorts as text as it does as a number; 95 TiB of blocks."""

CHECKSUM_SUFFIX = ".xxhash"
CHECKSUM_WORD = "%016X"
CHECKSUM_CHARACTERS = 16
"""XXH64 with seed 0, in upper-case digits."""

LEGACY_CHECKSUM_SUFFIX = ".checksum"
"""SHA-1 in forty lower-case digits; written by pools before XenServer 7.3."""
