"""The backup run: select, snapshot, transfer, commit, release, retain, VM after VM, each part a durable step.

Invariant: a step is safe to run twice, and everything that decides what a later step does is the recorded result of an
earlier one, so a run that was killed at any instant continues where it was. One VM's failure is that VM's alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from holdfast.backup.commit import keep_reference, publish_point, release_superseded
from holdfast.backup.retention import apply_retention, plan_retention
from holdfast.backup.snapshot import SnapshotDisk, SnapshotFacts, take_snapshot
from holdfast.backup.transfer import DiskJob, TransferredDisk, transfer_disk
from holdfast.core import Cancellation, Cancelled, ExitStatus, HoldfastError, limits
from holdfast.model import (
    ChangeSource,
    DiskUuid,
    Finding,
    FourSizes,
    JsonObject,
    JsonValue,
    PointId,
    Pool,
    RunId,
    Severity,
    VmUuid,
)
from holdfast.repository import PointDisk, PointUnknown, Repository, RunWriter, StoredDisk
from holdfast.runs import Ledger, StepContext
from holdfast.xapi import PoolClient

__all__ = ["BACKUP_KIND", "BackupArgs", "BackupFlow", "BackupResult", "VmResult"]

BACKUP_KIND = "backup"
"""The kind under which runs of this flow are recorded."""


class BackupArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup run was asked to do, as its record keeps it."""

    pool: str
    repository: str
    vms: tuple[str, ...]
    force_full: bool = False
    keep_points: int | None = None
    job: str = "manual"
    heir_of: tuple[str, ...] = ()
    """Runs that died and were closed in favour of this one; what they stored is re-used."""


class DiskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one disk cost and how it was read."""

    position: str
    name: str
    source: ChangeSource
    reason: str
    provisioned_bytes: int
    read_bytes: int
    new_bytes: int
    stored_bytes: int


class VmResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one VM: a point, or an error."""

    vm: str
    vm_name: str
    point: str | None = None
    disks: tuple[DiskResult, ...] = ()
    dropped_points: tuple[str, ...] = ()
    error_code: str = ""
    error: str = ""
    next_step: str = ""
    exit_status: int = 0


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the run."""

    vms: tuple[VmResult, ...]


class NoPointMade(HoldfastError):
    """Not one VM of the run has a new restore point."""

    code = "backup.no-point-made"
    effect = "No new restore point exists; older points are untouched."

    def __init__(self, failed: Sequence[VmResult]) -> None:
        first = failed[0]
        others = f" (and {len(failed) - 1} more VMs)" if len(failed) > 1 else ""
        super().__init__(f"{first.vm_name}: {first.error}{others}")
        self.cause_code = first.error_code
        self._next_step = first.next_step
        self.exit_status = ExitStatus(first.exit_status)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return self._next_step


class _MovedDisk(msgspec.Struct, frozen=True, kw_only=True):
    stored: JsonObject
    source: ChangeSource
    reason: str


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """All that the parts of one run share."""

    context: StepContext
    args: BackupArgs
    pool: PoolClient
    pool_facts: Pool
    repository: Repository
    writer: RunWriter
    ledger: Ledger

    def step(self, name: str, build: Callable[[], object], kind: type[T]) -> T:
        """Run ``build`` as a durable step and return its result, recorded and read back as ``kind``."""
        recorded = self.context.step(name, lambda: _to_json(build()))
        return msgspec.convert(recorded, kind)


class BackupFlow:
    """The flow itself; register it with ``Runs`` under ``BACKUP_KIND``."""

    def __init__(
        self,
        *,
        open_pool: Callable[[str, Cancellation], PoolClient],
        open_repository: Callable[[str, Cancellation], Repository],
        ledger: Ledger,
    ) -> None:
        self._open_pool = open_pool
        self._open_repository = open_repository
        self._ledger = ledger

    def __call__(self, context: StepContext, args: JsonObject) -> JsonObject:
        """Run, and return a ``BackupResult`` as JSON. Raises only what makes the whole run fail."""
        wanted = msgspec.convert(args, BackupArgs)
        repository = self._open_repository(wanted.repository, context.cancel)
        heir_of = [RunId(each) for each in wanted.heir_of]
        with (
            self._open_pool(wanted.pool, context.cancel) as pool,
            _ended_kindly(
                context, repository.begin_run(context.run_id, cancel=context.cancel, heir_of=heir_of)
            ) as writer,
        ):
            work = _Work(
                context=context,
                args=wanted,
                pool=pool,
                pool_facts=pool.inventory().pool,
                repository=repository,
                writer=writer,
                ledger=self._ledger,
            )
            result = BackupResult(vms=tuple(_back_up_or_tell(work, VmUuid(vm)) for vm in wanted.vms))
        _judge(context, result)
        return _as_object(_to_json(result))


@contextlib.contextmanager
def _ended_kindly(context: StepContext, writer: RunWriter) -> Iterator[RunWriter]:
    """End the writing of a run whose points are published or given up; what fails then costs time, never data."""
    try:
        yield writer
    except BaseException:
        writer.leave()
        raise
    try:
        writer.close()
    except HoldfastError as error:
        context.cancel.check()
        message = f"the run's index was not written, so later runs find fewer known blocks: {error}"
        context.finding(
            Finding(severity=Severity.NOTE, subject="repository", message=message, next_step=error.next_step())
        )


def _judge(context: StepContext, result: BackupResult) -> None:
    """Fail the run when no VM has a point; mark it partial when only some have one."""
    failed = [each for each in result.vms if each.point is None]
    if failed and len(failed) == len(result.vms):
        raise NoPointMade(failed)
    if failed:
        context.mark_partial(f"{len(failed)} of {len(result.vms)} VMs have no new point")


def _back_up_or_tell(work: _Work, vm: VmUuid) -> VmResult:
    try:
        return _back_up(work, vm)
    except HoldfastError as error:
        work.context.cancel.check()
        name = vm
        with contextlib.suppress(HoldfastError):
            name = VmUuid(work.pool.vm(vm).name)
        work.context.finding(
            Finding(
                severity=Severity.DATA_AT_RISK,
                subject=name,
                message=f"no new restore point: {error}",
                next_step=error.next_step(),
            )
        )
        return VmResult(
            vm=vm,
            vm_name=name,
            error_code=error.code,
            error=str(error),
            next_step=error.next_step(),
            exit_status=int(error.exit_status),
        )


def _back_up(work: _Work, vm: VmUuid) -> VmResult:
    run = work.context.run_id
    previous = work.step(f"plan {vm}", lambda: _newest_point(work, vm), str | None)  # type: ignore[arg-type]
    facts = work.step(
        f"snapshot {vm}",
        lambda: take_snapshot(work.pool, work.ledger, run=run, vm_uuid=vm, repository=work.repository.id),
        SnapshotFacts,
    )
    for warning in facts.warnings:
        work.context.finding(Finding(severity=Severity.NOTE, subject=facts.vm_name, message=warning))
    moved = _transfer_all(work, facts, previous)
    disks = [TransferredDisk(stored=StoredDisk.from_json(m.stored), source=m.source, reason=m.reason) for m in moved]
    keeps_data = work.step(f"reference {vm}", lambda: not _purges(work.pool, facts), bool)
    point = work.step(
        f"commit {vm}",
        lambda: _commit(work, facts, disks, previous=previous, keeps_data=keeps_data),
        str,
    )
    work.step(f"release {vm}", lambda: _release(work, facts, keeps_data=keeps_data), type(None))
    dropped = work.step(f"retain {vm}", lambda: _retain(work, vm), tuple[str, ...])
    return VmResult(
        vm=vm,
        vm_name=facts.vm_name,
        point=point,
        disks=tuple(_disk_result(disk, each) for disk, each in zip(facts.disks, disks, strict=True)),
        dropped_points=dropped,
    )


def _newest_point(work: _Work, vm: VmUuid) -> str | None:
    points = work.repository.points(vm=vm)
    return max(points, key=lambda each: (each.facts.taken_at, each.id)).id if points else None


def _stored_before(work: _Work, previous: str | None, live: str) -> PointDisk | None:
    """Return the disk in the previous point; None when it is new, or the point was deleted meanwhile."""
    if previous is None:
        return None
    try:
        point = work.repository.point(previous)
    except PointUnknown:
        return None
    return next((each for each in point.disks if each.facts.uuid == live), None)


def _transfer_all(work: _Work, facts: SnapshotFacts, previous: str | None) -> list[_MovedDisk]:
    steps = [
        (f"transfer {facts.vm} {disk.position}", lambda disk=disk: _to_json(_transfer(work, facts, disk, previous)))
        for disk in facts.disks
    ]
    recorded = work.context.steps_parallel(steps, at_once=limits.RUN_DISKS_AT_ONCE_MAX)
    return [msgspec.convert(each.unwrap(), _MovedDisk) for each in recorded]


def _transfer(work: _Work, facts: SnapshotFacts, disk: SnapshotDisk, previous: str | None) -> _MovedDisk:
    before = _stored_before(work, previous, disk.live)
    job = DiskJob(
        label=f"{facts.vm_name} disk {disk.position}",
        live=DiskUuid(disk.live),
        snapshot=DiskUuid(disk.snapshot),
        size_bytes=disk.size_bytes,
        reference=before.facts.reference if before else None,
        base=before.stored if before else None,
        force_full=work.args.force_full,
    )
    done = transfer_disk(work.pool, work.writer, job, progress=work.context.progress, cancel=work.context.cancel)
    return _MovedDisk(stored=done.stored.to_json(), source=done.source, reason=done.reason)


def _purges(pool: PoolClient, facts: SnapshotFacts) -> bool:
    """Return whether change metadata alone can serve as the reference: every snapshot disk tracks changes."""
    found = [pool.disk(DiskUuid(disk.snapshot)) for disk in facts.disks]
    return all(each is not None and each.cbt_enabled for each in found)


def _commit(
    work: _Work,
    facts: SnapshotFacts,
    disks: list[TransferredDisk],
    *,
    previous: str | None,
    keeps_data: bool,
) -> str:
    point = publish_point(
        work.writer,
        facts,
        disks,
        pool=work.pool_facts,
        run=work.context.run_id,
        job=work.args.job,
        previous=PointId(previous) if previous else None,
        keeps_data=keeps_data,
        vm_metadata=_metadata(work, facts),
    )
    return point.id


def _metadata(work: _Work, facts: SnapshotFacts) -> bytes:
    try:
        return work.pool.export_metadata(VmUuid(facts.vm))
    except Cancelled:
        raise
    except HoldfastError as error:
        work.context.finding(
            Finding(
                severity=Severity.WARNING,
                subject=facts.vm_name,
                message=f"the pool's own metadata could not be exported, so a virtual TPM is missing: {error}",
                next_step=error.next_step(),
            )
        )
        return b""


def _release(work: _Work, facts: SnapshotFacts, *, keeps_data: bool) -> None:
    run = work.context.run_id
    for finding in keep_reference(work.pool, work.ledger, facts, run=run, keeps_data=keeps_data):
        work.context.finding(finding)
    release_superseded(work.pool, work.ledger, run=run, vm=VmUuid(facts.vm), repository=work.repository.id)


def _retain(work: _Work, vm: VmUuid) -> tuple[str, ...]:
    if work.args.keep_points is None:
        return ()
    plan = plan_retention(work.repository.points(vm=vm), keep_points=work.args.keep_points)
    apply_retention(work.repository, plan)
    return tuple(point.id for point in plan.dropped)


def _disk_result(disk: SnapshotDisk, moved: TransferredDisk) -> DiskResult:
    sizes: FourSizes = moved.stored.sizes
    return DiskResult(
        position=disk.position,
        name=disk.name,
        source=moved.source,
        reason=moved.reason,
        provisioned_bytes=sizes.provisioned_bytes,
        read_bytes=sizes.read_bytes,
        new_bytes=sizes.new_bytes,
        stored_bytes=sizes.stored_bytes,
    )


def _to_json(value: object) -> JsonValue:
    built: JsonValue = msgspec.to_builtins(value)
    return built


def _as_object(value: JsonValue) -> JsonObject:
    assert isinstance(value, dict)
    return value
