"""What a pool answers when the lab's disks refuse: the storage driver's codes.

Invariant: no call fails with an error of our own class; a client reads what a pool would have told it.
"""

from __future__ import annotations

from holdfast.core import HoldfastError
from holdfast.lab.disks import (
    DiskBusy,
    DiskChainTooLong,
    DiskFull,
    DiskHasNoData,
    DiskSizeInvalid,
    DiskStoreFull,
    DiskUnknown,
)
from holdfast.lab.errors import ApiFailure

__all__ = ["DISK_REFUSALS", "disk_refusal"]

_TEXTS: dict[type[HoldfastError], tuple[str, str]] = {
    DiskBusy: ("46", "The VDI is not available"),
    DiskChainTooLong: ("109", "The snapshot chain is too long"),
    DiskFull: ("44", "There is insufficient space"),
    DiskHasNoData: ("46", "The VDI is not available"),
    DiskStoreFull: ("44", "There is insufficient space"),
    DiskSizeInvalid: ("79", "VDI Invalid size"),
    DiskUnknown: ("46", "The VDI is not available"),
}

DISK_REFUSALS: tuple[type[HoldfastError], ...] = tuple(_TEXTS)
"""What the disk store raises when it refuses."""


def disk_refusal(cause: HoldfastError) -> ApiFailure:
    """Return the refusal that a client reads for one of ``DISK_REFUSALS``."""
    number, text = _TEXTS[type(cause)]
    return ApiFailure(f"SR_BACKEND_FAILURE_{number}", "", text, "")
