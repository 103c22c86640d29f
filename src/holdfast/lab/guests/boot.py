"""Whether a machine boots from its disks, read from their bytes as firmware and a boot loader would read them.

Invariant: the disks are only read, and what is said is true of their bytes at this moment: a disk that is empty, cut
short or damaged in what a boot needs does not boot.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core import SECTOR_BYTES
from holdfast.lab.disks import DiskStore
from holdfast.lab.images import (
    BOOT_MARKER,
    BootFile,
    BootRecord,
    GptDamaged,
    GuestSystem,
    has_filesystem,
    read_boot_record,
    read_gpt,
)

__all__ = ["BootState", "read_boot_state"]

_MBR_TABLE_AT = 446
_MBR_ENTRIES = 4
_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_PROTECTIVE = 0xEE
_SUPERBLOCKS_BYTES = 68 << 10
"""How far from its start a file system's superblock reaches at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootState:
    """What came of trying to boot. ``system`` is there exactly when it worked; ``reason`` says why it did not."""

    system: GuestSystem | None
    reason: str = ""

    @property
    def is_bootable(self) -> bool:
        """Whether the machine boots."""
        return self.system is not None


def read_boot_state(store: DiskStore, uuids: Sequence[str]) -> BootState:
    """Return what a machine with these disks, in their order, does when it starts.

    The first disk with a boot loader decides; the others matter only as far as that one needs them.
    """
    present = [uuid for uuid in uuids if store.exists(uuid) and store.has_data(uuid)]
    for uuid in present:
        if store.size_bytes(uuid) >= SECTOR_BYTES and store.read(uuid, 0, len(BOOT_MARKER)) == BOOT_MARKER:
            return _boot(store, uuid, others=[other for other in present if other != uuid])
    return BootState(system=None, reason="no disk has a boot loader")


def _boot(store: DiskStore, uuid: str, *, others: Sequence[str]) -> BootState:
    record = read_boot_record(store, uuid)
    if record is None or record.role != "system" or record.system is None or record.filesystem is None:
        return BootState(system=None, reason=f"disk {uuid} has no boot record that can be believed")
    if record.partition_bytes not in _partition_starts(store, uuid):
        return BootState(system=None, reason=f"disk {uuid} has no partition where its boot record says")

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        return store.read(uuid, offset_bytes, length_bytes)

    if record.partition_bytes + _SUPERBLOCKS_BYTES > store.size_bytes(uuid):
        return BootState(system=None, reason=f"disk {uuid} ends before its file system")
    if not has_filesystem(read, record.filesystem, base_bytes=record.partition_bytes):
        return BootState(system=None, reason=f"disk {uuid} has no {record.filesystem} file system to boot from")
    damaged = _damaged_file(store, uuid, record)
    if damaged is not None:
        return BootState(system=None, reason=f"{damaged.path} on disk {uuid} is damaged")
    missing = set(record.needs) - _members(store, others)
    if missing:
        return BootState(system=None, reason=f"disk {uuid} needs another disk that is not there or damaged")
    return BootState(system=record.system)


def _members(store: DiskStore, uuids: Sequence[str]) -> set[str]:
    """Return the names under which these disks can be needed, of those that are whole."""
    records = ((uuid, read_boot_record(store, uuid)) for uuid in uuids)
    return {
        record.member_id
        for uuid, record in records
        if record is not None and record.role == "member" and _damaged_file(store, uuid, record) is None
    }


def _damaged_file(store: DiskStore, uuid: str, record: BootRecord) -> BootFile | None:
    size_bytes = store.size_bytes(uuid)
    for file in record.files:
        digest = hashlib.sha256()
        for extent in file.extents:
            if extent.end_bytes > size_bytes:
                return file
            digest.update(store.read(uuid, extent.offset_bytes, extent.length_bytes))
        if digest.hexdigest() != file.sha256:
            return file
    return None


def _partition_starts(store: DiskStore, uuid: str) -> set[int]:
    """Return where the disk's partitions begin; none when no table can be believed."""
    size_bytes = store.size_bytes(uuid)
    sector = store.read(uuid, 0, SECTOR_BYTES)
    if sector[-2:] != b"\x55\xaa":
        return set()
    entries = [_MBR_ENTRY.unpack_from(sector, _MBR_TABLE_AT + 16 * number) for number in range(_MBR_ENTRIES)]
    if any(kind == _MBR_PROTECTIVE for _, kind, _, _ in entries):
        try:
            partitions = read_gpt(
                lambda offset, length_bytes: store.read(uuid, offset, length_bytes), size_bytes=size_bytes
            )
        except GptDamaged:
            return set()
        return {partition.offset_bytes for partition in partitions}
    return {
        first * SECTOR_BYTES
        for status, kind, first, count in entries
        if kind and count and status in (0, 0x80) and (first + count) * SECTOR_BYTES <= size_bytes
    }
