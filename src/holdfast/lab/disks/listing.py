"""How the list of disks is written down: one JSON document, which names layers and logs by the numbers of their files.

Invariant: a list of another version is told by its ``version`` alone, whatever else it holds.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "CATALOG_VERSION",
    "Role",
    "StoredCatalog",
    "StoredDisk",
    "StoredLayer",
    "StoredLog",
    "StoredVersion",
    "StoredWitness",
]

CHECKED_MAPS = 2
CATALOG_VERSION = CHECKED_MAPS


class Role(enum.Enum):
    """What a disk is to the tree."""

    LIVE = "live"
    SNAPSHOT = "snapshot"
    BASE = "base"
    """A hidden base copy: what a disk became when a snapshot froze it."""


class StoredLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change log: its file's number, and its neighbours in time."""

    number: int
    parent: str | None
    child: str | None
    is_consistent: bool = True


class StoredLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer: its files' number, and the layer below it."""

    number: int
    parent: int | None
    size_bytes: int


class StoredDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk, by the numbers of its layer and its log."""

    uuid: str
    size_bytes: int
    role: Role
    layer: int | None
    log: StoredLog | None


class StoredWitness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered of a destroyed snapshot."""

    uuid: str
    size_bytes: int
    layer: int | None
    sha256: str | None


class StoredVersion(msgspec.Struct, frozen=True):
    """The first thing to look at, of whatever version the rest is."""

    version: int


class StoredCatalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole list."""

    version: int
    next_number: int
    keeps_witnesses: bool
    layers: list[StoredLayer]
    disks: list[StoredDisk]
    witnesses: list[StoredWitness]
