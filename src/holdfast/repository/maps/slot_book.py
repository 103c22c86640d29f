"""What is in the slots that a stored map names: their ids, kinds and shares, and the bases of patches.

Invariant: everything comes from trailers and frames that were proven; a slot stays known by the place that the map
names, wherever it lies now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core import KIB, MIB
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
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["SlotBook", "SlotGroup"]

_BASES_KEPT_MAX = 16_384
"""About 3 MB: a patch that is replaced is asked for twice, soon after each other."""

_GAP_BYTES_MAX = 128 * KIB
"""As for blocks: reading over such a gap costs less than another request."""

_REQUEST_BYTES_MAX = 4 * MIB


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Some of a row of entries: those whose slots lie in one pack. ``slots`` are as they are numbered there."""

    at: npt.NDArray[np.int64]
    pack: PackId
    slots: npt.NDArray[np.int64]


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
                yield from self._moved_groups(at, entries)
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

    def _moved_groups(self, stored: npt.NDArray[np.int64], entries: Entries) -> Iterator[SlotGroup]:
        by_pack: dict[PackId, list[tuple[int, int]]] = {}
        for at, entry in zip(stored.tolist(), entries[stored].tolist(), strict=True):
            place = self._moves.resolve(self.address(entry))
            by_pack.setdefault(place.pack, []).append((at, place.slot))
        for pack, members in by_pack.items():
            at_slot = np.array(members, dtype=np.int64)
            yield SlotGroup(at_slot[:, 0], pack, at_slot[:, 1])

    def _read_bases(self, patches: Sequence[int]) -> list[int]:
        """Return the places of the patches' bases as entries, read from the patches with few requests."""
        found = [0] * len(patches)
        for group in self.groups(np.array(patches, dtype=np.int64)):
            self.trailer(group)
            opened = self._vault.shelf.open(group.pack)
            frames = sorted(
                (*opened.frame_extent(slot), slot, at)
                for at, slot in zip(group.at.tolist(), group.slots.tolist(), strict=True)
            )
            for start, length_bytes, members in _requests(frames):
                sealed = opened.read_range(start, length_bytes)
                for offset_bytes, frame_bytes, slot, at in members:
                    frame = sealed[offset_bytes - start : offset_bytes - start + frame_bytes]
                    plain = opened.plain(slot, frame, kind=FrameKind.PATCH)
                    patch = parse_patch(plain, pack=group.pack, slot=slot)
                    found[at] = entry_of(self._numbers.number(patch.base_pack), patch.base_slot, 0)
        return found


_Extent = tuple[int, int, int, int]


def _requests(frames: Sequence[_Extent]) -> Iterator[tuple[int, int, Sequence[_Extent]]]:
    """Yield offset and length of each request, and the frames that it reads; ``frames`` ascend."""
    first = 0
    for number, (offset_bytes, length_bytes, _, _) in enumerate(frames):
        end = offset_bytes + length_bytes
        following = frames[number + 1] if number + 1 < len(frames) else None
        reach = 0 if following is None else following[0] + following[1] - frames[first][0]
        if following is None or following[0] - end > _GAP_BYTES_MAX or reach > _REQUEST_BYTES_MAX:
            yield frames[first][0], end - frames[first][0], frames[first : number + 1]
            first = number + 1
