"""What a worker does with blocks of a disk: finds zeros, hashes the others, asks who knows them, stores the rest.

Invariant: a block gets an entry that leads to exactly its bytes; what nobody has is stored whole, or as a patch of a
whole block.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES
from holdfast.repository.layout import FrameKind
from holdfast.repository.maps.map_builder import MapBuilder
from holdfast.repository.maps.reference_map import ReferenceMap
from holdfast.repository.maps.slot_book import SlotBook
from holdfast.repository.packs.entries import Entries, pack_numbers_of, shares_of
from holdfast.repository.packs.frame import Frame
from holdfast.repository.packs.pack_writer import PackStream
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.writing.patch_maker import Candidate, PatchMaker
from holdfast.repository.writing.session import WriteSession

__all__ = ["BlockStorer"]

_BLOCKS_PER_FRAME_MAX = 4
"""As many as a frame may hold. Measured in decision 0015."""


class BlockStorer:
    """Puts blocks of one disk into a stream of packs and into the disk's map. Thread-safe."""

    def __init__(
        self,
        session: WriteSession,
        stream: PackStream,
        map: MapBuilder,
        *,
        book: SlotBook,
        reference: ReferenceMap | None,
    ) -> None:
        self._session = session
        self._stream = stream
        self._map = map
        self._reference = reference
        self._patches = PatchMaker(
            book,
            BlockReader(session.vault, moves=session.moves).gatherer(submit=session.crew.fetch),
            session.crew.buffers,
        )
        self._block_key = session.vault.keys.block_id_key
        self._lock = threading.Lock()
        self.new_bytes = 0
        self.adopted_bytes = 0

    def store(self, numbers: Entries, data: memoryview) -> None:
        """Store whole blocks, ascending. Nothing refers to ``data`` any more when this returns."""
        filled = np.flatnonzero(np.frombuffer(data, dtype=np.uint64).reshape(len(numbers), -1).any(axis=1))
        entries = np.zeros(len(numbers), dtype=np.int64)
        bases: dict[int, int] = {}
        if len(filled):
            entries[filled] = self._entries_of(_Blocks(numbers[filled], filled.tolist(), data, self._block_key), bases)
        self._map.put(numbers, entries, bases=bases)

    def _entries_of(self, blocks: _Blocks, bases: dict[int, int]) -> list[int]:
        """Return where each block lies, cheapest test first; what nobody knows is stored. Adds to ``bases``."""
        found, before = self._match_reference(blocks)
        for find in (self._stream.find, self._session.known.find):
            asked = list(dict.fromkeys(id for id in blocks.ids if id not in found))
            found.update((id, entry) for id, entry in zip(asked, find(asked), strict=True) if entry is not None)
        self._count_adopted([found[id] for id in dict.fromkeys(blocks.ids) if id in found])
        new: dict[bytes, int] = {}
        for at, id in enumerate(blocks.ids):
            if id not in found:
                new.setdefault(id, at)
        if new:
            self._store_new(blocks, new, before, found, bases)
        return [found[id] for id in blocks.ids]

    def _match_reference(self, blocks: _Blocks) -> tuple[dict[bytes, int], list[int]]:
        """Return the entries of blocks that the reference has at the same place, and what it has at each place."""
        if self._reference is None:
            return {}, [0] * len(blocks.ids)
        is_same, entries = self._reference.match(self._reference.entries(blocks.numbers), blocks.ids)
        before: list[int] = entries.tolist()
        return {id: entry for id, entry, same in zip(blocks.ids, before, is_same, strict=True) if same}, before

    def _store_new(
        self,
        blocks: _Blocks,
        new: dict[bytes, int],
        before: Sequence[int],
        found: dict[bytes, int],
        bases: dict[int, int],
    ) -> None:
        """Store blocks that nobody knows: ``new`` says where in ``blocks``. Adds to ``found`` and ``bases``."""
        compressor = self._session.compressor
        candidates = [Candidate(id, blocks.piece(at), before[at]) for id, at in new.items() if before[at]]
        patched = {each.id: each for each in self._patches.patches(candidates, compressor)}
        found.update((id, each.base) for id, each in patched.items() if each.frame is None)
        whole = sorted(at for id, at in new.items() if id not in patched)
        frames = [(new[id], each.frame) for id, each in patched.items() if each.frame is not None]
        for first, count in blocks.neighbours(whole):
            ids = tuple(blocks.ids[first : first + count])
            frames.append((first, compressor.frame(blocks.piece(first, count=count), ids=ids, kind=FrameKind.DATA)))
        stored = self._store_frames([frame for _, frame in sorted(frames, key=lambda each: each[0])])
        found.update(stored)
        bases.update((stored[id], each.base) for id, each in patched.items() if each.frame is not None)
        with self._lock:
            self.new_bytes += len(stored) * BLOCK_BYTES

    def _store_frames(self, frames: Sequence[Frame]) -> dict[bytes, int]:
        ids = [id for frame in frames for id in frame.ids]
        return dict(zip(ids, self._stream.store(frames), strict=True))

    def _count_adopted(self, entries: Sequence[int]) -> None:
        """Count blocks that an interrupted execution stored as what they are: new in this run."""
        if not self._session.adopted or not entries:
            return
        found = np.array(entries, dtype=np.int64)
        taken = found[np.isin(pack_numbers_of(found), list(self._session.adopted))]
        with self._lock:
            self.new_bytes += len(taken) * BLOCK_BYTES
            self.adopted_bytes += int(shares_of(taken).sum())


class _Blocks:
    """Blocks that are not zero: their numbers on the disk, where they lie in ``data``, their ids."""

    def __init__(self, numbers: Entries, at: Sequence[int], data: memoryview, key: bytes) -> None:
        self.numbers = numbers
        self._at = at
        self._data = data
        self.ids = [blake3(self.piece(index), key=key).digest() for index in range(len(at))]

    def piece(self, index: int, *, count: int = 1) -> memoryview:
        """Return the bytes of a block, or of several that lie one after the other."""
        start = self._at[index] * BLOCK_BYTES
        return self._data[start : start + count * BLOCK_BYTES]

    def neighbours(self, indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield first index and number of those of the blocks that follow each other, a frame's worth at most."""
        numbers: list[int] = self.numbers.tolist()
        first = count = 0
        for index in indexes:
            if count == 0:
                first, count = index, 1
            elif count < _BLOCKS_PER_FRAME_MAX and numbers[index] == numbers[first] + count:
                count += 1
            else:
                yield first, count
                first, count = index, 1
        if count:
            yield first, count
