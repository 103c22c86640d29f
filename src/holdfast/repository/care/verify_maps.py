"""Walking maps: which packs the disks of many points need, and whether every entry makes sense.

Invariant: a leaf that several points share is read once; what it refers to is remembered pack by pack.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from holdfast.repository import layout
from holdfast.repository.damage import MISSING, Damage, MapDamaged, PackDamaged, PackMissing
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.maps.map_reader import read_node
from holdfast.repository.packs.disk_map import Leaf, Root, blocks_of_leaf, read_leaf, read_root
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.pack_table import PackTable
from holdfast.repository.packs.read_plan import Numbers
from holdfast.repository.packs.stored_disk import NodeAddress, StoredDisk
from holdfast.repository.reading.gather import read_patches
from holdfast.repository.records.moved import Moves, SlotGroup
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
            self.packs[damage.pack] = MISSING
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
        self._moved = frozenset(moves.moved_packs())
        self._healed: set[PackId] = set()
        self.broken = Broken()
        self.packs: set[PackId] = set()

    def add(self, disk: StoredDisk) -> None:
        """Walk the map of a disk, and compare what it refers to with the disk's pack table."""
        self.packs |= self._moves.holders_of(disk.packs.packs)
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
        # A healed frame may have another base, or none, than the one that was counted.
        if not self.broken and self._healed.isdisjoint(disk.packs.packs) and not self._agrees(disk.packs, uses):
            self.broken.tables[disk.root] = "its table of packs does not agree with its map"

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
            live_bytes = 0
            for group in self._moves.resolve_slots(pack, slots):
                live_bytes += self._check_slots(uses, group, pack, slots[group.at])
            _count(uses, pack, len(slots), live_bytes)
        return uses

    def _check_slots(self, uses: Uses, group: SlotGroup, pack: PackId, named: Numbers) -> int:
        """Return the live bytes of slots that a leaf names in one pack and that lie in one pack now."""
        try:
            opened = self._vault.shelf.open(group.pack)
        except Damage as damage:
            self.broken.note(damage)
            return 0
        trailer = opened.trailer
        if int(group.slots.max(initial=0)) >= len(trailer):
            missing = NodeAddress(group.pack, int(group.slots.max()))
            self.broken.slots[missing] = "a map refers to it, but there is no such slot"
            return 0
        kinds = trailer.rows["kind"][group.slots]
        for slot in group.slots[kinds == FrameKind.MAP].tolist():
            self.broken.slots[NodeAddress(group.pack, slot)] = "a map refers to it as a block, but it is a map node"
        self._count_bases(uses, opened, group.slots[kinds == FrameKind.PATCH])
        if group.pack != pack and pack not in self._moves.emptied and not self._are_data(pack, named, kinds):
            self._healed.add(pack)
        return int(trailer.shares(group.slots).sum())

    def _are_data(self, pack: PackId, named: Numbers, kinds: Numbers) -> bool:
        """Return whether blocks that have moved are in data frames now, and were in such before: without bases."""
        try:
            before = self._vault.shelf.open(pack).trailer.rows["kind"]
        except Damage:
            return False
        is_there = int(named.max(initial=0)) < len(before)
        return is_there and bool((kinds == FrameKind.DATA).all() and (before[named] == FrameKind.DATA).all())

    def _count_bases(self, uses: Uses, opened: OpenPack, slots: Numbers) -> None:
        """Count what the patches in these slots build on."""
        for found in read_patches(opened, slots):
            if isinstance(found, Damage):
                self.broken.note(found)
                continue
            base = NodeAddress(found.patch.base_pack, found.patch.base_slot)
            try:
                for _ in found.wants:
                    _count(uses, base.pack, 1, self._length(base))
            except Damage as damage:
                self.broken.note(damage)

    def _length(self, address: NodeAddress) -> int:
        place = self._moves.resolve(address)
        return self._vault.shelf.open(place.pack).trailer.share(place.slot)

    def _agrees(self, table: PackTable, uses: Uses) -> bool:
        """Return whether a table says what the map refers to. What has moved may lie in a frame of another length."""
        if {pack: use.references for pack, use in table.items()} != {pack: each[0] for pack, each in uses.items()}:
            return False
        return all(use.live_bytes == uses[pack][1] for pack, use in table.items() if pack not in self._moved)

    def _note_node(self, damage: Damage, address: NodeAddress) -> None:
        if isinstance(damage, PackDamaged | PackMissing):
            self.broken.note(damage)
        else:
            self.broken.slots[self._moves.resolve(address)] = str(damage)


def _count(uses: Uses, pack: PackId, references: int, live_bytes: int) -> None:
    if references:
        before = uses.get(pack, (0, 0))
        uses[pack] = (before[0] + references, before[1] + live_bytes)


assert layout.SLOTS_MAX <= 1 << 16
