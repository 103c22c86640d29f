"""Entries: where a block lies, as one 64-bit number, so that whole runs of blocks are handled by numpy.

An entry is pack number, slot, whether the slot holds a patch, and the slot's share; 0 means zero block. Pack numbers
are given out per run and mean nothing on disk. Invariant: an entry whose share is 0 came from a stored map, which says
neither share nor kind; both are looked up when they are needed.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from holdfast.repository.layout import FRAME_BYTES_MAX, SLOTS_MAX, PackId

__all__ = [
    "PACK_SHIFT",
    "PATCH_FLAG",
    "Entries",
    "PackNumbers",
    "distinct",
    "entry_of",
    "pack_numbers_of",
    "patches_in",
    "place_of",
    "places_of",
    "share_of",
    "shares_of",
    "slots_of",
]

Entries = npt.NDArray[np.int64]

_SHARE_BITS = 22
_SLOT_BITS = 16
_SLOT_SHIFT = _SHARE_BITS + 1
PATCH_FLAG = 1 << _SHARE_BITS
"""Set in the entry of a slot that holds a patch."""
PACK_SHIFT = _SLOT_SHIFT + _SLOT_BITS

assert FRAME_BYTES_MAX < PATCH_FLAG
assert SLOTS_MAX <= 1 << _SLOT_BITS


def entry_of(pack_number: int, slot: int, share_bytes: int) -> int:
    """Return the entry of one block that is stored whole."""
    return pack_number << PACK_SHIFT | slot << _SLOT_SHIFT | share_bytes


def pack_numbers_of(entries: Entries) -> Entries:
    """Return the pack numbers of entries; 0 for zero blocks."""
    return entries >> PACK_SHIFT


def slots_of(entries: Entries) -> Entries:
    """Return the slots of entries."""
    return (entries >> _SLOT_SHIFT) & ((1 << _SLOT_BITS) - 1)


def shares_of(entries: Entries) -> Entries:
    """Return the shares of entries, 0 where they are not known."""
    return entries & (PATCH_FLAG - 1)


def share_of(entry: int) -> int:
    """Return the share of one entry."""
    return entry & (PATCH_FLAG - 1)


def patches_in(entries: Entries) -> Entries:
    """Return those of the entries that are known to lead to a patch."""
    patches: Entries = entries[entries & PATCH_FLAG != 0]
    return patches


def place_of(entry: int) -> tuple[int, int]:
    """Return pack number and slot of one entry."""
    return entry >> PACK_SHIFT, (entry >> _SLOT_SHIFT) & ((1 << _SLOT_BITS) - 1)


def places_of(entries: Entries) -> Entries:
    """Return what tells one place from another: entries without what is known of the slot."""
    return entries >> _SLOT_SHIFT


def distinct(values: Entries) -> list[int]:
    """Return the different values, ascending.

    Not by ``numpy.unique``: it imports masked arrays first, which costs every run 65 ms (numpy 2.4, 2026-11-20).
    """
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    found: list[int] = ordered[is_first].tolist()
    return found


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
