"""The things that a restore makes on a pool: disks and their content, the VM, its drives and cards.

Invariant: each thing has a ledger line and carries that line's mark, drawn for it alone, from the moment it exists.
Until the VM is handed over, whatever fails leaves nothing that the ledger does not lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import Clock, Entropy, HoldfastError, Retry, limits, repeat_patiently
from holdfast.model import (
    RUN_TAG,
    DiskUuid,
    Finding,
    JsonObject,
    NetworkUuid,
    OwnedKind,
    Severity,
    SrUuid,
    VmUuid,
    nic_facts,
)
from holdfast.repository import PointDisk, Repository, RestorePoint
from holdfast.restore.description import DescriptionUnusable, adapt_description
from holdfast.restore.order import Order, RestoredDisk
from holdfast.restore.record import saved_drives
from holdfast.runs import Ledger, LedgerId, LedgerLine, StepContext
from holdfast.xapi import (
    MetadataImportFailed,
    PoolClient,
    PoolConnectionLost,
    PoolFailure,
    PoolUnreachable,
    TaskVanished,
    UploadIncomplete,
)

__all__ = ["LineRemover", "Making", "make_disk", "make_vm"]

LineRemover = Callable[[PoolClient, Ledger, LedgerLine], bool]
"""Removes from the pool what a ledger line stands for and closes the line; see ``holdfast.upkeep.remove_line``."""

_POOL_TROUBLE = (PoolConnectionLost, PoolFailure, PoolUnreachable, TaskVanished, UploadIncomplete)
_DESCRIPTION_TROUBLE = (DescriptionUnusable, MetadataImportFailed, PoolFailure)
_TOKEN_BYTES = 3
_NOT_COPIED = ("content_id",)
"""Keys of a disk's other_config that describe the content it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What making needs."""

    context: StepContext
    pool: PoolClient
    repository: Repository
    point: RestorePoint
    order: Order
    ledger: Ledger
    remove_line: LineRemover
    clock: Clock
    entropy: Entropy

    def intend(self, kind: OwnedKind, what: str, details: JsonObject) -> tuple[LedgerId, str]:
        """Write down what is about to be made; return the line and the mark that the thing carries."""
        mark = f"{self.context.run_id} {what} {self.entropy.token_bytes(_TOKEN_BYTES).hex()}"
        line = self.ledger.intend(
            run=self.context.run_id,
            kind=kind.value,
            pool=self.pool.pool,
            name=mark,
            details={"point": self.point.id, "for": what, **details},
        )
        return line, mark

    def remove_earlier(self, what: str) -> None:
        """Remove what an interrupted attempt at the same thing left."""
        for line in self.ledger.open_lines(run=self.context.run_id):
            if line.details.get("for") == what:
                self.remove_line(self.pool, self.ledger, line)


def make_disk(making: Making, disk: PointDisk) -> RestoredDisk:
    """Return the disk, made and filled. Safe to run twice. Trouble of the pool that may pass is waited for."""
    return repeat_patiently(
        lambda: _make_disk(making, disk),
        may_pass=lambda error: isinstance(error, _POOL_TROUBLE) and error.retry is not Retry.NEVER,
        attempts_max=limits.TRANSFER_ATTEMPTS_MAX,
        wait_s=limits.TRANSFER_WAIT_S,
        tell=lambda told: making.context.progress.note(f"disk {disk.facts.position}: {told}"),
        clock=making.clock,
        cancel=making.context.cancel,
    )


def _make_disk(making: Making, disk: PointDisk) -> RestoredDisk:
    facts, pool, cancel = disk.facts, making.pool, making.context.cancel
    what = f"disk {facts.position}"
    making.remove_earlier(what)
    line, mark = making.intend(OwnedKind.DISK, what, {"vm_name": making.order.name})
    made = pool.create_disk(
        SrUuid(making.order.srs[facts.position]),
        size_bytes=facts.size_bytes,
        name=facts.name,
        description=str(facts.vdi_record.get("name_description", "")),
        other_config={**_kept_config(facts.vdi_record), RUN_TAG: mark},
        labels=_texts(facts.vdi_record.get("tags")),
    )
    making.ledger.made(line, external_id=made)
    source = making.repository.source(disk.stored, cancel=cancel)
    label = f"{making.order.name} {what}"
    pool.write_disk(made, source, label=label, progress=making.context.progress, cancel=cancel)
    return RestoredDisk(
        position=facts.position,
        name=facts.name,
        original=facts.uuid,
        disk=made,
        size_bytes=facts.size_bytes,
        data_bytes=making.order.data_bytes[facts.position],
    )


def _kept_config(vdi_record: JsonObject) -> dict[str, str]:
    found = vdi_record.get("other_config")
    kept = found.items() if isinstance(found, dict) else ()
    return {key: str(value) for key, value in kept if not key.startswith("holdfast:") and key not in _NOT_COPIED}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def make_vm(making: Making, disks: dict[str, RestoredDisk]) -> VmUuid:
    """Return the VM with its disks, drives and cards. Safe to run twice: what an earlier attempt left is removed.

    Trouble of the pool that may pass is waited for: the disks are whole by now, and giving up would cost them too.
    """
    return repeat_patiently(
        lambda: _make_vm(making, disks),
        may_pass=lambda error: isinstance(error, _POOL_TROUBLE) and error.retry is not Retry.NEVER,
        attempts_max=limits.MAKING_ATTEMPTS_MAX,
        wait_s=limits.MAKING_WAIT_S,
        tell=lambda told: making.context.note(f"{making.order.name}: {told}"),
        clock=making.clock,
        cancel=making.context.cancel,
    )


def _make_vm(making: Making, disks: dict[str, RestoredDisk]) -> VmUuid:
    making.remove_earlier("vm")
    vm = _from_description(making, disks) if making.order.from_description else None
    if vm is None:
        vm = _from_record(making, disks)
    saved = {each.position: each.record for each in nic_facts(making.point.facts.vm_record)}
    for card in making.order.cards:
        making.pool.create_vif(
            vm, NetworkUuid(card.network), position=card.position, mac=card.mac, record=saved.get(card.position, {})
        )
    return vm


def _from_record(making: Making, disks: dict[str, RestoredDisk]) -> VmUuid:
    pool, record = making.pool, making.order.record
    line, mark = making.intend(OwnedKind.VM, "vm", {"vm_name": making.order.name})
    vm = pool.create_vm({**record, "other_config": {**_config_of(record), RUN_TAG: mark}})
    making.ledger.made(line, external_id=vm)
    for disk in making.point.disks:
        pool.create_vbd(
            vm,
            DiskUuid(disks[disk.facts.position].disk),
            position=disk.facts.position,
            bootable=disk.facts.bootable,
            read_only=disk.facts.vbd_record.get("mode") == "RO",
            record=disk.facts.vbd_record,
        )
    for drive in saved_drives(making.point.facts.vm_record):
        pool.create_drive(vm, position=drive.position, record=drive.record)
    return vm


def _from_description(making: Making, disks: dict[str, RestoredDisk]) -> VmUuid | None:
    """Return the VM made from the pool's own description, or None, with the reason told, when that does not work."""
    line, mark = making.intend(OwnedKind.VM, "vm", {"vm_name": making.order.name})
    other_config = {**_config_of(making.order.record), RUN_TAG: mark}
    try:
        adapted = adapt_description(making.point.facts.vm_metadata, name=making.order.name, other_config=other_config)
        disk_map = {DiskUuid(each.original): DiskUuid(each.disk) for each in disks.values()}
        vm = making.pool.import_metadata(adapted, disk_map=disk_map, restore=False)
        making.ledger.made(line, external_id=vm)
        _check_made(making, vm, disks)
    except _DESCRIPTION_TROUBLE as trouble:
        making.context.cancel.check()
        making.remove_line(making.pool, making.ledger, making.ledger.get(line))
        _tell(making, f"the virtual TPM is not restored, the VM is made from its saved record: {trouble}", trouble)
        return None
    if not making.pool.vm(vm).record.get("VTPMs"):
        _tell(making, "the pool did not take over the virtual TPM from its own description", None)
    return vm


def _check_made(making: Making, vm: VmUuid, disks: dict[str, RestoredDisk]) -> None:
    """Refuse a VM that has other disks than those made for it: one that is not ours may be another VM's."""
    attached = {each.position: each.disk.uuid for each in making.pool.vm(vm).disks}
    if attached != {position: each.disk for position, each in disks.items()}:
        raise DescriptionUnusable(why="it names other disks than the restore point has")


def _config_of(record: JsonObject) -> dict[str, str]:
    found = record.get("other_config")
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _tell(making: Making, message: str, error: HoldfastError | None) -> None:
    next_step = error.next_step() if error else DescriptionUnusable.advice
    making.context.finding(
        Finding(severity=Severity.WARNING, subject=making.order.name, message=message, next_step=next_step)
    )
