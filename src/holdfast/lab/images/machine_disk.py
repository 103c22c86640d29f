"""A disk with prepared file systems: partition table, maybe an EFI system partition and swap, a file system with files.

Also several disks that share one volume group. Invariant: the same entropy gives the same bytes on every machine; a
disk with a guest system boots.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core import MIB, Entropy
from holdfast.lab.disks import DiskSizeInvalid, DiskStore
from holdfast.lab.images.boot_record import install_boot, install_boot_member
from holdfast.lab.images.file_table import FileTable, PlacedFile, write_file_table
from holdfast.lab.images.gpt import LINUX_DATA, Partition, pack_gpt
from holdfast.lab.images.lvm import LABELS_BYTES, VolumeGroup, pack_physical_volume
from holdfast.lab.images.partitions import MbrPartition, pack_mbr
from holdfast.lab.images.prepared import (
    WINDOWS_BOOT_PATH,
    PreparedFilesystem,
    fill_files,
    load_prepared,
    place_structures,
    placed_files,
)
from holdfast.lab.images.spec import BOOT_PATH, PreparedDiskSpec, VolumeGroupSpec
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.lab.images.swap import pack_swap
from holdfast.lab.images.text import new_generator
from holdfast.model import Extent

__all__ = ["fill_prepared_disk", "fill_volume_group"]

_ESP = uuids.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_MICROSOFT_DATA = uuids.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
_LINUX_SWAP = uuids.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")
_LINUX_LVM = uuids.UUID("e6d6d379-f507-44c2-a23c-238f2a3df928")
_MBR_KINDS = {_MICROSOFT_DATA: 0x07, _LINUX_SWAP: 0x82, LINUX_DATA: 0x83, _LINUX_LVM: 0x8E}
_BOOT_PATHS = (BOOT_PATH, WINDOWS_BOOT_PATH)
_ESP_NAME = "vfat-esp"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A partition to be: its place, its type, and its name."""

    place: Extent
    kind: uuids.UUID
    name: str


def fill_prepared_disk(store: DiskStore, uuid: str, spec: PreparedDiskSpec, *, entropy: Entropy) -> None:
    """Fill a disk that was never written. ``DiskSizeInvalid`` when the partitions do not fit."""
    generator = new_generator(entropy)
    filesystem = load_prepared(spec.filesystem)
    parts = _lay_out(spec, filesystem)
    _write_table(store, uuid, parts, spec, generator=generator)
    for part in parts:
        base_bytes = part.place.offset_bytes
        if part.kind == _LINUX_SWAP:
            identity = _new_uuid(generator)
            store.write(uuid, base_bytes, pack_swap(part.place.length_bytes, uuid=identity, label="swap"))
            continue
        content = load_prepared(_ESP_NAME) if part.kind == _ESP else filesystem
        _put(store, uuid, content, base_bytes, spec, generator=generator)
    main = next(part for part in parts if part.name == _main_name(filesystem.kind))
    _finish(store, uuid, spec, filesystem, base_bytes=main.place.offset_bytes)


def fill_volume_group(store: DiskStore, disks: Sequence[str], spec: VolumeGroupSpec, *, entropy: Entropy) -> None:
    """Make disks of one size, which were never written, a volume group whose one volume has a file system.

    ``DiskSizeInvalid`` when the file system needs more than they have.
    """
    generator = new_generator(entropy)
    filesystem = load_prepared(spec.filesystem)
    size_bytes = store.size_bytes(disks[0])
    partition_bytes = size_bytes // MIB * MIB - 2 * MIB
    group = VolumeGroup.new(
        spec.name, volume=spec.volume, disks=len(disks), disk_bytes=partition_bytes, generator=generator
    )
    if group.volume_bytes < filesystem.size_bytes:
        needed = f"{len(disks)} of them need {filesystem.size_bytes} together"
        raise DiskSizeInvalid(disk=disks[0], size_bytes=size_bytes, reason=needed)
    for number, disk in enumerate(disks):
        place = Extent(offset_bytes=MIB, length_bytes=partition_bytes)
        part = _Part(place=place, kind=_LINUX_LVM, name="Linux LVM")
        _write_gpt(store, disk, [part], is_bootable=False, generator=generator)
        store.write(disk, MIB, pack_physical_volume(group, number))

    def write(offset_bytes: int, data: bytes) -> None:
        for number, place, length_bytes in group.locate(offset_bytes, len(data)):
            store.write(disks[number], MIB + place, data[:length_bytes])
            data = data[length_bytes:]

    place_structures(filesystem, write, disk_offset_bytes=0)
    fill_files(
        filesystem,
        write,
        store=store,
        hostname="",
        content_bytes=spec.content_bytes,
        generator=generator,
    )
    for number, disk in enumerate(disks):
        files = tuple(_files_on(group, number, filesystem))
        write_file_table(store, disk, FileTable(filesystem=filesystem.kind, base_bytes=MIB, files=files))
        if spec.member_ids:
            places = (Extent(offset_bytes=MIB, length_bytes=LABELS_BYTES),)
            install_boot_member(store, disk, member_id=spec.member_ids[number], files={"LVM": places})


def _files_on(group: VolumeGroup, number: int, filesystem: PreparedFilesystem) -> list[PlacedFile]:
    """Return the files of the group's volume that lie on one disk whole."""
    found = []
    for file in filesystem.files:
        places = [place for part in file.extents for place in group.locate(part.offset_bytes, part.length_bytes)]
        if all(disk == number for disk, _, _ in places):
            extents = tuple(Extent(offset_bytes=MIB + offset, length_bytes=length) for _, offset, length in places)
            found.append(PlacedFile(path=file.path, size_bytes=file.size_bytes, extents=extents))
    return found


def _main_name(kind: FilesystemKind) -> str:
    return "Basic data partition" if kind == "ntfs" else "root"


def _lay_out(spec: PreparedDiskSpec, filesystem: PreparedFilesystem) -> list[_Part]:
    """Return EFI system partition, file system and swap, one after the other on 1 MiB borders."""
    wanted = [(filesystem.size_bytes, _partition_kind(filesystem.kind), _main_name(filesystem.kind))]
    if spec.has_esp:
        wanted.insert(0, (load_prepared(_ESP_NAME).size_bytes, _ESP, "EFI system partition"))
    if spec.swap_bytes:
        wanted.append((spec.swap_bytes, _LINUX_SWAP, "swap"))
    parts, offset = [], MIB
    for length_bytes, kind, name in wanted:
        length_bytes = -(-length_bytes // MIB) * MIB
        parts.append(_Part(place=Extent(offset_bytes=offset, length_bytes=length_bytes), kind=kind, name=name))
        offset += length_bytes
    return parts


def _partition_kind(kind: FilesystemKind) -> uuids.UUID:
    return _MICROSOFT_DATA if kind == "ntfs" else LINUX_DATA


def _write_table(
    store: DiskStore, uuid: str, parts: list[_Part], spec: PreparedDiskSpec, *, generator: np.random.Generator
) -> None:
    size_bytes, needed_bytes = store.size_bytes(uuid), parts[-1].place.end_bytes + MIB
    if needed_bytes > size_bytes:
        raise DiskSizeInvalid(disk=uuid, size_bytes=size_bytes, reason=f"its partitions need {needed_bytes}")
    is_bootable = spec.system is not None
    if spec.table == "gpt":
        _write_gpt(store, uuid, parts, is_bootable=is_bootable, generator=generator)
        return
    entries = [
        MbrPartition(
            offset_bytes=part.place.offset_bytes,
            length_bytes=part.place.length_bytes,
            kind=_MBR_KINDS[part.kind],
            is_active=is_bootable and number == 0,
        )
        for number, part in enumerate(parts)
    ]
    store.write(uuid, 0, pack_mbr(entries, signature=generator.bytes(4), is_bootable=is_bootable))


def _write_gpt(
    store: DiskStore, uuid: str, parts: list[_Part], *, is_bootable: bool, generator: np.random.Generator
) -> None:
    size_bytes = store.size_bytes(uuid)
    partitions = [
        Partition(
            offset_bytes=part.place.offset_bytes,
            length_bytes=part.place.length_bytes,
            kind=part.kind,
            uuid=_new_uuid(generator),
            name=part.name,
        )
        for part in parts
    ]
    head, tail = pack_gpt(partitions, size_bytes=size_bytes, disk_uuid=_new_uuid(generator), is_bootable=is_bootable)
    store.write(uuid, 0, head)
    store.write(uuid, size_bytes - len(tail), tail)


def _put(
    store: DiskStore,
    uuid: str,
    filesystem: PreparedFilesystem,
    base_bytes: int,
    spec: PreparedDiskSpec,
    *,
    generator: np.random.Generator,
) -> None:
    def write(offset_bytes: int, data: bytes) -> None:
        store.write(uuid, base_bytes + offset_bytes, data)

    place_structures(filesystem, write, disk_offset_bytes=base_bytes)
    fill_files(
        filesystem,
        write,
        store=store,
        hostname=spec.hostname,
        content_bytes=spec.content_bytes,
        generator=generator,
    )


def _finish(
    store: DiskStore, uuid: str, spec: PreparedDiskSpec, filesystem: PreparedFilesystem, *, base_bytes: int
) -> None:
    """Write down where the files are, and let the disk boot."""
    files = placed_files(filesystem, base_bytes=base_bytes)
    if filesystem.kind != "ext4":  # whose directories are read, and whose files move when guests work
        write_file_table(store, uuid, FileTable(filesystem=filesystem.kind, base_bytes=base_bytes, files=files))
    if spec.system is not None:
        install_boot(
            store,
            uuid,
            partition_bytes=base_bytes,
            filesystem=filesystem.kind,
            files={file.path: file.extents for file in files if file.path in _BOOT_PATHS},
            system=spec.system,
            needs=spec.needs,
        )


def _new_uuid(generator: np.random.Generator) -> uuids.UUID:
    return uuids.UUID(bytes=generator.bytes(16), version=4)
