"""What all disks of one run share while they are written: lease, packs, known blocks, threads, memory.

Memory in flight is bounded by (3 * workers + 2) buffers of 4 MiB, eight requests of at most 4 MiB, ``SEGMENTS_MAX``
segments of 4 MiB, and the table of known blocks: with 4 workers 56 + 32 + 80 + 26 MiB.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from holdfast.core import Cancellation, HoldfastError, get_log
from holdfast.model import RunId
from holdfast.repository.crew import Crew
from holdfast.repository.damage import Damage
from holdfast.repository.layout import PackId
from holdfast.repository.packs.entries import PackNumbers
from holdfast.repository.packs.frame import Compressor
from holdfast.repository.packs.index import IndexedPack, write_index
from holdfast.repository.packs.pack import SealedTrailer
from holdfast.repository.packs.pack_memory import PackMemory
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.packs.pack_writer import DurablePack, PackDock
from holdfast.repository.packs.trailer import TrailerNotes
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.condemned import CondemnedList
from holdfast.repository.records.moved import Moves
from holdfast.repository.records.quarantine import read_quarantine
from holdfast.repository.safety import Safety
from holdfast.repository.vault import Vault
from holdfast.repository.writing.known import KnownBlocks
from holdfast.repository.writing.lease_keeper import LeaseKeeper
from holdfast.repository.writing.locking import PackLocks
from holdfast.repository.writing.pack_presence import PackPresence

__all__ = ["SEGMENTS_MAX", "WriteSession", "WriteSettings"]

SEGMENTS_MAX = 20
"""80 MiB of packs: one of 52 MiB being filled and 28 MiB on their way to the store."""

_HEARTBEATS_PER_RENEWAL = 4

_log = get_log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSettings:
    """How a repository is written."""

    level: int
    """The zstd level."""
    pack_bytes_max: int
    workers: int
    """Threads that compress; 0 does everything in the calling thread."""


class WriteSession:
    """The shared half of a run's disk writers. Thread-safe."""

    def __init__(
        self,
        vault: Vault,
        *,
        run: RunId,
        keeper: LeaseKeeper,
        safety: Safety,
        settings: WriteSettings,
        adopted: Iterable[PackId],
        moves: Moves,
        cancel: Cancellation,
    ) -> None:
        self.vault = vault
        self.keeper = keeper
        self.cancel = cancel
        self.moves = moves
        self.numbers = PackNumbers()
        self.crew = Crew(workers=settings.workers)
        self.locks = PackLocks(vault, workers=settings.workers, cancel=cancel)
        self.quarantine = read_quarantine(vault)
        moved = AvoidedSlots(moves.moved_slots())
        # What has moved is needed, and read elsewhere, although a record of holes may name its old place.
        self.dead_slots = keeper.holes.avoided().without(moved)
        self.avoided = self.quarantine.slots | self.dead_slots
        self.presence = PackPresence(
            vault,
            # A record of holes that cannot be read might mean any slot.
            condemned=None if keeper.holes.damaged else _condemned_packs(keeper.condemned),
            moves=moves,
            quarantined=self.quarantine.packs,
        )
        # It may be inherited by its old place, and is referred to anew only by the new one.
        self.known = KnownBlocks(vault, self.numbers, may_use=self.presence.may_use, avoided=self.avoided | moved)
        self.adopted: set[int] = set()
        self._level = settings.level
        self._local = threading.local()
        self._lock = threading.Lock()
        self._written: list[IndexedPack] = []
        self.dock = PackDock(
            vault.store,
            vault.keys,
            memory=PackMemory(segments_max=SEGMENTS_MAX),
            numbers=self.numbers,
            notes=TrailerNotes(run=run),
            next_pack=keeper.next_pack,
            lock_until=vault.locked_until_if_new,
            on_durable=self._note_durable,
            putter=self.crew.putter,
            bytes_max=settings.pack_bytes_max,
            cancel=cancel,
        )
        self._stop = threading.Event()
        self._heart = self._start_heartbeat(safety) if settings.workers > 0 else None
        self._adopt(adopted)

    @property
    def compressor(self) -> Compressor:
        """The calling thread's own compressor."""
        found: Compressor | None = getattr(self._local, "compressor", None)
        if found is None:
            found = self._local.compressor = Compressor(level=self._level)
        return found

    def written(self) -> list[IndexedPack]:
        """Return what this run wrote or took over, as long as no index of it is written."""
        with self._lock:
            return list(self._written)

    def write_index(self) -> None:
        """Store the index of everything this run wrote or took over. Safe to call twice."""
        with self._lock:
            written, self._written = self._written, []
        if written:
            write_index(self.vault, written)

    def close(self) -> None:
        """End the threads. Safe to call twice."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
        self.crew.close()

    def _adopt(self, packs: Iterable[PackId]) -> None:
        """Make the packs that interrupted runs left known; those that cannot be read are left to garbage collection."""
        usable = []
        for pack in packs:
            if self.presence.may_use(pack):
                with contextlib.suppress(Damage):
                    usable.append(self._take_over(self.vault.shelf.read_trailer(pack)))
        self.known.chain(usable)

    def _take_over(self, sealed: SealedTrailer) -> PackId:
        trailer = self.vault.shelf.adopt(sealed).trailer
        number = self.numbers.number(sealed.pack)
        self.numbers.set_length(number, sealed.pack_bytes)
        self.adopted.add(number)
        self.known.add(number, trailer)
        self._written.append(IndexedPack(sealed, trailer.rows))
        return sealed.pack

    def _note_durable(self, pack: DurablePack) -> None:
        indexed = pack.indexed()
        trailer = self.vault.shelf.adopt(indexed.trailer).trailer
        self.presence.add(pack.pack)
        self.locks.note_stored(pack.pack, pack.locked_until)
        self.known.add(pack.number, trailer)
        with self._lock:
            self._written.append(indexed)

    def _start_heartbeat(self, safety: Safety) -> threading.Thread:
        thread = threading.Thread(
            target=self._beat,
            args=(safety.lease_renewal_s / _HEARTBEATS_PER_RENEWAL,),
            name="holdfast-lease",
            daemon=True,
        )
        thread.start()
        return thread

    def _beat(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.keeper.renew_if_due()
            except HoldfastError as error:
                # The lease lasts for several renewals; if none succeeds, the check before publication says so.
                _log.warning("lease.not-renewed", reason=str(error))


def _condemned_packs(lists: Iterable[CondemnedList]) -> PackSet | None:
    """Return every condemned pack; None when a list cannot be read, so that any pack may be condemned."""
    found = [PackSet().ids]
    for each in lists:
        if each.packs is None:
            return None
        found.append(each.packs.ids)
    return PackSet(np.concatenate(found))
