"""Which clusters a qcow2 holds, from the front of one that arrives once: the body of an export.

Only streams as pools write them are read: tables first, each behind the one before it, then the data in the order of
the disk. Invariant: an entry counts only when it points exactly where such a stream has its cluster, so a table that
was cut, moved or made up is refused; nothing behind the tables is read.

Memory is one byte for each cluster of the disk (16 MiB for each TiB), the first-level table (8 bytes for each 512 MiB,
at most ``L1_BYTES_MAX``) and one second-level table. What is read is at most 8 bytes for each cluster that the stream
carries, 8 for each cluster of the disk, and a few clusters.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from holdfast.core import KIB
from holdfast.formats.qcow2 import layout
from holdfast.formats.qcow2.errors import Qcow2Damaged, Qcow2Truncated, Qcow2Unsupported
from holdfast.formats.qcow2.read import Qcow2Header, Qcow2Reader

__all__ = ["Qcow2Head", "read_qcow2_head"]

_SKIP_BYTES = 64 * KIB
_CLUSTERS_SPARE = 16
"""The header, and what the parts in front of the first-level table are rounded up by."""


class ByteStream(Protocol):
    """Where a stream comes from: an HTTP body, a pipe, an open file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill some of the buffer and return how much; 0 at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Qcow2Head:
    """What a stream will carry."""

    size_bytes: int
    cluster_bytes: int
    held: NDArray[np.bool_]
    """One flag for each cluster of the disk; what is not held is zero."""


def read_qcow2_head(stream: ByteStream, *, size_bytes_max: int) -> Qcow2Head:
    """Return what a whole disk's qcow2 holds, having read no further than its tables; the rest is left alone.

    Raises ``Qcow2Truncated``, ``Qcow2Damaged`` or ``Qcow2Unsupported``; the last also for a qcow2 that is in order, but
    whose tables do not come first, and for a disk larger than ``size_bytes_max``.
    """
    reader = _Forward(stream)
    header = Qcow2Reader(io.BytesIO(reader.take(layout.HEADER_V3_LENGTH, expected="the header"))).header
    _check_header(header, size_bytes_max=size_bytes_max)
    count = -(-header.size_bytes // header.cluster_bytes)
    reader.skip_to(header.table_offset_bytes, limit_bytes=_front_bytes_max(header, count), expected="the L1 table")
    first_level = reader.entries(header.table_entries, expected="the L1 table")
    tables_at = reader.offset_bytes + -reader.offset_bytes % header.cluster_bytes
    numbers = _numbers_of_tables(first_level, header, count=count, tables_at=tables_at)
    reader.skip_to(tables_at, limit_bytes=tables_at, expected="an L2 table")
    held = np.zeros(-(-count // header.entries_per_table) * header.entries_per_table, dtype=np.bool_)
    data_at = tables_at + len(numbers) * header.cluster_bytes
    for number in numbers:
        table = reader.entries(header.entries_per_table, expected="an L2 table")
        flags = _held_in(table, header, data_at=data_at)
        held[number * header.entries_per_table : (number + 1) * header.entries_per_table] = flags
        data_at += int(np.count_nonzero(flags)) * header.cluster_bytes
    if held[count:].any():
        raise Qcow2Damaged(tables_at, "a cluster behind the disk's end")
    return Qcow2Head(size_bytes=header.size_bytes, cluster_bytes=header.cluster_bytes, held=held[:count])


def _check_header(header: Qcow2Header, *, size_bytes_max: int) -> None:
    if not 0 < header.size_bytes <= size_bytes_max:
        raise Qcow2Unsupported(24, f"a disk of {header.size_bytes} bytes, where at most {size_bytes_max} were expected")
    if header.cluster_bytes < layout.CLUSTER_BYTES_WRITTEN:
        # Tables of smaller clusters could outweigh all limits; pools make none.
        raise Qcow2Unsupported(20, f"clusters of {header.cluster_bytes} bytes")
    if header.has_backing_file:
        raise Qcow2Unsupported(8, "what it does not hold is in another file")


def _front_bytes_max(header: Qcow2Header, count: int) -> int:
    """Return how far in the first-level table may begin: behind the reference counts, of at most 64 bits a cluster."""
    tables = -(-count // header.entries_per_table)
    counts_bytes = (count + 2 * tables) * layout.ENTRY_BYTES
    return counts_bytes + counts_bytes // header.entries_per_table + _CLUSTERS_SPARE * header.cluster_bytes


def _numbers_of_tables(
    first_level: NDArray[np.uint64], header: Qcow2Header, *, count: int, tables_at: int
) -> list[int]:
    """Return which second-level tables there are, which follow each other from ``tables_at`` on."""
    numbers = np.flatnonzero(first_level)
    if numbers.size and numbers[-1] * header.entries_per_table >= count:
        raise Qcow2Damaged(header.table_offset_bytes, "an L2 table behind the disk's end")
    places = first_level[numbers] & ~np.uint64(layout.FLAG_COPIED)
    wrong = np.flatnonzero(places != _following(tables_at, numbers.size, header))
    if wrong.size:
        at = int(places[wrong[0]]) & layout.OFFSET_MASK
        raise Qcow2Unsupported(at, "its tables do not come first")
    return [int(number) for number in numbers]


def _held_in(table: NDArray[np.uint64], header: Qcow2Header, *, data_at: int) -> NDArray[np.bool_]:
    """Return which entries of a table hold data, which follows from ``data_at`` on."""
    held: NDArray[np.bool_] = table != 0
    if header.version > 2:
        held &= table != np.uint64(layout.FLAG_ZERO)
    entries = table[held]
    places = entries & ~np.uint64(layout.FLAG_COPIED)
    wrong = np.flatnonzero(places != _following(data_at, entries.size, header))
    if wrong.size:
        at = int(entries[wrong[0]]) & layout.OFFSET_MASK
        raise Qcow2Unsupported(at, "its data does not follow in the order of the disk")
    return held


def _following(start: int, count: int, header: Qcow2Header) -> NDArray[np.uint64]:
    """Return where clusters are that follow each other."""
    return np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(header.cluster_bytes)


class _Forward:
    """Exact reads from a stream, counting."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.offset_bytes = 0

    def take(self, length_bytes: int, *, expected: str) -> bytearray:
        data = bytearray(length_bytes)
        self._fill(memoryview(data), expected=expected)
        return data

    def entries(self, count: int, *, expected: str) -> NDArray[np.uint64]:
        data = self.take(count * layout.ENTRY_BYTES, expected=expected)
        return np.frombuffer(data, dtype=">u8").astype(np.uint64)

    def skip_to(self, offset_bytes: int, *, limit_bytes: int, expected: str) -> None:
        """Read and drop what lies before an offset; nothing is read when that is too far away."""
        if not self.offset_bytes <= offset_bytes <= limit_bytes:
            raise Qcow2Unsupported(offset_bytes, "its tables do not come first")
        scratch = memoryview(bytearray(_SKIP_BYTES))
        while self.offset_bytes < offset_bytes:
            self._fill(scratch[: offset_bytes - self.offset_bytes], expected=expected)

    def _fill(self, view: memoryview, *, expected: str) -> None:
        filled = 0
        while filled < len(view):
            got = self._stream.readinto(view[filled:])
            if not got:
                raise Qcow2Truncated(self.offset_bytes + len(view), expected=expected)
            filled += got
        self.offset_bytes += filled
