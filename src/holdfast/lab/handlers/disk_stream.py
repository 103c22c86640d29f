"""The disks inside an archive: cut into blocks and checksummed on the way out, put together and compared on the way in.

Disks follow one another sorted by their names in the archive. The importer believes the file about as much as a pool
does: it measures gaps in the length of the first block of the first disk, and looks at names, not at places.
Invariant: a disk is attached to the control domain exactly while its bytes move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import xxhash

from holdfast.core import HoldfastError
from holdfast.formats.vhd import VHD_BLOCK_BYTES
from holdfast.formats.xva import (
    XVA_BLOCK_BYTES,
    XVA_CHECKSUM_SUFFIX,
    XVA_LEGACY_CHECKSUM_SUFFIX,
    XVA_RECORD_BYTES,
    XvaMember,
    XvaWriter,
    block_checksum,
)
from holdfast.lab.attachments import attached
from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure, quoted
from holdfast.lab.handlers.archive import OpenArchive
from holdfast.lab.handlers.ova_document import parse_int
from holdfast.lab.handlers.transfer import Transfer
from holdfast.lab.operations import Cancelled
from holdfast.lab.rules import has_vhd_disks
from holdfast.lab.volumes import disk_uuid, mark_written

__all__ = ["ArchivedDisk", "Progress", "receive_disks", "send_disks"]

_CHECKSUMS_KEPT_MAX = 1024
"""A checksum comes right behind its block; some are kept for files whose members changed places."""

_REPORT_S = 10.0
"""How often a pool tells how far a transfer is, and looks whether somebody wants it to end."""

_TOUCH_S = 30.0
"""How often a pool uses the session of a transfer; one that is gone ends it."""

Bytes = bytes | bytearray | memoryview
Send = Callable[[Bytes], None]


@dataclass(frozen=True, slots=True, order=True)
class ArchivedDisk:
    """A disk and what the archive calls it."""

    name: str
    vdi: str
    size_bytes: int


class Progress:
    """How much of all disks has moved; raises ``Cancelled`` when the task was asked to end."""

    def __init__(self, one: Transfer, disks: Iterable[ArchivedDisk]) -> None:
        self._one = one
        self._total = sum(disk.size_bytes for disk in disks) // XVA_BLOCK_BYTES
        self._done_bytes = 0
        self._told_s: float | None = None
        self._touched_s = one.pool.clock.monotonic_s()

    def moved(self, length_bytes: int) -> None:
        """Count bytes; every ten seconds tell the task and ask it, every thirty use the session, lest it ends."""
        self._done_bytes += length_bytes
        now_s = self._one.pool.clock.monotonic_s()
        if now_s - self._touched_s > _TOUCH_S:
            self._touched_s = now_s
            self._one.pool.sessions.check(self._one.context.session)
        if self._told_s is not None and now_s - self._told_s <= _REPORT_S:
            return
        self._told_s = now_s
        done = self._done_bytes // XVA_BLOCK_BYTES / self._total if self._total else 0.0
        self._one.pool.tasks.set_progress(self._one.task, done)
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` when the task was asked to end."""
        if self._one.pool.tasks.is_cancelled(self._one.task):
            raise Cancelled


def send_disks(one: Transfer, send: Send, writer: XvaWriter, disks: list[ArchivedDisk]) -> None:
    """Send the blocks of the disks."""
    progress = Progress(one, disks)
    buffer = memoryview(bytearray(XVA_BLOCK_BYTES))
    for disk in sorted(disks):
        with attached(one.pool, disk.vdi, is_writable=False):
            uuid = disk_uuid(one.pool, disk.vdi)
            is_tree = has_vhd_disks(one.pool.db, one.pool.db.text("VDI", disk.vdi, "SR"))
            last = (disk.size_bytes - 1) // XVA_BLOCK_BYTES
            for number in _numbers(one.pool, uuid, disk.size_bytes, is_tree=is_tree):
                offset_bytes = number * XVA_BLOCK_BYTES
                data = buffer[: min(XVA_BLOCK_BYTES, disk.size_bytes - offset_bytes)]
                one.pool.disks.read_into(uuid, offset_bytes, data)
                if is_tree or number in (0, last) or _has_data(data):
                    for piece in writer.block(disk.name, number, data):
                        send(piece)
                progress.moved(len(data))


def _numbers(pool: PoolCore, uuid: str, size_bytes: int, *, is_tree: bool) -> Iterator[int]:
    """Yield which blocks a pool looks at: of trees the allocated ones, of plain images those that are no hole; the
    first and the last always."""
    if not size_bytes:
        return
    last = (size_bytes - 1) // XVA_BLOCK_BYTES
    yield 0
    before = 0
    if is_tree:
        step = VHD_BLOCK_BYTES // XVA_BLOCK_BYTES
        spans = ((block * step, block * step + step - 1) for block in pool.disks.allocated_blocks(uuid).tolist())
    else:
        extents = pool.disks.data_extents(uuid)
        spans = ((e.offset_bytes // XVA_BLOCK_BYTES, (e.end_bytes - 1) // XVA_BLOCK_BYTES) for e in extents)
    for first, until in spans:
        for number in range(max(first, before + 1), min(until, last - 1) + 1):
            yield number
            before = number
    if last:
        yield last


def _has_data(data: memoryview) -> bool:
    return bool(np.frombuffer(data, dtype=np.uint8).any())


# -- the way in


@dataclass(slots=True)
class _Receipt:
    """What an import has seen: the unit of gaps, and the checksum of every block by its name."""

    keeps_all: bool
    zero_block_bytes: int | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, checksum: str) -> None:
        """Remember the checksum of a block. Unless a table of all follows, only the newest are ever looked up."""
        self.checksums[name] = checksum
        if not self.keeps_all and len(self.checksums) > _CHECKSUMS_KEPT_MAX:
            del self.checksums[next(iter(self.checksums))]


def receive_disks(
    one: Transfer, archive: OpenArchive, disks: list[ArchivedDisk], *, version: int, is_forced: bool
) -> dict[str, str]:
    """Write the blocks of the disks and return their checksums by name; the pool's own exceptions as ``ApiFailure``.

    ``version`` is the archive's: above 0 the checksums are compared with the file's own, and below 2 all of them are
    returned. ``is_forced`` is whether a difference matters not.
    """
    progress = Progress(one, disks)
    receipt = _Receipt(keeps_all=version < 2)
    has_checksums = version > 0
    for disk in sorted(disks):
        with attached(one.pool, disk.vdi, is_writable=True):
            _receive_disk(one, archive, disk, receipt, progress, (has_checksums, is_forced))
        mark_written(one.pool, disk.vdi)
    return receipt.checksums


def _receive_disk(
    one: Transfer,
    archive: OpenArchive,
    disk: ArchivedDisk,
    receipt: _Receipt,
    progress: Progress,
    checking: tuple[bool, bool],
) -> None:
    has_checksums, is_forced = checking
    offset_bytes, before = 0, "-1"
    while offset_bytes < disk.size_bytes:
        member = archive.next_member()
        if receipt.zero_block_bytes is None:
            receipt.zero_block_bytes = member.length_bytes
        suffix = _suffix(member, disk.name, before)
        skipped_bytes = (parse_int(suffix) - parse_int(before) - 1) * receipt.zero_block_bytes
        offset_bytes += skipped_bytes
        told, right = _receive_block(one, archive, disk, member, offset_bytes)
        receipt.note(member.name, right)
        progress.moved(skipped_bytes + member.length_bytes)
        if not has_checksums:
            # The pool forgets to read the checksum itself, and takes it for the next header.
            raise ApiFailure("INTERNAL_ERROR", "Tar.Header.Checksum_mismatch")
        _compare(archive, told, receipt, is_forced=is_forced)
        offset_bytes += member.length_bytes
        before = suffix


def _suffix(member: XvaMember, disk: str, before: str) -> str:
    """Return the number in a block's name, as it is spelled."""
    suffix = member.name[len(disk) + 1 :]
    if member.name == disk:
        raise ApiFailure("INTERNAL_ERROR", "Invalid argument: String.sub / Bytes.sub")
    if not member.name.startswith(disk) or suffix <= before:
        raise ApiFailure("INTERNAL_ERROR", 'Stream_vdi.Failure("Invalid XVA file")')
    return suffix


def _receive_block(
    one: Transfer, archive: OpenArchive, disk: ArchivedDisk, member: XvaMember, offset_bytes: int
) -> tuple[XvaMember, str]:
    """Write one block; return the member that follows it, and what a checksum of its kind should say."""
    modern, legacy = xxhash.xxh64(), hashlib.sha1(usedforsecurity=False)
    buffer = memoryview(bytearray(min(member.length_bytes, XVA_BLOCK_BYTES)))
    is_whole = member.length_bytes <= XVA_BLOCK_BYTES
    for at in range(0, member.length_bytes, XVA_BLOCK_BYTES):
        data = buffer[: min(XVA_BLOCK_BYTES, member.length_bytes - at)]
        archive.readinto(data)
        _write(one.pool, disk, offset_bytes + at, data)
        if not is_whole:
            modern.update(data)
            legacy.update(data)
    told = _next_after_data(archive, member)
    name = told.name.rpartition("/")[2]
    match name[name.rfind(".") :] if "." in name.lstrip(".") else "":
        case suffix if suffix == XVA_CHECKSUM_SUFFIX:
            return told, block_checksum(buffer) if is_whole else f"{modern.intdigest():016X}"
        case suffix if suffix == XVA_LEGACY_CHECKSUM_SUFFIX:
            if is_whole:
                legacy.update(buffer)
            return told, legacy.hexdigest()
        case _:
            text = f"Found unsupported checksum file: {told.name}"
            raise ApiFailure("INTERNAL_ERROR", f"Stream_vdi.Failure({quoted(text)})")


def _next_after_data(archive: OpenArchive, member: XvaMember) -> XvaMember:
    """Return the member behind the block. The pool looks for it before it passes over the padding of the data, so
    blocks that do not fill their last record end every import, those of a disk with an odd size too."""
    told = archive.next_member()
    if member.length_bytes % XVA_RECORD_BYTES:
        raise ApiFailure("INTERNAL_ERROR", "Tar.Header.Checksum_mismatch")
    return told


def _write(pool: PoolCore, disk: ArchivedDisk, offset_bytes: int, data: memoryview) -> None:
    uuid = disk_uuid(pool, disk.vdi)
    inside = data[: max(0, pool.disks.size_bytes(uuid) - offset_bytes)]
    try:
        if len(inside):
            pool.disks.write(uuid, offset_bytes, inside)
    except HoldfastError as cause:
        raise ApiFailure("VDI_IO_ERROR", "Device I/O error") from cause
    if len(inside) < len(data) and has_vhd_disks(pool.db, pool.db.text("VDI", disk.vdi, "SR")):
        # A plain image grows instead, behind what anybody looks at.
        raise ApiFailure("INTERNAL_ERROR", 'Unix.Unix_error(Unix.ENOSPC, "write", "")')


def _compare(archive: OpenArchive, told: XvaMember, receipt: _Receipt, *, is_forced: bool) -> None:
    text = archive.read(min(told.length_bytes, XVA_BLOCK_BYTES)).decode("utf-8", "surrogateescape")
    block = told.name[: told.name.rfind(".")]
    right = receipt.checksums.get(block)
    if right is None:
        raise ApiFailure("INTERNAL_ERROR", "Not_found")
    if text != right and not is_forced:
        reason = f"Block {block} checksum failed: original = {text}; recomputed = {right}"
        raise ApiFailure("INTERNAL_ERROR", f"Stream_vdi.Invalid_checksum({quoted(reason)})")
