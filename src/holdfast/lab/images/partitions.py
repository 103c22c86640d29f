"""Partition tables of either kind: where the partitions of a disk are, and the old table of four.

The master boot record has no checksum, so it is believed only when its entries make sense. Invariant: no place is told
that does not lie on the disk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.core import SECTOR_BYTES
from holdfast.lab.images.gpt import BOOT_MARKER, GptDamaged, read_gpt
from holdfast.model import Extent

__all__ = ["MbrPartition", "pack_mbr", "partition_places"]

_ENTRY = struct.Struct("<B3sB3sII")
_TABLE_AT = 446
_ENTRIES = 4
_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE
_ACTIVE = 0x80
_BEYOND_CHS = b"\xfe\xff\xff"
"""What every tool writes where a place is beyond cylinders, heads and sectors."""

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class MbrPartition:
    """One of the four partitions of a master boot record."""

    offset_bytes: int
    length_bytes: int
    kind: int
    is_active: bool = False


def pack_mbr(partitions: Sequence[MbrPartition], *, signature: bytes, is_bootable: bool) -> bytes:
    """Return the first sector of a disk; ``signature`` are the four bytes that tell disks apart."""
    assert len(partitions) <= _ENTRIES and len(signature) == 4
    entries = b"".join(
        _ENTRY.pack(
            _ACTIVE if each.is_active else 0,
            _BEYOND_CHS,
            each.kind,
            _BEYOND_CHS,
            each.offset_bytes // SECTOR_BYTES,
            each.length_bytes // SECTOR_BYTES,
        )
        for each in partitions
    )
    code = (BOOT_MARKER if is_bootable else b"").ljust(_TABLE_AT - 6, b"\0")
    return code + signature + bytes(2) + entries.ljust(_ENTRIES * _ENTRY.size, b"\0") + _SIGNATURE


def partition_places(read: Read, *, size_bytes: int) -> list[Extent]:
    """Return the places of the partitions, in the order of the table. ``GptDamaged`` when there is none to believe."""
    first = read(0, SECTOR_BYTES)
    entries = [_ENTRY.unpack_from(first, _TABLE_AT + number * _ENTRY.size) for number in range(_ENTRIES)]
    places = [
        Extent(offset_bytes=start * SECTOR_BYTES, length_bytes=count * SECTOR_BYTES)
        for _, _, kind, _, start, count in entries
        if kind and start and count
    ]
    is_old = first[-2:] == _SIGNATURE and bool(places) and all(entry[2] != _PROTECTIVE for entry in entries)
    if not is_old:
        return [
            Extent(offset_bytes=each.offset_bytes, length_bytes=each.length_bytes)
            for each in read_gpt(read, size_bytes=size_bytes)
        ]
    if any(place.end_bytes > size_bytes for place in places) or any(entry[0] not in (0, _ACTIVE) for entry in entries):
        raise GptDamaged(reason="its master boot record names places that are not on the disk")
    return places
