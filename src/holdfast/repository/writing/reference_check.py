"""Whether a stored disk may be built upon when parts of its packs must not be used any more.

Packs are told by the disk's table without a walk; single slots only by its map, so the map is walked only when a pack
that the table means has such slots, or was emptied. Invariant: a disk that passes leads to no avoided slot and to
nothing that was left behind in an emptied pack, neither from its map, nor through a patch.
"""

from __future__ import annotations

import numpy as np

from holdfast.core import Cancellation
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.points.slot_walk import Slots, SlotWalk, WalkedDisk
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["leads_to_avoided"]


def leads_to_avoided(vault: Vault, disk: StoredDisk, avoided: AvoidedSlots, *, moves: Moves, workers: int = 0) -> bool:
    """Return whether anything that a disk needs lies in a slot to be avoided, or was left behind in an emptied pack.

    A map that cannot be followed counts as leading there.
    """
    meant = {each for pack in disk.packs.packs for each in (pack, *moves.reached(pack))}
    packs = PackSet([pack for pack in meant if pack in moves.emptied or avoided.meets([pack])])
    if not packs:
        return False
    found = _Found(packs, avoided, moves)
    walk = SlotWalk(vault, packs, found, moves=moves, workers=workers, cancel=Cancellation())
    table = disk.packs.items()
    walked = WalkedDisk(
        owner=0,
        size_bytes=disk.size_bytes,
        root=disk.root,
        packs=as_ids(b"".join(pack for pack, _ in table)),
        references=np.array([use.references for _, use in table], dtype=np.int64),
    )
    walk.walk([walked])
    return found.is_met


class _Found:
    """Notes whether a walk came to a slot to be avoided."""

    def __init__(self, packs: PackSet, avoided: AvoidedSlots, moves: Moves) -> None:
        self.is_met = False
        self._slots = [
            None if packs.pack(place) in moves.emptied else avoided.slots_of(packs.pack(place))
            for place in range(len(packs))
        ]

    def need(self, place: int, slots: Slots, owner: int) -> None:
        """See ``NeededSlots.need``."""
        avoided = self._slots[place]
        self.is_met = self.is_met or avoided is None or bool(np.isin(slots, avoided).any())

    def need_all(self, place: int, owner: int) -> None:
        """See ``NeededSlots.need_all``."""
        self.is_met = True
