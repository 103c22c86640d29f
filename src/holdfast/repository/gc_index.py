"""Keeping indexes few and true: drops those whose packs are gone, adds packs that no index lists, merges small ones.

Invariant: an old index is removed only after the one that replaces it is durable; whatever is lost in between costs
space, never data. So it needs no agreement with writers or other collectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.repository.damage import Damage
from holdfast.repository.index import IndexedPack, IndexHead, list_index_heads, read_indexed_trailer, write_index
from holdfast.repository.layout import PackId
from holdfast.repository.pack import SealedTrailer
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, RangeNotSatisfiable

__all__ = ["tidy_indexes"]

_INDEXES_MAX = 32
"""More than this are merged: a writer reads the head of each."""

_MERGED_PACKS_MAX = 1024
"""An index of so many packs (64 GB stored) is left as it is; merging handles at most 100 MB of trailers for each."""


def tidy_indexes(vault: Vault, *, live: set[PackId], present: set[PackId]) -> None:
    """Make every live pack listed, in few indexes, and drop indexes that are damaged or lead nowhere."""
    heads, damaged = list_index_heads(vault)
    useful = [head for head in heads if not present.isdisjoint(head.pack_ids())]
    small = [head for head in useful if len(head.packs) < _MERGED_PACKS_MAX]
    replaced = small if len(small) > _INDEXES_MAX else []
    replaced_keys = {head.key for head in replaced}
    listed = {pack for head in useful if head.key not in replaced_keys for pack in head.pack_ids()}
    packs = _gather(vault, replaced, wanted=(live & present) - listed)
    for first in range(0, len(packs), _MERGED_PACKS_MAX):
        write_index(vault, packs[first : first + _MERGED_PACKS_MAX])
    useful_keys = {head.key for head in useful} - replaced_keys
    for key in [*damaged, *(head.key for head in heads if head.key not in useful_keys)]:
        vault.store.delete(key)


def _gather(vault: Vault, heads: Sequence[IndexHead], *, wanted: set[PackId]) -> list[IndexedPack]:
    """Return the wanted packs, in the order they were written as far as indexes tell; the rest from the packs."""
    gathered: dict[PackId, IndexedPack] = {}
    for head in heads:
        for number, pack in enumerate(head.pack_ids()):
            if pack in wanted and pack not in gathered:
                try:
                    gathered[pack] = _indexed(vault, read_indexed_trailer(vault, head, number))
                except (Damage, ObjectMissing, RangeNotSatisfiable):
                    continue
    for pack in sorted(wanted - gathered.keys()):
        try:
            gathered[pack] = _indexed(vault, vault.shelf.read_trailer(pack))
        except Damage:
            continue
    return list(gathered.values())


def _indexed(vault: Vault, sealed: SealedTrailer) -> IndexedPack:
    return IndexedPack(sealed, vault.shelf.adopt(sealed).trailer.rows)
