"""Reads an XVA forward from any stream: member by member, or as the blocks of its disks with their places.

The number in a member's name counts, it does not tell a place: numbers left out are blocks of zeros, while a member
that is there moves on by its own length, and an empty one by nothing. Invariant: ``XvaReader.blocks`` yields no byte
whose checksum was not compared, and ends only at the end of the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.core import KIB, MIB
from holdfast.formats.vhd import ByteStream
from holdfast.formats.xva.errors import XvaDamaged, XvaTruncated
from holdfast.formats.xva.layout import (
    BLOCK_BYTES,
    CHECKSUM_SUFFIX,
    DESCRIPTION_NAME,
    DISK_MEMBER,
    HEADER,
    LEGACY_CHECKSUM_SUFFIX,
    RECORD_BYTES,
    SUM_AT,
)
from holdfast.formats.xva.write import block_checksum

__all__ = ["XvaArchive", "XvaBlock", "XvaMember", "XvaReader"]

DESCRIPTION_BYTES_MAX = 64 * MIB
"""A description of a VM takes 20 KB; this is thousands of them."""

_CHECKSUM_BYTES_MAX = 4 * KIB
_SKIP_BYTES = 64 * KIB


@dataclass(frozen=True, slots=True)
class XvaMember:
    """The header of one member. Its data follows on the stream."""

    name: str
    length_bytes: int
    offset_bytes: int
    """Where its header begins in the archive."""


class XvaArchive:
    """The members of an archive as they come, without a thought about what they mean."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._padding_bytes = 0
        self._left_bytes = 0
        self.offset_bytes = 0

    def next_member(self) -> XvaMember | None:
        """Return the next member, what is left of the last one skipped; None at the two zero records of the end.

        A single zero record in front of a member is passed over. ``XvaTruncated``, ``XvaDamaged``.
        """
        self._skip(self._left_bytes + self._padding_bytes)
        for _ in range(2):
            offset_bytes = self.offset_bytes
            head = self._take(RECORD_BYTES, expected="a header")
            if any(head):
                return self._open(head, offset_bytes)
        return None

    def _open(self, head: bytes, offset_bytes: int) -> XvaMember:
        spelled, _, _, _, length, _, told = HEADER.unpack_from(head)
        blank = bytearray(head)
        blank[SUM_AT] = b" " * 8
        if _octal(told, offset_bytes) != sum(blank):
            raise XvaDamaged(offset_bytes, "the checksum of a header is wrong")
        self._left_bytes = _octal(length, offset_bytes)
        self._padding_bytes = -self._left_bytes % RECORD_BYTES
        return XvaMember(spelled.partition(b"\0")[0].decode("latin-1"), self._left_bytes, offset_bytes)

    def readinto(self, view: memoryview) -> None:
        """Fill the view with the next bytes of the open member. ``XvaTruncated`` when the stream ends."""
        assert len(view) <= self._left_bytes
        self._fill(view, expected="the data of a member")
        self._left_bytes -= len(view)

    def read(self, length_bytes: int) -> bytes:
        """Return the next bytes of the open member. ``XvaTruncated`` when the stream ends."""
        data = bytearray(length_bytes)
        self.readinto(memoryview(data))
        return bytes(data)

    def _take(self, length_bytes: int, *, expected: str) -> bytes:
        data = bytearray(length_bytes)
        self._fill(memoryview(data), expected=expected)
        return bytes(data)

    def _fill(self, view: memoryview, *, expected: str) -> None:
        filled = 0
        while filled < len(view):
            count = self._stream.readinto(view[filled:])
            if not count:
                raise XvaTruncated(self.offset_bytes + filled, expected=expected)
            filled += count
        self.offset_bytes += filled

    def _skip(self, length_bytes: int) -> None:
        scratch = memoryview(bytearray(min(length_bytes, _SKIP_BYTES)))
        self._left_bytes = self._padding_bytes = 0
        while length_bytes:
            part = scratch[: min(length_bytes, _SKIP_BYTES)]
            self._fill(part, expected="the rest of a member")
            length_bytes -= len(part)


def _octal(word: bytes, offset_bytes: int) -> int:
    digits = word.strip(b"\0 ")
    try:
        return int(digits or b"0", 8)
    except ValueError as cause:
        raise XvaDamaged(offset_bytes, "a number in a header is not octal", is_number=True) from cause


@dataclass(frozen=True, slots=True)
class XvaBlock:
    """Some bytes of a disk. The data is overwritten by the next block."""

    disk: str
    """The disk's name in the description, ``Ref:7``."""
    offset_bytes: int
    """Where they lie on the disk."""
    data: memoryview


class XvaReader:
    """An archive as what it means: a description, and blocks of disks. What is not yielded of a disk is zero."""

    def __init__(self, stream: ByteStream) -> None:
        self._archive = XvaArchive(stream)
        self._buffer = memoryview(bytearray(BLOCK_BYTES))
        self._zero_block_bytes: int | None = None
        self._closed: set[str] = set()

    def read_description(self) -> bytes:
        """Return the first member, an XML document. ``XvaTruncated``, ``XvaDamaged``."""
        member = self._archive.next_member()
        if member is None or member.name != DESCRIPTION_NAME:
            raise XvaDamaged(0, f"it does not begin with {DESCRIPTION_NAME}")
        if member.length_bytes > DESCRIPTION_BYTES_MAX:
            raise XvaDamaged(0, f"its description claims {member.length_bytes} bytes")
        return self._archive.read(member.length_bytes)

    def blocks(self) -> Iterator[XvaBlock]:
        """Yield the blocks of all disks in order, each with a right checksum. ``XvaTruncated``, ``XvaDamaged``."""
        disk, number, place_bytes = "", -1, 0
        while (member := self._archive.next_member()) is not None:
            found = DISK_MEMBER.fullmatch(member.name)
            if found is None or found["suffix"]:
                raise XvaDamaged(member.offset_bytes, f"{member.name!r} is no block of a disk")
            if found["disk"] != disk:
                self._open_disk(member, found["disk"], before=disk)
                disk, number, place_bytes = found["disk"], -1, 0
            skipped = int(found["number"]) - number - 1
            if skipped < 0:
                raise XvaDamaged(member.offset_bytes, f"{member.name!r} comes behind number {number}")
            number = int(found["number"])
            data = self._checked_data(member)
            if self._zero_block_bytes is None:
                self._zero_block_bytes = member.length_bytes
            place_bytes += skipped * self._zero_block_bytes
            if len(data):
                yield XvaBlock(disk, place_bytes, data)
            place_bytes += len(data)

    def _open_disk(self, member: XvaMember, disk: str, *, before: str) -> None:
        if disk in self._closed:
            raise XvaDamaged(member.offset_bytes, f"the blocks of {disk} are torn apart")
        self._closed.add(before)

    def _checked_data(self, member: XvaMember) -> memoryview:
        if member.length_bytes > BLOCK_BYTES:
            raise XvaDamaged(member.offset_bytes, f"{member.name!r} is longer than a block")
        data = self._buffer[: member.length_bytes]
        self._archive.readinto(data)
        told = self._archive.next_member()
        if told is None or told.length_bytes > _CHECKSUM_BYTES_MAX:
            raise XvaDamaged(member.offset_bytes, f"{member.name!r} has no checksum")
        text = self._archive.read(told.length_bytes).decode("latin-1")
        match told.name.removeprefix(member.name):
            case suffix if suffix == CHECKSUM_SUFFIX:
                right = block_checksum(data)
            case suffix if suffix == LEGACY_CHECKSUM_SUFFIX:
                right = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            case _:
                raise XvaDamaged(told.offset_bytes, f"{told.name!r} is no checksum of {member.name!r}")
        if text != right:
            raise XvaDamaged(member.offset_bytes, f"the checksum of {member.name!r} is wrong")
        return data
