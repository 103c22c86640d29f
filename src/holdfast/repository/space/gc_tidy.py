"""What a collection leaves in order: lists and leases that serve nobody go, indexes and records become few.

Invariant: what is merged is durable before what it replaces goes. Moved records are rewritten under a lease, like
everything that a point may lead through.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from holdfast.core import get_log
from holdfast.model import RunId
from holdfast.repository.layout import INDEX_PREFIX
from holdfast.repository.packs.pack_set import PackSet, ids_of
from holdfast.repository.points.catalogue import tidy_catalogue
from holdfast.repository.records.condemned import CondemnedList
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.records.holes import merge_holes
from holdfast.repository.records.lease import Lease, delete_lease
from holdfast.repository.records.moved import Moves, Rows, read_moves, write_moves
from holdfast.repository.safety import Safety
from holdfast.repository.space.gc_census import list_packs
from holdfast.repository.space.gc_index import tidy_indexes
from holdfast.repository.vault import Vault
from holdfast.repository.writing.lease_keeper import LeaseKeeper
from holdfast.storage import ObjectLocked, ObjectMissing, StoreFull

__all__ = ["collector_lease", "tidy", "with_room"]

_MOVED_RECORDS_MAX = 8
"""More than this are merged: readers read all of them when they open a disk."""

Result = TypeVar("Result")

_log = get_log(__name__)


def with_room(vault: Vault, action: Callable[[], Result]) -> Result:
    """Return what an action returns; on a full store after deleting indexes, which can be rebuilt, largest first."""
    indexes = sorted(vault.names(INDEX_PREFIX), key=lambda info: info.length_bytes)
    while True:
        try:
            return action()
        except StoreFull:
            if not indexes:
                raise
            vault.store.delete(indexes.pop().key)


def collector_lease(vault: Vault, *, safety: Safety) -> LeaseKeeper:
    """Return a lease for a collector that writes packs or moved records, which makes it a writer like any other."""
    run = RunId(f"collection-{vault.entropy.token_bytes(4).hex()}")
    owner = f"{socket.gethostname()} {os.getpid()}"
    return LeaseKeeper(vault, run=run, owner=owner, safety=safety, adopted=[])


def tidy(
    vault: Vault,
    leases: Sequence[Lease],
    lists: Sequence[CondemnedList],
    *,
    elapsed: Elapsed,
    own: CondemnedList | None,
    needed: PackSet,
    forget: PackSet,
    spared: PackSet,
    safety: Safety,
) -> None:
    """Remove lists, leases, indexes and moves that serve nobody any more.

    ``needed`` are packs of our own list that must stay, ``forget`` old places of moves that nobody follows, ``spared``
    packs that no index has to list.
    """
    moved = PackSet(_tidy_moves(vault, forget=forget, safety=safety).moved_packs())
    listed = list_packs(vault)
    left = listed.packs.joined(moved)
    for lease in leases:
        if lease.is_forgotten(elapsed, safety):
            delete_lease(vault, lease.id)
    for each in lists:
        is_own_and_done = own is not None and each.key == own.key and not _own_left(own, needed, left)
        is_spent = each.packs is not None and not each.packs.common(left)
        if is_own_and_done or is_spent or each.is_abandoned(elapsed, safety):
            vault.store.delete(each.key)
    try:
        tidy_indexes(vault, live=listed.packs.without(spared), present=listed.packs)
        tidy_catalogue(vault)
        merge_holes(vault, present=listed.packs)
    except StoreFull as full:
        # All of this only saves space and time, and the next collection does it.
        _log.warning("collection.not-tidied", reason=str(full))


def _own_left(own: CondemnedList, needed: PackSet, left: PackSet) -> PackSet:
    """Return what our own list still means."""
    assert own.packs is not None
    return own.packs.without(needed).common(left)


def _tidy_moves(vault: Vault, *, forget: PackSet, safety: Safety) -> Moves:
    """Make one record of all, without what is forgotten and without detours, when that says less; return what is."""
    moves = read_moves(vault)
    if not _is_untidy(moves, forget) or any(_is_locked(vault, record) for record in moves.records):
        return moves
    keeper = collector_lease(vault, safety=safety)
    moves = keeper.moves
    rows, emptied = _flat_rows(moves, forget), moves.emptied.without(forget)
    keeper.check()
    if len(rows) or emptied:
        write_moves(vault, rows, emptied=emptied)
    for record in moves.records:
        # Somebody may have begun to lock just now; it says the same as the new one.
        with contextlib.suppress(ObjectLocked):
            vault.store.delete(record)
    keeper.end()
    return read_moves(vault)


def _is_untidy(moves: Moves, forget: PackSet) -> bool:
    moved = PackSet(moves.moved_packs()).joined(moves.emptied)
    if len(moves.records) > _MOVED_RECORDS_MAX or moved.common(forget):
        return True
    # A row may lead into a pack of which other slots have moved.
    return bool(PackSet(moves.next_ids()).common(moved)) and not np.array_equal(
        _flat_rows(moves, PackSet()), moves.rows
    )


def _flat_rows(moves: Moves, forget: PackSet) -> Rows:
    rows = moves.rows.copy()
    for pack in moves.moved_packs():
        first, end = moves.span(pack)
        for group in moves.resolve_slots(pack, rows["old_slot"][first:end].astype(np.int64)):
            rows["new_pack"][first + group.at] = np.void(group.pack)
            rows["new_slot"][first + group.at] = group.slots
    is_forgotten = forget.find(ids_of(rows["old_pack"])) >= 0
    # What died after it was moved, before its new pack was emptied.
    is_dead = moves.emptied.find(ids_of(rows["new_pack"])) >= 0
    kept: Rows = rows[~is_forgotten & ~is_dead]
    return kept


def _is_locked(vault: Vault, key: str) -> bool:
    try:
        return vault.store.locked_until(key) is not None
    except ObjectMissing:
        return False
