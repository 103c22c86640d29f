"""The faults of a VM's export that only show inside its tar: a wrong checksum, an empty member that shifts the numbers.

Works on the tar as it passes, before it is compressed. Invariant: without an armed fault the stream is the same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.lab.context import PoolCore
from holdfast.lab.faults import ArmedFault

__all__ = ["with_xva_faults"]

Piece = bytes | bytearray | memoryview

_RECORD_BYTES = 512
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_SUM = slice(148, 156)
_EMPTY_XXH64 = b"EF46DB3751D8E999"
"""XXH64 of nothing, as a pool spells it."""


def with_xva_faults(pool: PoolCore, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Return the pieces of an XVA; armed faults damage a checksum or put an empty member in."""
    wrong = pool.faults.take("xva-checksum-wrong")
    empty = pool.faults.take("xva-keep-alive")
    return pieces if wrong is None and empty is None else _spoiled(pieces, wrong, empty)


def _spoiled(pieces: Iterable[Piece], wrong: ArmedFault | None, empty: ArmedFault | None) -> Iterator[Piece]:
    stream = _Records(pieces)
    block, shift, disk = -1, 0, ""
    while header := stream.take(_RECORD_BYTES):
        body = stream.take(-(-_size(header) // _RECORD_BYTES) * _RECORD_BYTES)
        folder, _, file = header[_NAME].rstrip(b"\0").decode("ascii", "replace").partition("/")
        number, _, suffix = file.partition(".")
        if not number.isdigit():
            yield header + body
            continue
        if folder != disk:
            disk, shift = folder, 0
        if not suffix:
            block += 1
            if empty is not None and block == empty.number("block"):
                yield from _empty_member(header, f"{folder}/{int(number) + shift:08d}")
                shift += 1
        elif wrong is not None and block == wrong.number("block"):
            body = body[:1].translate(_OTHER_DIGIT) + body[1:]
        ending = f".{suffix}" if suffix else ""
        yield _with(header, name=f"{folder}/{int(number) + shift:08d}{ending}") + body


_OTHER_DIGIT = bytes.maketrans(b"0123456789ABCDEFabcdef", b"123456789ABCDEF0bcdefa")


def _empty_member(like: bytes, name: str) -> Iterator[bytes]:
    """Yield a member without content, and its checksum's."""
    yield _with(like, name=name, size_bytes=0)
    yield _with(like, name=f"{name}.xxhash", size_bytes=len(_EMPTY_XXH64)) + _EMPTY_XXH64.ljust(_RECORD_BYTES, b"\0")


def _size(header: bytes) -> int:
    digits = header[_SIZE].strip(b" \0")
    return int(digits, 8) if digits else 0


def _with(header: bytes, *, name: str, size_bytes: int | None = None) -> bytes:
    """Return a member's head with another name and size, and the checksum that goes with them."""
    changed = bytearray(header)
    changed[_NAME] = name.encode("ascii").ljust(100, b"\0")
    if size_bytes is not None:
        changed[_SIZE] = f"{size_bytes:011o}\0".encode("ascii")
    changed[_SUM] = b" " * 8
    changed[_SUM] = f"{sum(changed):06o}\0 ".encode("ascii")
    return bytes(changed)


class _Records:
    """Bytes by count, from pieces of any size."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def take(self, length_bytes: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        while len(self._held) < length_bytes and (piece := next(self._pieces, None)) is not None:
            self._held += piece
        taken = bytes(self._held[:length_bytes])
        del self._held[:length_bytes]
        return taken
