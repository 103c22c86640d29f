"""A changed-block bitmap says which ranges of a disk changed, to the bit, or is refused."""

from __future__ import annotations

import base64
import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, TIB
from holdfast.formats.cbt import CbtBitmapDamaged, decode_bitmap, decode_blocks, encode_bitmap, iter_extents
from holdfast.model import Extent


def text_of(bitmap: bytes) -> str:
    return base64.b64encode(bitmap).decode("ascii")


@pytest.mark.slow(reason="a property over sixty disks")
@given(st.integers(1, 40 * 128).map(lambda sectors: sectors * 512), st.data())
def test_what_is_encoded_is_decoded(size_bytes: int, data: st.DataObject) -> None:
    count = -(-size_bytes // BLOCK_BYTES)
    changed = data.draw(st.sets(st.integers(0, count - 1)))
    flags = np.zeros(count, dtype=np.bool_)
    flags[list(changed)] = True
    text = encode_bitmap(flags, size_bytes=size_bytes)
    assert encode_bitmap(np.array(sorted(changed), dtype=np.int64), size_bytes=size_bytes) == text
    assert (decode_blocks(text, size_bytes=size_bytes) == flags).all()
    extents = decode_bitmap(text, size_bytes=size_bytes)
    covered = {offset // BLOCK_BYTES for each in extents for offset in range(each.offset_bytes, each.end_bytes, 512)}
    assert covered == changed
    assert all(first.end_bytes < second.offset_bytes for first, second in itertools.pairwise(extents))
    assert all(each.end_bytes == size_bytes or each.end_bytes % BLOCK_BYTES == 0 for each in extents)


def test_the_first_block_is_the_highest_bit() -> None:
    extents = decode_bitmap(text_of(bytes([0x80, 0x01])), size_bytes=16 * BLOCK_BYTES)
    assert extents == [
        Extent(offset_bytes=0, length_bytes=BLOCK_BYTES),
        Extent(offset_bytes=15 * BLOCK_BYTES, length_bytes=BLOCK_BYTES),
    ]


def test_neighbours_become_one_extent_clipped_to_the_disk() -> None:
    size_bytes = 11 * BLOCK_BYTES + 512
    assert decode_bitmap(text_of(bytes([0x0F, 0xF0])), size_bytes=size_bytes) == [
        Extent(offset_bytes=4 * BLOCK_BYTES, length_bytes=size_bytes - 4 * BLOCK_BYTES)
    ]


def test_nothing_changed_is_an_empty_list() -> None:
    assert decode_bitmap(text_of(bytes(2)), size_bytes=16 * BLOCK_BYTES) == []


def test_white_space_around_the_text_is_no_damage() -> None:
    assert len(decode_bitmap("\n gA==\n", size_bytes=BLOCK_BYTES)) == 1


@pytest.mark.parametrize(
    ("text", "size_bytes", "match"),
    [
        ("", BLOCK_BYTES, "has 0 bytes"),
        (text_of(bytes(1)), 9 * BLOCK_BYTES, "has 1 bytes"),
        (text_of(bytes(2)), 8 * BLOCK_BYTES, "has 2 bytes"),
        (text_of(bytes(100)), 8 * BLOCK_BYTES, "too many"),
        ("g", BLOCK_BYTES, "not base64"),
        ("g$==", BLOCK_BYTES, "not base64"),
        ("gé==", BLOCK_BYTES, "not base64"),
        (text_of(b"\x40"), BLOCK_BYTES, "behind the end"),
        (text_of(b"\x00\x40"), 9 * BLOCK_BYTES, "behind the end"),
    ],
)
def test_a_bitmap_that_does_not_fit_the_disk_is_refused(text: str, size_bytes: int, match: str) -> None:
    with pytest.raises(CbtBitmapDamaged, match=match) as caught:
        decode_bitmap(text, size_bytes=size_bytes)
    assert "another way" in caught.value.next_step()


@pytest.mark.parametrize("blocks", [[-1], [2]])
def test_a_block_outside_the_disk_is_our_own_mistake(blocks: list[int]) -> None:
    with pytest.raises(AssertionError):
        encode_bitmap(np.array(blocks, dtype=np.int64), size_bytes=2 * BLOCK_BYTES)


def test_flags_of_another_disk_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        encode_bitmap(np.zeros(3, dtype=np.bool_), size_bytes=2 * BLOCK_BYTES)
    with pytest.raises(AssertionError):
        next(iter_extents(np.zeros(3, dtype=np.bool_), size_bytes=2 * BLOCK_BYTES))


@pytest.mark.slow(reason="33 million blocks; about 50 ms of arithmetic")
def test_two_tebibytes_are_decoded_in_a_moment() -> None:
    count = 2 * TIB // BLOCK_BYTES
    changed = np.arange(0, count, 16_001, dtype=np.int64)
    text = encode_bitmap(changed, size_bytes=2 * TIB)
    started = time.process_time()
    extents = decode_bitmap(text, size_bytes=2 * TIB)
    # Measured 0.02 s; a loop over bits or bytes would take seconds.
    assert time.process_time() - started < 1
    assert len(extents) == changed.size
