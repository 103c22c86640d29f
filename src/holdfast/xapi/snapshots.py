"""Snapshots on the pool: taken, found again after a crash, and removed with patience.

Invariant: removing is safe twice, and never touches a disk that is not a snapshot's own.
"""

from __future__ import annotations

from holdfast.core import HoldfastError, get_log
from holdfast.model import DiskUuid, JsonObject, VmUuid
from holdfast.xapi.attachments import release_disk
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import (
    CannotSnapshot,
    CbtImpossible,
    DiskInUse,
    LicenceRefused,
    ObjectGone,
    OperationBlocked,
)
from holdfast.xapi.errors import PoolAnswerInvalid
from holdfast.xapi.records import NULL_REF, as_text, flag, moment, refs, sr_from, text
from holdfast.xapi.retry import REMOVAL_RULES
from holdfast.xapi.tasks import call_async
from holdfast.xapi.values import CbtState, VmSnapshot

__all__ = [
    "data_destroy",
    "destroy_disk",
    "destroy_snapshot",
    "enable_cbt",
    "find_snapshots",
    "snapshot_vm",
]

_log = get_log(__name__)

_CBT_KINDS = frozenset({"user", "system"})


def enable_cbt(calls: Calls, disk: DiskUuid) -> CbtState:
    """Switch change tracking on where storage, licence and disk allow it."""
    ref = calls.ref("VDI", disk)
    record = calls.record("VDI", ref)
    if flag(record, "cbt_enabled", False):
        return CbtState(enabled=True, switched_on=False, reason="the disk tracks its changes already")
    refusal = _why_no_cbt(calls, record)
    if refusal:
        return CbtState(enabled=False, switched_on=False, reason=refusal)
    try:
        call_async(calls, "VDI.enable_cbt", ref)
    except (CannotSnapshot, CbtImpossible, LicenceRefused, OperationBlocked) as failure:
        reason = f"changed block tracking could not be switched on: {failure.what} [{failure.xapi_code}]"
        return CbtState(enabled=False, switched_on=False, reason=reason)
    return CbtState(enabled=True, switched_on=True, reason="the disk tracks its changes from this moment on")


def _why_no_cbt(calls: Calls, disk: JsonObject) -> str:
    """Return why it would be refused, where that can be known beforehand; an empty text otherwise."""
    if text(disk, "type") not in _CBT_KINDS:
        return f"disks of type {text(disk, 'type')} do not track changes"
    if text(disk, "on_boot", "persist") == "reset":
        return "the disk is reset at every boot, so it does not track changes"
    sr = sr_from(calls.record("SR", text(disk, "SR")))
    return "" if sr.supports_cbt else f"the SR {sr.name!r} ({sr.kind}) does not support changed block tracking"


def snapshot_vm(calls: Calls, vm: VmUuid, *, name_label: str) -> VmSnapshot:
    """Take a snapshot of all disks of a VM, one after the other as XAPI does; none is left when one fails."""
    ref = calls.ref("VM", vm)
    snapshot = as_text(call_async(calls, "VM.snapshot", ref, name_label), what="VM.snapshot")
    return _describe(calls, snapshot, of=vm)


def find_snapshots(calls: Calls, vm: VmUuid, *, name_label: str) -> list[VmSnapshot]:
    """Return the VM's snapshots of that name, oldest first; of a VM that is gone, every snapshot of that name."""
    vm_ref = calls.try_ref("VM", vm)
    named = calls.call("VM.get_by_name_label", name_label)
    found: list[VmSnapshot] = []
    for ref in named if isinstance(named, list) else []:
        record = calls.try_record("VM", str(ref))
        if record is None or not flag(record, "is_a_snapshot"):
            continue
        if vm_ref is None or text(record, "snapshot_of", NULL_REF) == vm_ref:
            found.append(_describe(calls, str(ref), of=vm))
    return sorted(found, key=lambda each: each.taken_at)


def _describe(calls: Calls, ref: str, *, of: VmUuid) -> VmSnapshot:
    record = calls.record("VM", ref)
    disks: dict[DiskUuid, DiskUuid] = {}
    warnings: list[str] = []
    for disk in _disks_of(calls, record):
        origin = calls.try_record("VDI", text(disk, "snapshot_of", NULL_REF))
        if origin is None:
            # The live disk was destroyed or replaced by a revert in between; nobody can ask for it any more.
            warnings.append(f"The snapshot disk {text(disk, 'uuid')} belongs to no disk of the VM any more.")
            continue
        disks[DiskUuid(text(origin, "uuid"))] = DiskUuid(text(disk, "uuid"))
        if flag(origin, "cbt_enabled", False) and not flag(disk, "cbt_enabled", False):
            warnings.append(f"Change tracking of disk {text(origin, 'uuid')} was lost with this snapshot.")
    if refs(record, "VTPMs"):
        warnings.append("The VM has a TPM; its contents are only in the pool's own metadata, kept with the point.")
    return VmSnapshot(
        vm=VmUuid(text(record, "uuid")),
        of=of,
        name=text(record, "name_label"),
        taken_at=moment(record, "snapshot_time"),
        disks=disks,
        record=record,
        warnings=tuple(warnings),
    )


def _disks_of(calls: Calls, vm: JsonObject) -> list[JsonObject]:
    """Return the records of the disks of a VM, CD drives left out."""
    disks: list[JsonObject] = []
    for vbd_ref in refs(vm, "VBDs"):
        vbd = calls.try_record("VBD", vbd_ref)
        if vbd is not None and text(vbd, "type") == "Disk":
            disk = calls.try_record("VDI", text(vbd, "VDI", NULL_REF))
            disks += [disk] if disk is not None else []
    return disks


def destroy_snapshot(calls: Calls, snapshot: VmUuid, *, keep_disks: bool) -> None:
    """Remove a snapshot VM, then its disks unless they are kept.

    The disks go after the VM: XAPI refuses to destroy one that a VM still refers to, and a crash in between leaves
    tagged disks that the sweep finds.
    """
    ref = calls.try_ref("VM", snapshot)
    if ref is None:
        return
    record = calls.try_record("VM", ref)
    if record is None:
        return
    if not flag(record, "is_a_snapshot"):
        raise PoolAnswerInvalid(
            address=calls.session.address.url,
            operation="VM.destroy",
            why=f"VM {snapshot} is not a snapshot; it is left alone",
        )
    disks = [] if keep_disks else [DiskUuid(text(each, "uuid")) for each in _disks_of(calls, record)]
    _removed(calls, "VM.destroy", ref)
    for disk in disks:
        destroy_disk(calls, disk)


def destroy_disk(calls: Calls, disk: DiskUuid) -> None:
    """Remove a disk; one that is gone already is fine, one that is busy is waited for."""
    ref = calls.try_ref("VDI", disk)
    if ref is not None:
        _removed(calls, "VDI.destroy", ref, disk_ref=ref)


def data_destroy(calls: Calls, disk: DiskUuid) -> None:
    """Remove a snapshot disk's data and keep its change metadata; done already is fine."""
    ref = calls.try_ref("VDI", disk)
    if ref is not None:
        _removed(calls, "VDI.data_destroy", ref, disk_ref=ref)


def _removed(calls: Calls, method: str, ref: str, *, disk_ref: str | None = None) -> None:
    def before_wait(failure: HoldfastError) -> None:
        if disk_ref is not None and isinstance(failure, DiskInUse):
            release_disk(calls, disk_ref)

    def attempt() -> None:
        try:
            call_async(calls, method, ref, rules=())
        except ObjectGone as gone:
            if ref not in gone.xapi_text:
                raise

    calls.patiently(attempt, rules=REMOVAL_RULES, before_wait=before_wait)
