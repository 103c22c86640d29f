"""Reading packs: the trailer of a pack, and the frames in its slots.

Invariant: nothing leaves here that was not authenticated; a missing object is ``PackMissing``, everything else that is
not as written is ``PackDamaged`` with the pack and slot.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from holdfast.core import BLOCK_BYTES, KIB
from holdfast.repository import layout
from holdfast.repository.damage import PackDamaged, PackMissing
from holdfast.repository.layout import FrameKind, PackId, pack_key
from holdfast.repository.packs.frame import FrameCipher, decode_frame
from holdfast.repository.packs.read_plan import FrameRead
from holdfast.repository.packs.trailer import Trailer, parse_trailer
from holdfast.repository.packs.unpack import unpack_blocks
from holdfast.repository.sealing import KeyRing
from holdfast.storage import ObjectMissing, ObjectStore, RangeNotSatisfiable

__all__ = ["TRAILER_CACHE_ROWS_MAX", "OpenPack", "PackShelf", "Patch", "SealedTrailer", "parse_patch"]

TRAILER_CACHE_ROWS_MAX = 400_000
"""16 MB of rows and 3 MB of offsets: the trailers of about 10 GB of stored data."""

_TAIL_GUESS_BYTES = 160 * KIB
"""Holds the trailer of a full pack of typical blocks, so most trailers cost one request."""


@dataclass(frozen=True, slots=True)
class SealedTrailer:
    """A trailer as it lies in its pack, for copying it into an index."""

    pack: PackId
    pack_bytes: int
    sealed: bytes
    epoch: int
    """Whose key opens it."""


class OpenPack:
    """One pack that is read: its cipher and trailer. Thread-safe."""

    def __init__(self, store: ObjectStore, cipher: FrameCipher, trailer: Trailer) -> None:
        self._store = store
        self._cipher = cipher
        self.trailer = trailer
        self.pack = trailer.pack
        self.header = cipher.header

    def read_range(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return sealed bytes of the pack, for ``open_frame`` to open."""
        try:
            return memoryview(
                self._store.get_range(pack_key(self.pack), offset_bytes=offset_bytes, length_bytes=length_bytes)
            )
        except ObjectMissing as cause:
            raise PackMissing(pack=self.pack) from cause
        except RangeNotSatisfiable as cause:
            raise PackDamaged(pack=self.pack, slot=None, reason="it is shorter than it was") from cause

    def frame_extent(self, slot: int) -> tuple[int, int]:
        """Return offset and length of the frame that holds a slot; ``PackDamaged`` when there is no such slot."""
        if not 0 <= slot < len(self.trailer):
            raise PackDamaged(pack=self.pack, slot=slot, reason="it has no such slot")
        leader = slot - int(self.trailer.rows["index"][slot])
        return int(self.trailer.offsets[slot]), int(self.trailer.rows["length"][leader])

    def plain(self, slot: int, sealed: memoryview, *, kind: FrameKind | None = None) -> bytes:
        """Return the decoded bytes of a slot from its frame: a block, a patch or a node. ``kind``: what it must be."""
        row = self.trailer.rows[slot]
        found, encoding, index, count = int(row["kind"]), int(row["encoding"]), int(row["index"]), int(row["count"])
        if kind is not None and found != kind:
            raise PackDamaged(pack=self.pack, slot=slot, reason=f"it holds a frame of kind {found}, not {kind.name}")
        leader = slot - index
        opened = self._cipher.open(sealed, leader, kind=found, encoding=encoding, count=count)
        plain = decode_frame(opened, pack=self.pack, slot=slot, kind=found, encoding=encoding, count=count)
        return plain if count == 1 else plain[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]

    def unseal(self, slot: int, sealed: memoryview) -> bytes:
        """Return the body of the frame that a slot leads: authenticated, still encoded, fit for another pack."""
        row = self.trailer.rows[slot]
        return self._cipher.open(
            sealed, slot, kind=int(row["kind"]), encoding=int(row["encoding"]), count=int(row["count"])
        )

    def open_frame(self, frame: FrameRead, sealed: memoryview) -> bytes:
        """Return the decoded bytes of a whole frame: a patch, a node, or all of its blocks."""
        kind, encoding, count = frame.kind, frame.encoding, frame.block_count
        opened = self._cipher.open(sealed, frame.slot, kind=kind, encoding=encoding, count=count)
        return decode_frame(opened, pack=self.pack, slot=frame.slot, kind=kind, encoding=encoding, count=count)

    def open_blocks(self, frame: FrameRead, sealed: memoryview) -> list[bytes | memoryview]:
        """Return the blocks of a data frame, as far as the last one that is wanted."""
        kind, encoding, count = frame.kind, frame.encoding, frame.block_count
        opened = self._cipher.open(sealed, frame.slot, kind=kind, encoding=encoding, count=count)
        return unpack_blocks(
            opened,
            pack=self.pack,
            slot=frame.slot,
            encoding=encoding,
            block_count=count,
            wanted=frame.wants[-1].part + 1,
        )

    def fetch(self, slot: int, *, kind: FrameKind | None = None) -> bytes:
        """Return the decoded bytes of a slot, read on its own."""
        offset_bytes, length_bytes = self.frame_extent(slot)
        return self.plain(slot, self.read_range(offset_bytes, length_bytes), kind=kind)


class PackShelf:
    """All packs of a repository, opened on demand; keeps a bounded number of trailers in memory. Thread-safe."""

    def __init__(self, store: ObjectStore, keys: KeyRing, *, rows_max: int = TRAILER_CACHE_ROWS_MAX) -> None:
        self._store = store
        self._keys = keys
        self._rows_max = rows_max
        self._lock = threading.Lock()
        self._open: OrderedDict[PackId, OpenPack] = OrderedDict()
        self._rows = 0

    def open(self, pack: PackId) -> OpenPack:
        """Return the pack, its trailer read and proven. ``PackMissing``, ``PackDamaged``."""
        with self._lock:
            found = self._open.get(pack)
            if found is not None:
                self._open.move_to_end(pack)
                return found
        return self.adopt(self.read_trailer(pack))

    def adopt(self, sealed: SealedTrailer) -> OpenPack:
        """Return the pack that a sealed trailer (from the pack or from an index) describes, and keep it."""
        cipher = FrameCipher(self._keys, sealed.pack, epoch=sealed.epoch)
        frames_bytes = sealed.pack_bytes - layout.PACK_HEADER.size - layout.PACK_TAIL.size - len(sealed.sealed)
        trailer = parse_trailer(cipher.open_trailer(sealed.sealed), pack=sealed.pack, frames_bytes=frames_bytes)
        opened = OpenPack(self._store, cipher, trailer)
        with self._lock:
            if sealed.pack not in self._open:
                self._open[sealed.pack] = opened
                self._rows += len(trailer)
            while self._rows > self._rows_max and len(self._open) > 1:
                _, dropped = self._open.popitem(last=False)
                self._rows -= len(dropped.trailer)
        return opened

    def forget(self, pack: PackId) -> None:
        """Drop what is kept of a pack: it was deleted, or must be read again from the store."""
        with self._lock:
            dropped = self._open.pop(pack, None)
            if dropped is not None:
                self._rows -= len(dropped.trailer)

    def read_trailer(self, pack: PackId) -> SealedTrailer:
        """Return the trailer as it lies in the store, after checking the pack's frame around it."""
        key = pack_key(pack)
        try:
            size_bytes = self._store.size(key)
            guess_bytes = min(size_bytes, _TAIL_GUESS_BYTES)
            tail = self._store.get_range(key, offset_bytes=size_bytes - guess_bytes, length_bytes=guess_bytes)
            trailer_bytes, epoch = _trailer_bytes(tail, pack=pack, size_bytes=size_bytes)
            whole_bytes = trailer_bytes + layout.PACK_TAIL.size
            if whole_bytes > guess_bytes:
                tail = self._store.get_range(key, offset_bytes=size_bytes - whole_bytes, length_bytes=whole_bytes)
        except ObjectMissing as cause:
            raise PackMissing(pack=pack) from cause
        except RangeNotSatisfiable as cause:
            raise PackDamaged(pack=pack, slot=None, reason="it became shorter while it was read") from cause
        return SealedTrailer(pack, size_bytes, tail[len(tail) - whole_bytes : len(tail) - layout.PACK_TAIL.size], epoch)


def _trailer_bytes(tail: bytes, *, pack: PackId, size_bytes: int) -> tuple[int, int]:
    """Return how long the trailer is, and its epoch."""
    room_bytes = size_bytes - layout.PACK_HEADER.size - layout.PACK_TAIL.size
    if room_bytes < layout.TAG_BYTES:
        raise PackDamaged(pack=pack, slot=None, reason=f"it is only {size_bytes} bytes long")
    magic, word = layout.PACK_TAIL.unpack_from(tail, len(tail) - layout.PACK_TAIL.size)
    trailer_bytes, epoch = layout.parse_trailer_word(word)
    if magic != layout.PACK_TAIL_MAGIC:
        raise PackDamaged(pack=pack, slot=None, reason="it does not end as a pack does: cut short or overwritten")
    if not layout.TAG_BYTES <= trailer_bytes <= min(room_bytes, layout.TRAILER_BYTES_MAX):
        raise PackDamaged(pack=pack, slot=None, reason=f"it claims a trailer of {trailer_bytes} bytes")
    return trailer_bytes, epoch


@dataclass(frozen=True, slots=True)
class Patch:
    """A block said as another block with some of its 512-byte pages replaced."""

    base_pack: PackId
    base_slot: int
    bitmap: int
    """Bit ``i`` says that page ``i`` is replaced."""
    pages: bytes


def parse_patch(plain: bytes, *, pack: PackId, slot: int) -> Patch:
    """Return the patch in a frame's plain bytes; ``PackDamaged`` when it does not fit itself."""
    size = layout.PATCH_HEADER.size
    base, base_slot, low, high = layout.PATCH_HEADER.unpack_from(plain) if len(plain) >= size else (b"", 0, 0, 0)
    bitmap = low | high << 64
    if not bitmap or len(plain) != size + bitmap.bit_count() * layout.PAGE_BYTES:
        raise PackDamaged(pack=pack, slot=slot, reason="its patch does not fit its bitmap of pages")
    return Patch(PackId(base), base_slot, bitmap, plain[size:])
