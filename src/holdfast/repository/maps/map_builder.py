"""Building the map of a disk that is being written: leaves fill up, are compared with the reference, and become nodes.

Invariant: at the end the table of packs says exactly what the map refers to, because every entry that comes or goes is
counted when it does, and with the entry of a patch that of its base.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core import BLOCK_BYTES
from holdfast.repository import layout
from holdfast.repository.maps.reference_map import ReferenceMap
from holdfast.repository.maps.slot_book import SlotBook
from holdfast.repository.packs.disk_map import Leaf, Root, blocks_of_leaf, leaf_count, write_leaf
from holdfast.repository.packs.entries import (
    Entries,
    PackNumbers,
    distinct,
    pack_numbers_of,
    patches_in,
    places_of,
    slots_of,
)
from holdfast.repository.packs.pack_tally import PackTally
from holdfast.repository.packs.stored_disk import NodeAddress

__all__ = ["MapBuilder"]


@dataclass(slots=True)
class _OpenLeaf:
    entries: Entries
    base: Entries


class MapBuilder:
    """The map of one disk under construction. Thread-safe; each block is put at most once."""

    def __init__(
        self,
        numbers: PackNumbers,
        tally: PackTally,
        book: SlotBook,
        *,
        size_bytes: int,
        inherited: ReferenceMap | None,
    ) -> None:
        """Begin a map: all zero, or everything that ``inherited`` says until it is put anew."""
        self._numbers = numbers
        self._tally = tally
        self._book = book
        self._inherited = inherited
        self._lock = threading.RLock()
        self._size_bytes = size_bytes
        self._open: dict[int, _OpenLeaf] = {}
        self._leaves: list[NodeAddress | None] = [None] * leaf_count(size_bytes)
        if inherited is not None:
            self._leaves[: len(inherited.leaves)] = inherited.leaves
            last = len(inherited.leaves) - 1
            if inherited.is_longer(last):
                self._leaf(last)

    def put(self, blocks: Entries, entries: Entries, *, bases: Mapping[int, int]) -> None:
        """Set the entries of some blocks, ascending. ``bases``: of the entries that lead to patches made just now.

        Every other entry of a patch is one of the inherited map, or of another map that has been stored. ``Damage``
        when an inherited map does not say what the blocks were.
        """
        for number, at, part in _by_leaf(blocks, entries):
            self._replace(number, at, part, bases)

    def put_zeros(self, first_block: int, count: int) -> None:
        """Say that neighbouring blocks are zero. ``Damage`` as for ``put``."""
        zeros = np.zeros(layout.LEAF_BLOCKS, dtype=np.int64)
        done = 0
        while done < count:
            number, at = divmod(first_block + done, layout.LEAF_BLOCKS)
            part = min(count - done, layout.LEAF_BLOCKS - at)
            with self._lock:
                is_zero = number not in self._open and self._leaves[number] is None
            if not is_zero:
                self._replace(number, np.arange(at, at + part), zeros[:part], {})
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

    def set_leaf(self, number: int, address: NodeAddress, *, share_bytes: int) -> None:
        """Say where a leaf that was taken is stored now."""
        with self._lock:
            self._leaves[number] = address
            self._tally.add_one(self._numbers.number(address.pack), share_bytes)

    def root(self) -> Root:
        """Return the root; every leaf has been taken and set."""
        assert not self._open
        return Root(self._size_bytes, tuple(self._leaves))

    def _leaf(self, number: int) -> _OpenLeaf:
        opened = self._open.get(number)
        if opened is None:
            base = self._inherited_leaf(number)
            opened = _OpenLeaf(base.copy(), base)
            self._open[number] = opened
        return opened

    def _inherited_leaf(self, number: int) -> Entries:
        if self._inherited is not None:
            return self._inherited.leaf(number)
        return np.zeros(blocks_of_leaf(self._size_bytes, number), dtype=np.int64)

    def _replace(self, number: int, at: Entries, entries: Entries, bases: Mapping[int, int]) -> None:
        # Nobody else puts these blocks, so what they were can be looked up, read even, without holding the lock.
        old = self._inherited_leaf(number)[at]
        changed = places_of(old) != places_of(entries)
        came, gone = entries[changed], old[changed]
        came = self._with_bases(came[came != 0], bases)
        gone = self._with_bases(self._book.complete(gone[gone != 0]), {})
        with self._lock:
            leaf = self._leaf(number)
            leaf.entries[at] = np.where(changed, entries, old)
            self._tally.add(came)
            self._tally.remove(gone)

    def _with_bases(self, entries: Entries, bases: Mapping[int, int]) -> Entries:
        """Return complete entries, and behind them the bases of those that are patches."""
        patches: list[int] = patches_in(entries).tolist()
        if not patches:
            return entries
        stored = [patch for patch in patches if patch not in bases]
        found = [bases[patch] for patch in patches if patch in bases] + self._book.bases(stored)
        return np.concatenate([entries, np.array(found, dtype=np.int64)])

    def _close_leaf(self, number: int) -> bytes | None:
        """Return what is to be stored for a leaf; None when the leaf is zero or the same as it was inherited."""
        leaf = self._open.pop(number)
        address = self._leaves[number]
        if address is not None:
            assert self._inherited is not None
            is_same = not (places_of(leaf.entries) != places_of(leaf.base)).any()
            if is_same and not self._inherited.is_longer(number):
                return None
            self._tally.remove_one(self._numbers.number(address.pack), self._book.share(address))
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


def _by_leaf(blocks: Entries, entries: Entries) -> Iterator[tuple[int, Entries, Entries]]:
    """Yield leaf, places in it, and entries; ``blocks`` ascend."""
    leaves = blocks // layout.LEAF_BLOCKS
    for number in distinct(leaves):
        here = leaves == number
        yield number, blocks[here] % layout.LEAF_BLOCKS, entries[here]
