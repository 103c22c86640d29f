"""One disk, from its snapshot on the pool into the repository.

The reader says where its knowledge comes from and why; the writer says what was new and what it cost. Nothing is
published here: a disk that failed half-way leaves blocks that the next attempt re-uses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from holdfast.core import Cancellation, Clock, Progress, Retry, limits, repeat_patiently
from holdfast.model import ChangeSource, DataRun, DiskReader, DiskUuid, DiskWriter, Reference
from holdfast.repository import DiskNoLongerStored, MapDamaged, PackDamaged, PackMissing, RunWriter, StoredDisk
from holdfast.xapi import (
    ExportDamaged,
    NbdConnectionLost,
    NbdUnavailable,
    PoolClient,
    PoolConnectionLost,
    PoolFailure,
    PoolReader,
    PoolUnreachable,
    ReadTransport,
    TaskVanished,
)

__all__ = ["DiskJob", "TransferredDisk", "copy_runs", "transfer_disk"]

_POOL_TROUBLE = (
    ExportDamaged,
    NbdConnectionLost,
    NbdUnavailable,
    PoolConnectionLost,
    PoolFailure,
    PoolUnreachable,
    TaskVanished,
)
"""What another attempt at the pool may overcome, if the error itself says that it may. Trouble of the repository is not
among it: the store has its own retries, and a full one stays full."""

_BASE_TROUBLE = (DiskNoLongerStored, MapDamaged, PackDamaged, PackMissing)
"""The previous point cannot be built upon. Read whole, the disk is complete in itself again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskJob:
    """A disk to be transferred: what it is called, where it is, what it is compared with."""

    label: str
    live: DiskUuid
    snapshot: DiskUuid
    size_bytes: int
    reference: Reference | None
    base: StoredDisk | None
    """The disk in the previous point; needed whenever only changes are read."""
    force_full: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferredDisk:
    """A disk that is durable in the repository, and how it got there."""

    stored: StoredDisk
    source: ChangeSource
    reason: str
    nbd_refusal: str
    """Why it cannot be read over NBD; empty when it can, whatever way was taken."""


def transfer_disk(
    pool: PoolClient, writer: RunWriter, job: DiskJob, *, progress: Progress, clock: Clock, cancel: Cancellation
) -> TransferredDisk:
    """Return the disk as stored, all of it durable. Safe to run twice: blocks that are there already are re-used.

    Trouble of the pool that may pass is waited for, ``limits.TRANSFER_ATTEMPTS_MAX`` times.
    """
    return repeat_patiently(
        lambda: _transfer(pool, writer, job, progress=progress, cancel=cancel),
        may_pass=lambda error: isinstance(error, _POOL_TROUBLE) and error.retry is not Retry.NEVER,
        attempts_max=limits.TRANSFER_ATTEMPTS_MAX,
        wait_s=limits.TRANSFER_WAIT_S,
        tell=lambda told: progress.note(f"{job.label}: {told}"),
        clock=clock,
        cancel=cancel,
    )


def copy_runs(reader: DiskReader, writer: DiskWriter, *, label: str, progress: Progress, cancel: Cancellation) -> None:
    """Move every run from the reader to the writer, in order, telling how far it is."""
    with progress.start(label, total_bytes=reader.planned_bytes) as task:
        for run in reader.runs():
            cancel.check()
            writer.write(run)
            if isinstance(run, DataRun):
                task.advance(run.length_bytes)


def _transfer(
    pool: PoolClient, writer: RunWriter, job: DiskJob, *, progress: Progress, cancel: Cancellation
) -> TransferredDisk:
    if job.base is None:
        return _attempt(pool, writer, job, because="", progress=progress, cancel=cancel)
    whole = dataclasses.replace(job, base=None, reference=None)
    if job.base.size_bytes != job.size_bytes:
        # Changes are counted on a disk of one size; what grew or was replaced is read whole, once.
        because = "the disk was resized since the previous restore point"
        return _attempt(pool, writer, whole, because=because, progress=progress, cancel=cancel)
    try:
        return _attempt(pool, writer, job, because="", progress=progress, cancel=cancel)
    except _BASE_TROUBLE as trouble:
        cancel.check()
        because = f"the previous restore point cannot be built upon ({trouble})"
        return _attempt(pool, writer, whole, because=because, progress=progress, cancel=cancel)


def _attempt(
    pool: PoolClient, writer: RunWriter, job: DiskJob, *, because: str, progress: Progress, cancel: Cancellation
) -> TransferredDisk:
    """Transfer the disk once. ``because`` is why its base was given up, when it was."""
    plan = pool.plan_read(live=job.live, snapshot=job.snapshot, reference=job.reference, force_full=job.force_full)
    with pool.open_reader(plan, cancel=cancel) as reader:
        # The pool may have changed its mind since it was planned; what counts is what the reader carries out.
        done = reader.plan
        way = "over NBD" if done.transport is ReadTransport.NBD else "from the export stream"
        reason = f"the disk is read in full {way}, because {because}." if because else done.reason
        progress.note(f"{job.label}: {reason}")
        stored = _store(reader, writer, job, progress=progress, cancel=cancel)
    return TransferredDisk(stored=stored, source=done.source, reason=reason, nbd_refusal=done.nbd_refusal)


def _store(
    reader: PoolReader, writer: RunWriter, job: DiskJob, *, progress: Progress, cancel: Cancellation
) -> StoredDisk:
    disk = writer.open_disk(reader.size_bytes, coverage=reader.coverage, reference=job.base)
    try:
        copy_runs(reader, disk, label=job.label, progress=progress, cancel=cancel)
        return disk.finish()
    except BaseException:
        disk.abort()
        raise
