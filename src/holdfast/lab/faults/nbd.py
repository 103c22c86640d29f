"""Faults of reading disks over NBD."""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind, FaultManner

__all__ = ["NBD_FAULTS"]

NBD_FAULTS = (
    FaultKind("nbd-info-empty", "get_nbd_info returns an empty list."),
    FaultKind("nbd-unreachable", "get_nbd_info names a port where nobody listens."),
    FaultKind(
        "nbd-certificate-wrong", "get_nbd_info gives another certificate than the one that the NBD server then shows."
    ),
    FaultKind(
        "nbd-subject-wrong",
        "get_nbd_info gives a host name that is not in the certificate.",
        {"subject": "other-host"},
    ),
    FaultKind("nbd-busy", "The NBD server closes a new connection at once, as with all 16 taken."),
    FaultKind("nbd-disconnects", "An NBD connection ends after so many bytes of data.", {"after_bytes": 1 << 20}),
    FaultKind(
        "nbd-stalls",
        "An NBD connection pauses after so many bytes of data.",
        {"after_bytes": 1 << 20, "seconds": 5.0},
    ),
    FaultKind(
        "nbd-slow", "NBD gives no more than so many bytes a second.", {"bytes_per_s": 1 << 20}, FaultManner.LASTS
    ),
)
