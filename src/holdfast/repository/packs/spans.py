"""Spans: ranges of a pack that one request reads, because frames that are wanted lie close together in them.

For map nodes, patches and frames that move; blocks of disks are planned with what each is wanted for
(``plan_reads``), by the same two bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.read_plan import GAP_BYTES_MAX, REQUEST_BYTES_MAX

__all__ = ["FrameSpan", "read_frames", "spans_of"]


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """Neighbouring frames of one pack that one request reads."""

    offset_bytes: int
    length_bytes: int
    slots: tuple[int, ...]

    def frames(self, opened: OpenPack, sealed: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield each slot with its sealed frame, from what was read of the pack."""
        for slot in self.slots:
            offset_bytes, length_bytes = opened.frame_extent(slot)
            start = offset_bytes - self.offset_bytes
            yield slot, sealed[start : start + length_bytes]


def spans_of(opened: OpenPack, slots: Iterable[int]) -> Iterator[FrameSpan]:
    """Yield the requests that read the frames of some slots. ``PackDamaged`` when there is no such slot."""
    extents = sorted((*opened.frame_extent(slot), slot) for slot in set(slots))
    first = 0
    for number, (offset_bytes, length_bytes, _) in enumerate(extents):
        end = offset_bytes + length_bytes
        start = extents[first][0]
        following = extents[number + 1] if number + 1 < len(extents) else None
        reach = 0 if following is None else following[0] + following[1] - start
        if following is None or following[0] - end > GAP_BYTES_MAX or reach > REQUEST_BYTES_MAX:
            yield FrameSpan(start, end - start, tuple(slot for _, _, slot in extents[first : number + 1]))
            first = number + 1


def read_frames(opened: OpenPack, slots: Iterable[int]) -> Iterator[tuple[int, memoryview]]:
    """Yield some slots of a pack, ascending, each once, with their sealed frames. ``PackMissing``, ``PackDamaged``."""
    for span in spans_of(opened, slots):
        yield from span.frames(opened, opened.read_range(span.offset_bytes, span.length_bytes))
