"""A volume group over several disks, as LVM2 writes it down: label, header and the group's description on each disk.

Offsets are those of LVM2's on-disk format (``lib/format_text/layout.h``): label in sector 1, physical volume header
behind it, metadata area from 4 KiB to 1 MiB, then data. Invariant: ``pvck`` accepts every disk of the group.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core import KIB, MIB, SECTOR_BYTES

__all__ = ["EXTENT_BYTES", "LABELS_BYTES", "PHYSICAL_DATA_BYTES", "VolumeGroup", "pack_physical_volume", "read_label"]

EXTENT_BYTES = 4 * MIB
PHYSICAL_DATA_BYTES = MIB
"""Where the first extent begins on a disk."""

LABELS_BYTES = 8 * KIB
"""Label, header and description lie within so much from the start."""

_LABEL_ID, _LABEL_TYPE = b"LABELONE", b"LVM2 001"
_LABEL_CHECKED_FROM = 20
_AREA_AT, _AREA_BYTES = 4 * KIB, MIB - 4 * KIB
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_AREA_CHECKED_FROM = 4
_EXTENSION_VERSION, _IN_USE = 2, 1
_CHECKSUM_START = 0xF597A6CF
_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID_PARTS = (6, 4, 4, 4, 4, 4, 6)
_CREATED_S = 1767225600


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """A group whose one logical volume fills all its disks, one after the other."""

    name: str
    volume: str
    uuid: str
    volume_uuid: str
    disk_uuids: tuple[str, ...]
    disk_bytes: int
    """Of each disk's partition."""

    @classmethod
    def new(cls, name: str, *, volume: str, disks: int, disk_bytes: int, generator: np.random.Generator) -> VolumeGroup:
        """Return a group with fresh identities."""
        uuids = [_new_id(generator) for _ in range(disks + 2)]
        return cls(
            name=name,
            volume=volume,
            uuid=uuids[0],
            volume_uuid=uuids[1],
            disk_uuids=tuple(uuids[2:]),
            disk_bytes=disk_bytes,
        )

    @property
    def extents_per_disk(self) -> int:
        """How many extents of 4 MiB each disk gives."""
        return (self.disk_bytes - PHYSICAL_DATA_BYTES) // EXTENT_BYTES

    @property
    def volume_bytes(self) -> int:
        """The size of the logical volume."""
        return len(self.disk_uuids) * self.extents_per_disk * EXTENT_BYTES

    def locate(self, offset_bytes: int, length_bytes: int) -> Sequence[tuple[int, int, int]]:
        """Return where a range of the volume is: (number of the disk, offset in its partition, length)."""
        each_bytes = self.extents_per_disk * EXTENT_BYTES
        found = []
        while length_bytes:
            disk, within = divmod(offset_bytes, each_bytes)
            part_bytes = min(length_bytes, each_bytes - within)
            found.append((disk, PHYSICAL_DATA_BYTES + within, part_bytes))
            offset_bytes, length_bytes = offset_bytes + part_bytes, length_bytes - part_bytes
        return found


def pack_physical_volume(group: VolumeGroup, number: int) -> bytes:
    """Return the start of that disk's partition, up to the first extent's place."""
    text = _describe(group).encode() + b"\0"
    area_tail = struct.pack(
        "<16sIQQQQII", _AREA_MAGIC, 1, _AREA_AT, _AREA_BYTES, SECTOR_BYTES, len(text), _checksum(text), 0
    ).ljust(SECTOR_BYTES - _AREA_CHECKED_FROM, b"\0")
    area = struct.pack("<I", _checksum(area_tail)) + area_tail + text
    head = bytes(SECTOR_BYTES) + _label(group, number)
    packed = head.ljust(_AREA_AT, b"\0") + area
    assert len(packed) <= LABELS_BYTES
    return packed


def read_label(sector: bytes) -> str | None:
    """Return the identity of the physical volume whose second sector this is; None when it is none."""
    if not sector.startswith(_LABEL_ID):
        return None
    (checksum,) = struct.unpack_from("<I", sector, 16)
    return sector[32:64].decode(errors="replace") if checksum == _checksum(sector[_LABEL_CHECKED_FROM:]) else None


def _label(group: VolumeGroup, number: int) -> bytes:
    header = group.disk_uuids[number].replace("-", "").encode() + struct.pack("<Q", group.disk_bytes)
    header += struct.pack("<QQQQ", PHYSICAL_DATA_BYTES, 0, 0, 0)
    header += struct.pack("<QQQQ", _AREA_AT, _AREA_BYTES, 0, 0)
    header += struct.pack("<IIQQ", _EXTENSION_VERSION, _IN_USE, 0, 0)
    checked = struct.pack("<I8s", 32, _LABEL_TYPE) + header
    checked = checked.ljust(SECTOR_BYTES - _LABEL_CHECKED_FROM, b"\0")
    return struct.pack("<8sQI", _LABEL_ID, 1, _checksum(checked)) + checked


def _describe(group: VolumeGroup) -> str:
    volumes = "\n".join(_describe_disk(group, number) for number in range(len(group.disk_uuids)))
    segments = "\n".join(_describe_segment(group, number) for number in range(len(group.disk_uuids)))
    return f"""{group.name} {{
id = "{group.uuid}"
seqno = 2
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {EXTENT_BYTES // SECTOR_BYTES}
max_lv = 0
max_pv = 0
metadata_copies = 0

physical_volumes {{
{volumes}
}}

logical_volumes {{

{group.volume} {{
id = "{group.volume_uuid}"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
creation_time = {_CREATED_S}
creation_host = "lab"
segment_count = {len(group.disk_uuids)}

{segments}
}}
}}
}}
contents = "Text Format Volume Group"
version = 1
description = ""
creation_host = "lab"
creation_time = {_CREATED_S}
"""


def _describe_disk(group: VolumeGroup, number: int) -> str:
    return f"""
pv{number} {{
id = "{group.disk_uuids[number]}"
device = "/dev/xvd{"bcdefgh"[number]}1"
status = ["ALLOCATABLE"]
flags = []
dev_size = {group.disk_bytes // SECTOR_BYTES}
pe_start = {PHYSICAL_DATA_BYTES // SECTOR_BYTES}
pe_count = {group.extents_per_disk}
}}"""


def _describe_segment(group: VolumeGroup, number: int) -> str:
    return f"""segment{number + 1} {{
start_extent = {number * group.extents_per_disk}
extent_count = {group.extents_per_disk}
type = "striped"
stripe_count = 1
stripes = [
"pv{number}", 0
]
}}"""


def _checksum(data: bytes) -> int:
    """Return LVM's CRC-32: the usual polynomial, another start, and no inversion at either end."""
    return zlib.crc32(data, _CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _new_id(generator: np.random.Generator) -> str:
    letters = "".join(_ID_LETTERS[pick] for pick in generator.integers(0, len(_ID_LETTERS), 32).tolist())
    parts, start = [], 0
    for length in _ID_PARTS:
        parts.append(letters[start : start + length])
        start += length
    return "-".join(parts)
