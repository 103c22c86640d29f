"""``small``: three servers with a file system each, ext4, XFS and NTFS; enough to learn on, quick to start."""

from __future__ import annotations

from holdfast.core import GIB
from holdfast.lab.scenarios.machines import MachineSpec
from holdfast.lab.scenarios.systems import DEBIAN, ROCKY, SERVER_2022
from holdfast.lab.scenarios.world import World

__all__ = ["build_small"]


def build_small(world: World) -> None:
    """Make the three."""
    world.add(
        MachineSpec(
            name="web01",
            description="Public web site",
            tags=("production", "web"),
            system=DEBIAN,
            memory_bytes=2 * GIB,
            disks=(world.system_disk("web01", DEBIAN),),
            snapshots=("before the upgrade",),
        )
    )
    world.add(
        MachineSpec(
            name="db01",
            description="Database of the web site",
            tags=("production", "database"),
            system=ROCKY,
            has_uefi=True,
            memory_bytes=4 * GIB,
            disks=(
                world.system_disk("db01", ROCKY, has_uefi=True),
                world.raw_disk("db01 data", size_bytes=4 * GIB, description="Used without a file system"),
            ),
        )
    )
    world.add(
        MachineSpec(
            name="files01",
            description="File server of the office",
            tags=("production", "files"),
            system=SERVER_2022,
            has_uefi=True,
            memory_bytes=4 * GIB,
            disks=(
                world.system_disk("files01", SERVER_2022, has_uefi=True),
                world.data_disk("files01 shares", "ntfs-data", size_bytes=8 * GIB, description="Shared folders"),
            ),
        )
    )
