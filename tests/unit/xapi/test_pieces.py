"""What is read of a disk is exactly what was wanted of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.xapi.pieces import (
    all_blocks,
    blocks_of_qcow2,
    blocks_of_vhd,
    covered_bytes,
    grown_zeros,
    pieces_of,
    with_grown_edge,
)

_SIZES = st.integers(min_value=1, max_value=200 * 128).map(lambda sectors: sectors * 512)


@st.composite
def _wanted(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    size_bytes = draw(_SIZES)
    count = all_blocks(size_bytes).size
    flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.array(flags, dtype=np.bool_), size_bytes


@given(_wanted())
def test_pieces_cover_exactly_the_wanted_blocks_and_never_leave_the_disk(case: tuple[np.ndarray, int]) -> None:
    blocks, size_bytes = case
    covered = np.zeros(size_bytes, dtype=np.int8)
    end = 0
    for piece in pieces_of(blocks, size_bytes=size_bytes, piece_bytes=2 * BLOCK_BYTES):
        assert piece.offset_bytes >= end
        assert piece.offset_bytes % BLOCK_BYTES == 0
        assert piece.length_bytes <= 2 * BLOCK_BYTES
        end = piece.end_bytes
        assert end <= size_bytes
        covered[piece.offset_bytes : end] += 1
    expected = np.repeat(blocks, BLOCK_BYTES)[:size_bytes]
    assert (covered == expected).all()
    assert covered_bytes(blocks, size_bytes=size_bytes) == int(covered.sum())


def test_vhd_blocks_become_their_64_kib_blocks_cut_at_the_disks_end() -> None:
    size_bytes = 5 * MIB + 512
    blocks = blocks_of_vhd(np.array([0, 2]), vhd_block_bytes=2 * MIB, size_bytes=size_bytes)
    assert blocks.size == 81
    assert blocks[:32].all()
    assert not blocks[32:64].any()
    assert blocks[64:].all()
    assert covered_bytes(blocks, size_bytes=size_bytes) == 3 * MIB + 512


def test_a_vhd_block_behind_the_end_of_the_disk_is_left_out() -> None:
    blocks = blocks_of_vhd(np.array([0, 1]), vhd_block_bytes=2 * MIB, size_bytes=2 * MIB)
    assert blocks.size == 32


def test_a_grown_disk_is_changed_where_it_ended_and_zero_where_it_was_never_written() -> None:
    old_bytes, new_bytes = BLOCK_BYTES + 512, 5 * BLOCK_BYTES
    blocks = np.array([False, False, False, True, False])
    grown = with_grown_edge(blocks, reference_size_bytes=old_bytes)
    assert grown.tolist() == [False, True, False, True, False]
    zeros = grown_zeros(grown, reference_size_bytes=old_bytes, size_bytes=new_bytes)
    assert [(each.offset_bytes // BLOCK_BYTES, each.length_bytes // BLOCK_BYTES) for each in zeros] == [(2, 1), (4, 1)]


def test_a_disk_that_has_not_grown_has_no_such_zeros() -> None:
    blocks = np.array([True, False])
    assert with_grown_edge(blocks, reference_size_bytes=2 * BLOCK_BYTES) is blocks
    assert grown_zeros(blocks, reference_size_bytes=2 * BLOCK_BYTES, size_bytes=2 * BLOCK_BYTES) == []


def test_qcow2_clusters_become_their_64_kib_blocks_and_a_partial_last_one_is_always_read() -> None:
    size_bytes = 3 * BLOCK_BYTES + 512
    held = np.array([False, True, False, False])
    whole = blocks_of_qcow2(held[:3], cluster_bytes=BLOCK_BYTES, size_bytes=3 * BLOCK_BYTES)
    assert whole.tolist() == [False, True, False]
    partial = blocks_of_qcow2(held, cluster_bytes=BLOCK_BYTES, size_bytes=size_bytes)
    assert partial.tolist() == [False, True, False, True]
    large = blocks_of_qcow2(held[1:3], cluster_bytes=2 * BLOCK_BYTES, size_bytes=size_bytes)
    assert large.tolist() == [True, True, True, True]
    assert covered_bytes(large, size_bytes=size_bytes) == size_bytes
