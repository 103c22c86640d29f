"""Walking maps: which packs the disks of many points need, whether every entry makes sense, and who is hit by damage.

Invariant: a leaf that several points share is read once; what it refers to is remembered pack by pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from holdfast.repository import layout
from holdfast.repository.damage import Damage, MapDamaged, PackDamaged, PackMissing
from holdfast.repository.disk_map import Leaf, Root, blocks_of_leaf, read_leaf, read_root
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.map_reader import read_node
from holdfast.repository.moved import Moves
from holdfast.repository.pack import parse_patch
from holdfast.repository.pack_table import PackTable
from holdfast.repository.stored_disk import NodeAddress, StoredDisk
from holdfast.repository.vault import Vault

__all__ = ["Broken", "MapWalk"]

Uses = dict[PackId, tuple[int, int]]
"""References and live bytes, by pack."""


@dataclass(slots=True)
class Broken:
    """Everything that was found broken: whole packs, slots of packs, pack tables of disks."""

    packs: dict[PackId, str] = field(default_factory=dict)
    slots: dict[NodeAddress, str] = field(default_factory=dict)
    tables: dict[NodeAddress, str] = field(default_factory=dict)
    """By the root of the disk."""

    def note(self, damage: Damage) -> None:
        """Add what an error tells."""
        if isinstance(damage, PackMissing):
            self.packs[damage.pack] = "it is missing"
        elif isinstance(damage, PackDamaged) and damage.slot is None:
            self.packs[damage.pack] = damage.reason
        elif isinstance(damage, PackDamaged):
            self.slots[NodeAddress(damage.pack, damage.slot or 0)] = damage.reason

    def __bool__(self) -> bool:
        return bool(self.packs or self.slots or self.tables)


class MapWalk:
    """Walks the maps of stored disks and remembers what they need."""

    def __init__(self, vault: Vault, *, moves: Moves) -> None:
        self._vault = vault
        self._moves = moves
        self._uses: dict[NodeAddress, Uses] = {}
        self.broken = Broken()
        self.packs: set[PackId] = set()

    def add(self, disk: StoredDisk) -> None:
        """Walk the map of a disk, and compare what it refers to with the disk's pack table."""
        self.packs.update(self._moves.resolve(NodeAddress(pack, 0)).pack for pack in disk.packs.packs)
        uses: Uses = {}
        try:
            root = self._root(disk)
        except Damage as damage:
            self._note_node(damage, disk.root)
            return
        _count(uses, disk.root.pack, 1, self._length(disk.root))
        for number, address in enumerate(root.leaves):
            if address is None:
                continue
            try:
                leaf_uses = self._leaf_uses(address, blocks_of_leaf(root.size_bytes, number))
            except Damage as damage:
                self._note_node(damage, address)
                return
            _count(uses, address.pack, 1, self._length(address))
            for pack, (references, live_bytes) in leaf_uses.items():
                _count(uses, pack, references, live_bytes)
        if not self.broken and not _agrees(disk.packs, uses):
            self.broken.tables[disk.root] = "its table of packs does not agree with its map"

    def is_hit(self, disk: StoredDisk, places: Mapping[PackId, frozenset[int] | None]) -> bool:
        """Return whether a disk needs one of the places: slots of packs, None for every slot of a pack."""
        for address, leaf in self._nodes(disk):
            if _is_in(address, places):
                return True
            if leaf is not None and self._leaf_is_hit(leaf, places):
                return True
        return False

    def _nodes(self, disk: StoredDisk) -> Iterator[tuple[NodeAddress, Leaf | None]]:
        """Yield where every node of a map lies, with the leaf if it can be read; first of all the root."""
        yield self._moves.resolve(disk.root), None
        try:
            root = self._root(disk)
        except Damage:
            return
        for number, address in enumerate(root.leaves):
            if address is None:
                continue
            place = self._moves.resolve(address)
            try:
                plain = read_node(self._vault, place)
                yield place, read_leaf(plain, address=place, blocks=blocks_of_leaf(root.size_bytes, number))
            except Damage:
                yield place, None

    def _leaf_is_hit(self, leaf: Leaf, places: Mapping[PackId, frozenset[int] | None]) -> bool:
        for number, pack in enumerate(leaf.packs, start=1):
            slots = np.unique(leaf.slots[leaf.places == number]).tolist()
            if any(_is_in(self._moves.resolve(NodeAddress(pack, slot)), places) for slot in slots):
                return True
        return False

    def _root(self, disk: StoredDisk) -> Root:
        place = self._moves.resolve(disk.root)
        root = read_root(read_node(self._vault, place), address=place)
        if root.size_bytes != disk.size_bytes:
            raise MapDamaged(pack=place.pack, slot=place.slot, reason="it is the map of a disk of another size")
        if self._vault.shelf.open(place.pack).trailer.id_of(place.slot).hex() != disk.content_hash:
            raise MapDamaged(pack=place.pack, slot=place.slot, reason="it is not the map that the point names")
        return root

    def _leaf_uses(self, address: NodeAddress, blocks: int) -> Uses:
        known = self._uses.get(address)
        if known is None:
            place = self._moves.resolve(address)
            leaf = read_leaf(read_node(self._vault, place), address=place, blocks=blocks)
            known = self._uses[address] = self._uses_of(leaf)
        return known

    def _uses_of(self, leaf: Leaf) -> Uses:
        """Return what a leaf refers to, after checking that every slot exists and holds a block."""
        uses: Uses = {}
        for number, pack in enumerate(leaf.packs, start=1):
            slots = leaf.slots[leaf.places == number].astype(np.int64)
            try:
                trailer = self._vault.shelf.open(self._moves.resolve(NodeAddress(pack, 0)).pack).trailer
            except Damage as damage:
                self.broken.note(damage)
                continue
            if int(slots.max(initial=0)) >= len(trailer):
                self.broken.slots[NodeAddress(pack, int(slots.max()))] = "a map refers to it, but there is no such slot"
                continue
            kinds = trailer.rows["kind"][slots]
            for slot in slots[kinds == FrameKind.MAP].tolist():
                self.broken.slots[NodeAddress(pack, slot)] = "a map refers to it as a block, but it is a map node"
            _count(uses, pack, len(slots), int(trailer.shares(slots).sum()))
            for slot in slots[kinds == FrameKind.PATCH].tolist():
                self._count_base(uses, NodeAddress(pack, slot))
        return uses

    def _count_base(self, uses: Uses, address: NodeAddress) -> None:
        try:
            plain = self._vault.shelf.open(address.pack).fetch(address.slot, kind=FrameKind.PATCH)
            patch = parse_patch(plain, pack=address.pack, slot=address.slot)
            base = NodeAddress(patch.base_pack, patch.base_slot)
            _count(uses, base.pack, 1, self._length(base))
        except Damage as damage:
            self.broken.note(damage)

    def _length(self, address: NodeAddress) -> int:
        place = self._moves.resolve(address)
        return self._vault.shelf.open(place.pack).trailer.share(place.slot)

    def _note_node(self, damage: Damage, address: NodeAddress) -> None:
        if isinstance(damage, PackDamaged | PackMissing):
            self.broken.note(damage)
        else:
            self.broken.slots[self._moves.resolve(address)] = str(damage)


def _count(uses: Uses, pack: PackId, references: int, live_bytes: int) -> None:
    if references:
        before = uses.get(pack, (0, 0))
        uses[pack] = (before[0] + references, before[1] + live_bytes)


def _agrees(table: PackTable, uses: Uses) -> bool:
    return {pack: (use.references, use.live_bytes) for pack, use in table.items()} == uses


def _is_in(address: NodeAddress, places: Mapping[PackId, frozenset[int] | None]) -> bool:
    if address.pack not in places:
        return False
    slots = places[address.pack]
    return slots is None or address.slot in slots


assert layout.SLOTS_MAX <= 1 << 16
