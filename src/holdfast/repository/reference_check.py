"""Whether a stored disk may be built upon when parts of its packs must not be used any more.

Packs are told by the disk's table without a walk; single slots only by its map, so the map is walked only when a pack
of the table has such slots. Invariant: a disk that passes leads to no avoided slot, neither from its map, nor through a
patch.
"""

from __future__ import annotations

import numpy as np

from holdfast.repository.avoided import AvoidedSlots
from holdfast.repository.disk_map import Leaf
from holdfast.repository.layout import FrameKind
from holdfast.repository.map_reader import MapReader
from holdfast.repository.moved import Moves
from holdfast.repository.pack import parse_patch
from holdfast.repository.stored_disk import NodeAddress, StoredDisk
from holdfast.repository.vault import Vault

__all__ = ["leads_to_avoided"]


def leads_to_avoided(vault: Vault, disk: StoredDisk, avoided: AvoidedSlots, *, moves: Moves) -> bool:
    """Return whether anything in a disk's map leads to a slot to be avoided. Damage of the map itself."""
    if not avoided.meets(disk.packs.packs):
        return False
    if disk.root in avoided:
        return True
    reader = MapReader(vault, disk, moves=moves)
    for number, address in enumerate(reader.root.leaves):
        if address is not None and address in avoided:
            return True
        leaf = reader.leaf(number)
        if leaf is not None and (avoided.met_by(leaf).any() or _has_such_base(vault, leaf, avoided, moves)):
            return True
    return False


def _has_such_base(vault: Vault, leaf: Leaf, avoided: AvoidedSlots, moves: Moves) -> bool:
    """Return whether a patch in a leaf is made against a slot to be avoided."""
    for number, pack in enumerate(leaf.packs, start=1):
        for slot in np.unique(leaf.slots[leaf.places == number]).tolist():
            place = moves.resolve(NodeAddress(pack, slot))
            opened = vault.shelf.open(place.pack)
            opened.frame_extent(place.slot)
            if int(opened.trailer.rows["kind"][place.slot]) == FrameKind.PATCH:
                patch = parse_patch(opened.fetch(place.slot), pack=place.pack, slot=place.slot)
                if NodeAddress(patch.base_pack, patch.base_slot) in avoided:
                    return True
    return False
