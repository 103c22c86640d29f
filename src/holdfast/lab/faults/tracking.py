"""Faults of changed block tracking."""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind

__all__ = ["TRACKING_FAULTS"]

TRACKING_FAULTS = (
    FaultKind(
        "cbt-lost",
        "At the next snapshot of the disk its tracking is found inconsistent: cbt_enabled is false, a message tells.",
        {"disk": ""},
    ),
    FaultKind(
        "cbt-cannot-start",
        "Switching change tracking on fails in the storage driver: SR_BACKEND_FAILURE_457.",
        {"disk": ""},
    ),
    FaultKind(
        "cbt-metadata-missing",
        "data_destroy or list_changed_blocks finds no change log: VDI_NO_CBT_METADATA.",
        {"disk": ""},
    ),
    FaultKind(
        "changed-blocks-fail",
        "list_changed_blocks fails in the storage driver.",
        {"code": "SR_BACKEND_FAILURE_460", "text": "Failed to calculate changed blocks for given VDIs."},
    ),
)
