"""Counting what a map refers to while it is being built, pack by pack; at the end this becomes the pack table."""

from __future__ import annotations

import numpy as np

from holdfast.repository.packs.entries import PACK_SHIFT, Entries, PackNumbers, pack_numbers_of, shares_of
from holdfast.repository.packs.pack_table import PackTable, PackUse

__all__ = ["PackTally"]


class PackTally:
    """References and live bytes by pack number. Not thread-safe: the map builder guards it."""

    def __init__(self, numbers: PackNumbers) -> None:
        self._numbers = numbers
        self._references: dict[int, int] = {}
        self._live_bytes: dict[int, int] = {}

    def inherit(self, table: PackTable) -> None:
        """Begin with everything that another disk uses."""
        for pack, use in table.items():
            self._add(self._numbers.number(pack), use.references, use.live_bytes)

    def add(self, entries: Entries) -> None:
        """Count entries that came; zero blocks do not count."""
        self._count(entries[entries != 0], sign=1)

    def remove(self, entries: Entries) -> None:
        """Count entries that went; their shares are known."""
        self._count(entries, sign=-1)

    def add_one(self, number: int, share_bytes: int) -> None:
        """Count one node of the map that came."""
        self._add(number, 1, share_bytes)

    def remove_one(self, number: int, share_bytes: int) -> None:
        """Count one node of the map that went."""
        self._add(number, -1, -share_bytes)

    def table(self) -> PackTable:
        """Return the table; the length of every pack in it is known by now."""
        uses = {}
        for number, references in self._references.items():
            assert references >= 0
            if references:
                uses[self._numbers.pack(number)] = PackUse(
                    length_bytes=self._numbers.length_bytes(number),
                    references=references,
                    # What was copied into a frame of its own may have counted for less when it came.
                    live_bytes=max(0, self._live_bytes[number]),
                )
        return PackTable(uses)

    def _count(self, entries: Entries, *, sign: int) -> None:
        if len(entries) == 0:
            return
        if len(entries) == 1 or int(entries.min()) >> PACK_SHIFT == int(entries.max()) >> PACK_SHIFT:
            # Most runs of an increment replace blocks of one pack; counting those needs no sorting.
            number = int(entries[0]) >> PACK_SHIFT
            self._add(number, sign * len(entries), sign * int(shares_of(entries).sum()))
            return
        packs, place = np.unique(pack_numbers_of(entries), return_inverse=True)
        counts = np.bincount(place, minlength=len(packs)).tolist()
        shares = np.bincount(place, weights=shares_of(entries), minlength=len(packs)).tolist()
        for number, count, share_bytes in zip(packs.tolist(), counts, shares, strict=True):
            self._add(number, sign * count, sign * int(share_bytes))

    def _add(self, number: int, references: int, live_bytes: int) -> None:
        self._references[number] = self._references.get(number, 0) + references
        self._live_bytes[number] = self._live_bytes.get(number, 0) + live_bytes
