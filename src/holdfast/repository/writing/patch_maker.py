"""Making patches: a block that differs in few pages from what the reference has at its place is said by those pages.

Invariant: the base of a patch is a whole block that the reference needs, so it is durable and may be used; what cannot
be read, or does not pay, is left to be stored whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core import BLOCK_BYTES
from holdfast.repository import layout
from holdfast.repository.crew import BufferShelf
from holdfast.repository.layout import FrameKind
from holdfast.repository.maps.slot_book import SlotBook
from holdfast.repository.packs.entries import PATCH_FLAG, share_of
from holdfast.repository.packs.frame import Compressor, Frame
from holdfast.repository.reading.gather import Gatherer, gather_places

__all__ = ["Candidate", "PatchMaker", "Patched"]

_PAGES_MAX = 64
"""Half a block. Beyond it a patch hardly saves anything, and reading one costs two frames: decision 0013."""

_PROBED = 4
"""So many blocks at the beginning of a batch, and in its middle, are compared before all others: neighbours, because
they share frames. If none of them pays, the rest was most likely rewritten."""

_LOW = (1 << 64) - 1
_PAGES = BLOCK_BYTES // layout.PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new block, and the complete entry of what the reference has at its place."""

    id: bytes
    data: memoryview
    before: int


@dataclass(frozen=True, slots=True)
class Patched:
    """A patch that waits to be stored, and the complete entry of its base. No frame: the block is its base again."""

    id: bytes
    frame: Frame | None
    base: int


class PatchMaker:
    """Compares new blocks with old ones. Thread-safe."""

    def __init__(self, book: SlotBook, gatherer: Gatherer, buffers: BufferShelf) -> None:
        self._book = book
        self._gatherer = gatherer
        self._buffers = buffers

    def patches(self, candidates: Sequence[Candidate], compressor: Compressor) -> list[Patched]:
        """Return a patch for each of the blocks for which it pays."""
        based = self._with_bases(candidates)
        middle = max(_PROBED, len(based) // 2)
        made = self._compare(based[:_PROBED] + based[middle : middle + _PROBED], compressor)
        if made:
            made += self._compare(based[_PROBED:middle] + based[middle + _PROBED :], compressor)
        return made

    def _with_bases(self, candidates: Sequence[Candidate]) -> list[tuple[Candidate, int]]:
        """Return the candidates with the entries of their bases: of a patch its own base, so that depth stays one."""
        bases = self._book.usable_bases([each.before for each in candidates if each.before & PATCH_FLAG])
        based = [(each, bases.get(each.before, 0) if each.before & PATCH_FLAG else each.before) for each in candidates]
        return [(each, base) for each, base in based if self._book.may_be_base(base)]

    def _compare(self, based: Sequence[tuple[Candidate, int]], compressor: Compressor) -> list[Patched]:
        """Return patches for what pays."""
        if not based:
            return []
        buffer = self._buffers.take()
        old = memoryview(buffer)[: len(based) * BLOCK_BYTES]
        lost = self._read([base for _, base in based], old)
        made = []
        for number, (candidate, base) in enumerate(based):
            if number not in lost:
                before = old[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
                patched = self._patched(candidate, before, base, compressor)
                if patched is not None:
                    made.append(patched)
        old.release()
        self._buffers.give_back(buffer)
        return made

    def _read(self, bases: Sequence[int], old: memoryview) -> set[int]:
        """Read the bases into ``old``; return which of them could not be read."""
        lost: set[int] = set()
        offsets = range(0, len(bases) * BLOCK_BYTES, BLOCK_BYTES)
        wanted = gather_places([self._book.address(base) for base in bases], offsets)
        self._gatherer.gather(old, wanted, lose=lambda offset, _: lost.add(offset // BLOCK_BYTES)).result()
        return lost

    def _patched(self, candidate: Candidate, before: memoryview, base: int, compressor: Compressor) -> Patched | None:
        """Return the patch; None when it would not be much smaller than the whole block."""
        new = np.frombuffer(candidate.data, np.uint64).reshape(_PAGES, -1)
        differs = (new != np.frombuffer(before, np.uint64).reshape(_PAGES, -1)).any(axis=1)
        count = int(np.count_nonzero(differs))
        if count == 0:
            return Patched(candidate.id, None, base)
        if count > _PAGES_MAX:
            return None
        place = self._book.address(base)
        bitmap = int.from_bytes(np.packbits(differs, bitorder="little").tobytes(), "little")
        header = layout.PATCH_HEADER.pack(place.pack, place.slot, bitmap & _LOW, bitmap >> 64)
        frame = compressor.frame(header + new[differs].tobytes(), ids=(candidate.id,), kind=FrameKind.PATCH)
        # The whole block would compress about as well as the one before it.
        return Patched(candidate.id, frame, base) if 2 * frame.sealed_bytes <= share_of(base) else None
