"""The tables of a qcow2 that arrives once tell which clusters it holds, or are refused; the data is never asked for."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.qcow2 import (
    QCOW2_CLUSTER_BYTES,
    Qcow2Damaged,
    Qcow2Error,
    Qcow2Plan,
    Qcow2Truncated,
    Qcow2Unsupported,
    plan_qcow2,
    read_qcow2_head,
    stream_qcow2,
)

CLUSTER = QCOW2_CLUSTER_BYTES
GIB = 1 << 30
TIB = 1 << 40


@dataclass
class Body:
    """A stream that hands out odd pieces and counts them."""

    data: bytes
    taken_bytes: int = 0

    def readinto(self, buffer: memoryview, /) -> int:
        piece = self.data[self.taken_bytes : self.taken_bytes + min(len(buffer), 10_007)]
        buffer[: len(piece)] = piece
        self.taken_bytes += len(piece)
        return len(piece)


def planned(size_bytes: int, clusters: list[int]) -> Qcow2Plan:
    return plan_qcow2(size_bytes, np.array(clusters, dtype=np.int64))


def written(size_bytes: int, clusters: list[int]) -> bytes:
    def fill(_: int, view: memoryview) -> None:
        view[:] = b"x" * len(view)

    return b"".join(bytes(piece) for piece in stream_qcow2(planned(size_bytes, clusters), fill))


def held(data: bytes, *, size_bytes_max: int = 64 * TIB) -> list[int]:
    return [int(each) for each in np.flatnonzero(read_qcow2_head(Body(data), size_bytes_max=size_bytes_max).held)]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@settings(max_examples=30)
@given(
    sectors=st.integers(min_value=1, max_value=20 * 128),
    chosen=st.sets(st.integers(min_value=0, max_value=19), max_size=4),
)
def test_what_a_stream_will_carry_is_known_before_its_data(sectors: int, chosen: set[int]) -> None:
    size_bytes = sectors * 512
    clusters = sorted(each for each in chosen if each * CLUSTER < size_bytes)
    body = Body(written(size_bytes, clusters))
    head = read_qcow2_head(body, size_bytes_max=size_bytes)
    assert np.flatnonzero(head.held).tolist() == clusters
    assert (head.size_bytes, head.cluster_bytes, head.held.size) == (size_bytes, CLUSTER, -(-size_bytes // CLUSTER))
    assert body.taken_bytes == planned(size_bytes, clusters).metadata_clusters * CLUSTER


def test_a_large_disk_costs_its_tables_only() -> None:
    """Two clusters of 3 TiB: one at the start, one at the end, six clusters of tables in front of them."""
    last = 3 * TIB // CLUSTER - 1
    body = Body(written(3 * TIB, [0, last]))
    head = read_qcow2_head(body, size_bytes_max=3 * TIB)
    assert np.flatnonzero(head.held).tolist() == [0, last]
    assert body.taken_bytes == 6 * CLUSTER


def test_many_tables_are_read_one_after_the_other() -> None:
    clusters = [0, 5, 8191, 8192, 3 * 8192 + 7]
    assert held(written(2 * GIB, clusters)) == clusters


def test_an_empty_disk_holds_nothing() -> None:
    assert held(written(3 * TIB, [])) == []


def test_a_stream_that_ends_inside_its_tables_is_refused_at_every_byte() -> None:
    data = written(4 * CLUSTER, [1])
    for length_bytes in (0, 3, 71, 111, CLUSTER, 3 * CLUSTER, 4 * CLUSTER + 7, 5 * CLUSTER - 1):
        with pytest.raises(Qcow2Truncated):
            held(data[:length_bytes])
    assert held(data[: 5 * CLUSTER]) == [1]


@settings(max_examples=150)
@given(
    table=st.sampled_from([3, 4]),
    at=st.integers(min_value=0, max_value=99),
    bit=st.integers(min_value=0, max_value=7),
)
def test_a_flipped_bit_in_a_table_is_refused_or_harmless(table: int, at: int, bit: int) -> None:
    data = bytearray(written(9 * CLUSTER, [1, 2, 6]))
    data[table * CLUSTER + at] ^= 1 << bit
    try:
        found = held(bytes(data))
    except Qcow2Error:
        return
    assert found == [1, 2, 6]


@pytest.mark.parametrize(
    ("at", "value", "error", "words"),
    [
        (0, b"HTTP/1.1", Qcow2Damaged, "no qcow2"),
        (8, struct.pack(">Q", 512), Qcow2Unsupported, "another file"),
        (20, struct.pack(">I", 12) + struct.pack(">Q", 4 * CLUSTER), Qcow2Unsupported, "4096 bytes"),
        (24, struct.pack(">Q", 65 * CLUSTER), Qcow2Unsupported, "were expected"),
        (24, struct.pack(">Q", 0), Qcow2Unsupported, "were expected"),
        (40, struct.pack(">Q", 0), Qcow2Damaged, "L1 table"),
        (40, struct.pack(">Q", 1 << 40), Qcow2Unsupported, "do not come first"),
        (3 * CLUSTER, struct.pack(">Q", 1 << 63 | 5 * CLUSTER), Qcow2Unsupported, "do not come first"),
        (3 * CLUSTER, struct.pack(">Q", 1 << 40), Qcow2Unsupported, "do not come first"),
        (4 * CLUSTER + 8, struct.pack(">Q", 0), Qcow2Unsupported, "order of the disk"),
        (4 * CLUSTER + 8, struct.pack(">Q", 7 * CLUSTER), Qcow2Unsupported, "order of the disk"),
        (4 * CLUSTER + 8, struct.pack(">Q", 1 << 62 | 5 * CLUSTER), Qcow2Unsupported, "order of the disk"),
        (4 * CLUSTER + 8 * 64, struct.pack(">Q", 7 * CLUSTER), Qcow2Damaged, "behind the disk's end"),
    ],
)
def test_a_stream_that_pools_do_not_write_is_refused(
    at: int, value: bytes, error: type[Qcow2Error], words: str
) -> None:
    data = patched(written(64 * CLUSTER, [1, 3]), at, value)
    with pytest.raises(error, match=words):
        held(data, size_bytes_max=64 * CLUSTER)


def test_a_table_behind_the_disks_end_is_refused() -> None:
    data = patched(written(4 * CLUSTER, [1]), 36, struct.pack(">I", 2))
    assert held(data) == [1], "room for more entries is no harm"
    with pytest.raises(Qcow2Damaged, match="behind the disk's end"):
        held(patched(data, 3 * CLUSTER + 8, struct.pack(">Q", 5 * CLUSTER)))


def test_tables_behind_the_data_are_refused_before_the_data_is_read() -> None:
    """As ``qemu-img convert`` may leave them; 1 GiB of room in front of them is not read to find that out."""
    data = written(4 * CLUSTER, [1])
    body = Body(patched(data, 40, struct.pack(">Q", GIB)))
    with pytest.raises(Qcow2Unsupported, match="do not come first"):
        read_qcow2_head(body, size_bytes_max=4 * CLUSTER)
    assert body.taken_bytes < CLUSTER


def test_clusters_said_to_be_zero_are_not_held() -> None:
    data = patched(written(4 * CLUSTER, [1]), 4 * CLUSTER + 16, struct.pack(">Q", 1))
    assert held(data) == [1]
    with pytest.raises(Qcow2Unsupported):
        held(patched(data, 4, struct.pack(">I", 2)))


def test_larger_clusters_are_told_as_such() -> None:
    """One cluster of 128 KiB, packed by hand: header, first-level table, second-level table, data."""
    size = 2 * CLUSTER
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 17, 10 * size, 0, 1, size, 0, 0, 0, 0)
    head += struct.pack(">QQQIIB7x", 0, 0, 0, 4, 112, 0)
    table = bytes(8) + struct.pack(">Q", 1 << 63 | 3 * size)
    data = head.ljust(size, b"\0") + struct.pack(">Q", 2 * size).ljust(size, b"\0") + table.ljust(size, b"\0")
    found = read_qcow2_head(io.BytesIO(data), size_bytes_max=10 * size)
    assert (found.cluster_bytes, found.held.tolist()) == (size, [False, True] + [False] * 8)
