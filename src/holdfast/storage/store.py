"""The object store: the whole of what the engine asks from the place where a repository lives.

Five verbs over flat keys, chosen so that any dumb store can keep them: create-only put, ranged get, list by prefix,
delete, and the size of an object. There is no rename, no append and no conditional overwrite. What only some stores can
do (give back a part of an object's space, hold an object against deletion) is asked with ``try_``.

Invariant: under a key there is either nothing or one whole object, and it is the one that its put described.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from holdfast.model import Extent
from holdfast.storage.errors import ObjectMissing

__all__ = ["ObjectInfo", "ObjectStore", "Part", "Parts", "as_views", "holds", "length_of"]

Part = bytes | bytearray | memoryview
"""A piece of an object, in memory."""

Parts = Part | Sequence[Part]
"""A whole object: one piece, or several that belong one after the other. Copying them together is never needed."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectInfo:
    """What a listing tells of one object."""

    key: str
    length_bytes: int


class ObjectStore(Protocol):
    """Whole objects under flat keys such as ``packs/3f/3f9a``.

    Every method may be called from several threads at once. Each may raise ``StoreUnreachable``, ``StoreFailed``,
    ``StoreNotReadable`` or (writing) ``StoreNotWritable``, and ``KeyRefused`` for a key that breaks the rules of
    ``storage.keys``. Callers never use a key that is the folder of another key (``a`` beside ``a/b``): a folder
    cannot hold both and refuses, a bucket can and is not asked.
    """

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """Store one object under a key that is free, from the first moment locked as ``try_lock`` locks.

        Where the store cannot lock, ``locked_until`` is passed over; one may round it up to the next full minute.

        When it returns, the object is whole, durable (it outlives a power failure) and visible to everybody. It
        raises ``ObjectExists`` and changes nothing when the key is taken; of several writers that race for one key
        exactly one wins. It raises ``StoreFull`` with nothing left behind.

        After ``StoreUnreachable`` or ``StoreFailed``, or after a crash, the object is either there, whole, or not at
        all. The caller then puts again: ``ObjectExists`` and ``holds(...)`` together tell that the first one arrived.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return the whole object; ``ObjectMissing`` when there is none."""
        ...

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range.

        ``ObjectMissing`` when there is no object, ``RangeNotSatisfiable`` when it ends before the range does. Never
        fewer bytes than asked for.
        """
        ...

    def size(self, key: str) -> int:
        """Return the length of the object in bytes; ``ObjectMissing`` when there is none."""
        ...

    def stored_at(self, key: str) -> datetime | None:
        """Return when the object was stored, by the store's own clock; None where that has none. ``ObjectMissing``.

        The clock may be wrong. What lies between two objects is told to the second, by no clock of whoever stored them.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix`` (a plain text prefix; empty: all), sorted by key.

        An object that was there before the call and is there after the last item was yielded exactly once; objects
        that come or go meanwhile may or may not be. What is unfinished is never listed.
        """
        ...

    def delete(self, key: str) -> None:
        """Return when there is no object under the key. Safe to call twice, and for a key that never existed.

        ``ObjectLocked``, and nothing deleted, while the object is locked.
        """
        ...

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """Hold an object against deletion by anybody; return until when it is held now. None where nobody can.

        A lock is never shortened: a time before the one that holds changes nothing. ``ObjectMissing``.
        """
        ...

    def locked_until(self, key: str) -> datetime | None:
        """Return until when an object is held against deletion, None when it is not. ``ObjectMissing``."""
        ...

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """Give back the space of ranges that nobody needs any more; return how many bytes they are.

        They read as zeros afterwards, the rest of the object and its length stay. None, and nothing done, where the
        store cannot. Safe to call twice. For garbage collection alone. ``ObjectMissing``, ``RangeNotSatisfiable``,
        ``ObjectLocked``.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return how much more can be stored, None where the store does not know."""
        ...

    def describe(self) -> str:
        """Return where this is, for people: a phrase such as ``folder /srv/backup/holdfast``. No secrets in it."""
        ...


def as_views(parts: Parts) -> list[memoryview]:
    """Return the pieces of an object as flat byte views, without the empty ones; nothing is copied."""
    pieces = [parts] if isinstance(parts, bytes | bytearray | memoryview) else parts
    return [memoryview(piece).cast("B") for piece in pieces if len(piece)]


def length_of(parts: Parts) -> int:
    """Return how long an object of these pieces is, in bytes."""
    return sum(view.nbytes for view in as_views(parts))


def holds(store: ObjectStore, key: str, parts: Parts) -> bool:
    """Return whether the store has exactly these bytes under ``key``: how a repeated put is told from a clash."""
    views = as_views(parts)
    try:
        if store.size(key) != sum(view.nbytes for view in views):
            return False
        stored = store.get(key)
    except ObjectMissing:
        return False
    offset = 0
    for view in views:
        # bytes against bytes: comparing memoryviews is some thirty times slower.
        if stored[offset : offset + view.nbytes] != bytes(view):
            return False
        offset += view.nbytes
    return offset == len(stored)
