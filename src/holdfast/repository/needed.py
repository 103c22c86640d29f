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
from holdfast.repository.layout import PACK_TABLE_ROW, POINTS_PREFIX, PackId
from holdfast.repository.moved import Moves
from holdfast.repository.point import read_pack_tables
from holdfast.repository.vault import Vault

__all__ = ["NeededPacks", "read_needed"]

_ROWS_MERGED_MIN = 262_144

PackArray = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class NeededPacks:
    """The packs, ascending, each once, and the points that could not be read."""

    packs: PackArray
    damaged_points: tuple[PointDamaged, ...]


def read_needed(vault: Vault, *, moves: Moves, cancel: Cancellation) -> NeededPacks:
    """Return what all points need. A point that is deleted meanwhile may count or not."""
    merged: PackArray = np.zeros(0, dtype="V16")
    fresh: list[PackArray] = []
    fresh_rows = 0
    damaged = []
    for info in list(vault.names(POINTS_PREFIX)):
        cancel.check()
        try:
            tables = read_pack_tables(vault, info.key)
            # Copied, because a view of 16 bytes in each row would keep all 32.
            named = [np.frombuffer(table, dtype=PACK_TABLE_ROW)["pack"].copy() for table in tables or ()]
        except PointDamaged as damage:
            damaged.append(damage)
            continue
        except ValueError as cause:
            damaged.append(PointDamaged(key=info.key, reason=str(cause)))
            continue
        fresh += named
        fresh_rows += sum(len(each) for each in named)
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
