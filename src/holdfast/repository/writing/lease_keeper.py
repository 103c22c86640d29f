"""A writer's own lease: taken, renewed, checked before anything is published, ended.

Invariant: ``check`` passes only while the lease, as last renewed, still lasts by this machine's own clocks
and nobody has removed it at any time: after a gap nothing that was looked up under it is sure any more.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator

from holdfast.core import ExitStatus, HoldfastError, Retry
from holdfast.model import RunId
from holdfast.repository.damage import PackMissing
from holdfast.repository.layout import LEASES_PREFIX, PackId
from holdfast.repository.records.condemned import CondemnedList, list_condemned
from holdfast.repository.records.holes import HolesBook, read_holes
from holdfast.repository.records.lease import LeaseRecord, delete_lease, lease_key, lease_times, pack_ids, write_lease
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.safety import Safety, Since
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["LeaseKeeper", "LeaseLost"]


class LeaseLost(HoldfastError):
    """The writer was away for so long that others may have taken it for dead."""

    code = "repository.lease-lost"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "Nothing was published by this run since; what it stored is re-used when it resumes."
    advice = "Run it again; if that happens again, look why the repository could not be reached for minutes."

    def __init__(self, *, run: RunId, reason: str) -> None:
        super().__init__(f"run {run}: its lease on the repository is lost: {reason}")
        self.run, self.reason = run, reason


class LeaseKeeper:
    """Holds one lease. Thread-safe."""

    def __init__(self, vault: Vault, *, run: RunId, owner: str, safety: Safety, adopted: Iterable[PackId]) -> None:
        """Take a lease that also covers the ``adopted`` packs, and look what must not be used, and what has moved."""
        self.id = vault.entropy.token_bytes(16).hex()
        self.run = run
        self._vault = vault
        self._owner = owner
        self._safety = safety
        self._lock = threading.Lock()
        self._packs = list(adopted)
        self._ahead: deque[PackId] = deque()
        self._number = -1
        self._stored_number: int | None = None
        self._is_removed = False
        self._renewed = Since(vault.clock)
        self._began_at = lease_times(vault, safety)[0]
        self._seen: tuple[str, ...] | None = None
        self._announce()
        self._write()
        # Only after the lease is durable: either garbage collection sees it, or we see what it condemned.
        self.condemned: list[CondemnedList] = list_condemned(vault)
        self.holes: HolesBook = read_holes(vault)
        self.moves: Moves = read_moves(vault)
        plans = (each.key for each in self.holes.plans)
        self._seen = (*(each.key for each in self.condemned), *plans, *self.moves.records)
        if self._seen:
            self._write()

    def next_pack(self) -> PackId:
        """Return a fresh pack id that a durable lease announces."""
        with self._lock:
            if not self._ahead:
                self._announce()
                self._write()
            return self._ahead.popleft()

    def renew_if_due(self) -> None:
        """Renew the lease when it is time to. Cheap otherwise."""
        with self._lock:
            age_s = self._renewed.age_s()
            if age_s >= self._safety.lease_renewal_s:
                self._check_age(age_s)
                self._write()

    def check(self) -> None:
        """Return when something may be published by the very next operation; ``LeaseLost`` otherwise."""
        with self._lock:
            if self._is_removed or not list(self._vault.names(f"{LEASES_PREFIX}{self.id}/")):
                raise self._removed()
            # The age is looked at last: what the look at the store took counts.
            self._check_age(self._renewed.age_s())

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Run a block in which a pack may turn out to be missing: after a lost lease that is no damage."""
        try:
            yield
        except PackMissing as missing:
            with self._lock:
                age_s = self._renewed.age_s()
                if age_s > self._safety.lease_s:
                    raise self._lost(age_s) from missing
            raise

    def end(self) -> None:
        """Give the lease up: its packs are published, or nobody needs them."""
        with self._lock:
            delete_lease(self._vault, self.id)

    def _announce(self) -> None:
        fresh = [PackId(self._vault.entropy.token_bytes(16)) for _ in range(self._safety.packs_announced)]
        self._ahead.extend(fresh)
        self._packs.extend(fresh)

    def _write(self) -> None:
        """Store the next object of the lease; its time counts from before the put. ``LeaseLost`` when it was removed.

        Whether the object before is still there is looked up after the put: whoever removes a lease removes what is
        listed, so either it takes the new object too, and the next renewal finds out, or the lease never had a gap.
        """
        if self._is_removed:
            raise self._removed()
        renewed = Since(self._vault.clock)
        _, ends_at = lease_times(self._vault, self._safety)
        record = LeaseRecord(
            run=self.run,
            owner=self._owner,
            began_at=self._began_at,
            ends_at=ends_at,
            packs=pack_ids(self._packs),
            seen=self._seen,
        )
        # A put that failed may have arrived, so its number is never tried again.
        self._number += 1
        write_lease(self._vault, self.id, self._number, record)
        before, self._stored_number = self._stored_number, self._number
        if before is not None:
            self._replace(before)
        self._renewed = renewed

    def _replace(self, before: int) -> None:
        """Remove the object that the last one takes the place of; one that is gone was taken away with the lease."""
        key = lease_key(self.id, before)
        try:
            self._vault.store.size(key)
        except ObjectMissing as missing:
            self._is_removed = True
            delete_lease(self._vault, self.id)
            raise self._removed() from missing
        self._vault.store.delete(key)

    def _check_age(self, age_s: float) -> None:
        if age_s > self._safety.lease_s - self._safety.lease_fence_s:
            raise self._lost(age_s)

    def _removed(self) -> LeaseLost:
        return LeaseLost(run=self.run, reason="it was removed from the store")

    def _lost(self, age_s: float) -> LeaseLost:
        return LeaseLost(run=self.run, reason=f"it was not renewed for {age_s:.0f} s")
