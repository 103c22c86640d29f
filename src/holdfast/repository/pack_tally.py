"""Counting what a map refers to while it is being built, pack by pack; at the end this becomes the pack table."""

from __future__ import annotations

import numpy as np

from holdfast.repository.entries import PACK_SHIFT, Entries, PackNumbers, lengths_of, pack_numbers_of
from holdfast.repository.pack_table import PackTable, PackUse

__all__ = ["PackTally"]


class PackTally:
    """References and live bytes by pack number. Not thread-safe: the map builder guards it."""

    def __init__(self, numbers: PackNumbers, *, start: PackTable | None) -> None:
        self._numbers = numbers
        self._references: dict[int, int] = {}
        self._live_bytes: dict[int, int] = {}
        for pack, use in start.items() if start is not None else ():
            number = numbers.number(pack)
            numbers.set_length(number, use.length_bytes)
            self._references[number] = use.references
            self._live_bytes[number] = use.live_bytes

    def add(self, entries: Entries) -> None:
        """Count entries that came; zero blocks do not count."""
        self._count(entries[entries != 0], sign=1)

    def remove(self, entries: Entries) -> None:
        """Count entries that went; their lengths are known."""
        self._count(entries, sign=-1)

    def add_one(self, number: int, length_bytes: int) -> None:
        """Count one node of the map that came."""
        self._add(number, 1, length_bytes)

    def remove_one(self, number: int, length_bytes: int) -> None:
        """Count one node of the map that went."""
        self._add(number, -1, -length_bytes)

    def table(self) -> PackTable:
        """Return the table; the length of every pack in it is known by now."""
        uses = {}
        for number, references in self._references.items():
            assert references >= 0
            if references:
                uses[self._numbers.pack(number)] = PackUse(
                    length_bytes=self._numbers.length_bytes(number),
                    references=references,
                    live_bytes=self._live_bytes[number],
                )
        return PackTable(uses)

    def _count(self, entries: Entries, *, sign: int) -> None:
        if len(entries) == 0:
            return
        if len(entries) == 1 or int(entries.min()) >> PACK_SHIFT == int(entries.max()) >> PACK_SHIFT:
            # Most runs of an increment replace blocks of one pack; counting those needs no sorting.
            number = int(entries[0]) >> PACK_SHIFT
            self._add(number, sign * len(entries), sign * int(lengths_of(entries).sum()))
            return
        packs, place = np.unique(pack_numbers_of(entries), return_inverse=True)
        counts = np.bincount(place, minlength=len(packs)).tolist()
        lengths = np.bincount(place, weights=lengths_of(entries), minlength=len(packs)).tolist()
        for number, count, length_bytes in zip(packs.tolist(), counts, lengths, strict=True):
            self._add(number, sign * count, sign * int(length_bytes))

    def _add(self, number: int, references: int, length_bytes: int) -> None:
        self._references[number] = self._references.get(number, 0) + references
        self._live_bytes[number] = self._live_bytes.get(number, 0) + length_bytes
