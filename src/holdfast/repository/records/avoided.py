"""Slots that nothing new may refer to, although the rest of their packs is fine: damaged ones and punched ones.

A value that a run builds once, under its lease, from what the repository says (quarantine notes, holes). Invariant: a
writer neither offers such a slot as a known block, nor inherits a map or a base of a patch that leads to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.repository.layout import PackId
from holdfast.repository.packs.disk_map import Leaf
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import Moves

__all__ = ["NOTHING_AVOIDED", "AvoidedSlots"]

_NO_SLOTS: npt.NDArray[np.uint16] = np.zeros(0, dtype=np.uint16)


class AvoidedSlots:
    """Which slots of which packs must not be used. A value."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Mapping[PackId, Collection[int] | npt.NDArray[np.integer[Any]]]) -> None:
        self._slots: dict[PackId, npt.NDArray[np.uint16]] = {
            pack: np.unique(np.array(avoided if isinstance(avoided, np.ndarray) else list(avoided), dtype=np.uint16))
            for pack, avoided in slots.items()
            if len(avoided)
        }

    def of_pack(self, pack: PackId) -> frozenset[int]:
        """Return the slots of one pack to keep clear of."""
        return frozenset(self._slots[pack].tolist()) if pack in self._slots else frozenset()

    def slots_of(self, pack: PackId) -> npt.NDArray[np.uint16]:
        """Return the same, ascending."""
        return self._slots.get(pack, _NO_SLOTS)

    def meets(self, packs: Iterable[PackId]) -> bool:
        """Return whether any of the packs has such a slot; only then is it worth looking at single places."""
        return bool(self._slots) and any(pack in self._slots for pack in packs)

    def met_by(self, leaf: Leaf, *, moves: Moves) -> npt.NDArray[np.bool_]:
        """Return for each block of a leaf whether its entry names or leads to such a slot, or into an emptied pack."""
        met = np.zeros(len(leaf.places), dtype=np.bool_)
        for number, pack in enumerate(leaf.packs, start=1):
            here = np.flatnonzero(leaf.places == number)
            if pack in self._slots:
                # A damaged slot stays avoided when it was healed: what is read instead may have another length.
                met[here] = np.isin(leaf.slots[here], self._slots[pack])
            for group in moves.resolve_slots(pack, leaf.slots[here].astype(np.int64)):
                avoided = self._slots.get(group.pack)
                if group.pack in moves.emptied:
                    met[here[group.at]] = True
                elif avoided is not None:
                    met[here[group.at]] |= np.isin(group.slots, avoided)
        return met

    def __contains__(self, place: NodeAddress) -> bool:
        return place.pack in self._slots and place.slot in self._slots[place.pack]

    def without(self, other: AvoidedSlots) -> AvoidedSlots:
        """Return those slots that ``other`` does not name."""
        return AvoidedSlots({pack: np.setdiff1d(slots, other.slots_of(pack)) for pack, slots in self._slots.items()})

    def __or__(self, other: AvoidedSlots) -> AvoidedSlots:
        packs = self._slots.keys() | other._slots.keys()
        return AvoidedSlots({pack: np.union1d(self.slots_of(pack), other.slots_of(pack)) for pack in packs})

    def __len__(self) -> int:
        return sum(len(avoided) for avoided in self._slots.values())


NOTHING_AVOIDED = AvoidedSlots({})
"""What a run keeps clear of in a repository without holes and without damage."""
