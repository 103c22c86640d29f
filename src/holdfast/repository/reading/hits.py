"""Whom damage hits: which extents of which disks of which restore points lead to damaged places.

Only disks whose pack tables meet a damaged pack are walked, and a leaf that several of them share is looked at once.
Invariant: a disk is hit exactly when its map, through moved records and through bases of patches, leads to a damaged
place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core import BLOCK_BYTES
from holdfast.model import Extent, PointId, VmUuid
from holdfast.repository.damage import Damage
from holdfast.repository.layout import LEAF_BLOCKS, FrameKind, PackId
from holdfast.repository.maps.map_reader import read_node
from holdfast.repository.packs.disk_map import Leaf, blocks_of_leaf, read_leaf, read_root
from holdfast.repository.packs.pack import parse_patch
from holdfast.repository.packs.read_plan import plan_reads
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.points.point import PointDisk, RestorePoint
from holdfast.repository.records.moved import Moves
from holdfast.repository.records.quarantine import BrokenSlots
from holdfast.repository.vault import Vault

__all__ = ["HitDisk", "HitSearch", "Witness"]

EXTENTS_TOLD_MAX = 256
"""For each disk and damaged object; more than this nobody reads, and ``lost_bytes`` counts all."""

_WITNESSES_MAX = 4
"""So many disks are remembered for a damaged place: a donor that has none of them hardly has a fifth."""

Blocks = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HitDisk:
    """A disk of a restore point that damage hits."""

    point: PointId
    vm_uuid: VmUuid
    vm_name: str
    disk_name: str
    position: str
    lost_bytes: int = 0
    """How much of the disk cannot be read because of it."""
    extents: tuple[Extent, ...] = ()
    """Where; the first ones of them when there are very many."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A place on a disk of a restore point whose content a damaged slot holds."""

    point: RestorePoint
    disk: PointDisk
    extent: Extent


@dataclass(frozen=True, slots=True)
class _Hit:
    """Blocks that one damaged pack costs: where they are in a leaf, and the slots to blame."""

    pack: PackId
    blocks: Blocks
    slots: Blocks


class HitSearch:
    """Looks for whom damage hits, point by point. ``vault`` reads what is left of maps."""

    def __init__(
        self,
        vault: Vault,
        *,
        moves: Moves,
        broken: BrokenSlots,
        trust_tables: bool = True,
        with_witnesses: bool = False,
    ) -> None:
        """Without ``trust_tables`` every map is walked, for a check that has found tables and maps to differ."""
        self._vault = vault
        self._moves = moves
        self._broken = {pack: None if slots is None else np.array(sorted(slots)) for pack, slots in broken.items()}
        self._leaves: dict[NodeAddress, list[_Hit]] = {}
        self._hits: dict[PackId, list[HitDisk]] = {}
        self._trust_tables = trust_tables
        self._with_witnesses = with_witnesses
        self.dependents: set[NodeAddress] = set()
        """Patches that are whole themselves, but whose base is damaged."""
        self.hit_places: set[NodeAddress] = set()
        """The broken places that some disk leads to."""
        self.witnesses: dict[NodeAddress, list[Witness]] = {}
        """By damaged place, when they are asked for: disks that hold its content."""

    def add(self, point: RestorePoint) -> None:
        """Look at one more restore point."""
        for disk in point.disks:
            if not self._trust_tables or self._concerns(disk):
                self._search(point, disk)

    def hits_of(self, pack: PackId) -> tuple[HitDisk, ...]:
        """Return the disks that the damage of one pack hits, among the points that were added."""
        return tuple(self._hits.get(pack, ()))

    def _concerns(self, disk: PointDisk) -> bool:
        packs = disk.stored.packs
        if any(pack in self._broken for pack in packs.packs):
            return True
        return bool(len(self._moves)) and not self._broken.keys().isdisjoint(self._moves.live_targets(packs.packs))

    def _search(self, point: RestorePoint, disk: PointDisk) -> None:
        lost: dict[PackId, list[Blocks]] = {}
        for first_block, hit in self._hits_in(disk):
            blocks = hit.blocks + first_block
            lost.setdefault(hit.pack, []).append(blocks)
            self.hit_places |= {NodeAddress(hit.pack, slot) for slot in np.unique(hit.slots).tolist()}
            if self._with_witnesses:
                self._remember(point, disk, hit, blocks)
        for pack, found in lost.items():
            extents = _extents_of(np.concatenate(found), disk.stored.size_bytes)
            self._hits.setdefault(pack, []).append(
                HitDisk(
                    point=point.id,
                    vm_uuid=point.facts.vm.uuid,
                    vm_name=point.facts.vm.name,
                    disk_name=disk.facts.name,
                    position=disk.facts.position,
                    lost_bytes=sum(each.length_bytes for each in extents),
                    extents=extents[:EXTENTS_TOLD_MAX],
                )
            )

    def _hits_in(self, disk: PointDisk) -> Iterator[tuple[int, _Hit]]:
        """Yield what is hit, and the first block of the leaf that it is counted from; first of all the root."""
        block_count = -(-disk.stored.size_bytes // BLOCK_BYTES)
        place = self._moves.resolve(disk.stored.root)
        if self._is_broken(place):
            yield 0, _whole(place, block_count)
            return
        try:
            root = read_root(read_node(self._vault, place), address=place)
        except Damage:
            # Damage that was not known when the search began; the next check finds it.
            return
        for number, address in enumerate(root.leaves):
            if address is not None:
                for hit in self._leaf_hits(address, blocks_of_leaf(root.size_bytes, number)):
                    yield number * LEAF_BLOCKS, hit

    def _leaf_hits(self, address: NodeAddress, block_count: int) -> list[_Hit]:
        known = self._leaves.get(address)
        if known is None:
            place = self._moves.resolve(address)
            known = self._leaves[address] = (
                [_whole(place, block_count)] if self._is_broken(place) else self._read_leaf_hits(place, block_count)
            )
        return known

    def _read_leaf_hits(self, place: NodeAddress, block_count: int) -> list[_Hit]:
        try:
            leaf = read_leaf(read_node(self._vault, place), address=place, blocks=block_count)
        except Damage:
            return []
        return [hit for number in range(len(leaf.packs)) for hit in self._hits_of_entries(leaf, number)]

    def _hits_of_entries(self, leaf: Leaf, number: int) -> Iterator[_Hit]:
        """Yield what is hit of the blocks of a leaf that lie in one of its packs."""
        blocks = np.flatnonzero(leaf.places == number + 1).astype(np.int64)
        for pack, at, slots in self._resolved(leaf.packs[number], leaf.slots[blocks].astype(np.int64)):
            hit = self._are_broken(pack, slots)
            if hit.any():
                yield _Hit(pack, blocks[at[hit]], slots[hit])
            yield from self._hits_of_bases(pack, blocks[at[~hit]], slots[~hit])

    def _hits_of_bases(self, pack: PackId, blocks: Blocks, slots: Blocks) -> Iterator[_Hit]:
        """Yield what is hit because the block that it patches is damaged."""
        try:
            rows = self._vault.shelf.open(pack).trailer.rows if len(slots) else None
        except Damage:
            return
        if rows is None or int(slots.max()) >= len(rows):
            return
        is_patch = rows["kind"][slots] == FrameKind.PATCH
        bases = self._bases_of(pack, slots[is_patch])
        for block, slot in zip(blocks[is_patch].tolist(), slots[is_patch].tolist(), strict=True):
            base = bases.get(slot)
            if base is not None and self._is_broken(base):
                self.dependents.add(NodeAddress(pack, slot))
                yield _Hit(base.pack, np.array([block]), np.array([base.slot]))

    def _bases_of(self, pack: PackId, slots: Blocks) -> dict[int, NodeAddress]:
        """Return where the bases of patches lie, as far as the patches can be read."""
        bases: dict[int, NodeAddress] = {}
        if len(slots) == 0:
            return bases
        opened = self._vault.shelf.open(pack)
        for request in plan_reads(opened.trailer, slots, slots):
            try:
                sealed = opened.read_range(request.offset_bytes, request.length_bytes)
            except Damage:
                continue
            for frame in request.frames:
                start = frame.offset_bytes - request.offset_bytes
                # One damaged patch must not hide what its neighbours are made against.
                with contextlib.suppress(Damage):
                    plain = opened.open_frame(frame, sealed[start : start + frame.length_bytes])
                    patch = parse_patch(plain, pack=pack, slot=frame.slot)
                    bases[frame.slot] = self._moves.resolve(NodeAddress(patch.base_pack, patch.base_slot))
        return bases

    def _resolved(self, pack: PackId, slots: Blocks) -> Iterator[tuple[PackId, Blocks, Blocks]]:
        """Yield where slots lie now: the pack, their places in ``slots``, their slots there."""
        for group in self._moves.resolve_slots(pack, slots):
            yield group.pack, group.at, group.slots

    def _is_broken(self, place: NodeAddress) -> bool:
        return bool(self._are_broken(place.pack, np.array([place.slot]))[0])

    def _are_broken(self, pack: PackId, slots: Blocks) -> npt.NDArray[np.bool_]:
        if pack not in self._broken:
            return np.zeros(len(slots), dtype=np.bool_)
        broken = self._broken[pack]
        return np.ones(len(slots), dtype=np.bool_) if broken is None else np.isin(slots, broken)

    def _remember(self, point: RestorePoint, disk: PointDisk, hit: _Hit, blocks: Blocks) -> None:
        for block, slot in zip(blocks.tolist(), hit.slots.tolist(), strict=True):
            known = self.witnesses.setdefault(NodeAddress(hit.pack, slot), [])
            if len(known) < _WITNESSES_MAX:
                (extent,) = _extents_of(np.array([block]), disk.stored.size_bytes)
                known.append(Witness(point, disk, extent))


def _whole(place: NodeAddress, block_count: int) -> _Hit:
    """Return the hit of a damaged node: everything below it."""
    return _Hit(place.pack, np.arange(block_count), np.full(block_count, place.slot))


def _extents_of(blocks: Blocks, size_bytes: int) -> tuple[Extent, ...]:
    """Return blocks as extents of a disk, neighbours joined."""
    blocks = np.unique(blocks)
    edges = np.flatnonzero(np.diff(blocks) != 1) + 1
    extents = []
    for run in np.split(blocks, edges):
        offset_bytes = int(run[0]) * BLOCK_BYTES
        end_bytes = min((int(run[-1]) + 1) * BLOCK_BYTES, size_bytes)
        extents.append(Extent(offset_bytes=offset_bytes, length_bytes=end_bytes - offset_bytes))
    return tuple(extents)
