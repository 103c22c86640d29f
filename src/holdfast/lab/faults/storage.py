"""Faults of storage: drivers that refuse, repositories that are gone, disks that stay in use."""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind, FaultManner

__all__ = ["STORAGE_FAULTS", "STORAGE_OPERATIONS"]

STORAGE_OPERATIONS = ("attach", "create", "snapshot", "clone", "resize", "destroy", "scan")
"""What a storage driver can be asked for where faults are looked for."""

STORAGE_FAULTS = (
    FaultKind(
        "storage-fails",
        "The storage driver refuses an operation, or whatever it is asked, with this code.",
        {"operation": "", "sr": "", "code": "SR_BACKEND_FAILURE_202", "text": "General backend error"},
        choices={"operation": ("", *STORAGE_OPERATIONS)},
    ),
    FaultKind(
        "storage-full",
        "Creating, snapshotting, cloning or growing a disk finds no space: SR_BACKEND_FAILURE_44.",
        {"sr": ""},
    ),
    FaultKind(
        "storage-unreachable",
        "The SR is gone: whatever its driver is asked fails with SR_BACKEND_FAILURE_47, and so do reads and writes.",
        {"sr": ""},
        FaultManner.LASTS,
    ),
    FaultKind(
        "storage-detached",
        "The SR is unplugged from every host: SR_HAS_NO_PBDS and its kin.",
        {"sr": ""},
        FaultManner.LASTS,
    ),
    FaultKind(
        "disk-unavailable",
        "A disk cannot be attached, snapshotted or removed while its chain is merged: SR_BACKEND_FAILURE_46.",
        {"disk": ""},
    ),
    FaultKind("chain-too-long", "A snapshot or clone is refused, the chain is too long: SR_BACKEND_FAILURE_109."),
    FaultKind(
        "coalesce-busy",
        "The SR's garbage collector gets nothing done, so chains grow.",
        {"sr": ""},
        FaultManner.LASTS,
    ),
    FaultKind(
        "snapshot-fails",
        "Snapshotting the n-th disk of a VM fails (0 is the first); the snapshots before it are removed again.",
        {"disk": 0, "code": "SR_BACKEND_FAILURE_44", "text": "There is insufficient space"},
    ),
    FaultKind(
        "disk-stays-in-use",
        "After an NBD connection or an export ends, the disk stays attached to the control domain for so long.",
        {"seconds": 5.0},
    ),
    FaultKind("vbd-leaks", "After an NBD connection or an export ends, the control domain's VBD is never removed."),
)
