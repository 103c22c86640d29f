"""The repository as one object: create it, open it, and everything that is done with it.

Invariant: whoever holds a ``Repository`` has proven to know its key, and its description was not changed.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from holdfast.core import Cancellation, Clock, Entropy, ExitStatus, HoldfastError, Progress, limits
from holdfast.model import DiskReader, DiskSource, PointId, RepositoryId, RunId, VmUuid
from holdfast.repository.care.care import Caretaker
from holdfast.repository.care.verify import VerifyReport
from holdfast.repository.config import (
    Compression,
    NeedsNewerHoldfast,
    RepositoryConfig,
    check_config_mac,
    new_config,
    read_config,
    unknown_write_flags,
    write_config,
)
from holdfast.repository.crew import default_workers
from holdfast.repository.damage import PointDamaged
from holdfast.repository.keys.epochs import check_epoch, hold_keys, try_hold_keys
from holdfast.repository.keys.holders import store_holder
from holdfast.repository.keys.key_desk import KeyDesk
from holdfast.repository.keys.keys import NewHolder, Unlock, holder_file
from holdfast.repository.layout import CONFIG_KEY, POINTS_PREFIX
from holdfast.repository.maps.map_changes import ChangeReader
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.points.catalogue import SummaryListing, list_summaries
from holdfast.repository.points.point import PointAmbiguous, PointUnknown, RestorePoint, read_point, read_points
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.missing import MissingLog
from holdfast.repository.reading.salvage import salvaging_vault
from holdfast.repository.reading.source import RepositorySource
from holdfast.repository.records.immutability import refresh_terms
from holdfast.repository.records.moved import read_moves
from holdfast.repository.safety import SAFETY, Safety
from holdfast.repository.sealing import KEY_BYTES, KeyRing
from holdfast.repository.space.deletion import DeletionPlan, plan_deletion
from holdfast.repository.space.gc import apply_gc, plan_gc
from holdfast.repository.space.gc_plan import GcPlan, GcReport
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.space.statistics import SpaceReport, measure_space
from holdfast.repository.space.usage import Usage, measure_usage
from holdfast.repository.vault import Vault
from holdfast.repository.writing.protection import Protection
from holdfast.repository.writing.run_writer import RunWriter, begin_run, end_leases_of
from holdfast.repository.writing.session import WriteSettings
from holdfast.storage import ObjectExists, ObjectStore

__all__ = ["PlaceNotEmpty", "Repository", "RepositoryExists", "create_repository", "open_repository"]


class RepositoryExists(HoldfastError):
    """There is a repository at this place already."""

    code = "repository.exists"
    exit_status = ExitStatus.REFUSED
    effect = "The repository that is there was not touched."
    advice = "Use it as it is, or choose another place."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store} holds a repository already")
        self.store = store


class PlaceNotEmpty(HoldfastError):
    """The place holds something that is not a repository."""

    code = "repository.place-not-empty"
    exit_status = ExitStatus.REFUSED
    effect = "What is there was not touched."
    advice = "Choose an empty place; if a creation was interrupted here, remove what it left."

    def __init__(self, *, store: str, example: str) -> None:
        super().__init__(f"{store} is not empty: it holds {example}")
        self.store, self.example = store, example


class Repository:
    """An open repository. Thread-safe."""

    def __init__(
        self,
        vault: Vault,
        config: RepositoryConfig,
        *,
        workers: int,
        safety: Safety,
        unlock: Unlock | None = None,
    ) -> None:
        self._vault = vault
        self._reading = salvaging_vault(vault)
        self._config = config
        self._workers = workers
        self._safety = safety
        self.protection = Protection(vault, workers=workers)
        """Its locks against deletion."""
        self.keys = KeyDesk(vault, unlock=unlock, check_writable=self._check_known)
        """Who can open it."""
        self.care = Caretaker(
            vault,
            reading=self._reading,
            begin_run=lambda run, cancel: self.begin_run(run, cancel=cancel),
            workers=workers,
        )
        """Scrub, healing, and since when each point's data is checked."""

    @property
    def id(self) -> RepositoryId:
        """The repository's id."""
        return self._config.id

    @property
    def created_at(self) -> datetime:
        """When it was created."""
        return self._config.created

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when somebody puts another repository, or another key, in its place."""
        return self._vault.keys.fingerprint

    @property
    def store_description(self) -> str:
        """Where it is, for people."""
        return self._vault.store.describe()

    def points(self, *, vm: VmUuid | None = None) -> list[RestorePoint]:
        """Return all restore points that can be read, oldest first; of one VM, or of all."""
        return list(read_points(self._vault, vm=vm, workers=self._workers).points)

    def summaries(self) -> SummaryListing:
        """Return what a listing shows of all points, oldest first, without reading most of them."""
        return list_summaries(self._vault, workers=self._workers)

    def damaged_points(self) -> list[PointDamaged]:
        """Return what is wrong with the restore points that cannot be read."""
        return list(read_points(self._vault, workers=self._workers).damaged)

    def point(self, point: str) -> RestorePoint:
        """Return the point whose id is, or begins with, ``point``. ``PointUnknown``, ``PointAmbiguous``, damage."""
        keys = [
            info.key
            for info in list(self._vault.names(POINTS_PREFIX))
            if point and info.key.rpartition("/")[2].startswith(point)
        ]
        if len(keys) > 1:
            raise PointAmbiguous(point=point, count=len(keys))
        found = read_point(self._vault, keys[0]) if keys else None
        if found is None:
            raise PointUnknown(point=point)
        return found

    def begin_run(self, run: RunId, *, cancel: Cancellation, heir_of: Collection[RunId] = ()) -> RunWriter:
        """Return a writer for a run, with a lease. What an interrupted execution of the run stored is re-used.

        So is what the runs ``heir_of`` stored: runs that the caller knows to be over, their processes dead.
        """
        self._check_writable("write to")
        return begin_run(
            self._vault,
            run,
            heir_of=heir_of,
            safety=self._safety,
            settings=WriteSettings(
                level=Compression(self._config.compression).level,
                pack_bytes_max=self._config.pack_bytes_max,
                workers=self._workers,
            ),
            owner=f"{socket.gethostname()} {os.getpid()}",
            cancel=cancel,
        )

    def end_run(self, run: RunId) -> None:
        """Give up what an interrupted run left: it will not be resumed, and its packs may be collected."""
        self._check_writable("clean")
        end_leases_of(self._vault, run)

    def source(self, disk: StoredDisk, *, cancel: Cancellation, missing: MissingLog | None = None) -> DiskSource:
        """Return a disk for reading. ``PackMissing``, ``PackDamaged``, ``MapDamaged`` here and while it is read.

        With ``missing``, ``runs`` leaves out what cannot be read and tells it there; only a map's root is then damage.
        """
        moves = read_moves(self._vault)
        reader = MapReader(self._reading, disk, moves=moves)
        blocks = BlockReader(self._reading, moves=moves)
        return RepositorySource(reader, blocks, workers=self._workers, cancel=cancel, missing=missing)

    def changes(self, older: StoredDisk, newer: StoredDisk, *, cancel: Cancellation) -> DiskReader:
        """Return what a disk has changed since an older one of this repository that is not larger.

        Told by the maps, so that only what lies in another place is read. Damage as from ``source``.
        """
        moves = read_moves(self._vault)
        before, after = (MapReader(self._reading, disk, moves=moves) for disk in (older, newer))
        return ChangeReader(before, after, self.source(newer, cancel=cancel), workers=self._workers, cancel=cancel)

    def verify(
        self, points: Sequence[RestorePoint] | None, *, progress: Progress, cancel: Cancellation
    ) -> VerifyReport:
        """Return what a check of every map and every byte found; of some points, or of all. Raises no damage.

        What is damaged goes into quarantine, and is healed as far as the repository has the same content elsewhere.
        What was read counts for the scrub.
        """
        return self.care.verify(points, progress=progress, cancel=cancel)

    def delete_point(self, point: PointId) -> None:
        """Delete a restore point. Its space comes back with garbage collection. ``PointUnknown``."""
        self._check_writable("delete from")
        keys = [info.key for info in list(self._vault.names(POINTS_PREFIX)) if info.key.endswith(f"/{point}")]
        if not keys:
            raise PointUnknown(point=point)
        for key in keys:
            self._vault.store.delete(key)

    def plan_gc(self, *, settings: GcSettings | None = None) -> GcPlan:
        """Return what garbage collection would do now, as a value that explains itself."""
        return plan_gc(self._vault, safety=self._safety, settings=self._gc_settings(settings))

    def apply_gc(
        self,
        plan: GcPlan,
        *,
        cancel: Cancellation,
        settings: GcSettings | None = None,
        progress: Progress | None = None,
    ) -> GcReport:
        """Do what a plan says, as far as it is still safe. Interrupted at any moment, the next one continues."""
        self._check_writable("clean")
        return apply_gc(
            self._vault,
            plan,
            safety=self._safety,
            cancel=cancel,
            settings=self._gc_settings(settings),
            progress=progress,
        )

    def _gc_settings(self, settings: GcSettings | None) -> GcSettings:
        chosen = settings or GcSettings()
        return dataclasses.replace(
            chosen,
            workers=self._workers,
            pack_bytes_max=self._config.pack_bytes_max,
            level=Compression(self._config.compression).level,
        )

    def plan_deletion(self, point: RestorePoint, *, cancel: Cancellation) -> DeletionPlan:
        """Return what deleting a point would give back, and when. ``CannotTellLivePacks``."""
        return plan_deletion(self._vault, point, safety=self._safety, workers=self._workers, cancel=cancel)

    def space(self, *, is_exact: bool, progress: Progress, cancel: Cancellation) -> SpaceReport:
        """Return whose space it is; frame by frame when it is to be exact. ``CannotTellLivePacks``."""
        return measure_space(self._vault, is_exact=is_exact, workers=self._workers, progress=progress, cancel=cancel)

    def usage(self) -> Usage:
        """Return objects and bytes by kind; their sums are what the store lists."""
        return measure_usage(self._vault.store)

    def _check_writable(self, action: str) -> None:
        self._check_known(action)
        check_epoch(self._vault)
        refresh_terms(self._vault)

    def _check_known(self, action: str) -> None:
        for flag in unknown_write_flags(self._vault.store, self._config):
            raise NeedsNewerHoldfast(store=self.store_description, flag=flag, action=action)


def create_repository(
    store: ObjectStore,
    *,
    holders: Sequence[NewHolder],
    clock: Clock,
    entropy: Entropy,
    compression: Compression = Compression.STANDARD,
    pack_bytes_max: int = limits.PACK_BYTES_MAX,
    workers: int | None = None,
    safety: Safety = SAFETY,
) -> Repository:
    """Return a new repository in an empty place. ``RepositoryExists``, ``PlaceNotEmpty``, ``HolderRefused``.

    The key holders are stored first and the description last, so a repository that can be seen can be opened.
    """
    assert holders
    assert 0 < pack_bytes_max <= limits.PACK_BYTES_MAX
    _check_empty(store)
    repository = RepositoryId(entropy.token_bytes(16).hex())
    repository_key = entropy.token_bytes(KEY_BYTES)
    keys = KeyRing(repository_key, repository=repository)
    config = new_config(
        repository=repository, created_at=clock.now(), compression=compression, pack_bytes_max=pack_bytes_max
    )
    vault = Vault(store, keys, clock=clock, entropy=entropy)
    for holder in holders:
        store_holder(vault, holder, holder_file(holder))
    try:
        write_config(store, config, keys)
    except ObjectExists as cause:
        raise RepositoryExists(store=store.describe()) from cause
    return Repository(vault, config, workers=_workers(workers), safety=safety)


def open_repository(
    store: ObjectStore,
    *,
    unlock: Unlock,
    clock: Clock,
    entropy: Entropy,
    workers: int | None = None,
    safety: Safety = SAFETY,
    epoch_seen: int = 0,
) -> Repository:
    """Return the repository in a store. ``NotARepository``, ``WrongKey``, ``NeedsNewerHoldfast``, ``ConfigDamaged``.

    ``epoch_seen``: an epoch of the data key that is known to have begun. Nothing is sealed with a key from before it,
    even if the store shows an older state of itself.
    """
    config, text = read_config(store)
    held = hold_keys(store, unlock, repository=config.id)
    keys = KeyRing(
        replace(held, in_force=max(held.in_force, epoch_seen)),
        repository=config.id,
        learn=lambda: try_hold_keys(store, unlock, repository=config.id),
    )
    check_config_mac(store, text, keys)
    vault = Vault(store, keys, clock=clock, entropy=entropy)
    return Repository(vault, config, workers=_workers(workers), safety=safety, unlock=unlock)


def _check_empty(store: ObjectStore) -> None:
    for info in store.list(""):
        if any(True for each in store.list(CONFIG_KEY) if each.key == CONFIG_KEY):
            raise RepositoryExists(store=store.describe())
        raise PlaceNotEmpty(store=store.describe(), example=info.key)


def _workers(workers: int | None) -> int:
    return default_workers() if workers is None else workers
