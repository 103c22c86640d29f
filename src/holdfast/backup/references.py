"""What stays on the pool between runs: the reference that the next increment of a VM is counted from.

Invariant: a new reference is marked as kept before anything else is removed, and an old one goes only when the newest
restore point does not need it. A crash in between costs a full read at worst.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backup.retention import newest_of
from holdfast.backup.snapshot import LineRemover, SnapshotFacts
from holdfast.backup.transfer import TransferredDisk
from holdfast.core import Cancellation, HoldfastError
from holdfast.model import DiskUuid, Finding, OwnedKind, RepositoryId, RunId, Severity, VmUuid
from holdfast.repository import Repository, RestorePoint
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.xapi import PoolClient

__all__ = ["keep_reference", "release_superseded", "why_data_stays"]


def why_data_stays(pool: PoolClient, facts: SnapshotFacts, disks: Sequence[TransferredDisk]) -> str:
    """Return why the snapshot has to stay whole as reference; an empty text when its change metadata is enough.

    Metadata serves only where changes are tracked and NBD is there to read them. Elsewhere a VHD difference needs the
    snapshot's data, and without it every run would read the whole disk.
    """
    for disk, moved in zip(facts.disks, disks, strict=True):
        if moved.nbd_refusal:
            return f"disk {disk.position} cannot be read over NBD ({moved.nbd_refusal})"
        found = pool.disk(DiskUuid(disk.snapshot))
        if found is None or not found.cbt_enabled:
            return f"disk {disk.position} does not track its changes"
    return ""


def keep_reference(
    pool: PoolClient, ledger: Ledger, facts: SnapshotFacts, *, run: RunId, keeps_data: bool, cancel: Cancellation
) -> list[Finding]:
    """Leave on the pool just what the next increment needs; return what went otherwise. Safe to run twice."""
    ours = {line.external_id: line for line in ledger.lines(run=run) if line.state is not LedgerState.GONE}
    for disk in facts.disks:
        if disk.snapshot in ours:
            ledger.keep(ours[disk.snapshot].id, why="reference for the next increment")
    snapshot = ours.get(facts.snapshot)
    if keeps_data:
        if snapshot is not None:
            ledger.keep(snapshot.id, why="reference for the next increment, with its data")
        return []
    pool.destroy_snapshot(VmUuid(facts.snapshot), keep_disks=True)
    if snapshot is not None:
        ledger.gone(snapshot.id)
    return [
        finding for disk in facts.disks if (finding := _purge(pool, facts, disk.position, disk.snapshot, cancel=cancel))
    ]


def _purge(
    pool: PoolClient, facts: SnapshotFacts, position: str, snapshot: str, *, cancel: Cancellation
) -> Finding | None:
    try:
        pool.data_destroy(DiskUuid(snapshot))
    except HoldfastError as error:
        cancel.check()
        return Finding(
            severity=Severity.NOTE,
            subject=f"{facts.vm_name} disk {position}",
            message=f"the snapshot's data could not be purged, so it still takes space on the SR: {error}",
            next_step="Nothing: the next run removes it.",
        )
    return None


def release_superseded(
    pool: PoolClient,
    ledger: Ledger,
    repository: Repository,
    *,
    vm: VmUuid,
    remove_line: LineRemover,
    cancel: Cancellation,
) -> list[Finding]:
    """Remove this VM's references into this repository that its newest point does not need. Safe to run twice.

    Those that other repositories need, and those of other VMs, are not looked at.
    """
    needed = _needed(repository.points(vm=vm))
    findings = []
    for line in _superseded(ledger, pool, vm=vm, repository=repository.id, needed=needed):
        try:
            remove_line(pool, ledger, line)
        except HoldfastError as error:
            cancel.check()
            findings.append(
                Finding(
                    severity=Severity.NOTE,
                    subject=str(line.details.get("vm_name", vm)),
                    message=f"an older reference is still on the pool: {line.kind} {line.name!r}: {error}",
                    next_step="Nothing: the next run of this VM tries again.",
                )
            )
    return findings


def _needed(points: Sequence[RestorePoint]) -> set[str]:
    newest = newest_of(points)
    references = [disk.facts.reference for disk in newest.disks] if newest else []
    return {each.snapshot for each in references if each is not None}


def _superseded(
    ledger: Ledger, pool: PoolClient, *, vm: VmUuid, repository: RepositoryId, needed: set[str]
) -> list[LedgerLine]:
    """Return kept lines that can go, run by run: a snapshot and its disks stay or go together."""
    kept = [
        line
        for line in ledger.lines(pool=pool.pool, states=(LedgerState.KEPT,))
        if line.details.get("vm") == vm and line.details.get("repository") == repository
    ]
    in_use = {line.run_id for line in kept if line.external_id in needed}
    released = [line for line in kept if line.run_id not in in_use]
    # A disk cannot be removed while a snapshot has it.
    return sorted(released, key=lambda line: line.kind != OwnedKind.VM_SNAPSHOT.value)
