"""The map of the disk that a new one is compared with, seen as entries of the run that compares.

Invariant: what cannot be read is an error where the new disk inherits from it, and no match where it would only help.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.repository import layout
from holdfast.repository.damage import Damage
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.maps.slot_book import SlotBook
from holdfast.repository.packs.disk_map import blocks_of_leaf
from holdfast.repository.packs.entries import PATCH_FLAG, Entries, PackNumbers, distinct
from holdfast.repository.packs.stored_disk import NodeAddress

__all__ = ["ReferenceMap"]


class ReferenceMap:
    """A reference beside a disk of ``size_bytes`` that is written; it may be shorter. Thread-safe.

    ``inherit``: its blocks are also what every range of the new disk is that nobody mentions.
    """

    def __init__(
        self, reader: MapReader, numbers: PackNumbers, book: SlotBook, *, size_bytes: int, inherit: bool
    ) -> None:
        self._reader = reader
        self._numbers = numbers
        self._book = book
        self._size_bytes = size_bytes
        self.inherit = inherit

    @property
    def leaves(self) -> Sequence[NodeAddress | None]:
        """Where its leaves lie."""
        return self._reader.root.leaves

    def is_longer(self, number: int) -> bool:
        """Return whether a leaf of the new disk has more blocks than the reference's."""
        mine = blocks_of_leaf(self._reader.root.size_bytes, number) if number < len(self.leaves) else 0
        return blocks_of_leaf(self._size_bytes, number) != mine

    def leaf(self, number: int) -> Entries:
        """Return a leaf's entries as its map says them, lengthened with zeros to what the leaf has now. ``Damage``."""
        entries = np.zeros(blocks_of_leaf(self._size_bytes, number), dtype=np.int64)
        if number < len(self.leaves):
            found = self._reader.entries(number, self._numbers)
            entries[: len(found)] = found
        return entries

    def entries(self, blocks: Entries) -> Entries:
        """Return the entries of some blocks, ascending; 0 for those that cannot be told and need not be."""
        found = np.zeros(len(blocks), dtype=np.int64)
        leaves = blocks // layout.LEAF_BLOCKS
        for number in distinct(leaves):
            here = leaves == number
            try:
                found[here] = self.leaf(number)[blocks[here] % layout.LEAF_BLOCKS]
            except Damage:
                if self.inherit:
                    raise
        return found

    def match(self, entries: Entries, ids: Sequence[bytes]) -> tuple[list[bool], Entries]:
        """Return which of the entries lead to a block with the id beside them, and all of them completed.

        An entry that cannot be completed, and need not be, becomes 0.
        """
        completed = np.zeros(len(entries), dtype=np.int64)
        is_same = [False] * len(ids)
        for group in self._book.groups(entries):
            try:
                trailer = self._book.trailer(group)
            except Damage:
                if self.inherit:
                    raise
                continue
            completed[group.at] = entries[group.at] | self._book.facts(group, trailer)
            found: list[bytes] = trailer.rows["id"][group.slots].tolist()
            for at, id in zip(group.at.tolist(), found, strict=True):
                is_same[at] = id == ids[at]
        if not self.inherit:
            self._drop_unusable_patches(completed, is_same)
        return is_same, completed

    def _drop_unusable_patches(self, completed: Entries, is_same: list[bool]) -> None:
        """Let no patch match whose base cannot be counted, or must not be referred to."""
        patches = [at for at in np.flatnonzero(completed & PATCH_FLAG).tolist() if is_same[at]]
        usable = self._book.usable_bases(completed[patches].tolist())
        for at in patches:
            if int(completed[at]) not in usable:
                is_same[at] = False
                completed[at] = 0
