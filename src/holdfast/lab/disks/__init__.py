"""The lab pool's disks: copy-on-write trees as VHD has them, change tracking, space, and the proof of content."""

from holdfast.lab.disks.errors import (
    CbtLogMissing,
    CbtUnrelated,
    DiskBusy,
    DiskChainTooLong,
    DiskExists,
    DiskFull,
    DiskHasNoData,
    DiskOffline,
    DiskRangeInvalid,
    DiskReadOnly,
    DisksDamaged,
    DiskSizeInvalid,
    DiskStoreDamaged,
    DiskStoreFull,
    DiskStoreInUse,
    DiskStoreOutdated,
    DiskUnknown,
)
from holdfast.lab.disks.layer import VHD_BLOCK_BYTES
from holdfast.lab.disks.store import DiskStore
from holdfast.lab.disks.tree import CHAIN_DEPTH_MAX, SnapshotMade

__all__ = [
    "CHAIN_DEPTH_MAX",
    "VHD_BLOCK_BYTES",
    "CbtLogMissing",
    "CbtUnrelated",
    "DiskBusy",
    "DiskChainTooLong",
    "DiskExists",
    "DiskFull",
    "DiskHasNoData",
    "DiskOffline",
    "DiskRangeInvalid",
    "DiskReadOnly",
    "DiskSizeInvalid",
    "DiskStore",
    "DiskStoreDamaged",
    "DiskStoreFull",
    "DiskStoreInUse",
    "DiskStoreOutdated",
    "DiskUnknown",
    "DisksDamaged",
    "SnapshotMade",
]
