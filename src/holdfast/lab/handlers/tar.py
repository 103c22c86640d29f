"""A single disk as a tar, in both directions: numbered members of 1 MiB, each with its checksum behind it.

What holds for the disks of an exported VM holds here: the first and the last member are always there, a gap in the
numbers is so many blocks of zeros, and checksums are compared as text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from posixpath import splitext

import numpy as np

from holdfast.core import MIB
from holdfast.formats.vhd import VHD_BLOCK_BYTES
from holdfast.formats.xva import XVA_BLOCK_BYTES, XVA_CHECKSUM_SUFFIX, block_checksum, xva_header
from holdfast.lab.disks import DiskRangeInvalid
from holdfast.lab.errors import ApiFailure, quoted
from holdfast.lab.handlers.disk_query import is_kept_as_vhd
from holdfast.lab.handlers.disk_write import DiskWriter
from holdfast.lab.handlers.transfer import Transfer, client_gone, end_of_file
from holdfast.lab.http import Disconnected
from holdfast.lab.volumes import disk_uuid

__all__ = ["receive_tar", "send_tar"]

_FOLDER = "vdi"
_RECORD_BYTES = 512
_MEMBER_BYTES_MAX = 64 * MIB
"""A real host takes any length into memory; no exporter ever wrote more than 1 MiB."""
_CHECKSUM_BYTES_MAX = 4096
_PROGRESS_STEP_S = 10.0
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|0u[0-9][0-9_]*|[0-9][0-9_]*)\Z")


class _Progress:
    """Tells the task how far it is, at once and then every ten seconds, and stops the work when it was cancelled."""

    def __init__(self, one: Transfer, size_bytes: int) -> None:
        self._one = one
        self._size_bytes = size_bytes
        self._done_bytes = 0
        self._told_s: float | None = None

    def add(self, length_bytes: int) -> None:
        """Count bytes; ``TASK_CANCELLED`` when somebody asked for it."""
        self._done_bytes += length_bytes
        now_s = self._one.pool.clock.monotonic_s()
        if self._told_s is not None and now_s - self._told_s <= _PROGRESS_STEP_S:
            return
        self._told_s = now_s
        whole = max(1, self._size_bytes // MIB)
        tasks, task = self._one.pool.tasks, self._one.task
        tasks.set_progress(task, self._done_bytes // MIB / whole)
        if tasks.is_cancelled(task):
            raise ApiFailure("TASK_CANCELLED", task)


def send_tar(one: Transfer, vdi: str) -> None:
    """Send the disk block by block, without the blocks that hold nothing."""
    pool = one.pool
    name = disk_uuid(pool, vdi)
    size_bytes = pool.disks.size_bytes(name)
    progress = _Progress(one, size_bytes)
    pool.tasks.allow_cancel(one.task)
    buffer = memoryview(bytearray(XVA_BLOCK_BYTES))
    try:
        for number, is_needed in _candidates(one, vdi, size_bytes):
            offset = number * XVA_BLOCK_BYTES
            piece = buffer[: min(XVA_BLOCK_BYTES, size_bytes - offset)]
            pool.disks.read_into(name, offset, piece)
            if is_needed or np.frombuffer(piece, dtype=np.uint8).any():
                _send_member(one, f"{_FOLDER}/{number:08d}", piece)
            progress.add(len(piece))
        one.connection.send(bytes(2 * _RECORD_BYTES))
    except Disconnected as cause:
        raise client_gone() from cause


def _candidates(one: Transfer, vdi: str, size_bytes: int) -> Iterator[tuple[int, bool]]:
    """Yield the numbers of blocks to look at, and whether they are sent even when they are all zeros."""
    last = (size_bytes - 1) // XVA_BLOCK_BYTES
    if is_kept_as_vhd(one.pool, vdi):
        blocks = one.pool.disks.allocated_blocks(disk_uuid(one.pool, vdi)).tolist()
        width = VHD_BLOCK_BYTES // XVA_BLOCK_BYTES
        inner = {block * width + step for block in blocks for step in range(width)}
        for number in sorted({0, last} | {number for number in inner if number < last}):
            yield number, True
    else:
        for number in range(last + 1):
            yield number, number in (0, last)


def _send_member(one: Transfer, name: str, data: memoryview) -> None:
    checksum = block_checksum(data).encode()
    one.connection.send(xva_header(name, len(data)))
    one.connection.send(data)
    tail = bytes(-len(data) % _RECORD_BYTES) + xva_header(name + XVA_CHECKSUM_SUFFIX, len(checksum)) + checksum
    one.connection.send(tail + bytes(-len(checksum) % _RECORD_BYTES))


def receive_tar(one: Transfer, vdi: str) -> None:
    """Write what the tar holds onto the disk; blocks that it leaves out stay as they are."""
    pool = one.pool
    writer = DiskWriter(pool, vdi)
    size_bytes = pool.disks.size_bytes(disk_uuid(pool, vdi))
    progress = _Progress(one, size_bytes)
    pool.tasks.allow_cancel(one.task)
    first_bytes: int | None = None
    suffix, offset = "-1", 0
    while offset < size_bytes:
        member, length_bytes = _next_header(one)
        if length_bytes > _MEMBER_BYTES_MAX:
            raise ApiFailure("INTERNAL_ERROR", "Out of memory")
        first_bytes = length_bytes if first_bytes is None else first_bytes
        before, suffix = suffix, _next_suffix(member, suffix)
        gap_bytes = max(0, _whole_number(suffix) - _whole_number(before) - 1) * first_bytes
        data = memoryview(bytearray(length_bytes))
        _fill(one, data)
        try:
            writer.write(offset + gap_bytes, data)
        except DiskRangeInvalid as cause:
            raise ApiFailure("INTERNAL_ERROR", 'Unix.Unix_error(Unix.ENOSPC, "write", "")') from cause
        # The pool forgets the padding: what does not fill its last record ends the import here.
        checksum_member, checksum_bytes = _next_header(one)
        expected = _checksum(checksum_member, data)
        progress.add(gap_bytes + length_bytes)
        _verify(one, member, checksum_member, checksum_bytes, expected)
        offset += gap_bytes + length_bytes


def _next_header(one: Transfer) -> tuple[str, int]:
    """Return name and length of the next member."""
    head = bytearray(_RECORD_BYTES)
    _fill(one, memoryview(head))
    if not any(head):
        _fill(one, memoryview(head))
        raise ApiFailure("INTERNAL_ERROR", "Tar.Header.End_of_stream")
    stated = head[148:156].strip(b" \0")
    head[148:156] = b" " * 8
    if _octal(bytes(stated)) != sum(head):
        raise ApiFailure("INTERNAL_ERROR", "Tar.Header.Checksum_mismatch")
    return head[:100].split(b"\0")[0].decode("latin-1"), _octal(bytes(head[124:136].strip(b" \0")))


def _octal(text: bytes) -> int:
    try:
        return int(text or b"0", 8)
    except ValueError as cause:
        raise ApiFailure("INTERNAL_ERROR", 'Failure("Int64.of_string")') from cause


def _next_suffix(member: str, before: str) -> str:
    if not member.startswith(_FOLDER):
        raise _failure("Invalid XVA file")
    if member == _FOLDER:
        raise ApiFailure("INTERNAL_ERROR", "Invalid argument: String.sub / Bytes.sub")
    suffix = member[len(_FOLDER) + 1 :]
    if suffix <= before:
        raise _failure("Invalid XVA file")
    return suffix


def _failure(text: str) -> ApiFailure:
    return ApiFailure("INTERNAL_ERROR", f"Stream_vdi.Failure({quoted(text)})")


def _whole_number(text: str) -> int:
    if not _NUMBER.match(text):
        raise ApiFailure("INTERNAL_ERROR", 'Failure("int_of_string")')
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    bases = {"0x": 16, "0o": 8, "0b": 2}
    prefix = digits[:2].lower()
    plain = digits.replace("_", "")
    return sign * (int(plain[2:], bases[prefix]) if prefix in bases else int(plain.removeprefix("0u")))


def _checksum(member: str, data: memoryview) -> str:
    """Return the checksum that the member's name asks for."""
    match splitext(member)[1]:
        case ".xxhash":
            return block_checksum(data)
        case ".checksum":
            return hashlib.sha1(data, usedforsecurity=False).hexdigest()
        case _:
            raise _failure(f"Found unsupported checksum file: {member}")


def _verify(one: Transfer, member: str, checksum_member: str, length_bytes: int, expected: str) -> None:
    if length_bytes > _CHECKSUM_BYTES_MAX:
        raise ApiFailure("INTERNAL_ERROR", "Out of memory")
    text = bytearray(length_bytes)
    _fill(one, memoryview(text))
    _fill(one, memoryview(bytearray(-length_bytes % _RECORD_BYTES)))
    found = text.decode("latin-1")
    original = splitext(checksum_member)[0]
    if original != member:
        raise ApiFailure("INTERNAL_ERROR", "Not_found")
    if found != expected:
        reason = f"Block {original} checksum failed: original = {found}; recomputed = {expected}"
        raise ApiFailure("INTERNAL_ERROR", f"Stream_vdi.Invalid_checksum({quoted(reason)})")


def _fill(one: Transfer, view: memoryview) -> None:
    if one.connection.readinto_fully(view) < len(view):
        raise end_of_file()
