"""The faults of a VM's export that only show inside its tar: a wrong checksum, an empty member that shifts the numbers.

Works on the tar as it passes, before it is compressed. Invariant: without an armed fault nothing stands in its way.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.context import PoolCore
from holdfast.lab.faults import ArmedFault

__all__ = ["with_xva_faults"]

Piece = bytes | bytearray | memoryview
Send = Callable[[Piece], None]

_RECORD_BYTES = 512
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_SUM = slice(148, 156)
_EMPTY_XXH64 = b"EF46DB3751D8E999"
"""XXH64 of nothing, as a pool spells it."""


def with_xva_faults(pool: PoolCore, send: Send) -> Send:
    """Return what sends the pieces of an XVA; armed faults damage a checksum or put an empty member in."""
    wrong = pool.faults.take("xva-checksum-wrong")
    empty = pool.faults.take("xva-keep-alive")
    return send if wrong is None and empty is None else _Spoiler(send, wrong, empty)


class _Spoiler:
    """Takes the tar in pieces of any size and passes it on member by member."""

    def __init__(self, send: Send, wrong: ArmedFault | None, empty: ArmedFault | None) -> None:
        self._send = send
        self._wrong_block = -1 if wrong is None else wrong.number("block")
        self._empty_block = -1 if empty is None else empty.number("block")
        self._held = bytearray()
        self._block = -1
        self._disk = ""
        self._shift = 0

    def __call__(self, data: Piece) -> None:
        self._held += data
        while len(self._held) >= _RECORD_BYTES:
            length_bytes = _RECORD_BYTES * (1 + -(-_size(self._held) // _RECORD_BYTES))
            if len(self._held) < length_bytes:
                return
            member = bytes(self._held[:length_bytes])
            del self._held[:length_bytes]
            self._pass(member[:_RECORD_BYTES], member[_RECORD_BYTES:])

    def _pass(self, header: bytes, body: bytes) -> None:
        folder, _, file = header[_NAME].rstrip(b"\0").decode("ascii", "replace").partition("/")
        number, _, suffix = file.partition(".")
        if not number.isdigit():
            self._send(header + body)
            return
        if folder != self._disk:
            self._disk, self._shift = folder, 0
        if not suffix:
            self._block += 1
            if self._block == self._empty_block:
                self._send(_empty_member(header, f"{folder}/{int(number):08d}"))
                self._shift = 1
        elif self._block == self._wrong_block:
            body = body[:1].translate(_OTHER_DIGIT) + body[1:]
        ending = f".{suffix}" if suffix else ""
        self._send(_with(header, name=f"{folder}/{int(number) + self._shift:08d}{ending}") + body)


_OTHER_DIGIT = bytes.maketrans(b"0123456789ABCDEFabcdef", b"123456789ABCDEF0bcdefa")


def _empty_member(like: bytes, name: str) -> bytes:
    """Return a member without content, and its checksum's."""
    checksum = _with(like, name=f"{name}.xxhash", size_bytes=len(_EMPTY_XXH64))
    return _with(like, name=name, size_bytes=0) + checksum + _EMPTY_XXH64.ljust(_RECORD_BYTES, b"\0")


def _size(header: bytes | bytearray) -> int:
    digits = bytes(header[_SIZE]).strip(b" \0")
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
