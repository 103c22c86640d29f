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
from holdfast.repository.avoided import AvoidedSlots
from holdfast.repository.block_reader import BlockReader, Wanted
from holdfast.repository.crew import BufferShelf
from holdfast.repository.damage import Damage
from holdfast.repository.entries import PATCH_FLAG, share_of
from holdfast.repository.frame import Compressor, Frame
from holdfast.repository.layout import FrameKind
from holdfast.repository.slot_book import SlotBook

__all__ = ["Candidate", "PatchMaker", "Patched"]

_PAGES_MAX = 64
"""Half a block. Beyond it a patch hardly saves anything, and reading one costs two frames: decision 0013."""

_PROBED = 8
"""Blocks that are compared before all others of a batch. If none of them pays, the rest was most likely rewritten."""

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

    def __init__(self, book: SlotBook, blocks: BlockReader, buffers: BufferShelf, *, avoided: AvoidedSlots) -> None:
        self._book = book
        self._blocks = blocks
        self._buffers = buffers
        self._avoided = avoided

    def patches(self, candidates: Sequence[Candidate], compressor: Compressor) -> list[Patched]:
        """Return a patch for each of the blocks for which it pays."""
        based = self._with_bases(candidates)
        made = self._compare(based[:_PROBED], compressor)
        if made:
            made += self._compare(based[_PROBED:], compressor)
        return made

    def _with_bases(self, candidates: Sequence[Candidate]) -> list[tuple[Candidate, int]]:
        """Return the candidates with the entries of their bases: of a patch its own base, so that depth stays one."""
        patches = [each.before for each in candidates if each.before & PATCH_FLAG]
        try:
            bases = dict(zip(patches, self._book.bases(patches), strict=True))
        except Damage:
            bases = {patch: self._book.bases([patch])[0] for patch in patches if self._book.has_base(patch)}
        based = [(each, bases.get(each.before, 0) if each.before & PATCH_FLAG else each.before) for each in candidates]
        return [(each, base) for each, base in based if self._may_be_base(base)]

    def _may_be_base(self, base: int) -> bool:
        return base != 0 and base & PATCH_FLAG == 0 and self._book.address(base) not in self._avoided

    def _compare(self, based: Sequence[tuple[Candidate, int]], compressor: Compressor) -> list[Patched]:
        """Return patches for what pays."""
        if not based:
            return []
        buffer = self._buffers.take()
        old = memoryview(buffer)[: len(based) * BLOCK_BYTES]
        is_read = self._read([base for _, base in based], old)
        made = []
        for number, (candidate, base) in enumerate(based):
            if is_read[number]:
                before = old[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
                patched = self._patched(candidate, before, base, compressor)
                if patched is not None:
                    made.append(patched)
        old.release()
        self._buffers.give_back(buffer)
        return made

    def _read(self, bases: Sequence[int], old: memoryview) -> list[bool]:
        """Read the bases into ``old``; return for each whether it could be read."""
        wanted = [Wanted(self._book.address(base), number * BLOCK_BYTES) for number, base in enumerate(bases)]
        if self._try_read(wanted, old):
            return [True] * len(wanted)
        return [self._try_read([each], old) for each in wanted]

    def _try_read(self, wanted: Sequence[Wanted], old: memoryview) -> bool:
        try:
            self._blocks.read_into(old, wanted)
        except Damage:
            return False
        return True

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
