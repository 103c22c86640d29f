"""A prepared file system as it is committed: its structures and the places of its files, without the files' bytes.

Layout of the file: ``LABFSYS1``, the length of the description (big-endian, 32 bits), the description as JSON, then all
different blocks one after the other; from the description's length on everything is one xz stream. Invariant: a block
that is not named is zeros, or belongs to a file that whoever places the file system fills.
"""

from __future__ import annotations

import lzma
import struct
from dataclasses import dataclass

import msgspec

from holdfast.core import from_json
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.model import Extent

__all__ = ["PREPARED_BLOCK_BYTES", "PreparedFile", "PreparedFilesystem", "pack_prepared", "unpack_prepared"]

PREPARED_BLOCK_BYTES = 4096
_MAGIC = b"LABFSYS1"
_LENGTH = struct.Struct(">I")
_PLAIN_BYTES_MAX = 64 << 20
_PACKING = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
_FILTERS = ([_PACKING], [{"id": lzma.FILTER_DELTA, "dist": 2}, _PACKING])
"""The second one is for the table of capital letters in an NTFS file system: 64 Ki numbers that count upwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFile:
    """A file that has all its blocks; ``extents`` count from the start of the file system."""

    path: str
    size_bytes: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFilesystem:
    """A file system of a fixed size; ``blocks`` are its structures, by number, ascending."""

    kind: FilesystemKind
    size_bytes: int
    files: tuple[PreparedFile, ...]
    blocks: tuple[tuple[int, bytes], ...]


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: FilesystemKind
    size_bytes: int
    files: list[tuple[str, int, list[tuple[int, int]]]]
    runs: list[tuple[int, int, int]]
    """(first block, blocks, number of the bytes): all blocks of a run hold the same."""


def pack_prepared(filesystem: PreparedFilesystem) -> bytes:
    """Return the file system as it is committed."""
    numbers: dict[bytes, int] = {}
    runs: list[tuple[int, int, int]] = []
    for index, block in filesystem.blocks:
        number = numbers.setdefault(block, len(numbers))
        if runs and runs[-1][2] == number and sum(runs[-1][:2]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, number)
        else:
            runs.append((index, 1, number))
    description = _Description(
        kind=filesystem.kind,
        size_bytes=filesystem.size_bytes,
        files=[
            (file.path, file.size_bytes, [(part.offset_bytes, part.length_bytes) for part in file.extents])
            for file in filesystem.files
        ],
        runs=runs,
    )
    text = msgspec.json.encode(description)
    plain = _LENGTH.pack(len(text)) + text + b"".join(numbers)
    return _MAGIC + min((lzma.compress(plain, filters=filters) for filters in _FILTERS), key=len)


def unpack_prepared(data: bytes) -> PreparedFilesystem:
    """Return a committed file system; it is part of the program, so damage is our mistake."""
    assert data.startswith(_MAGIC)
    plain = lzma.LZMADecompressor().decompress(data[len(_MAGIC) :], _PLAIN_BYTES_MAX)
    (length,) = _LENGTH.unpack_from(plain)
    start = _LENGTH.size + length
    description = from_json(plain[_LENGTH.size : start], _Description)
    blocks = [
        (index, plain[(low := start + number * PREPARED_BLOCK_BYTES) : low + PREPARED_BLOCK_BYTES])
        for first, count, number in description.runs
        for index in range(first, first + count)
    ]
    files = tuple(
        PreparedFile(
            path=path,
            size_bytes=size,
            extents=tuple(Extent(offset_bytes=offset, length_bytes=size_) for offset, size_ in extents),
        )
        for path, size, extents in description.files
    )
    return PreparedFilesystem(
        kind=description.kind, size_bytes=description.size_bytes, files=files, blocks=tuple(blocks)
    )
