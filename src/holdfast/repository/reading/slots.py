"""One slot of a pack, read and proven: what healing and scrub look at singly."""

from __future__ import annotations

from holdfast.repository.layout import FrameKind
from holdfast.repository.maps.map_reader import read_node
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["read_slot"]


def read_slot(vault: Vault, place: NodeAddress, *, moves: Moves) -> bytes:
    """Return the block or node in a slot, proven to be what the pack's trailer names. ``Damage``.

    ``moves`` tell where the base of a patch lies; the slot itself is read where it is said to be.
    """
    opened = vault.shelf.open(place.pack)
    opened.frame_extent(place.slot)
    if int(opened.trailer.rows["kind"][place.slot]) == FrameKind.MAP:
        return read_node(vault, place)
    is_here = moves.resolve(place) == place
    return BlockReader(vault, moves=moves if is_here else Moves()).read(place)
