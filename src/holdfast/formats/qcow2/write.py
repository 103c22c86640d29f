"""Writes a qcow2 as a stream: everything about it is planned first, so its length is known to the byte.

Version 3, clusters of 64 KiB, in this order: header, reference counts, first-level table, second-level tables, data.
Invariant: a plan that exists can be streamed; no cluster of it is shared, compressed or empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.core import SECTOR_BYTES
from holdfast.formats.qcow2 import layout
from holdfast.formats.qcow2.errors import Qcow2TooLarge
from holdfast.formats.qcow2.layout import CLUSTER_BYTES_WRITTEN as QCOW2_CLUSTER_BYTES

__all__ = ["QCOW2_CLUSTER_BYTES", "Qcow2Plan", "plan_qcow2", "stream_qcow2"]

_CLUSTERS_PER_PIECE = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Qcow2Plan:
    """A qcow2 to be: which clusters of the disk it holds, and how many clusters each of its parts takes."""

    size_bytes: int
    clusters: NDArray[np.int64]
    """Indexes of the clusters, ascending."""
    table_entries: int
    table_clusters: int
    second_tables: NDArray[np.int64]
    """Which second-level tables there are, ascending."""
    count_tables: int
    count_blocks: int

    @property
    def metadata_clusters(self) -> int:
        """How many clusters come before the data."""
        return 1 + self.count_tables + self.count_blocks + self.table_clusters + len(self.second_tables)

    @property
    def length_bytes(self) -> int:
        """How long the stream is."""
        return (self.metadata_clusters + len(self.clusters)) * QCOW2_CLUSTER_BYTES


def plan_qcow2(size_bytes: int, clusters: NDArray[np.int64]) -> Qcow2Plan:
    """Return the plan for a disk of which only these clusters are held; the size is rounded up to a sector.

    ``Qcow2TooLarge`` when no qcow2 may be so large.
    """
    size_bytes = -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES
    if size_bytes > layout.DISK_BYTES_MAX:
        raise Qcow2TooLarge(size_bytes)
    count = -(-size_bytes // QCOW2_CLUSTER_BYTES)
    assert not clusters.size or (clusters[0] >= 0 and clusters[-1] < count), "a cluster lies behind the disk"
    entries = -(-count // layout.ENTRIES_PER_TABLE)
    table_clusters = -(-entries // layout.ENTRIES_PER_TABLE)
    second_tables = np.unique(clusters // layout.ENTRIES_PER_TABLE)
    used = 1 + table_clusters + len(second_tables) + len(clusters)
    tables, blocks = _counting_clusters(used)
    return Qcow2Plan(
        size_bytes=size_bytes,
        clusters=clusters,
        table_entries=entries,
        table_clusters=table_clusters,
        second_tables=second_tables,
        count_tables=tables,
        count_blocks=blocks,
    )


def _counting_clusters(used: int) -> tuple[int, int]:
    """Return how many clusters the reference counts take, their own included: table, blocks."""
    tables = blocks = 0
    while True:
        wanted_blocks = -(-(used + tables + blocks) // layout.REFERENCES_PER_BLOCK)
        wanted_tables = -(-wanted_blocks // layout.ENTRIES_PER_TABLE)
        if (wanted_tables, wanted_blocks) == (tables, blocks):
            return tables, blocks
        tables, blocks = wanted_tables, wanted_blocks


def stream_qcow2(plan: Qcow2Plan, read_into: Callable[[int, memoryview], None]) -> Iterator[bytes | memoryview]:
    """Yield the file piece by piece; a piece is overwritten by the next one.

    ``read_into(offset, view)`` fills the view from the disk; it is never asked for anything behind the disk's end.
    """
    places = 1 + np.cumsum([0, plan.count_tables, plan.count_blocks, plan.table_clusters, len(plan.second_tables)])
    count_table, count_blocks, first_table, second_tables, data = (int(place) for place in places)
    yield _header(plan, count_table=count_table, first_table=first_table)
    yield _entries(_places(count_blocks, plan.count_blocks), clusters=plan.count_tables)
    yield from _reference_counts(plan)
    first_level = np.zeros(plan.table_entries, dtype=np.uint64)
    first_level[plan.second_tables] = _places(second_tables, len(plan.second_tables)) | np.uint64(layout.FLAG_COPIED)
    yield _entries(first_level, clusters=plan.table_clusters)
    yield from _second_level(plan, data)
    yield from _data(plan, read_into)


def _header(plan: Qcow2Plan, *, count_table: int, first_table: int) -> bytes:
    head = layout.HEADER_V2.pack(
        layout.MAGIC,
        3,
        0,
        0,
        layout.CLUSTER_BITS_WRITTEN,
        plan.size_bytes,
        0,
        plan.table_entries,
        first_table * QCOW2_CLUSTER_BYTES if plan.table_clusters else 0,
        count_table * QCOW2_CLUSTER_BYTES,
        plan.count_tables,
        0,
        0,
    )
    head += layout.HEADER_V3.pack(0, 0, 0, layout.REFERENCE_BITS_ORDER, layout.HEADER_V3_LENGTH, 0)
    names = b"".join(layout.FEATURE_NAME.pack(*feature) for feature in layout.FEATURE_NAMES)
    head += layout.EXTENSION_HEAD.pack(layout.EXTENSION_FEATURE_NAMES, len(names)) + names
    return head.ljust(QCOW2_CLUSTER_BYTES, b"\0")


def _places(first: int, count: int) -> NDArray[np.uint64]:
    return (np.arange(first, first + count, dtype=np.uint64)) * np.uint64(QCOW2_CLUSTER_BYTES)


def _entries(values: NDArray[np.uint64], *, clusters: int) -> bytes:
    return values.astype(">u8").tobytes().ljust(clusters * QCOW2_CLUSTER_BYTES, b"\0")


def _reference_counts(plan: Qcow2Plan) -> Iterator[bytes]:
    """Every cluster of the file is used once."""
    left = plan.metadata_clusters + len(plan.clusters)
    for _ in range(plan.count_blocks):
        count = min(left, layout.REFERENCES_PER_BLOCK)
        yield (b"\0\1" * count).ljust(QCOW2_CLUSTER_BYTES, b"\0")
        left -= count


def _second_level(plan: Qcow2Plan, data: int) -> Iterator[bytes]:
    borders = np.searchsorted(plan.clusters, np.append(plan.second_tables, -1) * layout.ENTRIES_PER_TABLE)
    borders[-1] = len(plan.clusters)
    for number, table in enumerate(plan.second_tables.tolist()):
        first, end = int(borders[number]), int(borders[number + 1])
        entries = np.zeros(layout.ENTRIES_PER_TABLE, dtype=np.uint64)
        places = _places(data + first, end - first) | np.uint64(layout.FLAG_COPIED)
        entries[plan.clusters[first:end] - table * layout.ENTRIES_PER_TABLE] = places
        yield _entries(entries, clusters=1)


def _data(plan: Qcow2Plan, read_into: Callable[[int, memoryview], None]) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_CLUSTERS_PER_PIECE * QCOW2_CLUSTER_BYTES))
    at = 0
    while at < len(plan.clusters):
        count = _run_length(plan.clusters, at)
        offset = int(plan.clusters[at]) * QCOW2_CLUSTER_BYTES
        piece = buffer[: count * QCOW2_CLUSTER_BYTES]
        inside = min(len(piece), plan.size_bytes - offset)
        read_into(offset, piece[:inside])
        piece[inside:] = bytes(len(piece) - inside)
        yield piece
        at += count


def _run_length(clusters: NDArray[np.int64], at: int) -> int:
    """Return how many clusters from here on follow each other on the disk, as many as one piece takes."""
    ahead = clusters[at : at + _CLUSTERS_PER_PIECE]
    breaks = np.flatnonzero(np.diff(ahead) != 1)
    return int(breaks[0]) + 1 if breaks.size else len(ahead)
