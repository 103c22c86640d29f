"""The steps of one VM: plan, snapshot, transfer, reference, commit, release, retain.

Invariant: once ``commit`` is recorded the VM has its point. What goes wrong afterwards is told and costs space or time;
it never makes the point untold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from holdfast.backup.commit import publish_point
from holdfast.backup.outcome import BackupArgs, DiskResult, VmResult
from holdfast.backup.references import keep_reference, release_superseded, why_data_stays
from holdfast.backup.retention import apply_retention, newest_of, plan_retention
from holdfast.backup.snapshot import LineRemover, SnapshotDisk, SnapshotFacts, SnapshotTaker
from holdfast.backup.transfer import DiskJob, TransferredDisk, transfer_disk
from holdfast.core import Clock, Entropy, HoldfastError, format_minute, from_builtins, limits
from holdfast.model import (
    ChangeSource,
    DiskUuid,
    Finding,
    FourSizes,
    JsonObject,
    JsonValue,
    PointId,
    Pool,
    Severity,
    VmUuid,
)
from holdfast.repository import PointDamaged, PointDisk, PointUnknown, Repository, RunWriter, StoredDisk
from holdfast.runs import Ledger, StepContext
from holdfast.xapi import PoolClient

__all__ = ["Work", "back_up_or_tell", "to_json"]

T = TypeVar("T")


class _Start(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided before the snapshot: the point that changes are counted from."""

    previous: str | None


class _MovedDisk(msgspec.Struct, frozen=True, kw_only=True):
    stored: JsonObject
    source: ChangeSource
    reason: str
    nbd_refusal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that the parts of one run share."""

    context: StepContext
    args: BackupArgs
    pool: PoolClient
    pool_facts: Pool
    repository: Repository
    writer: RunWriter
    ledger: Ledger
    remove_line: LineRemover
    clock: Clock
    entropy: Entropy

    def step(self, name: str, build: Callable[[], object], kind: type[T]) -> T:
        """Run ``build`` as a durable step and return its result, recorded and read back as ``kind``."""
        return from_builtins(self.context.step(name, lambda: to_json(build())), kind)


def back_up_or_tell(work: Work, vm: VmUuid) -> VmResult:
    """Return the VM's new point, or why it has none; only a stop of the whole run leaves as an exception."""
    try:
        return _back_up(work, vm)
    except HoldfastError as error:
        work.context.cancel.check()
        name = work.args.vm_names.get(vm, vm)
        _tell(work, name, f"no new restore point: {error}", Severity.DATA_AT_RISK, next_step=error.next_step())
        return VmResult(
            vm=vm,
            vm_name=name,
            error_code=error.code,
            error=str(error),
            next_step=error.next_step(),
            exit_status=int(error.exit_status),
        )


def _back_up(work: Work, vm: VmUuid) -> VmResult:
    start = work.step(f"plan {vm}", lambda: _plan(work, vm), _Start)
    facts = work.step(f"snapshot {vm}", lambda: _taker(work, vm).take(vm), SnapshotFacts)
    for warning in facts.warnings:
        _tell(work, facts.vm_name, warning, Severity.NOTE)
    disks = _transfer_all(work, facts, start.previous)
    why_whole = work.step(f"reference {vm}", lambda: why_data_stays(work.pool, facts, disks), str)
    if why_whole:
        work.context.note(f"{facts.vm_name}: the snapshot stays whole as reference, because {why_whole}")
    keeps_data = bool(why_whole)
    point = work.step(f"commit {vm}", lambda: _commit(work, facts, disks, start, keeps_data=keeps_data), str)
    _release_or_tell(work, facts, keeps_data=keeps_data)
    return VmResult(
        vm=vm,
        vm_name=facts.vm_name,
        point=point,
        disks=tuple(_disk_result(disk, each) for disk, each in zip(facts.disks, disks, strict=True)),
        dropped_points=_retain_or_tell(work, facts, point),
    )


def _plan(work: Work, vm: VmUuid) -> _Start:
    newest = newest_of(work.repository.points(vm=vm))
    return _Start(previous=newest.id if newest else None)


def _taker(work: Work, vm: VmUuid) -> SnapshotTaker:
    name = work.args.vm_names.get(vm, vm)
    return SnapshotTaker(
        work.pool,
        work.ledger,
        run=work.context.run_id,
        repository=work.repository.id,
        remove_line=work.remove_line,
        clock=work.clock,
        entropy=work.entropy,
        cancel=work.context.cancel,
        tell=lambda told: work.context.note(f"{name}: {told}"),
    )


def _transfer_all(work: Work, facts: SnapshotFacts, previous: str | None) -> list[TransferredDisk]:
    steps = [
        (f"transfer {facts.vm} {disk.position}", lambda disk=disk: to_json(_transfer(work, facts, disk, previous)))
        for disk in facts.disks
    ]
    recorded = work.context.steps_parallel(steps, at_once=limits.RUN_DISKS_AT_ONCE_MAX)
    moved = [from_builtins(each.unwrap(), _MovedDisk) for each in recorded]
    return [
        TransferredDisk(
            stored=StoredDisk.from_json(each.stored),
            source=each.source,
            reason=each.reason,
            nbd_refusal=each.nbd_refusal,
        )
        for each in moved
    ]


def _transfer(work: Work, facts: SnapshotFacts, disk: SnapshotDisk, previous: str | None) -> _MovedDisk:
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
    context = work.context
    done = transfer_disk(
        work.pool, work.writer, job, progress=context.progress, clock=work.clock, cancel=context.cancel
    )
    return _MovedDisk(
        stored=done.stored.to_json(), source=done.source, reason=done.reason, nbd_refusal=done.nbd_refusal
    )


def _stored_before(work: Work, previous: str | None, live: str) -> PointDisk | None:
    """Return the disk in the previous point; None when it is new, or the point was deleted or damaged meanwhile."""
    if previous is None:
        return None
    try:
        point = work.repository.point(previous)
    except (PointUnknown, PointDamaged):
        return None
    return next((each for each in point.disks if each.facts.uuid == live), None)


def _commit(
    work: Work, facts: SnapshotFacts, disks: Sequence[TransferredDisk], start: _Start, *, keeps_data: bool
) -> str:
    point = publish_point(
        work.writer,
        facts,
        disks,
        pool=work.pool_facts,
        run=work.context.run_id,
        job=work.args.job,
        previous=PointId(start.previous) if start.previous else None,
        keeps_data=keeps_data,
    )
    if work.writer.lock_days and point.packs_held_until is None:
        message = f"its point should be held for {work.writer.lock_days} days, but the store holds nothing"
        next_step = f"See 'holdfast repository lock {work.args.repository} --status'."
        _tell(work, facts.vm_name, message, Severity.WARNING, next_step=next_step)
    return point.id


def _release_or_tell(work: Work, facts: SnapshotFacts, *, keeps_data: bool) -> None:
    try:
        work.step(f"release {facts.vm}", lambda: _release(work, facts, keeps_data=keeps_data), type(None))
    except HoldfastError as error:
        message = f"the restore point is safe, but the snapshot was not released: {error}"
        _tell(work, facts.vm_name, message, Severity.WARNING, next_step=error.next_step())


def _release(work: Work, facts: SnapshotFacts, *, keeps_data: bool) -> None:
    run, cancel = work.context.run_id, work.context.cancel
    kept = keep_reference(work.pool, work.ledger, facts, run=run, keeps_data=keeps_data, cancel=cancel)
    released = release_superseded(
        work.pool, work.ledger, work.repository, vm=VmUuid(facts.vm), remove_line=work.remove_line, cancel=cancel
    )
    for finding in (*kept, *released):
        work.context.finding(finding)


def _retain_or_tell(work: Work, facts: SnapshotFacts, point: str) -> tuple[str, ...]:
    if work.args.keep_points is None:
        return ()
    try:
        return work.step(f"retain {facts.vm}", lambda: _retain(work, VmUuid(facts.vm), point), tuple[str, ...])
    except HoldfastError as error:
        message = f"the restore point is safe, but older ones were not deleted: {error}"
        _tell(work, facts.vm_name, message, Severity.WARNING, next_step=error.next_step())
        return ()


def _retain(work: Work, vm: VmUuid, point: str) -> tuple[str, ...]:
    assert work.args.keep_points is not None
    points = work.repository.points(vm=vm)
    now = work.clock.now()
    plan = plan_retention(points, keep_points=work.args.keep_points, now=now, just_made=point)
    result = apply_retention(work.repository, plan)
    if result.held:
        until = [each.until for each in result.held if each.until is not None]
        last = f", the last until {format_minute(max(until))}" if until else ""
        count = len(result.held)
        points_are = "restore points are" if count > 1 else "restore point is"
        what = f"{count} {points_are} due and held{last}; a later run deletes what is due"
        work.context.progress.note(f"{points[0].facts.vm.name}: {what}")
    return result.deleted


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


def _tell(work: Work, subject: str, message: str, severity: Severity, *, next_step: str = "") -> None:
    work.context.finding(Finding(severity=severity, subject=subject, message=message, next_step=next_step))


def to_json(value: object) -> JsonValue:
    """Return any of our records as plain JSON values."""
    built: JsonValue = msgspec.to_builtins(value)
    return built
