"""Frames: one block (or a few neighbours), compressed and sealed for one slot of one pack.

Invariant: a frame opens only under its repository, pack, slot, kind, encoding and block count; whatever opens is
exactly as long as those say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from backports import zstd
from cryptography.exceptions import InvalidTag

from holdfast.core import BLOCK_BYTES
from holdfast.repository import layout
from holdfast.repository.damage import PackDamaged
from holdfast.repository.layout import Encoding, FrameKind, PackId
from holdfast.repository.sealing import EpochNotHeld, KeyRing

__all__ = ["Compressor", "Frame", "FrameCipher", "decode_frame"]

_NONCE_TAIL = bytes(8)
_SHRINK_PART_MIN = 64
"""What saves less than a 64th is stored raw: decompressing costs more than the space is worth."""

_Parameter = zstd.CompressionParameter
_TUNED: Mapping[int, Mapping[int, int]] = {
    1: {_Parameter.hash_log: 14, _Parameter.min_match: 7},
    3: {_Parameter.hash_log: 16, _Parameter.chain_log: 15, _Parameter.min_match: 6},
}
"""Longer matches found in smaller tables than zstd takes for these levels: faster on frames of 64 to 256 KiB, and as
small. Measured in decision 0015."""

_SMALL_LEVEL_MIN = 3
"""For patches and nodes: so little of them that time does not count, and what suits blocks does not suit them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that waits to be placed in a pack. ``ids`` name its blocks, in order; only data has several."""

    ids: tuple[bytes, ...]
    kind: FrameKind
    encoding: Encoding
    body: bytes | memoryview

    @property
    def sealed_bytes(self) -> int:
        """How long it will be in the pack."""
        return len(self.body) + layout.TAG_BYTES

    @property
    def shares(self) -> list[int]:
        """The shares of its slots."""
        part, rest = divmod(self.sealed_bytes, len(self.ids))
        return [part + rest, *[part] * (len(self.ids) - 1)]


class Compressor:
    """Compresses blocks one after the other with one zstd context. One per thread."""

    def __init__(self, *, level: int) -> None:
        self._zstd = zstd.ZstdCompressor(options={_Parameter.compression_level: level, **_TUNED.get(level, {})})
        self._small = zstd.ZstdCompressor(level=max(level, _SMALL_LEVEL_MIN))
        self._mode: Literal[2] = zstd.ZstdCompressor.FLUSH_FRAME

    def frame(self, data: memoryview | bytes, *, ids: tuple[bytes, ...], kind: FrameKind) -> Frame:
        """Return the frame of these plain bytes, raw when compression hardly helps. A raw frame keeps ``data``."""
        squeezed = (self._zstd if kind is FrameKind.DATA else self._small).compress(data, self._mode)
        if len(squeezed) + len(data) // _SHRINK_PART_MIN > len(data):
            return Frame(ids, kind, Encoding.RAW, data)
        return Frame(ids, kind, Encoding.ZSTD, squeezed)


class FrameCipher:
    """Seals and opens the frames of one pack. Thread-safe."""

    def __init__(self, keys: KeyRing, pack: PackId, *, epoch: int | None = None) -> None:
        """Make the cipher of a pack that is sealed in ``epoch``, or of one that is new. ``PackDamaged``."""
        self.pack = pack
        self.epoch = keys.epoch if epoch is None else epoch
        self.header = layout.PACK_HEADER.pack(
            layout.PACK_MAGIC, layout.PACK_VERSION, self.epoch, keys.repository_bytes, pack
        )
        try:
            self._cipher = keys.pack_cipher(pack, epoch=self.epoch)
        except EpochNotHeld as cause:
            raise PackDamaged(pack=pack, slot=None, reason=f"it {cause}") from cause

    def seal_into(self, frame: Frame, slot: int, out: memoryview) -> None:
        """Write the sealed frame into ``out``, which is exactly as long. Each slot of a pack is sealed once."""
        aad = self.header + layout.AAD_TAIL.pack(slot, frame.kind, frame.encoding, 0, len(frame.ids))
        self._cipher.encrypt_into(slot.to_bytes(4, "little") + _NONCE_TAIL, frame.body, aad, out)

    def open(self, sealed: memoryview | bytes, slot: int, *, kind: int, encoding: int, count: int) -> bytes:
        """Return what was sealed; ``PackDamaged`` when one bit of it or of its place differs."""
        aad = self.header + layout.AAD_TAIL.pack(slot, kind, encoding, 0, count)
        try:
            return self._cipher.decrypt(slot.to_bytes(4, "little") + _NONCE_TAIL, sealed, aad)
        except (InvalidTag, ValueError):
            raise PackDamaged(pack=self.pack, slot=slot, reason="its seal does not match") from None

    def seal_trailer(self, plain: bytes) -> bytes:
        """Return the sealed trailer."""
        aad = self.header + layout.AAD_TAIL.pack(layout.TRAILER_SLOT, FrameKind.TRAILER, Encoding.RAW, 0, 0)
        return self._cipher.encrypt(layout.TRAILER_SLOT.to_bytes(4, "little") + _NONCE_TAIL, plain, aad)

    def open_trailer(self, sealed: bytes) -> bytes:
        """Return the trailer's plain bytes; ``PackDamaged`` when they were changed."""
        aad = self.header + layout.AAD_TAIL.pack(layout.TRAILER_SLOT, FrameKind.TRAILER, Encoding.RAW, 0, 0)
        try:
            return self._cipher.decrypt(layout.TRAILER_SLOT.to_bytes(4, "little") + _NONCE_TAIL, sealed, aad)
        except (InvalidTag, ValueError):
            raise PackDamaged(pack=self.pack, slot=None, reason="the seal of its trailer does not match") from None


def decode_frame(plain: bytes, *, pack: PackId, slot: int, kind: int, encoding: int, count: int) -> bytes:
    """Return the decompressed bytes of an opened frame; ``PackDamaged`` when they are not of the promised length."""
    length_max = count * BLOCK_BYTES if kind == FrameKind.DATA else layout.NODE_BYTES_MAX
    if encoding == Encoding.ZSTD:
        try:
            # One byte more than allowed tells a frame that is too long from one that fits.
            plain = zstd.ZstdDecompressor().decompress(plain, length_max + 1)
        except zstd.ZstdError as cause:
            raise PackDamaged(pack=pack, slot=slot, reason="it does not decompress") from cause
    elif encoding != Encoding.RAW:
        raise PackDamaged(pack=pack, slot=slot, reason=f"it uses the unknown encoding {encoding}")
    if len(plain) > length_max or (kind == FrameKind.DATA and len(plain) != length_max):
        raise PackDamaged(pack=pack, slot=slot, reason=f"it decompresses to {len(plain)} bytes")
    return plain
