"""Decoding the blocks of a data frame one by one, no further than the last one that is wanted.

One output of 64 KiB at a time stays in the memory that the allocator has at hand. One of 256 KiB is mapped and unmapped
each time, which costs more than decoding it (2026-11-20: 502 us against 193 us for four blocks of files).

Invariant: every block has its full length, and when all of them are wanted the frame holds nothing behind the last.
"""

from __future__ import annotations

from backports import zstd

from holdfast.core import BLOCK_BYTES
from holdfast.repository.damage import PackDamaged
from holdfast.repository.layout import Encoding, PackId

__all__ = ["unpack_blocks"]


def unpack_blocks(
    plain: bytes, *, pack: PackId, slot: int, encoding: int, block_count: int, wanted: int
) -> list[bytes | memoryview]:
    """Return the first ``wanted`` blocks of an opened data frame. ``PackDamaged`` when it is not as long as it says."""
    if encoding == Encoding.RAW:
        _check_length(len(plain), block_count * BLOCK_BYTES, pack=pack, slot=slot)
        view = memoryview(plain)
        return [view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES] for number in range(wanted)]
    if encoding != Encoding.ZSTD:
        raise PackDamaged(pack=pack, slot=slot, reason=f"it uses the unknown encoding {encoding}")
    decompressor = zstd.ZstdDecompressor()
    blocks: list[bytes | memoryview] = []
    try:
        for number in range(wanted):
            block = b"" if decompressor.eof else decompressor.decompress(b"" if number else plain, BLOCK_BYTES)
            _check_length(number * BLOCK_BYTES + len(block), (number + 1) * BLOCK_BYTES, pack=pack, slot=slot)
            blocks.append(block)
        # One byte more than allowed tells a frame that is too long from one that fits.
        rest = b"" if wanted < block_count or decompressor.eof else decompressor.decompress(b"", 1)
    except zstd.ZstdError as cause:
        raise PackDamaged(pack=pack, slot=slot, reason="it does not decompress") from cause
    _check_length(wanted * BLOCK_BYTES + len(rest), wanted * BLOCK_BYTES, pack=pack, slot=slot)
    return blocks


def _check_length(found_bytes: int, wanted_bytes: int, *, pack: PackId, slot: int) -> None:
    if found_bytes != wanted_bytes:
        raise PackDamaged(pack=pack, slot=slot, reason=f"it decompresses to {found_bytes} bytes")
