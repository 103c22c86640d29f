"""The pack tables of restore points, one point after the other: what garbage collection and statistics read of them.

Nothing else of a point is decoded, and no table is kept, so memory does not grow with the number of points. Invariant:
a point that cannot be read is told, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from holdfast.core import from_msgpack
from holdfast.repository import layout
from holdfast.repository.crew import read_small
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import OBJECT_HEADER, PACK_TABLE_ROW, POINTS_PREFIX, ObjectKind, PackId
from holdfast.repository.packs.pack_set import PackIds, ids_of
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, RangeNotSatisfiable

__all__ = ["DiskTable", "PointTables", "SeenPoints", "read_table", "read_tables"]

_POINT_VERSION = 1


class _DiskFields(msgspec.Struct, frozen=True):
    stored_size: int
    root_pack: bytes
    root_slot: int
    packs: bytes


class _PointFields(msgspec.Struct, frozen=True):
    version: int
    id: str
    vm_uuid: str
    vm_name: str
    taken_at: str
    disks: tuple[_DiskFields, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTable:
    """One disk: where its map begins, and how it uses which packs."""

    size_bytes: int
    root: NodeAddress
    packs: PackIds
    rows: npt.NDArray[Any]
    """In the order of ``packs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTables:
    """The tables of one point."""

    key: str
    id: str
    vm_uuid: str
    vm_name: str
    taken_at: str
    disks: tuple[DiskTable, ...]


class SeenPoints:
    """Which point objects were read: by name and by the nonce of their seal, so that a point which was deleted and
    published again counts as another one. Eight bytes and Python's overhead for each."""

    def __init__(self) -> None:
        self._marks: set[int] = set()

    def add(self, key: str, sealed: bytes) -> None:
        """Remember an object."""
        self._marks.add(_mark(key, sealed))

    def has(self, vault: Vault, key: str) -> bool:
        """Return whether the object that is there now was read. ``ObjectMissing``."""
        try:
            header = vault.store.get_range(key, offset_bytes=0, length_bytes=OBJECT_HEADER.size)
        except RangeNotSatisfiable:
            return False
        return _mark(key, header) in self._marks


def read_tables(
    vault: Vault, *, workers: int, seen: SeenPoints | None = None, is_new: bool = False
) -> Iterator[PointTables | PointDamaged]:
    """Yield the tables of every point, those of one VM after each other, or what is wrong with one.

    What is read is added to ``seen``; with ``is_new`` what was seen before is left out.
    """
    names = (info.key for info in list(vault.names(POINTS_PREFIX)))

    def read(key: str) -> PointTables | PointDamaged | None:
        try:
            if is_new and seen is not None and seen.has(vault, key):
                return None
            sealed = vault.store.get(key)
        except ObjectMissing:
            return None
        found = _open(vault, key, sealed)
        if seen is not None:
            seen.add(key, sealed)
        return found

    for found in read_small(read, names, workers=workers):
        if found is not None:
            yield found


def read_table(vault: Vault, key: str) -> PointTables | None:
    """Return the tables of one point, None when it is gone. ``PointDamaged``."""
    try:
        found = _open(vault, key, vault.store.get(key))
    except ObjectMissing:
        return None
    if isinstance(found, PointDamaged):
        raise found
    return found


def _open(vault: Vault, key: str, sealed: bytes) -> PointTables | PointDamaged:
    try:
        fields = from_msgpack(vault.keys.open_object(sealed, kind=ObjectKind.POINT, key=key), _PointFields)
        if fields.version != _POINT_VERSION:
            return PointDamaged(key=key, reason=f"it has version {fields.version}, which this Holdfast does not know")
        disks = tuple(_disk(each) for each in fields.disks)
    except (SealBroken, msgspec.DecodeError, ValueError) as cause:
        return PointDamaged(key=key, reason=str(cause))
    return PointTables(
        key=key,
        id=fields.id,
        vm_uuid=fields.vm_uuid,
        vm_name=fields.vm_name,
        taken_at=fields.taken_at,
        disks=disks,
    )


def _disk(fields: _DiskFields) -> DiskTable:
    rows = np.frombuffer(fields.packs, dtype=PACK_TABLE_ROW)
    return DiskTable(
        size_bytes=fields.stored_size,
        root=NodeAddress(PackId(fields.root_pack), fields.root_slot),
        packs=ids_of(rows["pack"]),
        rows=rows,
    )


def _mark(key: str, sealed: bytes) -> int:
    header = sealed[: layout.OBJECT_HEADER.size]
    return int.from_bytes(blake3(key.encode() + b"\0" + header).digest(length=8), "little")
