"""Whose space it is: what each VM and each point needs alone, what several share, what nobody needs.

Counted in whole packs from the points' tables, or frame by frame from their maps. Invariant: every byte of every pack
in the store is in exactly one sum, so the sums add up to what the store lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, Progress
from holdfast.repository.damage import Damage
from holdfast.repository.layout import BLOCKS_PER_FRAME_MAX, PackId
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.points.point_tables import PointTables, read_tables
from holdfast.repository.points.slot_walk import MANY, Slots, SlotWalk
from holdfast.repository.records.holes import read_holes
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.space.gc_census import ListedPacks, list_packs, sound_tables
from holdfast.repository.space.gc_look import walk_points
from holdfast.repository.vault import Vault

__all__ = ["PointSpace", "SpaceReport", "VmSpace", "freed_by_deleting", "measure_space"]

_NOBODY = -1
_SEVERAL = -2

_BATCH_SLOTS_MAX = 4_000_000
"""13 bytes each: 52 MB. About 2,700 packs, 170 GB, for one look at all maps."""

Owners = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpace:
    """What the points of one VM take."""

    vm_uuid: str
    vm_name: str
    """As its newest point calls it."""
    points: int
    unique_bytes: int
    """What would come back if all of them were deleted."""
    shared_bytes: int
    """What they need together with other VMs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSpace:
    """What one point takes."""

    point: str
    vm_uuid: str
    vm_name: str
    unique_bytes: int
    """What would come back if it were deleted."""
    shared_bytes: int
    """The rest of what its tables name, which other points need too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceReport:
    """How the bytes of all packs are used. ``unique + shared + dead + overhead`` is what the store lists."""

    is_exact: bool
    """Whether single frames were counted; otherwise whole packs."""
    pack_bytes: int
    """What the store lists."""
    unique_bytes: int
    """What one VM alone needs, over all VMs."""
    shared_bytes: int
    dead_bytes: int
    """What no point needs: waits for garbage collection, belongs to a backup that runs, or was punched."""
    hindered_bytes: int
    """What of the dead bytes shares frames with blocks that are needed: it comes back when most of a frame is dead."""
    overhead_bytes: int
    """Headers and trailers of packs that are needed; counted only frame by frame."""
    punched_bytes: int
    """What of the dead bytes was given back in place already, although listings still count it."""
    vms: tuple[VmSpace, ...]
    points: tuple[PointSpace, ...]


def measure_space(
    vault: Vault, *, is_exact: bool, workers: int, progress: Progress, cancel: Cancellation
) -> SpaceReport:
    """Return how space is used. ``CannotTellLivePacks``."""
    listed, moves = list_packs(vault), read_moves(vault)
    tally = _PackTally(listed, moves)
    with progress.start("looking at restore points") as task:
        for point in sound_tables(read_tables(vault, workers=workers)):
            cancel.check()
            tally.add(point)
            task.advance(sum(len(disk.rows) * disk.rows.itemsize for disk in point.disks))
    tally.end_vm()
    punched_bytes = int(read_holes(vault).freed_bytes(listed.packs).sum())
    if not is_exact:
        return tally.report(punched_bytes)
    frames = _FrameTally(vault, listed, moves, tally, workers=workers, cancel=cancel)
    with progress.start("walking all maps", total_bytes=int(listed.lengths.sum())) as task:
        for done_bytes in frames.run(PackSet(listed.packs.ids[tally.vm_of != _NOBODY])):
            task.advance(done_bytes)
    return frames.report(punched_bytes)


def freed_by_deleting(vault: Vault, point: str, *, workers: int, cancel: Cancellation) -> int:
    """Return the length of the frames that only this point needs, by a walk over the points that use the same packs."""
    listed, moves = list_packs(vault), read_moves(vault)
    tally = _PackTally(listed, moves)
    names: list[PackSet] = []
    for each in sound_tables(read_tables(vault, workers=workers)):
        cancel.check()
        tally.add(each)
        if each.id == point:
            names += [PackSet(disk.packs) for disk in each.disks]
    tally.end_vm()
    meant = moves.holders_of(pack for each in names for pack in each)
    frames = _FrameTally(vault, listed, moves, tally, workers=workers, cancel=cancel)
    for _ in frames.run(listed.packs.common(PackSet(meant))):
        cancel.check()
    return sum(
        freed_bytes
        for (id, _, _), freed_bytes in zip(tally.points, frames.freed_bytes.tolist(), strict=True)
        if id == point
    )


class _PackTally:
    """Counts whole packs: to whom each belongs."""

    def __init__(self, listed: ListedPacks, moves: Moves) -> None:
        self._listed = listed
        self._moves = moves
        self._moved = PackSet(moves.moved_packs())
        self.vm_of: Owners = np.full(len(listed.packs), _NOBODY, dtype=np.int64)
        self.point_of: Owners = np.full(len(listed.packs), _NOBODY, dtype=np.int64)
        self.vms: list[tuple[str, str, str]] = []
        """Uuid, name, and when the point was taken that calls it so."""
        self.vm_points: list[int] = []
        self.vm_bytes: list[int] = []
        self.points: list[tuple[str, int, int]] = []
        """Id, number of the VM, bytes of all packs."""
        self._used = np.zeros(len(listed.packs), dtype=np.bool_)

    def add(self, point: PointTables) -> None:
        """Count a point; those of one VM come after each other."""
        if not self.vms or self.vms[-1][0] != point.vm_uuid:
            self.end_vm()
            self.vms.append((point.vm_uuid, point.vm_name, point.taken_at))
            self.vm_points.append(0)
        elif point.taken_at >= self.vms[-1][2]:
            self.vms[-1] = (point.vm_uuid, point.vm_name, point.taken_at)
        self.vm_points[-1] += 1
        places = self._places(point)
        _own(self.point_of, places, len(self.points))
        self._used[places] = True
        self.points.append((point.id, len(self.vms) - 1, int(self._listed.lengths[places].sum())))

    def end_vm(self) -> None:
        """Settle what the VM used whose points were added last."""
        if len(self.vm_bytes) < len(self.vms):
            places = np.flatnonzero(self._used)
            _own(self.vm_of, places, len(self.vms) - 1)
            self.vm_bytes.append(int(self._listed.lengths[places].sum()))
            self._used[places] = False

    def report(self, punched_bytes: int) -> SpaceReport:
        """Return the sums in whole packs."""
        lengths = self._listed.lengths
        unique = _sums(self.vm_of, lengths, len(self.vms))
        own_point = _sums(self.point_of, lengths, len(self.points))
        return SpaceReport(
            is_exact=False,
            pack_bytes=int(lengths.sum()),
            unique_bytes=int(unique.sum()),
            shared_bytes=int(lengths[self.vm_of == _SEVERAL].sum()),
            dead_bytes=int(lengths[self.vm_of == _NOBODY].sum()),
            hindered_bytes=0,
            overhead_bytes=0,
            punched_bytes=punched_bytes,
            vms=self.vm_spaces(unique, np.array(self.vm_bytes, dtype=np.int64) - unique),
            points=self.point_spaces(own_point),
        )

    def vm_spaces(self, unique: Owners, shared: Owners) -> tuple[VmSpace, ...]:
        """Return the VMs, those that take most first."""
        found = [
            VmSpace(vm_uuid=uuid, vm_name=name, points=points, unique_bytes=own_bytes, shared_bytes=shared_bytes)
            for (uuid, name, _), points, own_bytes, shared_bytes in zip(
                self.vms, self.vm_points, unique.tolist(), shared.tolist(), strict=True
            )
        ]
        return tuple(sorted(found, key=lambda each: (-each.unique_bytes, each.vm_name, each.vm_uuid)))

    def point_spaces(self, unique: Owners) -> tuple[PointSpace, ...]:
        """Return the points, in the order of their names."""
        return tuple(
            PointSpace(
                point=id,
                vm_uuid=self.vms[vm][0],
                vm_name=self.vms[vm][1],
                unique_bytes=own_bytes,
                shared_bytes=max(0, total_bytes - own_bytes),
            )
            for (id, vm, total_bytes), own_bytes in zip(self.points, unique.tolist(), strict=True)
        )

    def _places(self, point: PointTables) -> Slots:
        """Return the packs that hold what a point needs."""
        found = [np.zeros(0, dtype=np.int64)]
        for disk in point.disks:
            is_there = self._moves.emptied.find(disk.packs) < 0
            found.append(self._listed.packs.find(disk.packs[is_there]))
            for place in self._moved.find(disk.packs).tolist():
                if place >= 0:
                    targets = PackSet(self._moves.targets(self._moved.pack(place)))
                    found.append(self._listed.packs.find(targets.ids))
        places = np.unique(np.concatenate(found))
        return places[places >= 0]


class _FrameTally:
    """Counts frames, a batch of packs at a time: to which VM and to which point each slot belongs."""

    def __init__(
        self,
        vault: Vault,
        listed: ListedPacks,
        moves: Moves,
        packs: _PackTally,
        *,
        workers: int,
        cancel: Cancellation,
    ) -> None:
        self._vault = vault
        self._listed = listed
        self._moves = moves
        self._packs = packs
        self._workers = workers
        self._cancel = cancel
        self._vm_numbers = {uuid: number for number, (uuid, _, _) in enumerate(packs.vms)}
        self._point_numbers = {id: number for number, (id, _, _) in enumerate(packs.points)}
        self._unique = np.zeros(len(packs.vms), dtype=np.int64)
        self._used = np.zeros(len(packs.vms), dtype=np.int64)
        self._points = np.zeros(len(packs.points), dtype=np.int64)
        self._shared_once_bytes = 0
        self._hindered_bytes = 0
        self._overhead_bytes = 0
        self.freed_bytes = np.zeros(len(packs.points), dtype=np.int64)
        """For each point the length of the frames that die with it."""

    def run(self, packs: PackSet) -> Iterator[int]:
        """Count all slots of some packs; yield the lengths of those that were counted."""
        trailers: list[tuple[PackId, Trailer]] = []
        slots = length_bytes = 0
        for pack in packs:
            self._cancel.check()
            try:
                trailer = self._vault.shelf.open(pack).trailer
            except Damage:
                # Nobody can tell what is in it; it counts as overhead, and verification reports it.
                self._overhead_bytes += self._length_bytes(pack)
                continue
            if trailers and slots + len(trailer) > _BATCH_SLOTS_MAX:
                self._count(_SlotOwners(trailers, len(self._unique)), length_bytes)
                yield length_bytes
                trailers, slots, length_bytes = [], 0, 0
            trailers.append((pack, trailer))
            slots += len(trailer)
            length_bytes += self._length_bytes(pack)
        if trailers:
            self._count(_SlotOwners(trailers, len(self._unique)), length_bytes)
            yield length_bytes

    def _length_bytes(self, pack: PackId) -> int:
        return int(self._listed.lengths[self._listed.packs.find(as_ids(pack))[0]])

    def _count(self, batch: _SlotOwners, length_bytes: int) -> None:
        """Walk all points for one batch. What is published meanwhile counts for nobody alone."""
        walk = SlotWalk(self._vault, batch.packs, batch, moves=self._moves, workers=self._workers, cancel=self._cancel)
        tables = sound_tables(read_tables(self._vault, workers=self._workers))
        for together, disks in walk_points(walk, tables):
            vm = self._vm_numbers.get(together[0].vm_uuid, _SEVERAL)
            batch.begin(vm, [self._point_numbers.get(point.id, _SEVERAL) for point in together])
            walk.walk(disks)
        batch.begin(_SEVERAL, [])
        self._unique += _sums(batch.vm_of, batch.shares, len(self._unique))
        self._used += batch.used_bytes
        self._points += _sums(batch.point_of, batch.shares, len(self._points))
        self._shared_once_bytes += int(batch.shares[batch.vm_of == _SEVERAL].sum())
        self._hindered_bytes += batch.hindered_bytes()
        self._overhead_bytes += length_bytes - int(batch.shares.sum())
        self.freed_bytes += batch.freed_bytes(len(self.freed_bytes))

    def report(self, punched_bytes: int) -> SpaceReport:
        """Return the sums frame by frame."""
        pack_bytes = int(self._listed.lengths.sum())
        used_bytes = int(self._unique.sum()) + self._shared_once_bytes + self._overhead_bytes
        return SpaceReport(
            is_exact=True,
            pack_bytes=pack_bytes,
            unique_bytes=int(self._unique.sum()),
            shared_bytes=self._shared_once_bytes,
            dead_bytes=pack_bytes - used_bytes,
            hindered_bytes=self._hindered_bytes,
            overhead_bytes=self._overhead_bytes,
            punched_bytes=punched_bytes,
            vms=self._packs.vm_spaces(self._unique, self._used - self._unique),
            points=self._packs.point_spaces(self._points),
        )


class _SlotOwners:
    """To which VM and which point each slot of a batch of packs belongs."""

    def __init__(self, trailers: Sequence[tuple[PackId, Trailer]], vms: int) -> None:
        self.packs = PackSet([pack for pack, _ in trailers])
        by_pack = dict(trailers)
        ordered = [by_pack[pack] for pack in self.packs]
        self._starts = np.cumsum([0, *(len(trailer) for trailer in ordered)])
        self.shares = np.concatenate([trailer.shares(np.arange(len(trailer))) for trailer in ordered])
        self._places = np.concatenate([trailer.rows["index"] for trailer in ordered])
        self._frames = np.cumsum(np.concatenate([trailer.rows["index"] == 0 for trailer in ordered])) - 1
        self.vm_of: Owners = np.full(len(self.shares), _NOBODY, dtype=np.int64)
        self.point_of: Owners = np.full(len(self.shares), _NOBODY, dtype=np.int64)
        self.used_bytes = np.zeros(vms, dtype=np.int64)
        self._is_used = np.zeros(len(self.shares), dtype=np.bool_)
        self._vm = _SEVERAL
        self._points: list[int] = []

    def begin(self, vm: int, points: list[int]) -> None:
        """Go on with points of a VM; what another VM used before is settled."""
        if vm != self._vm:
            places = np.flatnonzero(self._is_used)
            _own(self.vm_of, places, self._vm)
            if self._vm >= 0:
                self.used_bytes[self._vm] += int(self.shares[places].sum())
            self._is_used[places] = False
        self._vm, self._points = vm, points

    def hindered_bytes(self) -> int:
        """Return how much of what nobody needs lies in frames of which something is needed."""
        is_needed = np.zeros(int(self._frames[-1]) + 1, dtype=np.bool_)
        is_needed[self._frames[self.point_of != _NOBODY]] = True
        return int(self.shares[(self.point_of == _NOBODY) & is_needed[self._frames]].sum())

    def freed_bytes(self, points: int) -> Owners:
        """Return for each point the length of the frames of which nobody else needs anything."""
        owners: Owners = np.full(int(self._frames[-1]) + 1, _NOBODY, dtype=np.int64)
        lengths = np.zeros(len(owners), dtype=np.int64)
        np.add.at(lengths, self._frames, self.shares)
        for place in range(BLOCKS_PER_FRAME_MAX):
            # The slots of a frame come one after the other; each round looks at one of every frame.
            here = np.flatnonzero((self._places == place) & (self.point_of != _NOBODY))
            frames, found = self._frames[here], self.point_of[here]
            before = owners[frames]
            owners[frames] = np.where((before == _NOBODY) | (before == found), found, _SEVERAL)
        return _sums(owners, lengths, points)

    def need(self, place: int, slots: Slots, owner: int) -> None:
        """See ``NeededSlots.need``."""
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        places = start + slots[slots < end - start]
        self._is_used[places] = True
        _own(self.point_of, places, _SEVERAL if owner == MANY else self._points[owner])

    def need_all(self, place: int, owner: int) -> None:
        """See ``NeededSlots.need_all``."""
        self.need(place, np.arange(int(self._starts[place + 1] - self._starts[place])), owner)


def _own(owners: Owners, places: Slots, owner: int) -> None:
    """Make somebody the owner of places that belong to nobody, and let others belong to several."""
    before = owners[places]
    owners[places] = np.where((before == _NOBODY) | (before == owner), owner, _SEVERAL)


def _sums(owners: Owners, lengths: npt.NDArray[np.int64], count: int) -> Owners:
    """Return for each owner the length of what it owns alone."""
    sums: Owners = np.zeros(count, dtype=np.int64)
    alone = owners >= 0
    np.add.at(sums, owners[alone], lengths[alone])
    return sums
