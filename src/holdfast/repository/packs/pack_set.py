"""Sets of packs, in 16 bytes each: what garbage collection holds of a repository with millions of them.

Invariant: the ids are sorted and each is there once, so what is looked up is found by bisection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.repository.layout import PackId

__all__ = ["PackIds", "PackSet", "as_ids", "ids_of", "pack_id"]

PackIds = npt.NDArray[np.bytes_]
"""Ids as numpy compares them. All have 16 bytes, so that it passes over zeros at their ends harms nothing."""

_ID_BYTES = 16


class PackSet(Set[PackId]):
    """Some packs. A value."""

    __slots__ = ("_prefixes", "ids")

    def __init__(self, packs: Iterable[PackId] | PackIds = ()) -> None:
        ids = packs if isinstance(packs, np.ndarray) else as_ids(b"".join(packs))
        # numpy's own ``unique`` loads its masked arrays, which takes 30 ms at the start of every run.
        ordered = np.sort(ids)
        is_new = np.ones(len(ordered), dtype=np.bool_)
        is_new[1:] = ordered[1:] != ordered[:-1]
        self.ids: PackIds = ordered if bool(is_new.all()) else ordered[is_new]
        prefixes = self.ids.view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
        # Comparing whole ids takes seven times as long; equal beginnings of random ids will hardly ever be seen.
        self._prefixes = prefixes if bool((prefixes[1:] != prefixes[:-1]).all()) else None

    def find(self, ids: PackIds) -> npt.NDArray[np.int64]:
        """Return for each id its place among the ids of this set, -1 when it is not there."""
        if len(self.ids) == 0 or len(ids) == 0:
            return np.full(len(ids), -1, dtype=np.int64)
        if self._prefixes is None:
            places = np.searchsorted(self.ids, ids)
        else:
            wanted = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
            places = np.searchsorted(self._prefixes, wanted)
        places = np.minimum(places, len(self.ids) - 1)
        found: npt.NDArray[np.int64] = np.where(self.ids[places] == ids, places, -1)
        return found

    def joined(self, other: PackSet) -> PackSet:
        """Return the packs of both."""
        return PackSet(np.concatenate([self.ids, other.ids]))

    def common(self, other: PackSet) -> PackSet:
        """Return the packs that the other set has too."""
        return PackSet(self.ids[other.find(self.ids) >= 0])

    def without(self, other: PackSet) -> PackSet:
        """Return the packs that the other set does not have."""
        return PackSet(self.ids[other.find(self.ids) < 0])

    def pack(self, place: int) -> PackId:
        """Return the pack at a place of this set."""
        return pack_id(self.ids, place)

    def __contains__(self, pack: object) -> bool:
        return isinstance(pack, bytes) and int(self.find(as_ids(pack))[0]) >= 0

    def __iter__(self) -> Iterator[PackId]:
        return (PackId(each) for each in self.ids.view("V16").tolist())

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def _from_iterable(cls, packs: Iterable[Any]) -> Set[Any]:
        return cls(packs)


def as_ids(packs: bytes) -> PackIds:
    """Return ids that lie one after the other. ValueError when they do not add up."""
    if len(packs) % _ID_BYTES:
        raise ValueError(f"{len(packs)} bytes are not a whole number of pack ids")
    ids: PackIds = np.frombuffer(packs, dtype="S16")
    return ids


def ids_of(column: npt.NDArray[Any]) -> PackIds:
    """Return the ids in a column of rows, in the order of the rows."""
    ids: PackIds = np.ascontiguousarray(column).view("S16")
    return ids


def pack_id(ids: PackIds, place: int) -> PackId:
    """Return one of the ids, zeros at its end included."""
    return PackId(ids[place : place + 1].tobytes())
