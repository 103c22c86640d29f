"""What is in the slots that a stored map names: their ids, kinds and shares, and the bases of patches.

Invariant: everything comes from trailers and frames that were proven; a slot stays known by the place that the map
names, wherever it lies now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from holdfast.repository.damage import Damage, PackDamaged
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.packs.entries import (
    PATCH_FLAG,
    Entries,
    PackNumbers,
    distinct,
    entry_of,
    pack_numbers_of,
    place_of,
    shares_of,
    slots_of,
)
from holdfast.repository.packs.pack import parse_patch
from holdfast.repository.packs.spans import read_frames
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.moved import Moves, SlotGroup
from holdfast.repository.vault import Vault

__all__ = ["SlotBook"]

_BASES_KEPT_MAX = 16_384
"""About 3 MB: a patch that is replaced is asked for twice, soon after each other."""


class SlotBook:
    """Answers questions about entries. Thread-safe."""

    def __init__(self, vault: Vault, numbers: PackNumbers, *, moves: Moves, avoided: AvoidedSlots) -> None:
        self._vault = vault
        self._numbers = numbers
        self._moves = moves
        self._avoided = avoided
        self._lock = threading.Lock()
        self._bases: dict[int, int] = {}

    def groups(self, entries: Entries) -> Iterator[SlotGroup]:
        """Yield the entries that are not zero, pack by pack.

        By the places that they name, because it is those that a table of packs counts; by where they have moved only
        when the pack is gone.
        """
        stored = np.flatnonzero(entries)
        packs = pack_numbers_of(entries[stored])
        for number in distinct(packs):
            at, pack = stored[packs == number], self._numbers.pack(number)
            if len(self._moves) and not self._is_readable(pack):
                for moved in self._moves.resolve_slots(pack, slots_of(entries[at])):
                    yield SlotGroup(at[moved.at], moved.pack, moved.slots)
            else:
                yield SlotGroup(at, pack, slots_of(entries[at]))

    def trailer(self, group: SlotGroup) -> Trailer:
        """Return the trailer of a group's pack. ``Damage`` when it cannot be read, or lacks one of the slots."""
        trailer = self._vault.shelf.open(group.pack).trailer
        last = int(group.slots.max(initial=0))
        if last >= len(trailer):
            raise PackDamaged(pack=group.pack, slot=last, reason="it has no such slot")
        return trailer

    def complete(self, entries: Entries) -> Entries:
        """Return the entries with share and kind, which a stored map does not say. ``Damage``."""
        completed = entries.copy()
        unknown = np.flatnonzero(shares_of(entries) == 0)
        for group in self.groups(entries[unknown]):
            completed[unknown[group.at]] |= self.facts(group, self.trailer(group))
        return completed

    def facts(self, group: SlotGroup, trailer: Trailer) -> Entries:
        """Return share and kind of a group's slots, as an entry says them."""
        is_patch = trailer.rows["kind"][group.slots] == FrameKind.PATCH
        facts: Entries = trailer.shares(group.slots) | np.where(is_patch, PATCH_FLAG, 0)
        return facts

    def share(self, address: NodeAddress) -> int:
        """Return the share of one slot. ``Damage``."""
        place = address if self._is_readable(address.pack) else self._moves.resolve(address)
        return self._vault.shelf.open(place.pack).trailer.share(place.slot)

    def address(self, entry: int) -> NodeAddress:
        """Return the place that an entry names."""
        number, slot = place_of(entry)
        return NodeAddress(self._numbers.pack(number), slot)

    def bases(self, patches: Sequence[int]) -> list[int]:
        """Return for each entry of a patch that of the patch's base, complete. ``Damage``."""
        with self._lock:
            known = {patch: self._bases[patch] for patch in patches if patch in self._bases}
        unknown = list(dict.fromkeys(patch for patch in patches if patch not in known))
        if unknown:
            found = self.complete(np.array(self._read_bases(unknown), dtype=np.int64)).tolist()
            known.update(zip(unknown, found, strict=True))
            with self._lock:
                if len(self._bases) >= _BASES_KEPT_MAX:
                    self._bases.clear()
                self._bases.update(zip(unknown, found, strict=True))
        return [known[patch] for patch in patches]

    def usable_bases(self, patches: Sequence[int]) -> dict[int, int]:
        """Return the bases like ``bases``, without those that cannot be told or that nothing new may refer to."""
        try:
            bases = dict(zip(patches, self.bases(patches), strict=True))
        except Damage:
            bases = {patch: base for patch in patches for base in self._base_or_none(patch)}
        return {patch: base for patch, base in bases.items() if self.may_be_base(base)}

    def may_be_base(self, entry: int) -> bool:
        """Return whether something new may be made a patch of this slot: a whole block that may be used."""
        return entry != 0 and entry & PATCH_FLAG == 0 and self.address(entry) not in self._avoided

    def _base_or_none(self, patch: int) -> list[int]:
        try:
            return self.bases([patch])
        except Damage:
            return []

    def _is_readable(self, pack: PackId) -> bool:
        if pack in self._moves.emptied:
            return False
        try:
            self._vault.shelf.open(pack)
        except Damage:
            return False
        return True

    def _read_bases(self, patches: Sequence[int]) -> list[int]:
        """Return the places of the patches' bases as entries, read from the patches with few requests."""
        found = [0] * len(patches)
        for group in self.groups(np.array(patches, dtype=np.int64)):
            self.trailer(group)
            opened = self._vault.shelf.open(group.pack)
            askers: dict[int, list[int]] = {}
            for at, slot in zip(group.at.tolist(), group.slots.tolist(), strict=True):
                askers.setdefault(slot, []).append(at)
            for slot, frame in read_frames(opened, askers):
                patch = parse_patch(opened.plain(slot, frame, kind=FrameKind.PATCH), pack=group.pack, slot=slot)
                base = entry_of(self._numbers.number(patch.base_pack), patch.base_slot, 0)
                for at in askers[slot]:
                    found[at] = base
        return found
