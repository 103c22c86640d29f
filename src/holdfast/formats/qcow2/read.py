"""Reads a qcow2 at random: its header, which clusters it holds, and what is in them.

Invariant: nothing is believed before it was held against the limits, so a hostile file costs no more memory than its
tables: one L2 table at a time, and one cluster. Reference counts and snapshots are not looked at.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES
from holdfast.formats.qcow2 import layout
from holdfast.formats.qcow2.errors import Qcow2Damaged, Qcow2TooLarge, Qcow2Truncated, Qcow2Unsupported

__all__ = ["ClusterKind", "Qcow2Cluster", "Qcow2Header", "Qcow2Reader", "SeekableBytes"]


class SeekableBytes(Protocol):
    """Where a file comes from."""

    def seek(self, offset_bytes: int, /) -> int:
        """Move to an offset from the start."""
        ...

    def read(self, length_bytes: int, /) -> bytes:
        """Return that many bytes, fewer only at the end."""
        ...


class ClusterKind(enum.Enum):
    """How a file holds a cluster."""

    DATA = "data"
    COMPRESSED = "compressed"
    ZERO = "zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """What a file says of itself."""

    version: int
    size_bytes: int
    cluster_bytes: int
    table_entries: int
    table_offset_bytes: int
    is_zstd: bool
    has_backing_file: bool
    """Whether what the file does not hold is in another file, instead of zero."""

    @property
    def entries_per_table(self) -> int:
        """How many clusters one second-level table covers."""
        return self.cluster_bytes // layout.ENTRY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Cluster:
    """One cluster that the file holds, and where."""

    offset_bytes: int
    """Where it is on the disk."""
    length_bytes: int
    """The size of a cluster, less only at the disk's end."""
    kind: ClusterKind
    place_bytes: int
    """Where it is in the file."""
    stored_bytes: int


class Qcow2Reader:
    """A qcow2 on anything that seeks. ``Qcow2Error`` from every method when the file is wrong."""

    def __init__(self, source: SeekableBytes) -> None:
        self._source = source
        self.header = self._read_header()

    def clusters(self) -> Iterator[Qcow2Cluster]:
        """Yield every cluster that the file holds, in the order of the disk."""
        header = self.header
        first_level = self._entries(header.table_offset_bytes, header.table_entries, "the L1 table")
        count = -(-header.size_bytes // header.cluster_bytes)
        for number in np.flatnonzero(first_level).tolist():
            table_offset = int(first_level[number]) & layout.OFFSET_MASK
            if table_offset == 0:
                continue
            self._check_place(table_offset, "an L2 table")
            table = self._entries(table_offset, header.entries_per_table, "an L2 table")
            first = number * header.entries_per_table
            for index in np.flatnonzero(table).tolist():
                if first + index < count:
                    cluster = self._cluster(first + index, int(table[index]))
                    if cluster is not None:
                        yield cluster

    def read(self, cluster: Qcow2Cluster) -> bytes:
        """Return the cluster's bytes."""
        if cluster.kind is ClusterKind.ZERO:
            return bytes(cluster.length_bytes)
        stored = self._take(cluster.place_bytes, cluster.stored_bytes, "a cluster", is_exact=False)
        if cluster.kind is ClusterKind.DATA:
            if len(stored) < cluster.length_bytes:
                raise Qcow2Truncated(cluster.place_bytes + cluster.length_bytes, expected="a cluster's end")
            return stored[: cluster.length_bytes]
        return self._decompress(cluster, stored)[: cluster.length_bytes]

    def length_bytes(self) -> int:
        """Return how long the file must be at least to hold everything that it points to."""
        header = self.header
        end = header.table_offset_bytes + header.table_entries * layout.ENTRY_BYTES
        for cluster in self.clusters():
            if cluster.kind is ClusterKind.DATA:
                end = max(end, cluster.place_bytes + cluster.length_bytes)
            elif cluster.kind is ClusterKind.COMPRESSED:
                end = max(end, cluster.place_bytes + cluster.stored_bytes - SECTOR_BYTES + 1)
        return end

    def _read_header(self) -> Qcow2Header:
        data = self._take(0, layout.HEADER_V2.size, "the header")
        magic, version, backing, _, bits, size, encryption, entries, table, _, _, _, _ = layout.HEADER_V2.unpack(data)
        if magic != layout.MAGIC:
            raise Qcow2Damaged(0, "this is no qcow2")
        if version not in layout.VERSIONS:
            raise Qcow2Unsupported(4, f"version {version}")
        if not layout.CLUSTER_BITS_MIN <= bits <= layout.CLUSTER_BITS_MAX:
            raise Qcow2Damaged(20, f"clusters of 2^{bits} bytes")
        if encryption != 0:
            raise Qcow2Unsupported(32, "it is encrypted")
        if size > layout.DISK_BYTES_MAX:
            raise Qcow2TooLarge(size)
        cluster_bytes = 1 << bits
        per_table = cluster_bytes * (cluster_bytes // layout.ENTRY_BYTES)
        if entries * layout.ENTRY_BYTES > layout.L1_BYTES_MAX or entries < -(-size // per_table):
            raise Qcow2Damaged(36, f"an L1 table of {entries} entries for a disk of {size} bytes")
        if table % cluster_bytes or table & ~layout.OFFSET_MASK or (entries and not table):
            raise Qcow2Damaged(40, f"the L1 table at byte {table}")
        return Qcow2Header(
            version=version,
            size_bytes=size,
            cluster_bytes=cluster_bytes,
            table_entries=entries,
            table_offset_bytes=table,
            is_zstd=version > 2 and self._is_zstd(),
            has_backing_file=backing != 0,
        )

    def _is_zstd(self) -> bool:
        """Check the features of version 3 and return which compression they name."""
        start = layout.HEADER_V2.size
        data = self._take(start, layout.HEADER_V3.size, "the header's features")
        features, _, _, _, length, compression = layout.HEADER_V3.unpack(data)
        if length < layout.HEADER_V3_LENGTH_MIN:
            raise Qcow2Damaged(100, f"a header of {length} bytes")
        if features & ~layout.FEATURES_READ:
            raise Qcow2Unsupported(start, f"incompatible features {features & ~layout.FEATURES_READ:#x}")
        if not features & layout.FEATURE_COMPRESSION:
            return False
        if compression not in (layout.COMPRESSION_ZLIB, layout.COMPRESSION_ZSTD):
            raise Qcow2Unsupported(104, f"compression {compression}")
        return bool(compression == layout.COMPRESSION_ZSTD)

    def _cluster(self, index: int, entry: int) -> Qcow2Cluster | None:
        header = self.header
        offset = index * header.cluster_bytes
        kind, place, stored = ClusterKind.DATA, entry & layout.OFFSET_MASK, header.cluster_bytes
        if entry & layout.FLAG_COMPRESSED:
            kind = ClusterKind.COMPRESSED
            place_bits = 62 - (header.cluster_bytes.bit_length() - 1 - 8)
            place = entry & ((1 << place_bits) - 1)
            sectors = (entry & (layout.FLAG_COMPRESSED - 1)) >> place_bits
            stored = (sectors + 1) * SECTOR_BYTES - place % SECTOR_BYTES
        elif header.version > 2 and entry & layout.FLAG_ZERO:
            kind, stored = ClusterKind.ZERO, 0
        elif place == 0:
            return None
        else:
            self._check_place(place, "a cluster")
        return Qcow2Cluster(
            offset_bytes=offset,
            length_bytes=min(header.cluster_bytes, header.size_bytes - offset),
            kind=kind,
            place_bytes=place,
            stored_bytes=stored,
        )

    def _decompress(self, cluster: Qcow2Cluster, stored: bytes) -> bytes:
        size = self.header.cluster_bytes
        try:
            if self.header.is_zstd:
                data = zstd.ZstdDecompressor().decompress(stored, max_length=size)
            else:
                data = zlib.decompressobj(wbits=-12).decompress(stored, size)
        except (zlib.error, zstd.ZstdError) as cause:
            raise Qcow2Damaged(cluster.place_bytes, f"a cluster does not decompress: {cause}") from cause
        if len(data) < size:
            raise Qcow2Damaged(cluster.place_bytes, f"a cluster decompresses to {len(data)} of {size} bytes")
        return data

    def _check_place(self, place: int, what: str) -> None:
        if place % self.header.cluster_bytes:
            raise Qcow2Damaged(place, f"{what} does not begin at a cluster")

    def _entries(self, offset: int, count: int, what: str) -> NDArray[np.uint64]:
        return np.frombuffer(self._take(offset, count * layout.ENTRY_BYTES, what), dtype=">u8").astype(np.uint64)

    def _take(self, offset_bytes: int, length_bytes: int, what: str, *, is_exact: bool = True) -> bytes:
        self._source.seek(offset_bytes)
        data = self._source.read(length_bytes)
        if is_exact and len(data) < length_bytes:
            raise Qcow2Truncated(offset_bytes + length_bytes, expected=f"the end of {what}")
        return data
