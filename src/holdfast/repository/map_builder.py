"""Building the map of a disk that is being written: leaves fill up, are compared with the reference, and become nodes.

Invariant: at the end the table of packs says exactly what the map refers to, because every entry that comes or goes is
counted when it does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core import BLOCK_BYTES
from holdfast.repository import layout
from holdfast.repository.damage import Damage
from holdfast.repository.disk_map import Leaf, Root, blocks_of_leaf, leaf_count, write_leaf
from holdfast.repository.entries import (
    Entries,
    PackNumbers,
    entry_of,
    lengths_of,
    pack_numbers_of,
    place_of,
    places_of,
    slots_of,
)
from holdfast.repository.map_reader import MapReader
from holdfast.repository.pack_tally import PackTally
from holdfast.repository.stored_disk import NodeAddress
from holdfast.repository.vault import Vault

__all__ = ["MapBuilder"]


@dataclass(slots=True)
class _OpenLeaf:
    entries: Entries
    base: Entries


class MapBuilder:
    """The map of one disk under construction. Thread-safe.

    ``reference`` is a map to compare blocks with; with ``inherit`` its blocks are also what every range is that nobody
    mentions.
    """

    def __init__(
        self,
        vault: Vault,
        numbers: PackNumbers,
        tally: PackTally,
        *,
        size_bytes: int,
        reference: MapReader | None,
        inherit: bool,
    ) -> None:
        self._vault = vault
        self._numbers = numbers
        self._tally = tally
        self._reference = reference
        self._inherit = inherit
        self._lock = threading.RLock()
        self._size_bytes = size_bytes
        self._open: dict[int, _OpenLeaf] = {}
        self._leaves: list[NodeAddress | None] = [None] * leaf_count(size_bytes)
        if reference is not None and inherit:
            self._leaves[: len(reference.root.leaves)] = reference.root.leaves
            self._reopen_short_leaf(reference)

    def match_reference(self, first_block: int, blocks: Sequence[int], ids: Sequence[bytes]) -> list[int]:
        """Return an entry for every block whose id the reference holds at the same place, 0 for the others.

        ``blocks`` are offsets from ``first_block``.
        """
        if self._reference is None:
            return [0] * len(ids)
        return [self._match(first_block + block, id) for block, id in zip(blocks, ids, strict=True)]

    def put(self, first_block: int, entries: Entries) -> None:
        """Set the entries of neighbouring blocks."""
        with self._lock:
            done = 0
            while done < len(entries):
                number, at = divmod(first_block + done, layout.LEAF_BLOCKS)
                count = min(len(entries) - done, layout.LEAF_BLOCKS - at)
                self._replace(number, at, entries[done : done + count])
                done += count

    def put_zeros(self, first_block: int, count: int) -> None:
        """Say that neighbouring blocks are zero."""
        zeros = np.zeros(layout.LEAF_BLOCKS, dtype=np.int64)
        with self._lock:
            done = 0
            while done < count:
                number, at = divmod(first_block + done, layout.LEAF_BLOCKS)
                part = min(count - done, layout.LEAF_BLOCKS - at)
                if number in self._open or self._leaves[number] is not None:
                    self._replace(number, at, zeros[:part])
                done += part

    def take_leaves(self, *, below_block: int) -> list[tuple[int, bytes]]:
        """Return number and plain bytes of every leaf that ends at or below a block and has to be stored."""
        taken = []
        with self._lock:
            for number in sorted(self._open):
                if (number + 1) * layout.LEAF_BLOCKS > below_block and below_block * BLOCK_BYTES < self._size_bytes:
                    break
                plain = self._close_leaf(number)
                if plain is not None:
                    taken.append((number, plain))
        return taken

    def set_leaf(self, number: int, address: NodeAddress, *, length_bytes: int) -> None:
        """Say where a leaf that was taken is stored now."""
        with self._lock:
            self._leaves[number] = address
            self._tally.add_one(self._numbers.number(address.pack), length_bytes)

    def root(self) -> Root:
        """Return the root; every leaf has been taken and set."""
        assert not self._open
        return Root(self._size_bytes, tuple(self._leaves))

    def _reopen_short_leaf(self, reference: MapReader) -> None:
        """Open the last leaf of a reference that was shorter: the disk has grown, and the leaf gets more blocks."""
        last = len(reference.root.leaves) - 1
        if blocks_of_leaf(reference.root.size_bytes, last) != blocks_of_leaf(self._size_bytes, last):
            self._leaf(last)

    def _match(self, block: int, id: bytes) -> int:
        leaf, at = divmod(block, layout.LEAF_BLOCKS)
        try:
            number, slot = place_of(int(self._reference_leaf(leaf)[at]))
            if number == 0:
                return 0
            opened = self._vault.shelf.open(self._numbers.pack(number))
        except Damage:
            if self._inherit:
                raise
            return 0
        if opened.trailer.id_of(slot) != id:
            return 0
        return entry_of(number, slot, opened.frame_extent(slot)[1])

    def _reference_leaf(self, number: int) -> Entries:
        with self._lock:
            opened = self._open.get(number)
            if opened is not None and self._inherit:
                return opened.base
            assert self._reference is not None
            return self._padded(number, self._reference)

    def _padded(self, number: int, reference: MapReader) -> Entries:
        """Return the reference's entries of a leaf, lengthened with zeros to what the leaf has now."""
        entries = np.zeros(blocks_of_leaf(self._size_bytes, number), dtype=np.int64)
        if number < len(reference.root.leaves):
            found = reference.entries(number, self._numbers)
            entries[: len(found)] = found
        return entries

    def _leaf(self, number: int) -> _OpenLeaf:
        opened = self._open.get(number)
        if opened is None:
            if self._reference is not None and self._inherit:
                base = self._padded(number, self._reference)
            else:
                base = np.zeros(blocks_of_leaf(self._size_bytes, number), dtype=np.int64)
            opened = _OpenLeaf(base.copy(), base)
            self._open[number] = opened
        return opened

    def _replace(self, number: int, at: int, entries: Entries) -> None:
        leaf = self._leaf(number)
        old = leaf.entries[at : at + len(entries)]
        changed = places_of(old) != places_of(entries)
        self._tally.add(entries[changed])
        gone = old[changed]
        if gone.any():
            self._tally.remove(self._with_lengths(gone[gone != 0]))
        leaf.entries[at : at + len(entries)] = np.where(changed, entries, old)

    def _with_lengths(self, entries: Entries) -> Entries:
        """Return the entries with the lengths of their frames, which a stored map does not say."""
        completed = entries.copy()
        unknown = lengths_of(entries) == 0
        for number in np.unique(pack_numbers_of(entries[unknown])).tolist():
            here = unknown & (pack_numbers_of(entries) == number)
            rows = self._vault.shelf.open(self._numbers.pack(number)).trailer.rows
            slots = slots_of(entries[here])
            completed[here] |= rows["length"][slots - rows["index"][slots]].astype(np.int64)
        return completed

    def _close_leaf(self, number: int) -> bytes | None:
        """Return what is to be stored for a leaf; None when the leaf is zero or the same as in the reference."""
        leaf = self._open.pop(number)
        address = self._leaves[number]
        is_same_size = (
            self._reference is None
            or number >= len(self._reference.root.leaves)
            or (blocks_of_leaf(self._reference.root.size_bytes, number) == len(leaf.entries))
        )
        if address is not None and is_same_size and not (places_of(leaf.entries) != places_of(leaf.base)).any():
            return None
        if address is not None:
            assert self._reference is not None
            length_bytes = self._vault.shelf.open(address.pack).frame_extent(address.slot)[1]
            self._tally.remove_one(self._numbers.number(address.pack), length_bytes)
            self._leaves[number] = None
        if not leaf.entries.any():
            return None
        return self._encode(leaf.entries)

    def _encode(self, entries: Entries) -> bytes:
        pack_numbers, places = np.unique(pack_numbers_of(entries), return_inverse=True)
        has_zeros = pack_numbers[0] == 0
        named = pack_numbers[1:] if has_zeros else pack_numbers
        packs = tuple(self._numbers.pack(number) for number in named.tolist())
        shifted = places.astype(np.uint16) if has_zeros else (places + 1).astype(np.uint16)
        return write_leaf(Leaf(packs, shifted, slots_of(entries).astype(np.uint16)))
