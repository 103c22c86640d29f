"""The memory that packs are built in: a bounded number of equal segments, used again and again.

Fresh memory costs a page fault per 4 KiB, which at engine speed is a noticeable part of all work; so segments are
kept. Not thread-safe: the dock that owns it holds its own lock.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core import MIB

__all__ = ["SEGMENT_BYTES", "PackMemory", "Segment"]

SEGMENT_BYTES = 4 * MIB
"""Twice the largest frame, so that at most half of a segment is ever left unused."""


class Segment:
    """A piece of memory that frames are laid into one after the other."""

    __slots__ = ("_buffer", "_view", "used_bytes")

    def __init__(self) -> None:
        self._buffer = bytearray(SEGMENT_BYTES)
        self._view = memoryview(self._buffer)
        self.used_bytes = 0

    @property
    def free_bytes(self) -> int:
        """How much can still be taken."""
        return SEGMENT_BYTES - self.used_bytes

    def take(self, length_bytes: int) -> memoryview:
        """Return the next ``length_bytes`` of the segment."""
        assert length_bytes <= self.free_bytes
        start = self.used_bytes
        self.used_bytes += length_bytes
        return self._view[start : self.used_bytes]

    def content(self) -> memoryview:
        """Return everything that was taken so far."""
        return self._view[: self.used_bytes]


class PackMemory:
    """A fixed number of segments."""

    def __init__(self, *, segments_max: int) -> None:
        assert segments_max >= 2
        self.segments_max = segments_max
        self._free: list[Segment] = []
        self._made = 0

    def try_take(self) -> Segment | None:
        """Return an empty segment, None while all are in use."""
        if self._free:
            return self._free.pop()
        if self._made == self.segments_max:
            return None
        self._made += 1
        return Segment()

    def give_back(self, segments: Iterable[Segment]) -> None:
        """Take segments back; nobody may use what was taken from them any more."""
        for segment in segments:
            segment.used_bytes = 0
            self._free.append(segment)
