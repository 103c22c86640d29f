"""Every fault there is, by area and by name."""

from __future__ import annotations

from holdfast.lab.faults.calls import CALL_FAULTS
from holdfast.lab.faults.hosts import HOST_FAULTS
from holdfast.lab.faults.kind import FaultKind
from holdfast.lab.faults.nbd import NBD_FAULTS
from holdfast.lab.faults.storage import STORAGE_FAULTS
from holdfast.lab.faults.tracking import TRACKING_FAULTS
from holdfast.lab.faults.transfers import TRANSFER_FAULTS
from holdfast.model import JsonObject

__all__ = ["FAULT_AREAS", "FAULT_KINDS", "fault_kinds"]

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


def fault_kinds() -> list[JsonObject]:
    """Return every fault there is, with its parameters and their defaults, as JSON knows it."""
    return [
        {
            "name": kind.name,
            "area": area,
            "summary": kind.summary,
            "manner": kind.manner.value,
            "parameters": dict(kind.parameters),
        }
        for area, kinds in FAULT_AREAS.items()
        for kind in kinds
    ]
