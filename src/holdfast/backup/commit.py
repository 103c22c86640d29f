"""The point of one VM, published last and as one object.

Invariant: everything the point refers to is durable before it appears, and nothing on the pool is released before.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backup.snapshot import SnapshotFacts
from holdfast.backup.transfer import TransferredDisk
from holdfast.model import (
    Consistency,
    DiskFacts,
    DiskUuid,
    PointFacts,
    PointId,
    Pool,
    Reference,
    RunId,
    VmIdentity,
    VmUuid,
)
from holdfast.repository import RestorePoint, RunWriter

__all__ = ["publish_point"]


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
        vm_metadata=facts.vm_metadata,
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
