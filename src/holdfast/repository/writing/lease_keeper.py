"""A writer's own lease: taken, renewed, checked before anything is published, ended.

Invariant: ``check`` passes only while the lease, as last renewed, still lasts by this machine's own clocks
and nobody removed it.
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
from holdfast.repository.records.lease import LeaseRecord, delete_lease, lease_times, pack_ids, write_lease
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.safety import Safety
from holdfast.repository.vault import Vault

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
        self._renewed_s = 0.0
        self._renewed_at = vault.clock.now()
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
            age_s = self._age_s()
            if age_s >= self._safety.lease_renewal_s:
                self._check_age(age_s)
                self._write()

    def check(self) -> None:
        """Return when something may be published by the very next operation; ``LeaseLost`` otherwise."""
        with self._lock:
            if not list(self._vault.names(f"{LEASES_PREFIX}{self.id}/")):
                raise LeaseLost(run=self.run, reason="it was removed from the store")
            # The age is looked at last: what the look at the store took counts.
            self._check_age(self._age_s())

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Run a block in which a pack may turn out to be missing: after a lost lease that is no damage."""
        try:
            yield
        except PackMissing as missing:
            with self._lock:
                age_s = self._age_s()
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
        """Store the next object of the lease; its time counts from before the put."""
        started_s, started_at = self._vault.clock.monotonic_s(), self._vault.clock.now()
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
        self._renewed_s, self._renewed_at = started_s, started_at

    def _age_s(self) -> float:
        """Return how long ago the lease was renewed, by the clock that says more.

        The monotonic clock stands still while the machine sleeps; the wall clock may be set back.
        """
        clock = self._vault.clock
        return max(clock.monotonic_s() - self._renewed_s, (clock.now() - self._renewed_at).total_seconds())

    def _check_age(self, age_s: float) -> None:
        if age_s > self._safety.lease_s - self._safety.lease_fence_s:
            raise self._lost(age_s)

    def _lost(self, age_s: float) -> LeaseLost:
        return LeaseLost(run=self.run, reason=f"it was not renewed for {age_s:.0f} s")
