"""What an armed fault makes of work in a storage driver: a refusal with the driver's code, or a lost change log.

Each of these is asked for at the place where the real driver fails, before anything was changed.
"""

from __future__ import annotations

from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.tracking import stop_tracking

__all__ = ["lose_tracking", "meet_disk_fault", "meet_sr_fault"]

_NEEDS_SPACE = frozenset({"create", "snapshot", "clone", "resize"})
_NEEDS_DISK = frozenset({"attach", "snapshot", "clone", "resize", "destroy"})
_GROWS_CHAIN = frozenset({"snapshot", "clone"})


def meet_sr_fault(pool: PoolCore, sr: str, operation: str) -> None:
    """Return when the SR's driver does the operation; raise its refusal when a fault says so."""
    fields = pool.db.row("SR", sr).fields
    names = (sr, str(fields["uuid"]), str(fields["name_label"]))
    faults = pool.faults
    fault = faults.take("storage-fails", operation=operation, sr=names)
    if fault is not None:
        raise _refusal(fault.text("code"), fault.text("text"))
    if faults.take("storage-unreachable", sr=names):
        raise _refusal("SR_BACKEND_FAILURE_47", "The SR is not available")
    if operation in _NEEDS_SPACE and faults.take("storage-full", sr=names):
        raise _refusal("SR_BACKEND_FAILURE_44", "There is insufficient space")


def meet_disk_fault(pool: PoolCore, vdi: str, operation: str) -> None:
    """Return when the driver does the operation on the disk; raise its refusal when a fault says so."""
    fields = pool.db.row("VDI", vdi).fields
    names = _names_of_disk(pool, vdi)
    meet_sr_fault(pool, str(fields["SR"]), operation)
    if operation in _NEEDS_DISK and pool.faults.take("disk-unavailable", disk=names):
        raise _refusal("SR_BACKEND_FAILURE_46", "The VDI is not available [opterr=VDI is being coalesced]")
    if operation in _GROWS_CHAIN and pool.faults.take("chain-too-long"):
        raise _refusal("SR_BACKEND_FAILURE_109", "The snapshot chain is too long")
    if operation == "enable_cbt" and pool.faults.take("cbt-cannot-start", disk=names):
        raise _refusal("SR_BACKEND_FAILURE_457", "Unable to activate changed block tracking.")
    if operation in ("data_destroy", "list_changed_blocks") and pool.faults.take("cbt-metadata-missing", disk=names):
        raise ApiFailure("VDI_NO_CBT_METADATA", vdi)


def _names_of_disk(pool: PoolCore, vdi: str) -> tuple[str, ...]:
    fields = pool.db.row("VDI", vdi).fields
    return vdi, str(fields["uuid"]), str(fields["name_label"])


def _refusal(code: str, text: str) -> ApiFailure:
    return ApiFailure(code, "", text, "")


def lose_tracking(pool: PoolCore, vdi: str) -> None:
    """Let an armed fault find the disk's change log inconsistent, as the first use after a crash of the host does."""
    db = pool.db
    if db.flag("VDI", vdi, "cbt_enabled") and pool.faults.take("cbt-lost", disk=_names_of_disk(pool, vdi)):
        stop_tracking(pool, vdi, "VDI_CBT_METADATA_INCONSISTENT")
