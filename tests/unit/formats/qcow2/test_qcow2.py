"""A qcow2 that we write is read back as the disk it was made of, and what is no qcow2 is refused at its byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.qcow2 import (
    QCOW2_CLUSTER_BYTES,
    ClusterKind,
    Qcow2Damaged,
    Qcow2Error,
    Qcow2Plan,
    Qcow2Reader,
    Qcow2TooLarge,
    Qcow2Truncated,
    Qcow2Unsupported,
    plan_qcow2,
    stream_qcow2,
)

CLUSTER = QCOW2_CLUSTER_BYTES


def content_of(offset_bytes: int) -> bytes:
    """Return what a cluster of the test's disk holds: its own number."""
    return bytes([offset_bytes // CLUSTER % 255 + 1]) * CLUSTER


def fill(offset_bytes: int, view: memoryview) -> None:
    for start in range(0, len(view), CLUSTER):
        piece = view[start : start + CLUSTER]
        piece[:] = content_of(offset_bytes + start)[: len(piece)]


def planned(size_bytes: int, clusters: list[int]) -> Qcow2Plan:
    return plan_qcow2(size_bytes, np.array(clusters, dtype=np.int64))


def written(size_bytes: int, clusters: list[int]) -> bytes:
    return b"".join(bytes(piece) for piece in stream_qcow2(planned(size_bytes, clusters), fill))


def held(data: bytes) -> dict[int, bytes]:
    reader = Qcow2Reader(io.BytesIO(data))
    return {cluster.offset_bytes // CLUSTER: reader.read(cluster) for cluster in reader.clusters()}


@settings(max_examples=40)
@given(
    sectors=st.integers(min_value=1, max_value=20 * 128),
    chosen=st.sets(st.integers(min_value=0, max_value=19), max_size=3),
)
def test_what_is_written_is_read_back(sectors: int, chosen: set[int]) -> None:
    size_bytes = sectors * 512
    clusters = sorted(each for each in chosen if each * CLUSTER < size_bytes)
    data = written(size_bytes, clusters)
    assert len(data) == planned(size_bytes, clusters).length_bytes
    assert held(data) == {
        each: content_of(each * CLUSTER)[: min(CLUSTER, size_bytes - each * CLUSTER)] for each in clusters
    }


@pytest.mark.parametrize(
    ("size_bytes", "clusters", "length_clusters"),
    [
        (512, [], 4),
        (512, [0], 6),
        (1 << 29, [0, 8191], 7),
        ((1 << 29) + 512, [0, 8192], 8),
        (16 << 40, [0, (16 << 24) - 1], 11),
    ],
)
def test_the_length_is_known_beforehand(size_bytes: int, clusters: list[int], length_clusters: int) -> None:
    assert planned(size_bytes, clusters).length_bytes == length_clusters * CLUSTER


def test_reference_counts_cover_themselves() -> None:
    plan = planned(4 << 30, list(range(32760)))
    assert (plan.count_blocks, plan.length_bytes // CLUSTER) == (1, 32768)
    plan = planned(4 << 30, list(range(32761)))
    assert (plan.count_blocks, plan.length_bytes // CLUSTER) == (2, 32770)


def test_a_disk_that_no_qcow2_can_hold_is_refused() -> None:
    with pytest.raises(Qcow2TooLarge):
        planned((64 << 40) + 512, [])


def test_a_file_says_how_long_it_must_be() -> None:
    data = written(10 * CLUSTER, [2, 7])
    assert Qcow2Reader(io.BytesIO(data)).length_bytes() == len(data)
    short = Qcow2Reader(io.BytesIO(data[:-1]))
    assert short.length_bytes() == len(data)
    with pytest.raises(Qcow2Truncated):
        [short.read(cluster) for cluster in short.clusters()]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, b"conectix", Qcow2Damaged),
        (4, struct.pack(">I", 4), Qcow2Unsupported),
        (20, struct.pack(">I", 8), Qcow2Damaged),
        (20, struct.pack(">I", 22), Qcow2Damaged),
        (24, struct.pack(">Q", 1 << 60), Qcow2TooLarge),
        (24, struct.pack(">Q", 1 << 40), Qcow2Damaged),
        (32, struct.pack(">I", 1), Qcow2Unsupported),
        (36, struct.pack(">I", 0xFFFFFFFF), Qcow2Damaged),
        (40, struct.pack(">Q", 3 * CLUSTER + 512), Qcow2Damaged),
        (40, struct.pack(">Q", 1 << 50), Qcow2Truncated),
        (40, struct.pack(">Q", 1 << 63), Qcow2Damaged),
        (72, struct.pack(">Q", 1 << 1), Qcow2Unsupported),
        (72, struct.pack(">Q", 1 << 4), Qcow2Unsupported),
        (72, struct.pack(">Q", 1 << 3) + bytes(20) + struct.pack(">IB", 112, 7), Qcow2Unsupported),
        (100, struct.pack(">I", 72), Qcow2Damaged),
        (3 * CLUSTER, struct.pack(">Q", 1 << 63 | 4 * CLUSTER + 512), Qcow2Damaged),
        (4 * CLUSTER + 8, struct.pack(">Q", 5 * CLUSTER + 1024), Qcow2Damaged),
    ],
)
def test_a_wrong_field_is_refused(at: int, value: bytes, error: type[Qcow2Error]) -> None:
    with pytest.raises(error):
        held(patched(written(4 * CLUSTER, [1]), at, value))


@given(st.integers(min_value=0, max_value=120), st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_of_the_header_is_refused_or_harmless(at: int, bit: int) -> None:
    data = bytearray(written(4 * CLUSTER, [1]))
    data[at] ^= 1 << bit
    try:
        found = held(bytes(data))
    except Qcow2Error:
        return
    assert len(found) <= 1 << 14


def test_a_file_that_ends_too_early_is_refused() -> None:
    data = written(4 * CLUSTER, [1])
    for length_bytes in (0, 3, 71, 103, CLUSTER, 4 * CLUSTER - 1, 4 * CLUSTER + 7, len(data) - 1):
        with pytest.raises(Qcow2Truncated):
            held(data[:length_bytes])


def test_clusters_said_to_be_zero_are_told_from_those_that_are_not_held() -> None:
    data = patched(written(4 * CLUSTER, [1]), 4 * CLUSTER + 16, struct.pack(">Q", 1))
    reader = Qcow2Reader(io.BytesIO(data))
    kinds = {cluster.offset_bytes // CLUSTER: cluster.kind for cluster in reader.clusters()}
    assert kinds == {1: ClusterKind.DATA, 2: ClusterKind.ZERO}
    assert held(data)[2] == bytes(CLUSTER)
    assert 2 not in held(patched(data, 4, struct.pack(">I", 2))), "version 2 does not know such clusters"


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(("features", "kind", "pack"), [(0, 0, _deflated), (8, 1, zstd.compress)])
@pytest.mark.parametrize("shift", [0, 300])
def test_compressed_clusters_are_read(features: int, kind: int, pack: Callable[[bytes], bytes], shift: int) -> None:
    content = content_of(77 * CLUSTER)
    stored = pack(content)
    place = 5 * CLUSTER + shift
    sectors = (place % 512 + len(stored) - 1) // 512
    entry = 1 << 62 | sectors << 54 | place
    data = written(4 * CLUSTER, [1])[: 5 * CLUSTER] + bytes(shift) + stored
    data = patched(patched(data, 72, struct.pack(">Q", features)), 104, bytes([kind]))
    data = patched(data, 4 * CLUSTER + 8, struct.pack(">Q", entry))
    assert held(data) == {1: content}
    assert Qcow2Reader(io.BytesIO(data)).length_bytes() <= len(data)
    with pytest.raises(Qcow2Damaged):
        held(patched(data, place, b"\xff" * 16))


def test_a_disk_in_version_2_is_read() -> None:
    data = patched(written(4 * CLUSTER, [0, 3]), 4, struct.pack(">I", 2))
    assert set(held(data)) == {0, 3}
