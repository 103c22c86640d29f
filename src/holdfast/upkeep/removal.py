"""Removing what one ledger line stands for.

Invariant: a thing is removed only when the ledger names it, by its id on the pool or by a mark that was drawn for it
alone; the line is closed only when the pool has the thing no more. A mark that several things carry proves nothing,
because copies inherit it, and nothing is touched then.
"""

from __future__ import annotations

from typing import assert_never

from holdfast.core import ExitStatus, HoldfastError, Retry
from holdfast.model import RUN_TAG, DiskUuid, OwnedKind, VmUuid
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.xapi import PoolClient, TaggedKind, VmUnknown

__all__ = ["MarkNotUnique", "NotASnapshot", "remove_line"]

_CHANGE_METADATA = "cbt_metadata"
"""XAPI's type of a disk that has lost its data and kept its changes."""


class MarkNotUnique(HoldfastError):
    """Several things on the pool carry the mark of one that we made: somebody copied it."""

    code = "upkeep.mark-not-unique"
    retry = Retry.NEVER
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was removed; existing restore points are untouched."

    def __init__(self, *, mark: str, uuids: list[str]) -> None:
        super().__init__(f"several objects carry the mark {mark!r}: {', '.join(uuids)}")
        self.mark, self.uuids = mark, ", ".join(uuids)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Remove {RUN_TAG!r} from other-config of what you want to keep; the next sweep removes the rest."


class NotASnapshot(HoldfastError):
    """What the ledger calls our snapshot is an ordinary VM or disk now."""

    code = "upkeep.not-a-snapshot"
    retry = Retry.NEVER
    exit_status = ExitStatus.REFUSED
    effect = "It was not removed; existing restore points are untouched."
    advice = "Somebody turned it into a disk or VM of their own; remove it by hand when nobody needs it."

    def __init__(self, *, uuid: str) -> None:
        super().__init__(f"{uuid} is not a snapshot any more")
        self.uuid = uuid


def remove_line(pool: PoolClient, ledger: Ledger, line: LedgerLine) -> bool:
    """Remove what the line stands for, close the line, and return whether there was anything. Safe to run twice."""
    match OwnedKind(line.kind):
        case OwnedKind.VM_SNAPSHOT:
            removed = _remove_vm_snapshot(pool, ledger, line)
        case OwnedKind.DISK_SNAPSHOT:
            removed = _remove_disk_snapshot(pool, line)
        case OwnedKind.VM:
            uuid = _known_or_marked(pool, line, TaggedKind.VM)
            removed = uuid is not None and _vm_exists(pool, VmUuid(uuid))
            if uuid is not None:
                pool.destroy_vm(VmUuid(uuid))
        case OwnedKind.DISK:
            uuid = _known_or_marked(pool, line, TaggedKind.DISK)
            removed = uuid is not None and pool.disk(DiskUuid(uuid)) is not None
            if uuid is not None:
                pool.destroy_disk(DiskUuid(uuid))
        case _ as never:
            assert_never(never)
    if line.state is not LedgerState.GONE:
        # A closed line keeps its time: it is looked at again only as long as a late call may still make something.
        ledger.gone(line.id)
    return removed


def _remove_vm_snapshot(pool: PoolClient, ledger: Ledger, line: LedgerLine) -> bool:
    """Remove the snapshot of that name, and its disks unless they are kept references.

    The disks get lines of their own before the VM goes: without it, nothing but a line leads to them.
    """
    vm = VmUuid(str(line.details["vm"]))
    found = {each.vm for each in pool.find_snapshots(vm, name_label=line.name)}
    if line.external_id is not None and _vm_exists(pool, VmUuid(line.external_id)):
        found.add(VmUuid(line.external_id))
    for snapshot in sorted(found):
        if not pool.vm(snapshot).record.get("is_a_snapshot"):
            raise NotASnapshot(uuid=snapshot)
        disks = [_disk_line(ledger, line, each.disk.uuid) for each in pool.vm(snapshot).disks]
        pool.destroy_snapshot(snapshot, keep_disks=True)
        for disk in disks:
            if disk.state.is_open:
                remove_line(pool, ledger, disk)
    return bool(found)


def _disk_line(ledger: Ledger, line: LedgerLine, disk: DiskUuid) -> LedgerLine:
    """Return the disk's own line, written now if it has none."""
    kind = OwnedKind.DISK_SNAPSHOT.value
    for known in ledger.lines(run=line.run_id):
        if (known.kind, known.external_id) == (kind, disk) and known.state is not LedgerState.GONE:
            return known
    made = ledger.intend(run=line.run_id, pool=line.pool, kind=kind, name=disk, details=line.details)
    ledger.made(made, external_id=disk)
    return ledger.get(made)


def _remove_disk_snapshot(pool: PoolClient, line: LedgerLine) -> bool:
    disk = pool.disk(DiskUuid(line.external_id)) if line.external_id is not None else None
    if disk is None:
        return False
    if not (disk.is_snapshot or disk.kind == _CHANGE_METADATA):
        raise NotASnapshot(uuid=disk.uuid)
    pool.destroy_disk(disk.uuid)
    return True


def _known_or_marked(pool: PoolClient, line: LedgerLine, kind: TaggedKind) -> str | None:
    """Return the id that the ledger has, or that of the one object which carries the line's mark."""
    if line.external_id is not None:
        return line.external_id
    marked = [each.uuid for each in pool.find_tagged(RUN_TAG) if each.kind is kind and each.value == line.name]
    if len(marked) > 1:
        raise MarkNotUnique(mark=line.name, uuids=marked)
    return marked[0] if marked else None


def _vm_exists(pool: PoolClient, vm: VmUuid) -> bool:
    try:
        pool.vm(vm)
    except VmUnknown:
        return False
    return True
