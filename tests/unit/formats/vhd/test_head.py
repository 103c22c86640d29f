"""What a VHD says of itself, and which blocks a disk's data needs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import limits
from holdfast.formats.vhd import VHD_BLOCK_BYTES, allocated_vhd_blocks, read_vhd_head
from holdfast.formats.vhd.head import bitmap_bytes
from holdfast.model import Extent
from tests.support.vhd import KIB64, BlockSpec, VhdSpec


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=8), st.integers(1, 127))
def test_the_blocks_of_extents_are_those_that_they_touch(ranges: list[tuple[int, int]], short: int) -> None:
    size_bytes = 500 * KIB64 - short * 512
    extents = [
        Extent(offset_bytes=start * KIB64, length_bytes=min(length * KIB64, size_bytes - start * KIB64))
        for start, length in ranges
    ]
    touched = {
        offset // VHD_BLOCK_BYTES for each in extents for offset in range(each.offset_bytes, each.end_bytes, KIB64)
    }
    assert allocated_vhd_blocks(extents, size_bytes=size_bytes).tolist() == sorted(touched)


def test_no_extents_need_no_blocks() -> None:
    assert allocated_vhd_blocks([], size_bytes=KIB64).tolist() == []


def test_an_extent_behind_the_disk_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="behind the disk"):
        allocated_vhd_blocks([Extent(offset_bytes=0, length_bytes=1024)], size_bytes=512)


@pytest.mark.parametrize(("block_bytes", "expected"), [(2 << 20, 512), (4 << 20, 1024), (KIB64, 512)])
def test_a_bitmap_fills_whole_sectors(block_bytes: int, expected: int) -> None:
    assert bitmap_bytes(block_bytes) == expected


def test_the_largest_disk_keeps_its_sectors_within_32_bits() -> None:
    blocks = limits.VHD_DISK_BYTES_MAX // VHD_BLOCK_BYTES
    end_bytes = 2048 + 4 * blocks + blocks * (512 + VHD_BLOCK_BYTES)
    assert end_bytes // 512 < 0xFFFF_FFFF


def test_spare_table_entries_are_accepted_when_empty() -> None:
    head = read_vhd_head(io.BytesIO(VhdSpec(entries=100, blocks=[BlockSpec(index=3, data=b"x")]).pack()))
    assert head.allocated_blocks.tolist() == [3]
    assert head.allocated_blocks.dtype == np.int64
