"""The boot record: what a lab machine's boot loader needs to find on a disk, and how it is put there.

Like a boot loader of blocklists it lies in the gap between the partition table and the first partition and names the
places of the files it loads, with their hashes. Invariant: a record is believed only when its checksum holds, and what
it says is read from the disk again at every boot, so a disk that was not restored whole does not boot.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from holdfast.core import KIB, MIB, SECTOR_BYTES, HoldfastError
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.gpt import BOOT_MARKER
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.model import Extent

__all__ = [
    "BOOT_FILE_BYTES",
    "BootFile",
    "BootFileNotFound",
    "BootRecord",
    "GuestSystem",
    "install_boot",
    "install_boot_member",
    "new_boot_file",
    "read_boot_record",
    "write_minimal_boot",
]

BOOT_FILE_BYTES = 256 * KIB
_RECORD_AT = 34 * SECTOR_BYTES
"""The first sector that a GUID partition table leaves free."""
_RECORD_BYTES_MAX = 512 * KIB
_HEAD = struct.Struct(">8sII")
_MAGIC = b"LABBOOT1"
_FILE_MAGIC = b"lab boot image\0\0"
_STEP_BYTES = 4 * KIB
_FAT_AT = MIB
_MINIMAL_BYTES = 64 * KIB


class BootFileNotFound(HoldfastError):
    """A file that a boot record shall name is not on the disk in plain blocks."""

    code = "lab.boot-file-not-found"
    effect = "The lab's disk has no boot record, so a machine does not boot from it."
    advice = "Put the file into the file system before the boot record is made, or name its places on the disk."

    def __init__(self, *, disk: str, path: str) -> None:
        super().__init__(f"lab disk {disk}: the blocks of {path} are not found")
        self.disk, self.path = disk, path


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSystem:
    """The operating system on a disk, as its tools report it."""

    name: str
    distro: str
    major: str
    minor: str = ""
    kernel: str = ""
    has_tools: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFile:
    """A file that is loaded at boot: its places on the disk, in file order, and its SHA-256."""

    path: str
    sha256: str
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRecord:
    """What one disk says about booting. A ``member`` holds files for the system disk that ``needs`` it."""

    role: Literal["member", "system"]
    member_id: str = ""
    needs: tuple[str, ...] = ()
    partition_bytes: int = 0
    filesystem: FilesystemKind | None = None
    files: tuple[BootFile, ...] = ()
    system: GuestSystem | None = None


def new_boot_file(generator: np.random.Generator, *, length_bytes: int = BOOT_FILE_BYTES) -> bytes:
    """Return the content of a kernel or a loader: nothing that a machine could run, and not found twice on a disk."""
    return _FILE_MAGIC + generator.bytes(length_bytes - len(_FILE_MAGIC))


def install_boot(
    store: DiskStore,
    uuid: str,
    *,
    partition_bytes: int,
    filesystem: FilesystemKind,
    files: Mapping[str, bytes | Iterable[Extent]],
    system: GuestSystem,
    needs: tuple[str, ...] = (),
) -> None:
    """Make the disk one that boots. A file is given by its places on the disk, or by its content, which is looked for.

    ``BootFileNotFound`` when the content is not there.
    """
    placed = tuple(_place(store, uuid, path, given) for path, given in files.items())
    record = BootRecord(
        role="system",
        needs=needs,
        partition_bytes=partition_bytes,
        filesystem=filesystem,
        files=placed,
        system=system,
    )
    _write(store, uuid, record)


def install_boot_member(
    store: DiskStore, uuid: str, *, member_id: str, files: Mapping[str, bytes | Iterable[Extent]]
) -> None:
    """Make the disk one that a system disk can need. See ``install_boot`` for files."""
    placed = tuple(_place(store, uuid, path, given) for path, given in files.items())
    _write(store, uuid, BootRecord(role="member", member_id=member_id, files=placed))


def read_boot_record(store: DiskStore, uuid: str) -> BootRecord | None:
    """Return what the disk says about booting; ``None`` when nothing there can be believed."""
    size_bytes = store.size_bytes(uuid)
    if size_bytes < _RECORD_AT + _HEAD.size:
        return None
    magic, length_bytes, checksum = _HEAD.unpack(store.read(uuid, _RECORD_AT, _HEAD.size))
    end_bytes = _RECORD_AT + _HEAD.size + length_bytes
    if magic != _MAGIC or length_bytes > _RECORD_BYTES_MAX or end_bytes > size_bytes:
        return None
    body = store.read(uuid, _RECORD_AT + _HEAD.size, length_bytes)
    if zlib.crc32(body) != checksum:
        return None
    return _parse(json.loads(body))


def write_minimal_boot(
    store: DiskStore, uuid: str, generator: np.random.Generator, *, system: GuestSystem | None = None
) -> None:
    """Put the least that boots on the first MiB and a half of a disk: loader, partition table, FAT, one file."""
    size_bytes = store.size_bytes(uuid)
    sectors = (size_bytes - _FAT_AT) // SECTOR_BYTES
    entry = struct.pack("<B3sB3sII", 0x80, b"\0\x02\0", 0x0C, b"\xff\xff\xff", _FAT_AT // SECTOR_BYTES, sectors)
    store.write(uuid, 0, BOOT_MARKER.ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa")
    store.write(uuid, _FAT_AT, _fat_boot_sector(sectors))
    content = new_boot_file(generator, length_bytes=_MINIMAL_BYTES)
    place = Extent(offset_bytes=_FAT_AT + 64 * KIB, length_bytes=len(content))
    store.write(uuid, place.offset_bytes, content)
    install_boot(
        store,
        uuid,
        partition_bytes=_FAT_AT,
        filesystem="vfat",
        files={"KERNEL": (place,)},
        system=system or GuestSystem(name="Lab Linux 1", distro="lab", major="1", kernel="6.12.0"),
    )


def _fat_boot_sector(sectors: int) -> bytes:
    """Return the first sector of a FAT32 file system of that size, as the specification lays it out."""
    head = struct.pack(
        "<3s8sHBHBHHBHHHIIIHHIHH12sBBBI11s8s",
        b"\xeb\x58\x90", b"LAB     ", SECTOR_BYTES, 8, 32, 2, 0, 0, 0xF8, 0, 63, 255, _FAT_AT // SECTOR_BYTES, sectors,
        max(1, sectors // 1024), 0, 0, 2, 1, 6, bytes(12), 0x80, 0, 0x29, 1, b"LAB        ", b"FAT32   ",
    )  # fmt: skip
    return head.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def _write(store: DiskStore, uuid: str, record: BootRecord) -> None:
    body = json.dumps(asdict(record), separators=(",", ":")).encode()
    assert len(body) <= _RECORD_BYTES_MAX
    store.write(uuid, _RECORD_AT, _HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body)


def _parse(body: dict[str, Any]) -> BootRecord:
    """Return a record whose checksum held: what we wrote ourselves."""
    files = tuple(
        BootFile(
            path=file["path"], sha256=file["sha256"], extents=tuple(Extent(**extent) for extent in file["extents"])
        )
        for file in body["files"]
    )
    system = GuestSystem(**body["system"]) if body["system"] else None
    return BootRecord(**{**body, "needs": tuple(body["needs"]), "files": files, "system": system})


def _place(store: DiskStore, uuid: str, path: str, given: bytes | Iterable[Extent]) -> BootFile:
    if isinstance(given, bytes):
        extents = tuple(_find(store, uuid, path, given))
        return BootFile(path=path, sha256=hashlib.sha256(given).hexdigest(), extents=extents)
    extents = tuple(given)
    digest = hashlib.sha256()
    for extent in extents:
        digest.update(store.read(uuid, extent.offset_bytes, extent.length_bytes))
    return BootFile(path=path, sha256=digest.hexdigest(), extents=extents)


def _find(store: DiskStore, uuid: str, path: str, content: bytes) -> list[Extent]:
    """Return where the content lies, block by block; neighbours are joined."""
    found: list[Extent] = []
    for start in range(0, len(content), _STEP_BYTES):
        piece = content[start : start + _STEP_BYTES]
        offset = _find_piece(store, uuid, piece, guess=found[-1].end_bytes if found else None)
        if offset is None:
            raise BootFileNotFound(disk=uuid, path=path)
        if found and found[-1].end_bytes == offset:
            last = found.pop()
            found.append(Extent(offset_bytes=last.offset_bytes, length_bytes=last.length_bytes + len(piece)))
        else:
            found.append(Extent(offset_bytes=offset, length_bytes=len(piece)))
    return found


def _find_piece(store: DiskStore, uuid: str, piece: bytes, *, guess: int | None) -> int | None:
    size_bytes = store.size_bytes(uuid)
    if guess is not None and guess + len(piece) <= size_bytes and store.read(uuid, guess, len(piece)) == piece:
        return guess
    for extent in store.data_extents(uuid):
        for offset in range(extent.offset_bytes, extent.end_bytes, MIB):
            # One block more than the step, so that a piece across the border is seen whole.
            window = store.read(uuid, offset, min(MIB + _STEP_BYTES, size_bytes - offset))
            at = window.find(piece)
            if at >= 0:
                return offset + at
    return None
