"""Which file system begins at a place on a disk, told by its superblock as the file system's own driver would.

Offsets are those of the Linux kernel's headers (``ext4.h``, ``xfs_format.h``, ``btrfs_tree.h``) and of Microsoft's FAT
specification. Invariant: a superblock that carries a checksum is believed only when the checksum holds.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Literal

__all__ = ["SUPERBLOCKS_BYTES", "FilesystemKind", "crc32c", "find_filesystem", "has_filesystem"]

Read = Callable[[int, int], bytes]
FilesystemKind = Literal["btrfs", "ext4", "ntfs", "vfat", "xfs"]

SUPERBLOCKS_BYTES = 68 << 10
"""How far from its start a file system's superblock reaches at most."""

_CASTAGNOLI = 0x82F63B78
_EXT4_AT, _EXT4_BYTES, _EXT4_MAGIC_AT, _EXT4_FEATURES_AT = 1024, 1024, 0x38, 0x64
_EXT4_METADATA_CHECKSUMS = 0x400
_XFS_CHECKSUM_AT, _XFS_SECTOR_AT, _XFS_VERSION_AT = 224, 102, 100
_BTRFS_AT, _BTRFS_BYTES, _BTRFS_MAGIC_AT = 64 << 10, 4096, 0x40
_BOOT_SECTOR_BYTES = 512
_BOOT_SECTOR_END = b"\x55\xaa"


def has_filesystem(read: Read, kind: FilesystemKind, *, base_bytes: int) -> bool:
    """Whether a file system of that kind begins there. ``read`` is called within the first 68 KiB from the base."""
    return _CHECKS[kind](lambda offset, length_bytes: read(base_bytes + offset, length_bytes))


def find_filesystem(read: Read, *, base_bytes: int) -> FilesystemKind | None:
    """Return what begins there; None when it is nothing that is known, or damaged."""
    return next((kind for kind in _CHECKS if has_filesystem(read, kind, base_bytes=base_bytes)), None)


def crc32c(data: bytes, *, start: int = 0xFFFFFFFF) -> int:
    """Return the running CRC-32C (Castagnoli) of short data, without the final inversion."""
    table = _table()
    value = start
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value


@functools.cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        return value

    return tuple(entry(value) for value in range(256))


def _is_ext4(read: Read) -> bool:
    block = read(_EXT4_AT, _EXT4_BYTES)
    (magic,) = struct.unpack_from("<H", block, _EXT4_MAGIC_AT)
    (features,) = struct.unpack_from("<I", block, _EXT4_FEATURES_AT)
    if magic != 0xEF53:
        return False
    checksum = int.from_bytes(block[-4:], "little")
    return not features & _EXT4_METADATA_CHECKSUMS or crc32c(block[:-4]) == checksum


def _is_xfs(read: Read) -> bool:
    head = read(0, _BOOT_SECTOR_BYTES)
    if head[:4] != b"XFSB":
        return False
    (version,) = struct.unpack_from(">H", head, _XFS_VERSION_AT)
    (sector_bytes,) = struct.unpack_from(">H", head, _XFS_SECTOR_AT)
    if version & 0xF < 5:
        return True
    if sector_bytes not in (512, 1024, 2048, 4096):
        return False
    sector = read(0, sector_bytes)
    (checksum,) = struct.unpack_from("<I", sector, _XFS_CHECKSUM_AT)
    plain = sector[:_XFS_CHECKSUM_AT] + bytes(4) + sector[_XFS_CHECKSUM_AT + 4 :]
    return bool(crc32c(plain) ^ 0xFFFFFFFF == checksum)


def _is_btrfs(read: Read) -> bool:
    block = read(_BTRFS_AT, _BTRFS_BYTES)
    if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] != b"_BHRfS_M":
        return False
    return crc32c(block[32:]) ^ 0xFFFFFFFF == int.from_bytes(block[:4], "little")


def _is_ntfs(read: Read) -> bool:
    sector = read(0, _BOOT_SECTOR_BYTES)
    return sector[3:11] == b"NTFS    " and sector[-2:] == _BOOT_SECTOR_END


def _is_fat(read: Read) -> bool:
    sector = read(0, _BOOT_SECTOR_BYTES)
    sector_bytes, cluster_sectors, reserved, copies = struct.unpack_from("<HBHB", sector, 11)
    labelled = sector[54:59] in (b"FAT12", b"FAT16") or sector[82:87] == b"FAT32"
    shaped = sector_bytes in (512, 1024, 2048, 4096) and cluster_sectors and reserved and copies
    return bool(labelled and shaped and sector[-2:] == _BOOT_SECTOR_END)


_CHECKS: dict[FilesystemKind, Callable[[Read], bool]] = {
    "btrfs": _is_btrfs,
    "ext4": _is_ext4,
    "ntfs": _is_ntfs,
    "vfat": _is_fat,
    "xfs": _is_xfs,
}
