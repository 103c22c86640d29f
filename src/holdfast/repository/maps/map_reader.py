"""Reading a stored disk's map: the root once, leaves on demand, the last few kept.

Invariant: every node is authenticated and its id compared before an entry of it is used.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from holdfast.repository import layout
from holdfast.repository.damage import Damage, MapDamaged
from holdfast.repository.layout import FrameKind
from holdfast.repository.packs.disk_map import Leaf, Root, blocks_of_leaf, node_id, read_leaf, read_root
from holdfast.repository.packs.entries import Entries, PackNumbers, entry_of
from holdfast.repository.packs.stored_disk import NodeAddress, StoredDisk
from holdfast.repository.records.avoided import NOTHING_AVOIDED, AvoidedSlots
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["MapReader", "read_node"]

_LEAVES_KEPT_MAX = 256
"""64 GiB of disk for random reads: 4 MiB, 21 MiB if every block lay in another pack. Reading in order needs one."""


def read_node(vault: Vault, address: NodeAddress) -> bytes:
    """Return the plain bytes of a map node. ``PackMissing``, ``PackDamaged``."""
    opened = vault.shelf.open(address.pack)
    plain = opened.fetch(address.slot, kind=FrameKind.MAP)
    if node_id(vault.keys, plain) != opened.trailer.id_of(address.slot):
        raise MapDamaged(pack=address.pack, slot=address.slot, reason="it is not the node that its trailer names")
    return plain


class MapReader:
    """The map of one stored disk. Thread-safe."""

    def __init__(
        self, vault: Vault, disk: StoredDisk, *, moves: Moves, avoided: AvoidedSlots = NOTHING_AVOIDED
    ) -> None:
        self._vault = vault
        self._moves = moves
        self._avoided = avoided
        self._lock = threading.Lock()
        self._leaves: OrderedDict[int, Leaf] = OrderedDict()
        place, plain = self._read_node(disk.root)
        self.root: Root = read_root(plain, address=place)
        if self.root.size_bytes != disk.size_bytes:
            raise MapDamaged(pack=disk.root.pack, slot=disk.root.slot, reason="it is the map of a disk of another size")

    def leaf(self, number: int) -> Leaf | None:
        """Return a leaf; None when all of it is zero."""
        address = self.root.leaves[number]
        if address is None:
            return None
        with self._lock:
            found = self._leaves.get(number)
            if found is not None:
                self._leaves.move_to_end(number)
                return found
        place, plain = self._read_node(address)
        leaf = read_leaf(plain, address=place, blocks=blocks_of_leaf(self.root.size_bytes, number))
        with self._lock:
            self._leaves[number] = leaf
            if len(self._leaves) > _LEAVES_KEPT_MAX:
                self._leaves.popitem(last=False)
        return leaf

    def entries(self, number: int, numbers: PackNumbers) -> Entries:
        """Return a leaf as entries, without lengths; 0 for the slots to be avoided, so that nothing matches them."""
        leaf = self.leaf(number)
        if leaf is None:
            return np.zeros(blocks_of_leaf(self.root.size_bytes, number), dtype=np.int64)
        bases = np.array([0, *(entry_of(numbers.number(pack), 0, 0) for pack in leaf.packs)], dtype=np.int64)
        slots = np.where(leaf.places > 0, leaf.slots, 0).astype(np.int64)
        entries: Entries = bases[leaf.places] + slots * entry_of(0, 1, 0)
        if len(self._moves) or self._avoided.meets(leaf.packs):
            entries[self._avoided.met_by(leaf, moves=self._moves)] = 0
        return entries

    def _read_node(self, address: NodeAddress) -> tuple[NodeAddress, bytes]:
        """Return where a node lies now, and its plain bytes."""
        place = self._moves.resolve(address)
        try:
            return place, read_node(self._vault, place)
        except Damage:
            # It may have been moved after the moves were read.
            if not self._moves.reload():
                raise
        place = self._moves.resolve(address)
        return place, read_node(self._vault, place)

    @property
    def block_count(self) -> int:
        """How many blocks the disk has."""
        return -(-self.root.size_bytes // (layout.LEAF_BYTES // layout.LEAF_BLOCKS))
