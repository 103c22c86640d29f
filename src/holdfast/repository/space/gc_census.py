"""A census of packs: which there are, which of them points need, and how much of each.

From the points' tables alone, without a walk: 34 bytes for each pack in the store. Invariant: a pack counts as needed
when a table names it, or when frames of a pack that a table names were moved into it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core import ExitStatus, HoldfastError
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import PACKS_PREFIX, parse_pack_key
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.points.point_tables import PointTables, read_tables
from holdfast.repository.records.lease import Lease
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["CannotTellLivePacks", "Census", "ListedPacks", "held_packs", "list_packs", "sound_tables", "take_census"]


class CannotTellLivePacks(HoldfastError):
    """A restore point cannot be read, so nobody knows which packs it needs."""

    code = "repository.cannot-tell-live-packs"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was deleted: the damaged restore point may still be brought back whole, with all its data."
    advice = "Bring the named object back from a copy of the repository, or delete it from the store; then try again."

    def __init__(self, *, object: str, count: int) -> None:
        super().__init__(f"{count} restore points cannot be read, so their packs are not known; e.g. object {object}")
        self.object, self.count = object, count


@dataclass(frozen=True, slots=True)
class ListedPacks:
    """The packs in the store, and the lengths of their objects in the same order."""

    packs: PackSet
    lengths: npt.NDArray[np.int64]

    def bytes_of(self, chosen: npt.NDArray[np.bool_]) -> int:
        """Return the length of some of them together."""
        return int(self.lengths[chosen].sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What points need of the packs in the store. One entry of each array for each listed pack."""

    listed: ListedPacks
    is_needed: npt.NDArray[np.bool_]
    live_bytes: npt.NDArray[np.int64]
    """The most that one disk needs of a pack, by its table: no less than that is needed, mostly not much more. Where
    only some frames of a pack have moved, about what they take is counted where they lie now."""
    named_bytes: npt.NDArray[np.int64]
    """The same by the places that tables name, whatever has moved."""
    forgotten: PackSet
    """Packs of which frames have moved, which no table names any more, and to which no move of a named pack leads."""
    is_emptied: npt.NDArray[np.bool_]


def list_packs(vault: Vault) -> ListedPacks:
    """Return the packs in the store."""
    ids, lengths = bytearray(), array("q")
    for info in vault.names(PACKS_PREFIX):
        pack = parse_pack_key(info.key)
        if pack is not None:
            ids += pack
            lengths.append(info.length_bytes)
    # A listing is sorted by name, which is the order of ids.
    listed = PackSet(as_ids(bytes(ids)))
    return ListedPacks(listed, np.frombuffer(lengths, dtype=np.int64) if lengths else np.zeros(0, dtype=np.int64))


def held_packs(leases: Iterable[Lease]) -> PackSet:
    """Return every pack that a lease names."""
    return PackSet(as_ids(b"".join(b"" if lease.record is None else lease.record.packs for lease in leases)))


def sound_tables(tables: Iterable[PointTables | PointDamaged]) -> Iterable[PointTables]:
    """Yield the tables; ``CannotTellLivePacks`` at the end when some point could not be read."""
    damaged: list[PointDamaged] = []
    for each in tables:
        if isinstance(each, PointDamaged):
            damaged.append(each)
        else:
            yield each
    if damaged:
        raise CannotTellLivePacks(object=damaged[0].object, count=len(damaged))


def take_census(vault: Vault, listed: ListedPacks, *, moves: Moves, workers: int) -> Census:
    """Return the census. ``CannotTellLivePacks``."""
    count = len(listed.packs)
    is_needed = np.zeros(count, dtype=np.bool_)
    live_bytes = np.zeros(count, dtype=np.int64)
    moved = PackSet(moves.moved_packs())
    moved_is_named = np.zeros(len(moved), dtype=np.bool_)
    moved_live_bytes = np.zeros(len(moved), dtype=np.int64)
    moved_references = np.zeros(len(moved), dtype=np.int64)
    for point in sound_tables(read_tables(vault, workers=workers)):
        for disk in point.disks:
            live = disk.rows["live"].astype(np.int64)
            _raise_to(live_bytes, is_needed, listed.packs.find(disk.packs), live)
            if len(moved):
                places = moved.find(disk.packs)
                _raise_to(moved_live_bytes, moved_is_named, places, live)
                _raise_to(moved_references, moved_is_named, places, disk.rows["references"].astype(np.int64))
    named_bytes = live_bytes.copy()
    for place in np.flatnonzero(moved_is_named).tolist():
        pack = moved.pack(place)
        out_bytes = int(moved_live_bytes[place])
        if pack not in moves.emptied:
            first, end = moves.span(pack)
            out_bytes = min(out_bytes, (end - first) * out_bytes // max(1, int(moved_references[place])))
            at = listed.packs.find(as_ids(pack))
            live_bytes[at[at >= 0]] -= out_bytes
        into = listed.packs.find(PackSet(moves.targets(pack)).ids)
        is_needed[into[into >= 0]] = True
        live_bytes[into[into >= 0]] += out_bytes
    is_emptied = np.zeros(count, dtype=np.bool_)
    emptied = listed.packs.find(moves.emptied.ids)
    is_emptied[emptied[emptied >= 0]] = True
    return Census(
        listed=listed,
        is_needed=is_needed,
        live_bytes=np.clip(live_bytes, 0, listed.lengths),
        named_bytes=named_bytes,
        forgotten=PackSet(moved.ids[~_reached(moved, moved_is_named, moves)]),
        is_emptied=is_emptied,
    )


def _raise_to(
    most: npt.NDArray[np.int64],
    is_named: npt.NDArray[np.bool_],
    places: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64],
) -> None:
    here = places >= 0
    found = places[here]
    is_named[found] = True
    most[found] = np.maximum(most[found], values[here])


def _reached(moved: PackSet, is_named: npt.NDArray[np.bool_], moves: Moves) -> npt.NDArray[np.bool_]:
    """Return which moved packs are named, or passed on the way from one that is."""
    is_reached = is_named.copy()
    waiting = np.flatnonzero(is_named).tolist()
    while waiting:
        further = moved.find(moves.next_packs(moved.pack(waiting.pop())).ids)
        for place in further[further >= 0].tolist():
            if not is_reached[place]:
                is_reached[place] = True
                waiting.append(place)
    return is_reached
