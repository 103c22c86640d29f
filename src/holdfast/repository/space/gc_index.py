"""Keeping indexes few and true: drops those whose packs are gone, adds packs that no index lists, merges small ones.

Invariant: an old index is removed only after the one that replaces it is durable; whatever is lost in between costs
space, never data. So it needs no agreement with writers or other collectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from holdfast.repository.damage import Damage
from holdfast.repository.layout import PackId
from holdfast.repository.packs.index import IndexedPack, IndexHead, iter_index_heads, read_indexed_trailer, write_index
from holdfast.repository.packs.pack import SealedTrailer
from holdfast.repository.packs.pack_set import PackSet, ids_of
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, RangeNotSatisfiable

__all__ = ["tidy_indexes"]

_INDEXES_MAX = 32
"""More than this are merged: a writer reads the head of each."""

_MERGED_PACKS_MAX = 1024
"""An index of so many packs (64 GB stored) is left as it is; merging handles at most 100 MB of trailers for each."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """Which packs an index lists; its samples are not kept."""

    key: str
    packs: PackSet


def tidy_indexes(vault: Vault, *, live: PackSet, present: PackSet) -> None:
    """Make every live pack listed, in few indexes, and drop indexes that are damaged or lead nowhere."""
    indexes, damaged = [], []
    for head in iter_index_heads(vault):
        if isinstance(head, str):
            damaged.append(head)
        else:
            indexes.append(_Listed(head.key, PackSet(head.pack_ids())))
    useful = [index for index in indexes if index.packs.common(present)]
    small = [index for index in useful if len(index.packs) < _MERGED_PACKS_MAX]
    replaced = {index.key for index in small} if len(small) > _INDEXES_MAX else set()
    ids = [index.packs.ids for index in useful if index.key not in replaced]
    listed = PackSet(np.concatenate([PackSet().ids, *ids]))
    wanted = live.common(present).without(listed)
    for packs in _batches(vault, replaced, wanted):
        write_index(vault, packs)
    kept = {index.key for index in useful} - replaced
    for key in [*damaged, *(index.key for index in indexes if index.key not in kept)]:
        vault.store.delete(key)


def _batches(vault: Vault, replaced: set[str], wanted: PackSet) -> Iterator[list[IndexedPack]]:
    """Yield the wanted packs, as many as one index lists, in the order they were written as far as indexes tell."""
    batch: list[IndexedPack] = []
    found: list[PackId] = []
    for pack in _gather(vault, replaced, wanted):
        found.append(pack.trailer.pack)
        batch.append(pack)
        if len(batch) == _MERGED_PACKS_MAX:
            yield batch
            batch = []
    for pack_id in wanted.without(PackSet(found)):
        try:
            batch.append(_indexed(vault, vault.shelf.read_trailer(pack_id)))
        except Damage:
            continue
        if len(batch) == _MERGED_PACKS_MAX:
            yield batch
            batch = []
    if batch:
        yield batch


def _gather(vault: Vault, replaced: set[str], wanted: PackSet) -> Iterator[IndexedPack]:
    """Yield the wanted packs that the replaced indexes list, each once."""
    done: set[PackId] = set()
    for head in _heads(vault, replaced):
        is_wanted = wanted.find(ids_of(head.packs["pack"])) >= 0
        for number in np.flatnonzero(is_wanted).tolist():
            pack = PackId(bytes(head.packs["pack"][number]))
            if pack in done:
                continue
            try:
                yield _indexed(vault, read_indexed_trailer(vault, head, number))
            except (Damage, ObjectMissing, RangeNotSatisfiable):
                continue
            done.add(pack)


def _heads(vault: Vault, keys: set[str]) -> Iterator[IndexHead]:
    for head in iter_index_heads(vault) if keys else ():
        if not isinstance(head, str) and head.key in keys:
            yield head


def _indexed(vault: Vault, sealed: SealedTrailer) -> IndexedPack:
    return IndexedPack(sealed, vault.shelf.adopt(sealed).trailer.rows)
