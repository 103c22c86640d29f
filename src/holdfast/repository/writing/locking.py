"""Locks of what points need: extended before a point is published, in batches, and only where they are too short.

Invariant: when a point is published, the store holds every pack that it needs, the packs their frames were moved to,
the keys and the description at least as long as the point. A crash at any moment leaves only longer locks.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from holdfast.core import Cancellation, get_log, limits
from holdfast.repository.keys.keys import list_holder_files
from holdfast.repository.layout import (
    CONFIG_KEY,
    EPOCHS_PREFIX,
    FEATURES_PREFIX,
    HOLDERS_PREFIX,
    IMMUTABILITY_PREFIX,
    PackId,
    pack_key,
)
from holdfast.repository.lock_terms import NO_HOLD, Hold, LockTerms
from holdfast.repository.points.point import RestorePoint
from holdfast.repository.records.immutability import read_lock_policy
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["PackLocks", "hold_fixtures", "hold_objects", "lasting_keys"]

_FIXTURES = (CONFIG_KEY, FEATURES_PREFIX, IMMUTABILITY_PREFIX, EPOCHS_PREFIX, HOLDERS_PREFIX)
"""What is needed to open a repository, beside the keys."""

_SAMPLES = 3
"""Packs of an earlier point that are asked for their locks before its word for all of them is taken."""

_BATCH = 1024
"""Locks that are extended between two looks whether somebody asked to stop."""

_log = get_log(__name__)


class PackLocks:
    """The locks of one run, or of one look over all points. Thread-safe.

    It remembers until when so many packs are held that a run meets; of others it asks again.
    """

    def __init__(self, vault: Vault, *, workers: int, cancel: Cancellation) -> None:
        self._vault = vault
        self._requests_at_once = limits.LOCK_REQUESTS_AT_ONCE_MAX if workers else 0
        self._cancel = cancel
        self._lock = threading.Lock()
        self._until: OrderedDict[PackId, datetime] = OrderedDict()
        self._can_lock: bool | None = None
        self._has_fixtures = False
        self._has_records = False

    def note_stored(self, pack: PackId, until: datetime | None) -> None:
        """Note that a pack was stored with a lock."""
        if until is not None:
            self._remember(pack, until)

    def note_point(self, point: RestorePoint) -> None:
        """Take an earlier point's word for the packs that it uses, if a look at a few of them agrees."""
        terms, word = self._vault.lock_terms, point.packs_held_until
        if terms is None or word is None or word < terms.enough(self._vault.clock.now()):
            return
        packs = sorted({pack for pack, _ in point.packs()})
        step = max(1, len(packs) // _SAMPLES)
        for pack in packs[::step][:_SAMPLES]:
            with contextlib.suppress(ObjectMissing):
                until = self._vault.store.locked_until(pack_key(pack))
                if until is None or until < word:
                    return  # the objects were copied here without their locks
        for pack in packs:
            self._remember(pack, word)

    def hold(self, named: Collection[PackId], *, moves: Moves) -> Hold:
        """Return the hold of a point whose tables name these packs, after extending what locks are too short.

        ``ObjectMissing`` when a pack is gone.
        """
        terms = self._vault.lock_terms
        if terms is None or not self._store_locks(terms):
            return NO_HOLD
        if not self._has_fixtures:
            hold_fixtures(self._vault, terms)
            self._has_fixtures = True
        if not self._has_records and moves.live_targets(named):
            # Records that no point of this run needs are left to end, so that collection can put them together.
            hold_objects(self._vault, terms, moves.records)
            self._has_records = True
        packs = moves.holders_of(named)
        now = self._vault.clock.now()
        enough, horizon = terms.enough(now), terms.horizon(now)
        shortest = horizon
        short: list[PackId] = []
        for pack in sorted(packs):
            known = self._known(pack)
            if known is None or known < enough:
                short.append(pack)
            else:
                shortest = min(shortest, known)
        for pack, until in zip(short, self._extend(short, horizon), strict=True):
            self._remember(pack, until)
            shortest = min(shortest, until)
        return Hold(min(terms.point_until(self._vault.clock.now()), shortest), shortest)

    def _store_locks(self, terms: LockTerms) -> bool:
        """Return whether the store can lock at all; asked once, with the repository's description."""
        if self._can_lock is None:
            until = self._vault.store.try_lock(CONFIG_KEY, terms.horizon(self._vault.clock.now()))
            self._can_lock = until is not None
            if until is None:
                _log.warning("lock.store-cannot", store=self._vault.store.describe(), days=terms.days)
        return self._can_lock

    def _extend(self, packs: Sequence[PackId], horizon: datetime) -> Iterator[datetime]:
        """Yield until when each pack is held, after asking for the horizon."""

        def ask(pack: PackId) -> datetime:
            # A store that stops locking in the middle of a run holds the pack until now, which is not at all.
            return self._vault.store.try_lock(pack_key(pack), horizon) or self._vault.clock.now()

        with self._requester() as many:
            for start in range(0, len(packs), _BATCH):
                self._cancel.check()
                yield from many(ask, packs[start : start + _BATCH])

    @contextlib.contextmanager
    def _requester(self) -> Iterator[Callable[[Callable[[PackId], datetime], Sequence[PackId]], Iterator[datetime]]]:
        """Yield a ``map``: over several threads, or in the calling one where nothing may depend on chance."""
        if not self._requests_at_once:
            yield map
            return
        with ThreadPoolExecutor(self._requests_at_once, thread_name_prefix="holdfast-lock") as threads:
            yield threads.map

    def _known(self, pack: PackId) -> datetime | None:
        with self._lock:
            return self._until.get(pack)

    def _remember(self, pack: PackId, until: datetime) -> None:
        with self._lock:
            self._until[pack] = max(until, self._until.get(pack, until))
            self._until.move_to_end(pack)
            while len(self._until) > limits.LOCKS_REMEMBERED_MAX:
                self._until.popitem(last=False)


def hold_fixtures(vault: Vault, terms: LockTerms) -> None:
    """Extend the locks of everything without which no point can be opened, where they are too short."""
    fixtures = [info.key for prefix in _FIXTURES for info in vault.names(prefix)]
    hold_objects(vault, terms, [*fixtures, *lasting_keys(vault)])


def hold_objects(vault: Vault, terms: LockTerms, keys: Iterable[str]) -> None:
    """Extend the locks of some objects where they are too short; one that is gone needs none."""
    now = vault.clock.now()
    for key in keys:
        with contextlib.suppress(ObjectMissing):
            until = vault.store.locked_until(key)
            if until is None or until < terms.enough(now):
                vault.store.try_lock(key, terms.horizon(now))


def lasting_keys(vault: Vault) -> list[str]:
    """Return the key files that are to stay: not those of epochs that are over, nor of holders that are to go."""
    policy = read_lock_policy(vault)
    going = frozenset() if policy is None else policy.let_go
    held = vault.keys.held
    files = [each for each in list_holder_files(vault.store) if each.key not in going]
    over = {
        each.key
        for each in files
        if each.epoch < held.epoch or (each.epoch == held.epoch and each.attempt != held.attempt)
    }
    return [each.key for each in files if each.key not in over]
