"""Random reads of a stored disk: a bounded cache of decoded blocks, and reading ahead where access is sequential.

For file restore, NBD and FUSE, which read a few KiB here and there, then megabytes in a row, often from several
threads. Invariant: see ``BlockCache``; reading ahead never raises anything, whoever needs the block meets the error.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.repository.damage import Damage
from holdfast.repository.layout import LEAF_BLOCKS
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.reading.block_cache import BlockCache
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.gather import gather_places

__all__ = ["RandomReader"]

_CACHE_BLOCKS_MAX = 32 * MIB // BLOCK_BYTES
"""Holds the tables of a large file system, and what is read ahead for four readers, twice."""

_PIECE_BLOCKS_MAX = 4 * MIB // BLOCK_BYTES
"""One request's worth: what is read at once, and how far ahead of a reader."""

_STREAMS_MAX = 4
"""Sequential readers that are told apart: a copy, a virus scanner and two people."""

_AHEAD_WORKERS = 2

_ZEROS = bytes(BLOCK_BYTES)


@dataclass(slots=True)
class _Stream:
    """A reader that goes forward: where it is expected next, up to where was read, and how far to read ahead."""

    next: int
    read_to: int
    step: int = 1


class RandomReader:
    """Reads ranges of one stored disk. Thread-safe."""

    def __init__(self, reader: MapReader, blocks: BlockReader, *, ahead: bool) -> None:
        self._map = reader
        self._blocks = blocks
        self._cache = BlockCache(blocks_max=_CACHE_BLOCKS_MAX)
        self._streams: list[_Stream] = []
        self._lock = threading.Lock()
        self._ahead = ahead
        self._pool: ThreadPoolExecutor | None = None

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range of the disk."""
        first, start = divmod(offset_bytes, BLOCK_BYTES)
        end = offset_bytes + length_bytes
        last = -(-end // BLOCK_BYTES)
        if self._ahead:
            self._read_ahead(first, last)
        if last - first == 1:
            return self._blocks_of(first, last)[0][start : start + length_bytes]
        pieces: list[bytes] = []
        for piece in range(first, last, _PIECE_BLOCKS_MAX):
            pieces += self._blocks_of(piece, min(piece + _PIECE_BLOCKS_MAX, last))
        if pieces:
            pieces[-1] = pieces[-1][: end - (last - 1) * BLOCK_BYTES]
            pieces[0] = pieces[0][start:]
        return b"".join(pieces)

    def _blocks_of(self, first: int, last: int) -> list[bytes]:
        """Return whole blocks: from the cache, read here, or from whoever is reading them."""
        places = self._places(first, last)
        claims = self._cache.claim(places)
        found = claims.cached
        if claims.mine:
            found.update(self._read_claimed(claims.mine, places))
        for block, coming in claims.others.items():
            found[block] = coming.result()
        return [found.get(block, _ZEROS) for block in range(first, last)]

    def _read_claimed(self, mine: Sequence[int], places: Mapping[int, NodeAddress]) -> dict[int, bytes]:
        """Return the claimed blocks, and settle every claim. One that is damaged does not keep the others from it."""
        out = bytearray(len(mine) * BLOCK_BYTES)
        lost: dict[int, Damage] = {}

        def note(offset: int, damage: Damage) -> None:
            lost[offset // BLOCK_BYTES] = damage

        try:
            self._blocks.read_into(
                memoryview(out),
                gather_places([places[block] for block in mine], range(0, len(out), BLOCK_BYTES)),
                lose=note,
            )
        except BaseException as failure:
            for block in mine:
                self._cache.fail(block, failure)
            raise
        found = {}
        for index, block in enumerate(mine):
            if index in lost:
                self._cache.fail(block, lost[index])
            else:
                found[block] = bytes(memoryview(out)[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])
                self._cache.settle(block, found[block])
        if lost:
            raise lost[min(lost)]
        return found

    def _places(self, first: int, last: int) -> dict[int, NodeAddress]:
        """Return where the blocks of a range are stored; zero blocks are left out."""
        places = {}
        while first < last:
            number, at = divmod(first, LEAF_BLOCKS)
            count = min(last - first, LEAF_BLOCKS - at)
            leaf = self._map.leaf(number)
            if leaf is not None:
                packs = leaf.packs
                entries = zip(leaf.places[at : at + count].tolist(), leaf.slots[at : at + count].tolist(), strict=True)
                for block, (place, slot) in enumerate(entries, start=first):
                    if place:
                        places[block] = NodeAddress(packs[place - 1], slot)
            first += count
        return places

    def _read_ahead(self, first: int, last: int) -> None:
        """Begin to read what a sequential reader is going to ask for."""
        with self._lock:
            stream = next((each for each in self._streams if first in (each.next - 1, each.next)), None)
            if stream is None:
                self._streams = [*self._streams[1 - _STREAMS_MAX :], _Stream(last, last)]
                return
            if last <= stream.next:
                return
            stream.next = last
            stream.step = min(2 * stream.step, _PIECE_BLOCKS_MAX)
            start, end = max(stream.read_to, last), min(last + stream.step, self._map.block_count)
            if end - start < stream.step // 2 or start >= end:
                return
            stream.read_to = end
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AHEAD_WORKERS, thread_name_prefix="holdfast-ahead")
        self._pool.submit(self._fetch, start, end)

    def _fetch(self, start: int, end: int) -> None:
        """Bring blocks into the cache. An error stays here: whoever asks for the block meets it."""
        places = self._places(start, end)
        mine = self._cache.claim_missing(places)
        if mine:
            self._read_claimed(mine, places)
