"""A pack that is being filled: frames get their slots and their place in memory here, before it becomes an object.

Not thread-safe: the dock guards it, except for sealing into places that were given out.
"""

from __future__ import annotations

import struct

from holdfast.repository import layout
from holdfast.repository.packs.frame import Frame, FrameCipher
from holdfast.repository.packs.pack_memory import PackMemory, Segment
from holdfast.repository.packs.trailer import TrailerNotes, write_trailer

__all__ = ["FillingPack"]

_ROW = struct.Struct("<32sIBBBB")
_NOTES_BYTES_MAX = 512
"""Room that is kept for a trailer's notes: a run's name with some hundred characters to spare."""
_FIXED_BYTES = (
    layout.PACK_HEADER.size + layout.TRAILER_HEADER.size + _NOTES_BYTES_MAX + layout.TAG_BYTES + layout.PACK_TAIL.size
)

assert _ROW.size == layout.TRAILER_ROW.itemsize


class FillingPack:
    """One pack under construction."""

    def __init__(self, cipher: FrameCipher, *, number: int, bytes_max: int) -> None:
        self.cipher = cipher
        self.number = number
        self.segments: list[Segment] = []
        self.slots = 0
        self.unsealed = 0
        self.is_closed = False
        self._bytes_max = bytes_max
        self._frames_bytes = 0
        self._rows = bytearray()

    def has_room(self, frame: Frame) -> bool:
        """Return whether the frame fits into this pack at all; one always does, so that writing goes on."""
        if self.slots == 0:
            return True
        count = len(frame.ids)
        grown_bytes = self._frames_bytes + frame.sealed_bytes + len(self._rows) + count * _ROW.size + _FIXED_BYTES
        return self.slots + count <= layout.SLOTS_MAX and grown_bytes <= self._bytes_max

    def needs_segment(self, frame: Frame) -> bool:
        """Return whether the frame needs a segment more than the pack has."""
        return not self.segments or self.segments[-1].free_bytes < frame.sealed_bytes

    def place(self, frame: Frame) -> tuple[int, memoryview]:
        """Return the next slot, that of the frame's first block, and the memory to seal the frame into."""
        room = self.segments[-1].take(frame.sealed_bytes)
        slot = self.slots
        count = len(frame.ids)
        for index, id in enumerate(frame.ids):
            length_bytes = 0 if index else frame.sealed_bytes
            self._rows += _ROW.pack(id, length_bytes, frame.kind, frame.encoding, index, count)
        self._frames_bytes += frame.sealed_bytes
        self.slots += count
        self.unsealed += 1
        return slot, room

    def finish(self, notes: TrailerNotes) -> tuple[list[bytes | memoryview], bytes, bytes]:
        """Return the whole object in parts, its trailer's rows, and the sealed trailer. All frames are sealed."""
        assert self.unsealed == 0
        assert self.slots > 0
        rows = bytes(self._rows)
        trailer = self.cipher.seal_trailer(write_trailer(rows, notes))
        word = layout.trailer_word(len(trailer), epoch=self.cipher.epoch)
        parts: list[bytes | memoryview] = [self.cipher.header]
        parts += [segment.content() for segment in self.segments]
        parts += [trailer, layout.PACK_TAIL.pack(layout.PACK_TAIL_MAGIC, word)]
        return parts, rows, trailer

    def release(self, memory: PackMemory) -> None:
        """Give the memory back."""
        memory.give_back(self.segments)
        self.segments = []
