"""The fields of a MessagePack value, for annotated dumps: where each begins, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack

from tests.support.hexdump import Field

__all__ = ["Layouts", "msgpack_fields"]

Layouts = Mapping[str, Sequence[Field]]
"""What the rows in a field of bytes are made of, by the field's name; ``{}`` in a meaning stands for its number."""

_BINARY_HEADER_BYTES = {0xC4: 2, 0xC5: 3, 0xC6: 5}


def msgpack_fields(payload: bytes, layouts: Layouts) -> list[Field]:
    """Return how many bytes each part of a value takes, and what it says; together they are the whole payload."""
    return list(_Walker(payload, layouts).fields("the payload"))


class _Walker:
    def __init__(self, payload: bytes, layouts: Layouts) -> None:
        self._payload, self._layouts = payload, layouts
        self._unpacker: Any = msgpack.Unpacker(strict_map_key=False)
        self._unpacker.feed(payload)
        self._told = 0

    def fields(self, name: str) -> Iterator[Field]:
        """Yield the parts of the next value; what was read and not yet told, a key, goes with the first of them."""
        first = self._payload[self._unpacker.tell()]
        if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
            count = self._unpacker.read_map_header()
            yield self._tell(f"{name}: a map of {count}")
            for _ in range(count):
                yield from self.fields(self._unpacker.unpack())
        elif 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
            count = self._unpacker.read_array_header()
            yield self._tell(f"{name}: a list of {count}")
            for place in range(count):
                yield from self.fields(str(place))
        elif name in self._layouts and first in _BINARY_HEADER_BYTES:
            yield from self._rows(name, header_bytes=_BINARY_HEADER_BYTES[first])
        else:
            value = self._unpacker.unpack()
            yield self._tell(f"{name}: {f'{len(value)} bytes' if isinstance(value, bytes) else repr(value)}")

    def _rows(self, name: str, *, header_bytes: int) -> Iterator[Field]:
        begin = self._unpacker.tell() + header_bytes
        length_bytes = len(self._unpacker.unpack())
        yield begin - self._told, f"{name}: {length_bytes} bytes"
        self._told = begin
        row_bytes = sum(size for size, _ in self._layouts[name])
        assert length_bytes % row_bytes == 0
        for _ in range(length_bytes // row_bytes):
            for size, meaning in self._layouts[name]:
                piece = self._payload[self._told : self._told + size]
                yield size, meaning.format(int.from_bytes(piece, "little"))
                self._told += size

    def _tell(self, meaning: str) -> Field:
        size, self._told = self._unpacker.tell() - self._told, self._unpacker.tell()
        return size, meaning
