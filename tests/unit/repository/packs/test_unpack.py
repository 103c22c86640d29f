"""A frame's blocks have their full length, or the frame is damage."""

from __future__ import annotations

import contextlib

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, SeededEntropy
from holdfast.repository import PackDamaged
from holdfast.repository.layout import Encoding, PackId
from holdfast.repository.packs.unpack import unpack_blocks

PACK = PackId(bytes(16))
FOUR = SeededEntropy(1).token_bytes(BLOCK_BYTES) + b"text" * (BLOCK_BYTES // 4) + bytes(2 * BLOCK_BYTES)


def unpack(plain: bytes, encoding: int, *, count: int = 4, wanted: int | None = None) -> bytes:
    blocks = unpack_blocks(
        plain, pack=PACK, slot=7, encoding=encoding, block_count=count, wanted=count if wanted is None else wanted
    )
    return b"".join(blocks)


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_as_many_blocks_come_out_as_are_wanted(wanted: int) -> None:
    for encoding, plain in ((Encoding.RAW, FOUR), (Encoding.ZSTD, zstd.compress(FOUR))):
        assert unpack(plain, encoding, wanted=wanted) == FOUR[: wanted * BLOCK_BYTES]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FOUR[:-1], f"{4 * BLOCK_BYTES - 1} bytes"),
        (FOUR[: 2 * BLOCK_BYTES], f"{2 * BLOCK_BYTES} bytes"),
        (FOUR + b"x", f"{4 * BLOCK_BYTES + 1} bytes"),
        (b"", "0 bytes"),
    ],
)
def test_a_frame_of_another_length_is_damage(content: bytes, reason: str) -> None:
    for encoding, plain in ((Encoding.RAW, content), (Encoding.ZSTD, zstd.compress(content))):
        with pytest.raises(PackDamaged, match=reason) as caught:
            unpack(plain, encoding)
        assert (caught.value.pack, caught.value.slot) == (PACK, 7)


def test_what_is_no_zstd_or_of_an_unknown_encoding_is_damage() -> None:
    with pytest.raises(PackDamaged, match="does not decompress"):
        unpack(b"rubbish" * 100, Encoding.ZSTD)
    with pytest.raises(PackDamaged, match="unknown encoding 9"):
        unpack(FOUR, 9)
    with pytest.raises(PackDamaged):
        unpack(zstd.compress(FOUR)[:-1000], Encoding.ZSTD)


@given(st.integers(0), st.integers(0, 255))
def test_a_changed_byte_never_gives_blocks_of_another_length(at: int, byte: int) -> None:
    plain = bytearray(zstd.compress(FOUR[BLOCK_BYTES:]))
    plain[at % len(plain)] = byte
    with contextlib.suppress(PackDamaged):
        assert len(unpack(bytes(plain), Encoding.ZSTD, count=3)) == 3 * BLOCK_BYTES
