"""An uploaded archive from its first bytes: plain, or unpacked on the way when it is none.

The first record decides: a tar header that names the description is an archive, everything else is taken for a packed
one, zstd by its first bytes and gzip otherwise. So rubbish ends like a packed archive that cannot be unpacked: with the
end of its data. Invariant: memory is bounded, whatever a small upload unpacks to.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from backports import zstd

from holdfast.core import KIB, MIB
from holdfast.formats.vhd import ByteStream
from holdfast.formats.xva import XVA_DESCRIPTION_NAME, XvaArchive, XvaDamaged, XvaMember, XvaTruncated
from holdfast.lab.errors import ApiFailure
from holdfast.lab.http import Connection

__all__ = ["EndOfFile", "OpenArchive", "open_archive"]

_RECORD_BYTES = 512
_PACKED_BYTES = 64 * KIB
_UNPACKED_BYTES = MIB
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DESCRIPTION_BYTES_MAX = 64 * MIB
"""A description of a VM takes 20 KB; this is thousands of them."""


class EndOfFile(Exception):
    """The upload ends before its content is complete."""


@dataclass(slots=True)
class OpenArchive:
    """An archive whose description was read."""

    description: bytes
    members: XvaArchive
    is_packed: bool

    def next_member(self) -> XvaMember:
        """Return the next member; the pool's own exceptions when there is none."""
        try:
            member = self.members.next_member()
        except XvaTruncated as cause:
            raise EndOfFile from cause
        except XvaDamaged as cause:
            reason = 'Failure("Int64.of_string")' if cause.is_number else "Tar.Header.Checksum_mismatch"
            raise ApiFailure("INTERNAL_ERROR", reason) from cause
        if member is None:
            raise ApiFailure("INTERNAL_ERROR", "Tar.Header.End_of_stream")
        return member

    def readinto(self, view: memoryview) -> None:
        """Fill the view from the open member; ``EndOfFile`` when the upload ends."""
        try:
            self.members.readinto(view)
        except XvaTruncated as cause:
            raise EndOfFile from cause

    def read(self, length_bytes: int) -> bytes:
        """Return so many bytes of the open member; ``EndOfFile`` when the upload ends."""
        data = bytearray(length_bytes)
        self.readinto(memoryview(data))
        return bytes(data)


def open_archive(connection: Connection, *, length_bytes: int | None) -> OpenArchive:
    """Return the archive that comes on the connection. ``length_bytes`` is what the head announced: a plain archive
    ends where it ends, a packed one ends there. ``EndOfFile``, or the pool's own exceptions as ``ApiFailure``."""
    first = bytearray(_RECORD_BYTES)
    if connection.readinto_fully(memoryview(first)) < _RECORD_BYTES:
        raise EndOfFile
    plain = XvaArchive(_Behind(bytes(first), connection))
    is_blank = not any(first)
    try:
        member = plain.next_member()
    except XvaTruncated as cause:
        raise EndOfFile from cause
    except XvaDamaged as cause:
        if is_blank:
            raise ApiFailure("INTERNAL_ERROR", "Tar.Header.Checksum_mismatch") from cause
        return _open_packed(connection, bytes(first), length_bytes=length_bytes)
    if member is None:
        raise ApiFailure("INTERNAL_ERROR", "Invalid argument: result is Error _")
    if member.name != XVA_DESCRIPTION_NAME and not is_blank:
        return _open_packed(connection, bytes(first), length_bytes=length_bytes)
    return _with_description(plain, member, is_packed=False)


def _open_packed(connection: Connection, first: bytes, *, length_bytes: int | None) -> OpenArchive:
    packed = _Limited(_Behind(first, connection), length_bytes)
    unpacked = _Unpacked(packed, _unzstd() if first.startswith(_ZSTD_MAGIC) else _gunzip())
    archive = OpenArchive(b"", XvaArchive(unpacked), is_packed=True)
    return _with_description(archive.members, archive.next_member(), is_packed=True)


def _with_description(members: XvaArchive, member: XvaMember, *, is_packed: bool) -> OpenArchive:
    if member.name != XVA_DESCRIPTION_NAME:
        raise ApiFailure("IMPORT_ERROR_UNEXPECTED_FILE", XVA_DESCRIPTION_NAME, member.name)
    if member.length_bytes > _DESCRIPTION_BYTES_MAX:
        raise EndOfFile
    archive = OpenArchive(b"", members, is_packed)
    archive.description = archive.read(member.length_bytes)
    return archive


class _Behind:
    """A stream behind bytes that were read from it already."""

    def __init__(self, first: bytes, stream: ByteStream) -> None:
        self._first = memoryview(first)
        self._stream = stream

    def readinto(self, view: memoryview, /) -> int:
        """See ``ByteStream.readinto``."""
        if len(self._first):
            count = min(len(view), len(self._first))
            view[:count] = self._first[:count]
            self._first = self._first[count:]
            return count
        return self._stream.readinto(view) or 0


class _Limited:
    """A stream up to the length that was announced for it."""

    def __init__(self, stream: ByteStream, length_bytes: int | None) -> None:
        self._stream = stream
        self._left_bytes = length_bytes

    def readinto(self, view: memoryview, /) -> int:
        """See ``ByteStream.readinto``."""
        if self._left_bytes is None:
            return self._stream.readinto(view) or 0
        count = self._stream.readinto(view[: max(0, self._left_bytes)]) if self._left_bytes > 0 else 0
        self._left_bytes -= count or 0
        return count or 0


Unpack = Callable[[bytes, int], bytes | None]
"""Gets packed bytes (empty for no new ones) and how many unpacked ones may come back; None at the end or at rubbish."""


class _Unpacked:
    """The content of a packed stream. What cannot be unpacked ends it."""

    def __init__(self, stream: ByteStream, unpack: Unpack) -> None:
        self._stream = stream
        self._unpack = unpack
        self._ready = memoryview(b"")
        self._is_over = False

    def readinto(self, view: memoryview, /) -> int:
        """See ``ByteStream.readinto``."""
        while not len(self._ready) and not self._is_over:
            self._refill()
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _refill(self) -> None:
        more = self._unpack(b"", _UNPACKED_BYTES)
        if more == b"":
            packed = bytearray(_PACKED_BYTES)
            count = self._stream.readinto(memoryview(packed)) or 0
            if not count:
                self._is_over = True
                return
            more = self._unpack(bytes(packed[:count]), _UNPACKED_BYTES)
        if more is None:
            self._is_over = True
        else:
            self._ready = memoryview(more)


def _gunzip() -> Unpack:
    """Return an unpacker for gzip, one member after the other."""
    state = zlib.decompressobj(wbits=31)
    waiting = b""

    def unpack(packed: bytes, room_bytes: int) -> bytes | None:
        nonlocal state, waiting
        waiting += packed
        if state.eof:
            waiting = state.unused_data + waiting
            state = zlib.decompressobj(wbits=31)
        if not waiting:
            return b""
        try:
            more = state.decompress(waiting, room_bytes)
        except zlib.error:
            return None
        waiting = b"" if state.eof else state.unconsumed_tail
        return more

    return unpack


def _unzstd() -> Unpack:
    """Return an unpacker for zstd, one frame after the other."""
    state = zstd.ZstdDecompressor()

    def unpack(packed: bytes, room_bytes: int) -> bytes | None:
        nonlocal state
        try:
            if state.eof:
                packed = state.unused_data + packed
                state = zstd.ZstdDecompressor()
            if not packed and state.needs_input:
                return b""
            return state.decompress(packed, room_bytes)
        except zstd.ZstdError:
            return None

    return unpack
