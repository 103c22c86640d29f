"""Publishing where frames lie now, so that nothing a held point needs is held less than before.

Invariant: a pack that frames moved to is held as long as the one they were in, and so is the record that leads there.
Whoever sets locks looks for new records after the last point, and whoever publishes one looks at the locks after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import numpy as np

from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.immutability import read_lock_policy
from holdfast.repository.records.moved import Rows, write_moves
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["publish_moves"]

Ways = Mapping[PackId, Collection[PackId]]
"""The packs that frames of a pack move to."""


def publish_moves(
    vault: Vault,
    moves: Mapping[NodeAddress, NodeAddress] | Rows,
    *,
    emptied: Collection[PackId] = (),
    check_before: Callable[[], None],
) -> None:
    """Publish a moved record. The new packs are durable already. ``check_before`` raises if it must not be."""
    ways = _ways_of(moves)
    until = _hold_alike(vault, ways)
    check_before()
    record = write_moves(vault, moves, emptied=emptied)
    # Somebody may have asked for locks since the first look.
    until = max((each for each in (until, _hold_alike(vault, ways)) if each is not None), default=None)
    if until is not None:
        _hold(vault, record, until)


def _hold_alike(vault: Vault, ways: Ways) -> datetime | None:
    """Hold packs as long as those whose frames they get; return the longest of these times, None for none."""
    if read_lock_policy(vault) is None:
        return None
    longest: datetime | None = None
    for old, targets in ways.items():
        until = _locked_until(vault, pack_key(old))
        if until is not None:
            longest = until if longest is None else max(longest, until)
            for new in targets:
                _hold(vault, pack_key(new), until)
    return longest


def _hold(vault: Vault, key: str, until: datetime) -> None:
    held = _locked_until(vault, key)
    if held is None or held < until:
        with contextlib.suppress(ObjectMissing):
            vault.store.try_lock(key, until)


def _locked_until(vault: Vault, key: str) -> datetime | None:
    with contextlib.suppress(ObjectMissing):
        return vault.store.locked_until(key)
    return None


def _ways_of(moves: Mapping[NodeAddress, NodeAddress] | Rows) -> Ways:
    if isinstance(moves, np.ndarray):
        places = moves[["old_pack", "new_pack"]]
        is_other = np.ones(len(places), dtype=np.bool_)
        is_other[1:] = places[1:] != places[:-1]
        pairs = [(PackId(old), PackId(new)) for old, new in places[is_other].tolist()]
    else:
        pairs = [(old.pack, new.pack) for old, new in moves.items()]
    ways: dict[PackId, set[PackId]] = {}
    for old, new in pairs:
        ways.setdefault(old, set()).add(new)
    return ways
