"""The end of one VM's backup: publish the point, keep what the next increment needs, remove what is superseded.

Order matters and is the promise: the point is published before anything on the pool is released, and its reference is
marked as kept before the snapshot goes, so a crash in between costs a full read at worst, never a point.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backup.snapshot import SnapshotFacts
from holdfast.backup.transfer import TransferredDisk
from holdfast.core import HoldfastError
from holdfast.model import (
    Consistency,
    DiskFacts,
    DiskUuid,
    Finding,
    OwnedKind,
    PointFacts,
    PointId,
    Pool,
    Reference,
    RepositoryId,
    RunId,
    Severity,
    VmIdentity,
    VmUuid,
)
from holdfast.repository import RestorePoint, RunWriter
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.xapi import PoolClient

__all__ = ["keep_reference", "publish_point", "release_superseded"]


def publish_point(
    writer: RunWriter,
    facts: SnapshotFacts,
    disks: Sequence[TransferredDisk],
    *,
    pool: Pool,
    run: RunId,
    job: str,
    previous: PointId | None,
    keeps_data: bool,
    vm_metadata: bytes,
) -> RestorePoint:
    """Return the published point. Safe to run twice: the same run and VM give the same point."""
    point_facts = PointFacts(
        vm=VmIdentity(uuid=VmUuid(facts.vm), name=facts.vm_name, pool=pool.uuid, pool_name=pool.name),
        taken_at=facts.taken_at,
        run=run,
        job=job,
        consistency=Consistency.CRASH if facts.running else Consistency.OFFLINE,
        previous=previous,
        tags=facts.tags,
        vm_record=facts.vm_record,
        vm_metadata=vm_metadata,
    )
    described = [
        DiskFacts(
            uuid=DiskUuid(disk.live),
            name=disk.name,
            position=disk.position,
            bootable=disk.bootable,
            size_bytes=disk.size_bytes,
            change_source=moved.source,
            change_reason=moved.reason,
            reference=Reference(snapshot=DiskUuid(disk.snapshot), has_data=keeps_data),
            vdi_record=disk.vdi_record,
            vbd_record=disk.vbd_record,
        )
        for disk, moved in zip(facts.disks, disks, strict=True)
    ]
    return writer.publish(point_facts, [(each, moved.stored) for each, moved in zip(described, disks, strict=True)])


def keep_reference(
    pool: PoolClient, ledger: Ledger, facts: SnapshotFacts, *, run: RunId, keeps_data: bool
) -> tuple[Finding, ...]:
    """Leave on the pool just what the next increment needs; return what went otherwise. Safe to run twice.

    With change tracking on every disk the data of the snapshot is purged and only its change metadata stays, which
    costs the SR next to nothing. Otherwise the snapshot stays whole.
    """
    lines = [line for line in ledger.lines(run=run) if line.details.get("vm") == facts.vm]
    for line in lines:
        if line.kind == OwnedKind.DISK_SNAPSHOT.value or keeps_data:
            ledger.keep(line.id, why="reference for the next increment")
    if keeps_data:
        return ()
    pool.destroy_snapshot(VmUuid(facts.snapshot), keep_disks=True)
    for line in lines:
        if line.kind == OwnedKind.VM_SNAPSHOT.value:
            ledger.gone(line.id)
    findings = []
    for disk in facts.disks:
        try:
            pool.data_destroy(DiskUuid(disk.snapshot))
        except HoldfastError as error:
            findings.append(
                Finding(
                    severity=Severity.NOTE,
                    subject=f"{facts.vm_name} disk {disk.position}",
                    message=f"the snapshot's data could not be purged, so it still takes space on the SR: {error}",
                    next_step="Nothing: the next run removes it.",
                )
            )
    return tuple(findings)


def release_superseded(pool: PoolClient, ledger: Ledger, *, run: RunId, vm: VmUuid, repository: RepositoryId) -> None:
    """Remove the references of earlier runs of this VM into this repository. Safe to run twice."""
    for line in ledger.lines(pool=pool.pool, states=(LedgerState.KEPT,)):
        details = line.details
        if line.run_id != run and details.get("vm") == vm and details.get("repository") == repository:
            _remove(pool, line)
            ledger.gone(line.id)


def _remove(pool: PoolClient, line: LedgerLine) -> None:
    """Remove from the pool what a ledger line stands for. Fine when it is gone already."""
    if line.external_id is None:
        return
    if line.kind == OwnedKind.VM_SNAPSHOT.value:
        pool.destroy_snapshot(VmUuid(line.external_id), keep_disks=True)
    elif line.kind == OwnedKind.DISK_SNAPSHOT.value:
        pool.destroy_disk(DiskUuid(line.external_id))
