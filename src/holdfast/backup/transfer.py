"""One disk, from its snapshot on the pool into the repository.

The reader says where its knowledge comes from and why; the writer says what was new and what it cost. Nothing is
published here: a disk that failed half-way leaves blocks that the next attempt re-uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core import Cancellation, Progress
from holdfast.model import ChangeSource, DataRun, DiskReader, DiskUuid, DiskWriter, Reference
from holdfast.repository import RunWriter, StoredDisk
from holdfast.xapi import PoolClient

__all__ = ["DiskJob", "TransferredDisk", "copy_runs", "transfer_disk"]


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


def copy_runs(reader: DiskReader, writer: DiskWriter, *, label: str, progress: Progress, cancel: Cancellation) -> None:
    """Move every run from the reader to the writer, in order, telling how far it is."""
    with progress.start(label, total_bytes=reader.planned_bytes) as task:
        for run in reader.runs():
            cancel.check()
            writer.write(run)
            if isinstance(run, DataRun):
                task.advance(run.length_bytes)


def transfer_disk(
    pool: PoolClient, writer: RunWriter, job: DiskJob, *, progress: Progress, cancel: Cancellation
) -> TransferredDisk:
    """Return the disk as stored, all of it durable. Safe to run twice: blocks that are there already are re-used."""
    # Changes are counted on a disk of one size; what grew or was replaced is read whole, once.
    resized = job.base is not None and job.base.size_bytes != job.size_bytes
    base = None if resized else job.base
    reference = job.reference if base is not None else None
    plan = pool.plan_read(live=job.live, snapshot=job.snapshot, reference=reference, force_full=job.force_full)
    reason = f"the disk was resized since the previous point; {plan.reason}" if resized else plan.reason
    progress.note(f"{job.label}: {reason}")
    with pool.open_reader(plan, cancel=cancel) as reader:
        # The pool may have changed its mind since it was planned; what counts is what the reader carries out.
        done = reader.plan
        if done is not plan:
            reason = done.reason
            progress.note(f"{job.label}: {reason}")
        disk = writer.open_disk(reader.size_bytes, coverage=reader.coverage, reference=base)
        try:
            copy_runs(reader, disk, label=job.label, progress=progress, cancel=cancel)
            stored = disk.finish()
        except BaseException:
            disk.abort()
            raise
    return TransferredDisk(stored=stored, source=done.source, reason=reason)
