"""A look at which slots of a batch of packs the points need, and another one later at what was published meanwhile.

Invariant: a slot that a point needs which was there during a look is live; what was live once stays live for the whole
collection of the batch, so a point that is deleted in between costs space until the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from holdfast.core import MIB, Cancellation
from holdfast.repository.packs.pack_set import PackSet, ids_of
from holdfast.repository.points.point_tables import PointTables, SeenPoints, read_tables
from holdfast.repository.points.slot_walk import Slots, SlotWalk, WalkedDisk
from holdfast.repository.records.moved import Moves, Rows
from holdfast.repository.space.gc_census import sound_tables
from holdfast.repository.vault import Vault

__all__ = ["SlotLook", "walk_points"]

_TABLE_BYTES_MAX = 64 * MIB
"""Tables of one VM that are held at once, so that leaves which its points share are read once."""


class SlotLook:
    """Which slots are live, as far as was looked."""

    def __init__(
        self, vault: Vault, packs: PackSet, slot_counts: Sequence[int], *, workers: int, cancel: Cancellation
    ) -> None:
        self.packs = packs
        self.live = [np.zeros(count, dtype=np.bool_) for count in slot_counts]
        self.estimates = [0] * len(packs)
        """The most that one disk needs of each pack, by its table."""
        self._vault = vault
        self._workers = workers
        self._cancel = cancel
        self._seen = SeenPoints()
        self._moves = Moves()

    def look(self, moves: Moves) -> None:
        """Look at all points. ``CannotTellLivePacks``."""
        self._moves = moves
        self._walk(moves, is_new=False)

    def look_again(self, moves: Moves) -> None:
        """Look at the points that were published since, and at frames that have moved into the packs."""
        self._walk(moves, is_new=True)
        places = self.packs.find(moves.next_ids())
        for row in np.flatnonzero(places >= 0).tolist():
            moved = moves.rows[row]
            if not self._moves.has_row(moved):
                self.need(int(places[row]), np.array([int(moved["new_slot"])], dtype=np.int64), 0)
        self._moves = moves

    def moved_away(self, rows: Rows) -> list[int]:
        """Take note that some slots are needed elsewhere from now on; return the places of their packs."""
        places = self.packs.find(ids_of(rows["old_pack"]))
        found: list[int] = np.unique(places).tolist()
        for place in found:
            self.live[place][rows["old_slot"][places == place]] = False
        return found

    def need(self, place: int, slots: Slots, owner: int) -> None:
        """See ``NeededSlots.need``."""
        live = self.live[place]
        live[slots[slots < len(live)]] = True

    def need_all(self, place: int, owner: int) -> None:
        """See ``NeededSlots.need_all``."""
        self.live[place][:] = True

    def _walk(self, moves: Moves, *, is_new: bool) -> None:
        walk = SlotWalk(self._vault, self.packs, self, moves=moves, workers=self._workers, cancel=self._cancel)
        tables = read_tables(self._vault, workers=self._workers, seen=self._seen, is_new=is_new)
        points = self._noted(sound_tables(tables))
        for _, disks in walk_points(walk, points):
            walk.walk(disks)

    def _noted(self, points: Iterable[PointTables]) -> Iterator[PointTables]:
        for point in points:
            self._cancel.check()
            for disk in point.disks:
                places = self.packs.find(disk.packs)
                for row in np.flatnonzero(places >= 0).tolist():
                    place = int(places[row])
                    self.estimates[place] = max(self.estimates[place], int(disk.rows["live"][row]))
            yield point


def walk_points(walk: SlotWalk, points: Iterable[PointTables]) -> Iterator[tuple[list[PointTables], list[WalkedDisk]]]:
    """Yield the disks to walk together: of points of one VM, as many as fit; an owner is a place in the list."""
    together: list[PointTables] = []
    disks: list[WalkedDisk] = []
    table_bytes = 0
    for point in points:
        if together and (together[-1].vm_uuid != point.vm_uuid or table_bytes > _TABLE_BYTES_MAX):
            yield together, disks
            together, disks, table_bytes = [], [], 0
        found = [disk for each in point.disks if (disk := walk.disk_of(each, owner=len(together))) is not None]
        if found:
            together.append(point)
            disks += found
            table_bytes += sum(disk.packs.nbytes + disk.references.nbytes for disk in found)
    if together:
        yield together, disks
