"""What a bucket that keeps versions holds under one name, and what a store tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from holdfast.storage.store import ObjectStore
from holdfast.storage.wrapper import StoreWrapper

__all__ = ["CoveredObject", "KeepsVersions", "ObjectVersions", "Version", "find_versions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of an object, or a delete marker."""

    name: str
    version: str
    length_bytes: int = 0
    is_marker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersions:
    """All that lies under one name. ``first`` is the object; None where only delete markers are left."""

    name: str
    first: Version | None
    above: tuple[Version, ...]
    """Newest first: what hides or replaces the object for whoever does not ask for a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredObject:
    """An object that somebody tried to delete or replace. It is whole below what lies on top."""

    key: str
    versions: ObjectVersions

    @property
    def is_hidden(self) -> bool:
        """Whether others take it for deleted, rather than for what was put on top."""
        return bool(self.versions.above) and self.versions.above[0].is_marker


@runtime_checkable
class KeepsVersions(Protocol):
    """A store whose bucket keeps what others delete or replace."""

    def covered(self) -> Iterator[CoveredObject]:
        """Yield every object on which something lies that Holdfast did not put there. Reads the whole listing."""
        ...

    def uncover(self, covered: CoveredObject) -> None:
        """Remove what lies on top of an object, so that every tool sees it again. Safe to call twice.

        ``ObjectLocked`` when whoever put it there has locked it; the store reads the object all the same.
        """
        ...


def find_versions(store: ObjectStore) -> KeepsVersions | None:
    """Return the store inside all wrappers where it keeps versions, None where it does not."""
    while isinstance(store, StoreWrapper):
        store = store.inner
    return store if isinstance(store, KeepsVersions) else None
