"""Which slots of some packs the maps of stored disks need: leaf by leaf, each leaf once.

A map names slots, and through patches it needs their bases, which only the patches name. Reading every patch would cost
more than all leaves; but a disk's pack table says how often its packs are referred to, bases included. So the walk
counts what leaves refer to, and looks into patches only where the table says more.

Invariant: no slot that a walked disk needs is left out. Where a map cannot be followed, or does not agree with the
table, every slot of the packs in question counts as needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation
from holdfast.repository.damage import Damage, PackDamaged
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.maps.node_reader import read_nodes
from holdfast.repository.packs.disk_map import Leaf, Root, blocks_of_leaf, read_leaf, read_root
from holdfast.repository.packs.pack import parse_patch
from holdfast.repository.packs.pack_set import PackIds, PackSet, as_ids
from holdfast.repository.packs.spans import read_frames
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.points.point_tables import DiskTable
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["MANY", "NeededSlots", "SlotWalk", "Slots", "WalkedDisk"]

MANY = -1
"""In place of an owner: several disks that are walked together need it."""

_LEAVES_MAX = 100_000
"""About 40 MB of places and counts: 25 TB of disks, or a hundred points of a VM of a few TB."""

_BASES_MAX = 100_000
"""About 25 MB: patches whose bases are remembered, because points of one VM share them."""

_ASKED_MAX = 100_000
"""About 15 MB: packs that hold leaves, which are asked about again for every point."""

Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkedDisk:
    """A disk to be walked: whose it is, where its map begins, how often its table says that it refers to which pack.

    Packs that nobody asks about may be left out.
    """

    owner: int
    size_bytes: int
    root: NodeAddress
    packs: PackIds
    references: npt.NDArray[np.int64]


class NeededSlots(Protocol):
    """Takes what a walk finds. ``place`` is a pack's place in the set of packs that are asked about."""

    def need(self, place: int, slots: Slots, owner: int) -> None:
        """Take note that some slots are needed; the same ones may come several times."""
        ...

    def need_all(self, place: int, owner: int) -> None:
        """Take note that nobody knows which slots of a pack are needed."""
        ...


@dataclass(slots=True)
class _Leaf:
    address: NodeAddress
    blocks: int
    owner: int
    references: int = -1
    """Into the packs in question, by the names in the leaf; -1 when the leaf cannot be read."""
    has_bases: bool = False
    """Whether bases were counted too."""


@dataclass(slots=True)
class _Walked:
    disk: WalkedDisk
    leaves: npt.NDArray[np.int64]
    references: int


@dataclass(slots=True)
class _Chunk:
    leaves: list[_Leaf] = field(default_factory=list)
    numbers: dict[NodeAddress, int] = field(default_factory=dict)
    disks: list[_Walked] = field(default_factory=list)


class SlotWalk:
    """Walks disks and tells which slots of ``packs`` they need."""

    def __init__(
        self,
        vault: Vault,
        packs: PackSet,
        needed: NeededSlots,
        *,
        moves: Moves,
        workers: int,
        cancel: Cancellation,
    ) -> None:
        self._vault = vault
        self._packs = packs
        self._needed = needed
        self._moves = moves
        self._workers = workers
        self._cancel = cancel
        self.named = _named(packs, moves)
        """What tables and maps name when they mean these packs: the packs, and those whose frames were moved there."""
        self._bases: dict[NodeAddress, NodeAddress] = {}
        self._asked: dict[PackId, bool] = {}

    def disk_of(self, table: DiskTable, *, owner: int) -> WalkedDisk | None:
        """Return a disk to be walked; None when it needs nothing of the packs in question."""
        is_named = self.named.find(table.packs) >= 0
        if not is_named.any():
            return None
        return WalkedDisk(
            owner=owner,
            size_bytes=table.size_bytes,
            root=table.root,
            packs=table.packs[is_named],
            references=table.rows["references"][is_named].astype(np.int64),
        )

    def walk(self, disks: Sequence[WalkedDisk]) -> None:
        """Tell what some disks need; leaves that they share are read once."""
        chunk = _Chunk()
        for disk, root in self._roots(disks):
            if root is None:
                self._give_up(disk)
                continue
            self._add(chunk, disk, root)
            if len(chunk.leaves) >= _LEAVES_MAX:
                self._walk_chunk(chunk)
                chunk = _Chunk()
        self._walk_chunk(chunk)

    def _roots(self, disks: Sequence[WalkedDisk]) -> Iterable[tuple[WalkedDisk, Root | None]]:
        places: dict[NodeAddress, list[WalkedDisk]] = {}
        for disk in disks:
            places.setdefault(self._moves.resolve(disk.root), []).append(disk)
        for place, plain in read_nodes(self._vault, places, workers=self._workers):
            for disk in places[place]:
                yield disk, _root(disk, place, plain)

    def _add(self, chunk: _Chunk, disk: WalkedDisk, root: Root) -> None:
        self._need(disk.root, disk.owner)
        references = int(self._is_named(disk.root.pack))
        numbers = []
        for position, address in enumerate(root.leaves):
            if address is None:
                continue
            number = chunk.numbers.get(address)
            if number is None:
                number = chunk.numbers[address] = len(chunk.leaves)
                chunk.leaves.append(_Leaf(address, blocks_of_leaf(root.size_bytes, position), disk.owner))
            elif chunk.leaves[number].owner != disk.owner:
                chunk.leaves[number].owner = MANY
            numbers.append(number)
            references += int(self._is_named(address.pack))
        chunk.disks.append(_Walked(disk, np.array(numbers, dtype=np.int64), references))

    def _walk_chunk(self, chunk: _Chunk) -> None:
        self._read_leaves(chunk.leaves, self._count_entries)
        references = np.array([leaf.references for leaf in chunk.leaves], dtype=np.int64)
        for walked in chunk.disks:
            if self._agrees(walked, references[walked.leaves]):
                continue
            leaves = [chunk.leaves[number] for number in walked.leaves.tolist()]
            self._read_leaves(
                [leaf for leaf in leaves if leaf.references >= 0 and not leaf.has_bases], self._count_bases
            )
            references[walked.leaves] = [leaf.references for leaf in leaves]
            if not self._agrees(walked, references[walked.leaves]):
                self._give_up(walked.disk)

    def _agrees(self, walked: _Walked, references: npt.NDArray[np.int64]) -> bool:
        """Return whether every reference that the table of a disk knows was found."""
        is_named = self.named.find(walked.disk.packs) >= 0
        expected = int(walked.disk.references[is_named].sum())
        return bool((references >= 0).all()) and expected == walked.references + int(references.sum())

    def _read_leaves(self, leaves: Sequence[_Leaf], take: _Take) -> None:
        """Read leaves and hand them over; one that cannot be read keeps its -1."""
        places: dict[NodeAddress, list[_Leaf]] = {}
        for leaf in leaves:
            places.setdefault(self._moves.resolve(leaf.address), []).append(leaf)
        for place, plain in read_nodes(self._vault, places, workers=self._workers):
            self._cancel.check()
            for leaf in places[place]:
                self._need(leaf.address, leaf.owner)
                if isinstance(plain, Damage):
                    leaf.references = -1
                    continue
                try:
                    take(leaf, read_leaf(plain, address=place, blocks=leaf.blocks))
                except Damage:
                    leaf.references = -1

    def _count_entries(self, leaf: _Leaf, content: Leaf) -> None:
        references = 0
        places = self.named.find(as_ids(b"".join(content.packs)))
        for number in np.flatnonzero(places >= 0).tolist():
            slots = content.slots[content.places == number + 1].astype(np.int64)
            references += len(slots)
            self._need_slots(content.packs[number], np.unique(slots), leaf.owner)
        leaf.references = references

    def _count_bases(self, leaf: _Leaf, content: Leaf) -> None:
        """Look for patches behind a leaf, and count the bases that lie in the packs in question."""
        leaf.has_bases = True
        for number, pack in enumerate(content.packs, start=1):
            slots, counts = np.unique(content.slots[content.places == number], return_counts=True)
            for group in self._moves.resolve_slots(pack, slots.astype(np.int64)):
                patches = self._patches(group.pack, group.slots)
                for at, base in patches.items():
                    if self._is_named(base.pack):
                        leaf.references += int(counts[group.at[at]])
                        self._need(base, leaf.owner)

    def _patches(self, pack: PackId, slots: Slots) -> dict[int, NodeAddress]:
        """Return for those of the slots that hold patches, by their places in ``slots``, the bases as patches say."""
        opened = self._vault.shelf.open(pack)
        rows = opened.trailer.rows
        if len(slots) and int(slots.max()) >= len(rows):
            raise PackDamaged(pack=pack, slot=int(slots.max()), reason="it has no such slot")
        found = np.flatnonzero(rows["kind"][slots] == FrameKind.PATCH).tolist()
        unknown = [int(slots[at]) for at in found if NodeAddress(pack, int(slots[at])) not in self._bases]
        if len(self._bases) + len(unknown) > _BASES_MAX:
            self._bases.clear()
            unknown = [int(slots[at]) for at in found]
        for slot, frame in read_frames(opened, unknown):
            patch = parse_patch(opened.plain(slot, frame, kind=FrameKind.PATCH), pack=pack, slot=slot)
            self._bases[NodeAddress(pack, slot)] = NodeAddress(patch.base_pack, patch.base_slot)
        return {at: self._bases[NodeAddress(pack, int(slots[at]))] for at in found}

    def _need(self, address: NodeAddress, owner: int) -> None:
        if self._is_named(address.pack):
            self._need_slots(address.pack, np.array([address.slot], dtype=np.int64), owner)

    def _need_slots(self, pack: PackId, slots: Slots, owner: int) -> None:
        """Tell slots by where they lie now."""
        for group in self._moves.resolve_slots(pack, slots):
            place = self._place(group.pack)
            if place >= 0:
                self._needed.need(place, group.slots, owner)

    def _give_up(self, disk: WalkedDisk) -> None:
        """Take every slot as needed of all that a disk may need."""
        for name in np.flatnonzero(self.named.find(disk.packs) >= 0).tolist():
            pack = PackId(disk.packs[name : name + 1].tobytes())
            for holder in {pack, *self._moves.reached(pack)}:
                place = self._place(holder)
                if place >= 0:
                    self._needed.need_all(place, disk.owner)

    def _place(self, pack: PackId) -> int:
        return int(self._packs.find(as_ids(pack))[0])

    def _is_named(self, pack: PackId) -> bool:
        found = self._asked.get(pack)
        if found is None:
            if len(self._asked) >= _ASKED_MAX:
                self._asked.clear()
            found = self._asked[pack] = pack in self.named
        return found


class _Take(Protocol):
    def __call__(self, leaf: _Leaf, content: Leaf) -> None: ...


def _named(packs: PackSet, moves: Moves) -> PackSet:
    if len(moves) == 0:
        return packs
    sources = [pack for pack in moves.moved_packs() if not packs.isdisjoint(moves.reached(pack))]
    return PackSet([*packs, *sources])


def _root(disk: WalkedDisk, place: NodeAddress, plain: bytes | Damage) -> Root | None:
    if isinstance(plain, Damage):
        return None
    try:
        root = read_root(plain, address=place)
    except Damage:
        return None
    return root if root.size_bytes == disk.size_bytes else None
