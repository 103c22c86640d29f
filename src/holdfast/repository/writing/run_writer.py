"""One run writing into a repository: a lease, several disks, and at the end its points.

Invariant: a point is published only while the run's lease lasts and after every pack it names was seen in the store,
not condemned, under that lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from types import TracebackType
from typing import Self

from holdfast.core import Cancellation, ExitStatus, HoldfastError, Retry, get_log
from holdfast.model import Coverage, DiskFacts, PointFacts, RunId
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.lock_terms import Hold
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.points.catalogue import write_catalogue
from holdfast.repository.points.point import RestorePoint, find_published, point_key, publish_point, read_point
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.lease import Lease, delete_lease, list_leases
from holdfast.repository.records.moved import Moves
from holdfast.repository.safety import Safety
from holdfast.repository.vault import Vault
from holdfast.repository.writing.disk_writer import RepositoryDiskWriter
from holdfast.repository.writing.heal import PACKS_AT_RUN_END_MAX, heal_from_known
from holdfast.repository.writing.lease_keeper import LeaseKeeper
from holdfast.repository.writing.reference_check import leads_to_avoided
from holdfast.repository.writing.session import WriteSession, WriteSettings
from holdfast.storage import ObjectMissing, StoreFull

__all__ = ["DiskNoLongerStored", "ReferenceTooLarge", "RunWriter", "begin_run", "end_leases_of"]

_log = get_log(__name__)


class DiskNoLongerStored(HoldfastError):
    """A stored disk needs packs that garbage collection has taken, or is about to, or in which there is damage."""

    code = "repository.disk-no-longer-stored"
    retry = Retry.LATER
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was published; existing restore points are untouched."
    advice = "Read the disk whole instead of its changes, or store it again; the next run does so by itself."

    def __init__(self, *, packs: int, example: str) -> None:
        super().__init__(f"{packs} packs that this disk needs are gone, condemned or damaged, e.g. {example}")
        self.packs, self.example = packs, example


class ReferenceTooLarge(HoldfastError):
    """A disk is smaller than it was, so changes since then do not describe it."""

    code = "repository.reference-too-large"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was stored; existing restore points are untouched."
    advice = "Read the disk whole instead of its changes."

    def __init__(self, *, size_bytes: int, reference_bytes: int) -> None:
        super().__init__(f"the disk has {size_bytes} bytes, its reference {reference_bytes}")
        self.size_bytes, self.reference_bytes = size_bytes, reference_bytes


class RunWriter:
    """Writes disks and points of one run. A context manager; leaving it in order ends the lease."""

    def __init__(self, vault: Vault, session: WriteSession, *, took_over: Sequence[Lease]) -> None:
        self._vault = vault
        self._session = session
        self._took_over = took_over
        self._published: list[RestorePoint] = []
        self._is_over = False

    @property
    def lock_days(self) -> int:
        """For how many days the repository's owner wants points to be held; 0 for none."""
        terms = self._vault.lock_terms
        return 0 if terms is None else terms.days

    def open_disk(self, size_bytes: int, *, coverage: Coverage, reference: StoredDisk | None) -> RepositoryDiskWriter:
        """Return a writer for one disk.

        With ``Coverage.CHANGES`` the reference is what every range is that no run mentions. It is required then, and
        ``DiskNoLongerStored``, ``ReferenceTooLarge`` or damage is raised (by the disk's writer too) when it cannot be
        relied on. With ``Coverage.WHOLE`` it only helps to find known blocks, and is left aside instead.
        """
        assert size_bytes > 0
        assert size_bytes % 512 == 0
        assert coverage is Coverage.WHOLE or reference is not None
        self._session.keeper.renew_if_due()
        if reference is not None:
            unusable = self._session.presence.unusable(reference.packs.packs)
            if unusable and coverage is Coverage.CHANGES:
                raise _no_longer_stored(unusable)
            if reference.size_bytes > size_bytes and coverage is Coverage.CHANGES:
                raise ReferenceTooLarge(size_bytes=size_bytes, reference_bytes=reference.size_bytes)
            if unusable or reference.size_bytes > size_bytes:
                reference = None
        with self._session.keeper.blamed():
            if reference is not None and coverage is Coverage.CHANGES:
                self._refuse_avoided(reference, self._session.avoided)
                self._refuse_healed(reference)
            elif reference is not None and self._leads_to(self._session.avoided, reference):
                # A patch of the reference might be made against a block that goes, or is damaged.
                reference = None
            return RepositoryDiskWriter(self._session, size_bytes=size_bytes, coverage=coverage, reference=reference)

    def _leads_to(self, avoided: AvoidedSlots, disk: StoredDisk) -> bool:
        session = self._session
        return leads_to_avoided(self._vault, disk, avoided, moves=session.moves, workers=session.crew.workers)

    def _refuse_avoided(self, disk: StoredDisk, avoided: AvoidedSlots) -> None:
        """Raise ``DiskNoLongerStored`` when a disk leads to slots that must not be used."""
        if self._leads_to(avoided, disk):
            meant = sorted({*disk.packs.packs, *self._session.moves.live_targets(disk.packs.packs)})
            raise _no_longer_stored([pack for pack in meant if avoided.meets([pack])] or meant)

    def _refuse_healed(self, disk: StoredDisk) -> None:
        """Raise ``DiskNoLongerStored`` when a disk names damaged slots: what replaces them may have another length, so
        that what inherits them would be counted wrongly."""
        damaged = self._session.quarantine.slots
        if leads_to_avoided(self._vault, disk, damaged, moves=Moves(), workers=self._session.crew.workers):
            raise _no_longer_stored([pack for pack in disk.packs.packs if damaged.meets([pack])])

    @property
    def session(self) -> WriteSession:
        """What all disks of the run share; healing works on it."""
        return self._session

    def publish(self, facts: PointFacts, disks: Sequence[tuple[DiskFacts, StoredDisk]]) -> RestorePoint:
        """Return the published point; for the same run and VM the one that was published first.

        ``DiskNoLongerStored`` when a disk that an earlier execution stored was collected since; ``LeaseLost``.
        """
        published = find_published(self._vault, facts)
        if published is not None:
            return published
        needed = {pack for _, stored in disks for pack in stored.packs.packs}
        unusable = self._session.presence.unusable(needed)
        if unusable:
            raise _no_longer_stored(unusable)
        for _, stored in disks:
            # What this execution stored keeps clear of them; what an earlier one stored may not.
            if not self._session.presence.is_own(stored.root.pack):
                self._refuse_avoided(stored, self._session.avoided)
                self._refuse_healed(stored)
        self._session.cancel.check()
        hold = self._hold(facts, needed)
        point = publish_point(self._vault, facts, disks, check_before=self._session.keeper.check, hold=hold)
        self._published.append(point)
        return point

    def _hold(self, facts: PointFacts, packs: Collection[PackId]) -> Hold:
        """Return the hold of the new point, after its packs were locked for at least as long."""
        locks = self._session.locks
        if facts.previous is not None:
            with contextlib.suppress(PointDamaged):
                previous = read_point(self._vault, point_key(self._vault, facts.vm.uuid, facts.previous))
                if previous is not None:
                    locks.note_point(previous)
        try:
            return locks.hold(packs, moves=self._session.moves)
        except ObjectMissing as missing:
            raise DiskNoLongerStored(packs=1, example=missing.key) from missing

    def close(self) -> None:
        """End the run in order: write its index and catalogue, end its lease. Safe to call twice."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if self._published:
                heal_from_known(self._session, packs_max=PACKS_AT_RUN_END_MAX)
            self._session.write_index()
            write_catalogue(self._vault, self._published)
        except StoreFull as full:
            # The points are published; all of this only saves space and time, or is done again later.
            _log.warning("run.index-not-written", reason=str(full))
        finally:
            self._session.close()
        for lease in self._took_over:
            # One that goes on has a writer that nobody knew to be alive; it holds what it stored by itself.
            delete_lease(self._vault, lease.id, last_number=lease.number)
        self._session.keeper.end()

    def leave(self) -> None:
        """Stop, and leave the lease behind, so that the run finds what it stored when it resumes."""
        if not self._is_over:
            self._is_over = True
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.leave()


def begin_run(
    vault: Vault,
    run: RunId,
    *,
    heir_of: Collection[RunId],
    safety: Safety,
    settings: WriteSettings,
    owner: str,
    cancel: Cancellation,
) -> RunWriter:
    """Return a writer with a lease of its own, which takes over what interrupted executions left.

    ``heir_of`` names other runs that are known to be over, so nobody has to wait until their leases end.
    """
    now = vault.clock.now()
    leases = list_leases(vault)
    ours = {run, *heir_of}
    resumed = [lease for lease in leases if lease.run in ours]
    ended = [lease for lease in leases if lease.run not in ours and lease.seems_ended(now, safety)]
    taken = _packs_of(resumed)
    keeper = LeaseKeeper(vault, run=run, owner=owner, safety=safety, adopted=taken)
    session = WriteSession(
        vault,
        run=run,
        keeper=keeper,
        safety=safety,
        settings=settings,
        adopted=[*taken, *(pack for pack in _packs_of(ended) if pack not in taken)],
        moves=keeper.moves,
        cancel=cancel,
    )
    return RunWriter(vault, session, took_over=resumed)


def end_leases_of(vault: Vault, run: RunId) -> None:
    """Give up the leases that an interrupted run left: nobody will resume it."""
    for lease in list_leases(vault):
        if lease.run == run:
            delete_lease(vault, lease.id)


def _packs_of(leases: Iterable[Lease]) -> list[PackId]:
    return list(dict.fromkeys(pack for lease in leases for pack in lease.packs))


def _no_longer_stored(packs: Sequence[PackId]) -> DiskNoLongerStored:
    return DiskNoLongerStored(packs=len(packs), example=pack_key(packs[0]))
