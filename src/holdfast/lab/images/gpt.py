"""The GUID partition table: made for new disks, and read to find a file system.

Offsets are those of the UEFI specification 2.10, chapter 5, for sectors of 512 bytes. Invariant: a table is believed
only when signature and both checksums hold; when the first copy is damaged the one at the end of the disk is asked.
"""

from __future__ import annotations

import struct
import uuid as uuids
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.core import MIB, SECTOR_BYTES, ExitStatus, HoldfastError

__all__ = ["BOOT_MARKER", "LINUX_DATA", "GptDamaged", "Partition", "pack_gpt", "read_gpt"]

LINUX_DATA = uuids.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
"""The type of a partition with a Linux file system."""

BOOT_MARKER = b"lab boot loader\0"
"""Stands where a boot loader's code would; a disk without it, or with other bytes there, does not boot."""

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_REVISION = 0x00010000
_ENTRIES = 128
_ENTRIES_BYTES = _ENTRIES * _ENTRY.size
_ENTRIES_SECTORS = _ENTRIES_BYTES // SECTOR_BYTES
_ENTRIES_MAX = 1024
_MBR_SIGNATURE = b"\x55\xaa"
_MBR_PROTECTIVE = 0xEE
_ALIGNMENT_BYTES = MIB

Read = Callable[[int, int], bytes]


class GptDamaged(HoldfastError):
    """The disk has no partition table that can be believed."""

    code = "lab.gpt-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "No file system was looked for on this lab disk."
    advice = "If the disk was restored, compare its hash with the snapshot's: the restore may be wrong."

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"no GUID partition table: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition."""

    offset_bytes: int
    length_bytes: int
    kind: uuids.UUID
    uuid: uuids.UUID
    name: str

    @classmethod
    def filling(cls, size_bytes: int, *, uuid: uuids.UUID, name: str) -> Partition:
        """Return a Linux partition that takes the whole disk, on 1 MiB borders."""
        end_bytes = (size_bytes - (1 + _ENTRIES_SECTORS) * SECTOR_BYTES) // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES
        return cls(
            offset_bytes=_ALIGNMENT_BYTES,
            length_bytes=end_bytes - _ALIGNMENT_BYTES,
            kind=LINUX_DATA,
            uuid=uuid,
            name=name,
        )


def pack_gpt(
    partitions: Sequence[Partition], *, size_bytes: int, disk_uuid: uuids.UUID, is_bootable: bool
) -> tuple[bytes, bytes]:
    """Return what goes to the start of the disk, and what goes to its very end."""
    sectors = size_bytes // SECTOR_BYTES
    entries = b"".join(_pack_entry(partition) for partition in partitions).ljust(_ENTRIES_BYTES, b"\0")
    first, last = 2 + _ENTRIES_SECTORS, sectors - _ENTRIES_SECTORS - 2
    assert all(first <= p.offset_bytes // SECTOR_BYTES for p in partitions)
    assert all((p.offset_bytes + p.length_bytes) // SECTOR_BYTES - 1 <= last for p in partitions)

    def header(*, here: int, other: int, entries_at: int) -> bytes:
        def packed(checksum: int) -> bytes:
            return _HEADER.pack(
                _SIGNATURE, _REVISION, _HEADER.size, checksum, 0, here, other, first, last,
                disk_uuid.bytes_le, entries_at, _ENTRIES, _ENTRY.size, zlib.crc32(entries),
            )  # fmt: skip

        return packed(zlib.crc32(packed(0))).ljust(SECTOR_BYTES, b"\0")

    head = _pack_mbr(sectors, is_bootable=is_bootable) + header(here=1, other=sectors - 1, entries_at=2) + entries
    tail = entries + header(here=sectors - 1, other=1, entries_at=sectors - 1 - _ENTRIES_SECTORS)
    return head, tail


def read_gpt(read: Read, *, size_bytes: int) -> list[Partition]:
    """Return the partitions in the order of the table; ``GptDamaged`` when neither copy can be believed."""
    if size_bytes < 4 * SECTOR_BYTES:
        raise GptDamaged(reason=f"a disk of {size_bytes} bytes has no room for one")
    try:
        return _read_copy(read, sector=1, size_bytes=size_bytes)
    except GptDamaged as first:
        try:
            return _read_copy(read, sector=size_bytes // SECTOR_BYTES - 1, size_bytes=size_bytes)
        except GptDamaged:
            raise first from None


def _pack_entry(partition: Partition) -> bytes:
    first = partition.offset_bytes // SECTOR_BYTES
    last = (partition.offset_bytes + partition.length_bytes) // SECTOR_BYTES - 1
    name = partition.name.encode("utf-16-le")
    assert len(name) <= 72
    return _ENTRY.pack(partition.kind.bytes_le, partition.uuid.bytes_le, first, last, 0, name)


def _pack_mbr(sectors: int, *, is_bootable: bool) -> bytes:
    """Return the protective master boot record, so that old tools do not take the disk for empty."""
    # CHS of the first sector after it, and the end of what CHS can say: both values are the specification's.
    entry = struct.pack("<B3sB3sII", 0, b"\0\x02\0", _MBR_PROTECTIVE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    code = BOOT_MARKER if is_bootable else b""
    return code.ljust(446, b"\0") + entry.ljust(64, b"\0") + _MBR_SIGNATURE


def _read_copy(read: Read, *, sector: int, size_bytes: int) -> list[Partition]:
    raw = read(sector * SECTOR_BYTES, SECTOR_BYTES)
    fields = _HEADER.unpack_from(raw)
    signature, _, header_bytes, checksum, _, here = fields[:6]
    if signature != _SIGNATURE:
        raise GptDamaged(reason=f"sector {sector} does not begin with {_SIGNATURE.decode()!r}")
    if not _HEADER.size <= header_bytes <= SECTOR_BYTES or here != sector:
        raise GptDamaged(reason=f"the header in sector {sector} is not one for that place")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_bytes]) != checksum:
        raise GptDamaged(reason=f"the checksum of the header in sector {sector} is wrong")
    entries_at, count, entry_bytes, entries_checksum = fields[10:14]
    if entry_bytes != _ENTRY.size or count > _ENTRIES_MAX or (entries_at + 1) * SECTOR_BYTES > size_bytes:
        raise GptDamaged(reason="its list of partitions has an impossible shape")
    entries = read(entries_at * SECTOR_BYTES, min(count * entry_bytes, size_bytes - entries_at * SECTOR_BYTES))
    if zlib.crc32(entries) != entries_checksum:
        raise GptDamaged(reason="the checksum of its list of partitions is wrong")
    return [
        _unpack_entry(entries[low : low + entry_bytes], size_bytes=size_bytes)
        for low in range(0, len(entries), entry_bytes)
        if any(entries[low : low + 16])
    ]


def _unpack_entry(entry: bytes, *, size_bytes: int) -> Partition:
    kind, uuid, first, last, _, name = _ENTRY.unpack(entry)
    if not first <= last < size_bytes // SECTOR_BYTES:
        raise GptDamaged(reason=f"a partition reaches from sector {first} to {last}")
    return Partition(
        offset_bytes=first * SECTOR_BYTES,
        length_bytes=(last - first + 1) * SECTOR_BYTES,
        kind=uuids.UUID(bytes_le=kind),
        uuid=uuids.UUID(bytes_le=uuid),
        name=name.decode("utf-16-le", errors="replace").rstrip("\0"),
    )
