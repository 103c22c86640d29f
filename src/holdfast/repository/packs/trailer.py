"""A pack's trailer: what is in the pack, slot by slot.

Invariant: a trailer that was parsed is consistent in itself: its frames lie inside the pack, one after the other, and
every slot names the frame that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import from_msgpack
from holdfast.repository import layout
from holdfast.repository.damage import PackDamaged
from holdfast.repository.layout import Encoding, FrameKind, PackId

__all__ = ["Trailer", "TrailerNotes", "parse_trailer", "write_trailer"]

Rows = npt.NDArray[Any]


class TrailerNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What a trailer says about its pack beside the rows. Unknown fields are skipped when read."""

    run: str
    """The run that wrote the pack."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """The slots of one pack. ``offsets[i]`` is where the frame of slot ``i`` begins in the pack's object."""

    pack: PackId
    rows: Rows
    offsets: npt.NDArray[np.int64]
    notes: TrailerNotes

    def id_of(self, slot: int) -> bytes:
        """Return the 32-byte id of the block (or node) in a slot."""
        return bytes(self.rows["id"][slot])

    def shares(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what each of these slots counts for where live bytes are summed: its part of its frame's length."""
        rows = self.rows[slots]
        index, count = rows["index"].astype(np.int64), rows["count"].astype(np.int64)
        lengths = self.rows["length"][slots - index].astype(np.int64)
        shares: npt.NDArray[np.int64] = lengths // count + np.where(index == 0, lengths % count, 0)
        return shares

    def share(self, slot: int) -> int:
        """Return the share of one slot; ``PackDamaged`` when there is no such slot."""
        if not 0 <= slot < len(self):
            raise PackDamaged(pack=self.pack, slot=slot, reason="it has no such slot")
        return int(self.shares(np.array([slot], dtype=np.int64))[0])

    def __len__(self) -> int:
        return len(self.rows)


def write_trailer(rows: bytes, notes: TrailerNotes) -> bytes:
    """Return the plain bytes of a trailer, from its rows as they are stored."""
    text = msgspec.msgpack.encode(notes)
    return layout.TRAILER_HEADER.pack(len(rows) // layout.TRAILER_ROW.itemsize, len(text)) + rows + text


def parse_trailer(plain: bytes, *, pack: PackId, frames_bytes: int) -> Trailer:
    """Return the trailer; ``PackDamaged`` when it does not fit itself or the ``frames_bytes`` before it."""
    count, notes_bytes = (
        layout.TRAILER_HEADER.unpack_from(plain) if len(plain) >= layout.TRAILER_HEADER.size else (0, 0)
    )
    start = layout.TRAILER_HEADER.size
    end = start + count * layout.TRAILER_ROW.itemsize
    if not 0 < count <= layout.SLOTS_MAX or len(plain) != end + notes_bytes:
        raise PackDamaged(pack=pack, slot=None, reason=f"its trailer of {len(plain)} bytes cannot hold {count} slots")
    rows = np.frombuffer(plain, dtype=layout.TRAILER_ROW, count=count, offset=start)
    try:
        notes = from_msgpack(plain[end:], TrailerNotes)
    except (msgspec.DecodeError, ValueError) as cause:
        raise PackDamaged(pack=pack, slot=None, reason="its trailer's notes cannot be read") from cause
    return Trailer(pack, rows, _offsets(rows, pack=pack, frames_bytes=frames_bytes), notes)


def _offsets(rows: Rows, *, pack: PackId, frames_bytes: int) -> npt.NDArray[np.int64]:
    """Return where the frame of each slot begins: slots that share a frame share its offset."""
    lengths = rows["length"].astype(np.int64)
    index, count, kind = rows["index"].astype(np.int64), rows["count"], rows["kind"]
    leads = index == 0
    ends = np.cumsum(lengths)
    leaders = np.arange(len(rows)) - index
    is_sound = (
        bool(leads[0])
        and bool((leaders >= 0).all())
        and bool(((lengths > layout.TAG_BYTES) == leads).all())
        and bool((lengths <= layout.FRAME_BYTES_MAX).all())
        and int(ends[-1]) <= frames_bytes
        and bool(((kind >= FrameKind.DATA) & (kind <= FrameKind.MAP)).all())
        and bool((rows["encoding"] <= Encoding.ZSTD).all())
        and bool(((count >= 1) & (count <= layout.BLOCKS_PER_FRAME_MAX) & (index < count)).all())
        and bool(((count == 1) | (kind == FrameKind.DATA)).all())
    )
    if not is_sound or not _groups_are_whole(leads, leaders, count):
        raise PackDamaged(pack=pack, slot=None, reason="its trailer contradicts itself")
    starts = layout.PACK_HEADER.size + ends - lengths
    offsets: npt.NDArray[np.int64] = starts[leaders]
    return offsets


def _groups_are_whole(
    leads: npt.NDArray[np.bool_], leaders: npt.NDArray[np.int64], count: npt.NDArray[np.uint8]
) -> bool:
    """Return whether every frame has exactly as many slots as it says, all of them agreeing."""
    if not bool((count[leaders] == count).all() and leads[leaders].all()):
        return False
    sizes = np.bincount(leaders, minlength=len(leads))
    return bool((sizes[leads] == count[leads]).all())
