"""What XAPI's errors mean for a backup: one class per cause, found by the code that XAPI answers.

Invariant: a code belongs to one class; a code that no class claims becomes a plain ``PoolFailure`` with its raw text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.core import ExitStatus, Retry
from holdfast.xapi.errors import PoolFailure

__all__ = [
    "AlreadyThere",
    "CancelledOnPool",
    "CannotSnapshot",
    "CbtImpossible",
    "ChainTooLong",
    "ChangesUnknown",
    "DiskInUse",
    "DiskIoError",
    "DiskMissing",
    "DiskTooLarge",
    "DiskUnavailable",
    "KeyTaken",
    "LicenceRefused",
    "ObjectBusy",
    "ObjectGone",
    "OperationBlocked",
    "PoolBusy",
    "PoolStarting",
    "PowerStateWrong",
    "RightsMissing",
    "SessionLost",
    "SnapshotFailed",
    "SrFull",
    "StorageOffline",
    "StorageReadOnly",
    "VmCannotBeHere",
    "VmHasUsb",
    "failure_from",
]


class SrFull(PoolFailure):
    """The SR has no room."""

    code = "pool.sr-full"
    xapi_codes = ("SR_BACKEND_FAILURE_44", "SR_FULL", "SR_BACKEND_FAILURE_180")
    what = "the storage repository has no space left"
    retry = Retry.LATER
    exit_status = ExitStatus.NO_SPACE
    effect = "The snapshot or disk was not made; existing restore points are untouched."
    advice = "Free space on the SR (on thick LVM a snapshot needs the disk's full size), or choose another SR."


class DiskInUse(PoolFailure):
    """A disk is attached somewhere, often still to the control domain after an export."""

    code = "pool.disk-in-use"
    xapi_codes = ("VDI_IN_USE", "SR_BACKEND_FAILURE_24")
    what = "the disk is still attached"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "The disk stays on the pool for now; existing restore points are untouched."
    advice = "Wait a minute and run again; the sweep removes what is ours once the pool lets go of it."


class DiskUnavailable(PoolFailure):
    """The SR is working on the disk, or the disk cannot be activated."""

    code = "pool.disk-unavailable"
    xapi_codes = ("SR_BACKEND_FAILURE_46", "VDI_NOT_AVAILABLE", "SR_BACKEND_FAILURE_65", "VDI_MISSING")
    what = "the storage cannot give access to the disk now"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    advice = "The SR is often merging snapshots at this moment; run again later, and look at SMlog if it stays so."


class SnapshotFailed(PoolFailure):
    """The SR could not take or clone a snapshot."""

    code = "pool.snapshot-failed"
    xapi_codes = ("SR_BACKEND_FAILURE_82", "SR_BACKEND_FAILURE_81")
    what = "the storage could not take the snapshot"
    retry = Retry.LATER
    effect = "No snapshot was kept, those of the VM's other disks were removed by the pool again."
    advice = "Usually the SR was merging snapshots; run again later, and look at SMlog if it stays so."


class ChainTooLong(PoolFailure):
    """The disk has as many layers as a VHD chain may have."""

    code = "pool.chain-too-long"
    xapi_codes = ("SR_BACKEND_FAILURE_109",)
    what = "the disk's snapshot chain is too long"
    retry = Retry.LATER
    effect = "No snapshot was taken; existing restore points are untouched."
    advice = (
        "The pool has not merged removed snapshots for long: rescan the SR (xe sr-scan), look in SMlog for what stops "
        "its garbage collection, and delete old snapshots of the VM; the chain is merged within minutes to hours."
    )


class StorageOffline(PoolFailure):
    """The SR is not connected."""

    code = "pool.storage-offline"
    xapi_codes = ("SR_HAS_NO_PBDS", "SR_BACKEND_FAILURE_47", "SR_NOT_ATTACHED", "NO_HOSTS_AVAILABLE")
    what = "the storage repository is not connected to a host that can serve it"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    advice = "Plug the SR's PBDs (xe pbd-plug) or bring its storage server back, then run again."


class CannotSnapshot(PoolFailure):
    """Storage or disk settings rule snapshots out."""

    code = "pool.cannot-snapshot"
    xapi_codes = (
        "SR_OPERATION_NOT_SUPPORTED",
        "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",
        "VDI_IS_SHARABLE",
        "SR_BACKEND_FAILURE_66",
        "SR_BACKEND_FAILURE_38",
    )
    what = "a disk or its SR does not support this operation"
    effect = "The VM was not backed up; existing restore points are untouched."
    advice = "Raw, shared, pass-through and reset-on-boot disks cannot be snapshotted; detach or exclude them."


class VmHasUsb(PoolFailure):
    """A USB device is passed through."""

    code = "pool.vm-has-usb"
    xapi_codes = ("VM_HAS_VUSBS",)
    what = "the VM has a USB device passed through"
    effect = "No snapshot was taken; existing restore points are untouched."
    advice = "Detach the USB device during backups; XAPI refuses snapshots while it is attached."


class LicenceRefused(PoolFailure):
    """The pool's edition forbids it."""

    code = "pool.licence-refused"
    xapi_codes = ("LICENCE_RESTRICTION", "FEATURE_RESTRICTED", "LICENSE_RESTRICTION")
    what = "the pool's licence does not include this"
    exit_status = ExitStatus.REFUSED
    advice = "License the feature on XenServer; for PCI_device_for_auto_update set has-vendor-device=false on the VM."


class RightsMissing(PoolFailure):
    """The user's role is too small."""

    code = "pool.rights-missing"
    xapi_codes = ("RBAC_PERMISSION_DENIED", "PERMISSION_DENIED")
    what = "the pool user has no right to do this"
    exit_status = ExitStatus.REFUSED
    advice = "Give the user the role vm-power-admin or above (xe subject-role-add)."


class OperationBlocked(PoolFailure):
    """An administrator has forbidden the operation on this VM."""

    code = "pool.operation-blocked"
    xapi_codes = ("OPERATION_BLOCKED", "OPERATION_NOT_ALLOWED")
    what = "the pool does not allow this operation on the object"
    exit_status = ExitStatus.REFUSED
    advice = "The raw answer names the reason; remove the block with xe vm-param-remove param-name=blocked-operations."


class ObjectBusy(PoolFailure):
    """Another operation is going on with the same object."""

    code = "pool.object-busy"
    xapi_codes = ("OTHER_OPERATION_IN_PROGRESS", "VDI_COPY_IN_PROGRESS", "SR_BACKEND_FAILURE_37")
    what = "another operation is going on with the same object"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    advice = "Wait until the other operation is over (the raw answer names its task), then run again."


class PoolBusy(PoolFailure):
    """The pool's queue of waiting operations is full."""

    code = "pool.busy"
    xapi_codes = ("TOO_MANY_PENDING_TASKS",)
    what = "too many operations wait in the pool already"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    advice = "Run fewer jobs at the same time, and look for a stuck storage operation in the pool's task list."


class PoolStarting(PoolFailure):
    """The pool's master is not ready."""

    code = "pool.starting"
    xapi_codes = (
        "HOST_STILL_BOOTING",
        "HOST_IN_EMERGENCY_MODE",
        "CANNOT_CONTACT_HOST",
        "HOST_OFFLINE",
        "HOST_IS_SLAVE",
    )
    what = "the pool's master or the host concerned is not ready"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    advice = "Wait until the pool's hosts are up, or bring a new master up with xe pool-emergency-transition-to-master."


class SessionLost(PoolFailure):
    """Our session ends again and again."""

    code = "pool.session-lost"
    xapi_codes = ("SESSION_INVALID",)
    what = "the pool ended our session, and each one that was opened instead"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    advice = (
        "Look for a program that logs out this user's sessions, or opens so many that the pool drops the oldest (500 "
        "for each user), and give Holdfast an account of its own; then run again."
    )


class ObjectGone(PoolFailure):
    """What we refer to no longer exists."""

    code = "pool.object-gone"
    xapi_codes = ("HANDLE_INVALID", "UUID_INVALID")
    what = "the object no longer exists on the pool"
    exit_status = ExitStatus.NOT_FOUND
    advice = "Somebody removed it meanwhile; run again, the pool is read anew."


class PowerStateWrong(PoolFailure):
    """The VM is running or halted where it must not be."""

    code = "pool.power-state"
    xapi_codes = ("VM_BAD_POWER_STATE",)
    what = "the VM is not in the power state this needs"
    exit_status = ExitStatus.BUSY
    advice = "The raw answer names the expected and the actual state; shut the VM down or start it."


class CbtImpossible(PoolFailure):
    """Changed block tracking does not work on this disk."""

    code = "pool.cbt-impossible"
    xapi_codes = ("SR_BACKEND_FAILURE_457", "SR_BACKEND_FAILURE_458", "VDI_INCOMPATIBLE_TYPE")
    what = "changed block tracking cannot be used on this disk"
    effect = "The disk is backed up without change tracking, which reads more; no data is at risk."
    advice = "Check free space on the SR and SMlog; disabling and enabling CBT on the disk starts it afresh."


class ChangesUnknown(PoolFailure):
    """The pool cannot say what changed between two snapshots."""

    code = "pool.changes-unknown"
    xapi_codes = ("SR_BACKEND_FAILURE_460", "SR_BACKEND_FAILURE_459", "VDI_NO_CBT_METADATA")
    what = "the pool cannot tell what changed since the reference"
    effect = "The disk is read in another way, which costs time; no data is at risk."
    advice = "Nothing needs to be done: the next run has a fresh reference."


class DiskIoError(PoolFailure):
    """Reading or writing the disk failed, or the connection was cut."""

    code = "pool.disk-io-error"
    xapi_codes = ("VDI_IO_ERROR", "CLIENT_ERROR", "SR_BACKEND_FAILURE_200", "SR_BACKEND_FAILURE_453")
    what = "the pool could not read or write the disk"
    retry = Retry.LATER
    effect = "Nothing from this transfer is published; existing restore points are untouched."
    advice = "Run again; if it happens again, check the SR's health and SMlog on the host that served the disk."


class StorageReadOnly(PoolFailure):
    """The SR's file system has become read-only."""

    code = "pool.storage-read-only"
    xapi_codes = ("SR_BACKEND_FAILURE_461", "VDI_READONLY")
    what = "the storage cannot be written"
    advice = "The SR's file system was probably remounted read-only after an error; repair it before anything else."


class DiskTooLarge(PoolFailure):
    """The disk is larger than its SR or the VHD format can hold."""

    code = "pool.disk-too-large"
    xapi_codes = ("VDI_TOO_LARGE", "SR_BACKEND_FAILURE_79")
    what = "the disk's size is not supported by the storage"
    advice = "VHD disks end at 2040 GiB; use an SR that supports larger disks (qcow2 on XCP-ng 8.3)."


class AlreadyThere(PoolFailure):
    """What should be restored in place exists already."""

    code = "pool.already-there"
    xapi_codes = ("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", "DUPLICATE_MAC_SEED", "DUPLICATE_VM", "DEVICE_ALREADY_EXISTS")
    what = "the pool already has what was to be created"
    effect = "Nothing was replaced."
    advice = "Restore as a new VM, or remove the existing one first."


class DiskMissing(PoolFailure):
    """Metadata names a disk that the pool does not have."""

    code = "pool.disk-missing"
    xapi_codes = ("VDI_LOCATION_MISSING", "VDI_CONTENT_ID_MISSING", "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND")
    what = "the VM's description names a disk that the pool does not have"
    effect = "The VM was not created; uploaded disks are removed by the clean-up."
    advice = "Run the restore again with every disk mapped, or without the pool's own metadata."


class VmCannotBeHere(PoolFailure):
    """No host can run or start the VM."""

    code = "pool.vm-cannot-run"
    xapi_codes = ("VM_INCOMPATIBLE_WITH_THIS_HOST", "HOST_NOT_ENOUGH_FREE_MEMORY", "VM_REQUIRES_SR", "VM_HVM_REQUIRED")
    what = "no host can run the VM"
    effect = "The VM is restored but not started."
    advice = "The raw answer names what is missing: memory, CPU features, storage or virtualisation support."


class KeyTaken(PoolFailure):
    """Another client set the same key at the same moment."""

    code = "pool.key-taken"
    xapi_codes = ("MAP_DUPLICATE_KEY",)
    what = "another client changed the same setting at the same moment"
    retry = Retry.NOW
    advice = "Run again."


class CancelledOnPool(PoolFailure):
    """Somebody cancelled the task on the pool."""

    code = "pool.task-cancelled"
    xapi_codes = ("TASK_CANCELLED",)
    what = "the task was cancelled on the pool"
    retry = Retry.LATER
    advice = "Run again; if nobody cancelled it, look at the pool's task list and at xensource.log."


def _claimed() -> dict[str, type[PoolFailure]]:
    claims: dict[str, type[PoolFailure]] = {}
    for entry in PoolFailure.__subclasses__():
        for xapi_code in entry.xapi_codes:
            assert xapi_code not in claims, f"{xapi_code} is claimed twice"
            claims[xapi_code] = entry
    return claims


_BY_CODE = _claimed()


def failure_from(params: Sequence[str], *, operation: str) -> PoolFailure:
    """Return the error for an ``ErrorDescription``: code first, then its parameters."""
    params = _unwrapped(params)
    entry = _BY_CODE.get(params[0], PoolFailure) if params else PoolFailure
    return entry(operation=operation, params=params)


_INNER = re.compile(r"([A-Z][A-Z0-9_]+): \[ (.*) \]", re.DOTALL)


def _unwrapped(params: Sequence[str]) -> Sequence[str]:
    """Return what a transfer was really refused for: whatever fails before its handler begins, XAPI wraps as a matter
    of permissions, with the true failure printed behind."""
    if len(params) == 3 and params[0] == "RBAC_PERMISSION_DENIED" and params[1].startswith("http/"):
        found = _INNER.fullmatch(params[2])
        if found is not None:
            return [found[1], *(each for each in found[2].split("; ") if each)]
    return params
