"""The storage drivers a pool knows: what each can do, how it keeps a disk's bytes and how it counts their space.

Invariant: what a driver says it can do is what its repositories offer; the rules read it nowhere else than in the
``SM`` records that are made from this table.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.core import GIB
from holdfast.lab.database import Database

__all__ = ["DRIVERS", "QCOW2_DISK_BYTES_MAX", "Driver", "ImageKind", "add_drivers", "driver_of"]

QCOW2_DISK_BYTES_MAX = 16_381 * GIB
"""XCP-ng 8.3 since May 2026; the rest up to 16 TiB is the file's own."""


class ImageKind(enum.Enum):
    """How a driver keeps disks."""

    TREE = "vhd"
    """Trees of copy-on-write images with hidden base copies."""
    PLAIN = "raw"
    """One image per disk: a snapshot is a copy that owes nothing to anyone."""
    MEDIA = "iso"
    """Files that somebody put there, each a read-only disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One storage driver."""

    name: str
    label: str
    kind: ImageKind
    features: tuple[str, ...]
    is_thick: bool = False
    """Whether a writable disk takes its full size at once."""
    formats: tuple[str, ...] = ()
    """What it may keep disks as, its preferred one first."""
    required: tuple[tuple[str, str], ...] = ()
    """Keys that ``device_config`` must have, each with the code of its absence."""


_LIFE = ("SR_PROBE", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE")
_COPIES = ("SR_UPDATE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_MIRROR", "VDI_CONFIG_CBT", "ATOMIC_PAUSE")
_TREE = (*_LIFE, *_COPIES, "VDI_UPDATE", "VDI_RESET_ON_BOOT")
_FILES = (*_TREE, "VDI_GENERATE_CONFIG", "THIN_PROVISIONING", "VDI_READ_CACHING")
_BLOCKS = (*_TREE, "SR_TRIM")
_SHARED_BLOCKS = (*_BLOCKS, "VDI_GENERATE_CONFIG", "SR_METADATA", "SR_CACHING")
_TREES = ("vhd", "qcow2")
_DEVICE = (("device", "90"),)
_SERVER = (("server", "102"), ("serverpath", "101"))
_TARGET = (("target", "95"), ("targetIQN", "96"), ("SCSIid", "107"))

_ALL = (
    Driver(name="ext", label="Local EXT4", kind=ImageKind.TREE, features=_FILES, formats=_TREES, required=_DEVICE),
    Driver(name="xfs", label="Local XFS", kind=ImageKind.TREE, features=_FILES, formats=_TREES, required=_DEVICE),
    Driver(name="nfs", label="NFS", kind=ImageKind.TREE, features=_FILES, formats=_TREES, required=_SERVER),
    Driver(name="smb", label="SMB", kind=ImageKind.TREE, features=_FILES, formats=("vhd",), required=_SERVER[:1]),
    Driver(
        name="lvm",
        label="Local LVM",
        kind=ImageKind.TREE,
        features=_BLOCKS,
        is_thick=True,
        formats=_TREES,
        required=_DEVICE,
    ),
    Driver(
        name="lvmoiscsi",
        label="LVM over iSCSI",
        kind=ImageKind.TREE,
        features=_SHARED_BLOCKS,
        is_thick=True,
        formats=_TREES,
        required=_TARGET,
    ),
    Driver(
        name="lvmohba",
        label="LVM over FC",
        kind=ImageKind.TREE,
        features=_SHARED_BLOCKS,
        is_thick=True,
        formats=_TREES,
        required=_TARGET[2:],
    ),
    Driver(
        name="iso",
        label="ISO",
        kind=ImageKind.MEDIA,
        features=("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "SR_SCAN", "SR_ATTACH", "SR_DETACH"),
        required=(("location", "220"),),
    ),
    Driver(
        name="udev",
        label="Physical devices",
        kind=ImageKind.MEDIA,
        features=("VDI_INTRODUCE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE", "SR_UPDATE"),
        required=(("location", "94"),),
    ),
    Driver(
        name="file",
        label="Plain files",
        kind=ImageKind.PLAIN,
        features=(*_LIFE, *_COPIES, "VDI_UPDATE", "VDI_GENERATE_CONFIG", "VDI_RESIZE_ONLINE", "THIN_PROVISIONING"),
        formats=("raw",),
    ),
    Driver(
        name="dummy",
        label="Nothing",
        kind=ImageKind.PLAIN,
        features=(*_LIFE, *_COPIES[1:5], "VDI_INTRODUCE"),
        formats=("raw",),
    ),
)

DRIVERS: dict[str, Driver] = {driver.name: driver for driver in _ALL}
"""Every driver by the type that a repository names it with."""


def driver_of(sr_type: str) -> Driver:
    """Return the driver of a repository of that type; for a type that nobody knows, one that can do nothing."""
    found = DRIVERS.get(sr_type)
    return found or Driver(name=sr_type, label=sr_type, kind=ImageKind.TREE, features=())


def add_drivers(db: Database, names: Iterable[str]) -> None:
    """Let the pool know these drivers."""
    for driver in map(DRIVERS.__getitem__, names):
        db.create(
            "SM",
            {
                "name_label": driver.label,
                "name_description": f"Storage driver {driver.name} of the lab",
                "type": driver.name,
                "vendor": "lab",
                "version": "3.0",
                "required_api_version": "1.0",
                "configuration": {key: "(required)" for key, _ in driver.required},
                "features": {name: 2 if name == "VDI_RESET_ON_BOOT" else 1 for name in driver.features},
                "capabilities": list(driver.features),
                "driver_filename": f"/opt/xensource/sm/{driver.name}SR",
                "supported_image_formats": list(driver.formats),
            },
        )
