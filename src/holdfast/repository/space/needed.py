"""Which packs the restore points need, as arrays: 20 bytes for each pack, however many points name it.

Points are read one after the other and only their tables are kept, merged whenever they have grown by half.
Invariant: every pack that holds what a readable point needs is there, those into which frames were moved too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import PackId
from holdfast.repository.points.point_tables import read_tables
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["NeededPacks", "read_needed"]

_ROWS_MERGED_MIN = 262_144

PackArray = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class NeededPacks:
    """The packs, ascending, each once, and the points that could not be read."""

    packs: PackArray
    damaged_points: tuple[PointDamaged, ...]


def read_needed(vault: Vault, *, moves: Moves, workers: int, cancel: Cancellation) -> NeededPacks:
    """Return what all points need. A point that is deleted meanwhile may count or not."""
    merged: PackArray = np.zeros(0, dtype="V16")
    fresh: list[PackArray] = []
    fresh_rows = 0
    damaged = []
    for point in read_tables(vault, workers=workers):
        cancel.check()
        if isinstance(point, PointDamaged):
            damaged.append(point)
            continue
        # Copied, because a view of 16 bytes in each row would keep all 32.
        fresh += [disk.rows["pack"].copy() for disk in point.disks]
        fresh_rows += sum(len(disk.rows) for disk in point.disks)
        if fresh_rows > max(_ROWS_MERGED_MIN, len(merged) // 2):
            merged, fresh, fresh_rows = np.unique(np.concatenate([merged, *fresh])), [], 0
    packs = np.unique(np.concatenate([merged, *fresh]))
    return NeededPacks(_with_moves(packs, moves), tuple(damaged))


def _with_moves(packs: PackArray, moves: Moves) -> PackArray:
    """Return the packs that hold what is needed of these: without emptied ones, with those into which frames moved."""
    if not len(moves) and not moves.emptied:
        return packs
    holders: set[PackId] = set()
    for first in range(0, len(packs), _ROWS_MERGED_MIN):
        holders |= moves.holders_of(PackId(each) for each in packs[first : first + _ROWS_MERGED_MIN].tolist())
    return np.array(sorted(holders), dtype="V16")
