"""Entries: where a block lies, as one 64-bit number, so that whole runs of blocks are handled by numpy.

An entry is pack number, slot and frame length; 0 means zero block. Pack numbers are given out per run and mean nothing
on disk. Invariant: an entry whose length is 0 came from a stored map, and its length is looked up when it is needed.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from holdfast.repository.layout import PackId

__all__ = [
    "PACK_SHIFT",
    "Entries",
    "PackNumbers",
    "entry_of",
    "lengths_of",
    "pack_numbers_of",
    "place_of",
    "places_of",
    "slots_of",
]

Entries = npt.NDArray[np.int64]

_LENGTH_BITS = 22
_SLOT_BITS = 16
PACK_SHIFT = _LENGTH_BITS + _SLOT_BITS


def entry_of(pack_number: int, slot: int, length_bytes: int) -> int:
    """Return the entry of one block."""
    return pack_number << PACK_SHIFT | slot << _LENGTH_BITS | length_bytes


def pack_numbers_of(entries: Entries) -> Entries:
    """Return the pack numbers of entries; 0 for zero blocks."""
    return entries >> PACK_SHIFT


def slots_of(entries: Entries) -> Entries:
    """Return the slots of entries."""
    return (entries >> _LENGTH_BITS) & ((1 << _SLOT_BITS) - 1)


def lengths_of(entries: Entries) -> Entries:
    """Return the frame lengths of entries, 0 where they are not known."""
    return entries & ((1 << _LENGTH_BITS) - 1)


def place_of(entry: int) -> tuple[int, int]:
    """Return pack number and slot of one entry."""
    return entry >> PACK_SHIFT, (entry >> _LENGTH_BITS) & ((1 << _SLOT_BITS) - 1)


def places_of(entries: Entries) -> Entries:
    """Return what tells one place from another: entries without their lengths."""
    return entries >> _LENGTH_BITS


class PackNumbers:
    """Gives every pack of a run a small number, from 1 up, and remembers how long its object is. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[PackId, int] = {}
        self._packs: list[PackId] = [PackId(b"")]
        self._lengths: dict[int, int] = {}

    def number(self, pack: PackId) -> int:
        """Return the pack's number, a new one when it is seen for the first time."""
        with self._lock:
            number = self._numbers.get(pack)
            if number is None:
                number = len(self._packs)
                self._numbers[pack] = number
                self._packs.append(pack)
            return number

    def pack(self, number: int) -> PackId:
        """Return the pack behind a number."""
        assert number > 0
        return self._packs[number]

    def set_length(self, number: int, length_bytes: int) -> None:
        """Remember how long a pack's object is."""
        with self._lock:
            self._lengths[number] = length_bytes

    def length_bytes(self, number: int) -> int:
        """Return how long a pack's object is."""
        with self._lock:
            return self._lengths[number]
