"""Every fault there is, by area and by name."""

from __future__ import annotations

from holdfast.lab.faults.calls import CALL_FAULTS
from holdfast.lab.faults.hosts import HOST_FAULTS
from holdfast.lab.faults.kind import FaultKind
from holdfast.lab.faults.nbd import NBD_FAULTS
from holdfast.lab.faults.storage import STORAGE_FAULTS
from holdfast.lab.faults.tracking import TRACKING_FAULTS
from holdfast.lab.faults.transfers import TRANSFER_FAULTS

__all__ = ["FAULT_AREAS", "FAULT_KINDS"]

FAULT_AREAS: dict[str, tuple[FaultKind, ...]] = {
    "Logins, calls and tasks": CALL_FAULTS,
    "Hosts": HOST_FAULTS,
    "Storage": STORAGE_FAULTS,
    "Changed block tracking": TRACKING_FAULTS,
    "NBD": NBD_FAULTS,
    "Exports and imports": TRANSFER_FAULTS,
}
"""The kinds as a person looks for them."""

FAULT_KINDS: dict[str, FaultKind] = {kind.name: kind for kinds in FAULT_AREAS.values() for kind in kinds}
