"""Tells clients of what changed by consequence: an object whose ``allowed_operations`` are others than they last read.

Such lists are computed when a record is read (``records.py``), so a machine that starts changes what its disks offer
without anybody having written to them. A client that follows events would keep the old list for ever. Here every list
that was read is remembered, and at the end of each transaction the neighbours of what changed are asked again.
Invariant: an object is touched only when its list differs from the one last read, so an event is never for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from holdfast.lab.database import Database, Row

__all__ = ["Ripples"]

ListOf = Callable[[str, Row], list[str] | None]

_HOPS = 2
"""From a machine over its virtual disks to their disks, which is as far as the rules look."""

_NEIGHBOURS = {
    "PBD": (("SR", "SR"),),
    "VBD": (("VM", "VM"), ("VDI", "VDI")),
    "VDI": (("VBDs", "VBD"),),
    "VIF": (("VM", "VM"),),
    "VM": (("VBDs", "VBD"), ("VIFs", "VIF"), ("VTPMs", "VTPM"), ("appliance", "VM_appliance")),
    "VTPM": (("VM", "VM"),),
}
"""Fields that lead to objects whose rules look at this one, and the class they lead to."""

_METRICS = {"VM_guest_metrics": "guest_metrics", "VM_metrics": "metrics"}
"""Classes that know nothing of the machine they belong to, and the machine's field that names them."""


class Ripples:
    """What clients were told of each object's possibilities, and who must be told again."""

    def __init__(self, db: Database, list_of: ListOf) -> None:
        self._db = db
        self._list_of = list_of
        self._read: dict[tuple[str, str], list[str]] = {}
        self._owners: dict[tuple[str, str], str] = {}

    def remember(self, cls: str, ref: str, operations: list[str]) -> None:
        """Keep what a client read of an object just now."""
        self._read[cls, ref] = operations

    def spread(self, changed: Iterable[tuple[str, str]]) -> None:
        """Touch each object near a changed one that offers something else now than a client last read."""
        if not self._read:
            return
        near = set(changed)
        edge = near
        for _ in range(_HOPS):
            edge = {each for cls, ref in edge for each in self._around(cls, ref)} - near
            near = near | edge
        for cls, ref in near:
            read = self._read.get((cls, ref))
            if read is None:
                continue
            row = self._db.find(cls, ref)
            if row is None:
                del self._read[cls, ref]
            elif self._list_of(cls, row) != read:
                self._db.touch(cls, ref)

    def _around(self, cls: str, ref: str) -> Iterator[tuple[str, str]]:
        if cls in _METRICS:
            owner = self._owner(cls, ref)
            if owner is not None:
                yield "VM", owner
            return
        row = self._db.find(cls, ref)
        if row is None:
            return
        for name, other in _NEIGHBOURS.get(cls, ()):
            found = row.fields[name]
            for target in cast("list[str]", found) if isinstance(found, list) else [str(found)]:
                yield other, target

    def _owner(self, cls: str, ref: str) -> str | None:
        """Return the machine with these metrics. They never change hands, so it is looked for once."""
        known = self._owners.get((cls, ref))
        if known is None:
            name = _METRICS[cls]
            for row in self._db.rows("VM"):
                self._owners[cls, str(row.fields[name])] = row.ref
            known = self._owners.get((cls, ref))
        return known
