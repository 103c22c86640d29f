"""What the lab's scenarios keep on their disks: the demonstration, and the small one for tests.

Invariant: a plan is a value; the same seed builds the same disks on the same machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core import GIB, KIB, MIB, Entropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.data_disk import fill_data_disk
from holdfast.lab.images.linux_disk import fill_linux_disk
from holdfast.lab.images.machine_disk import fill_prepared_disk
from holdfast.lab.images.spec import DataDiskSpec, DiskSpec, LinuxDiskSpec, PreparedDiskSpec
from holdfast.lab.images.tools import E2fsprogs

__all__ = ["SCENARIOS", "DiskPlan", "VmPlan", "fill_disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """A disk to be made."""

    name: str
    size_bytes: int
    content: DiskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPlan:
    """A VM and its disks, the first of which it boots from."""

    name: str
    disks: tuple[DiskPlan, ...]


_DEMO = (
    VmPlan(
        name="web",
        disks=(
            DiskPlan(
                name="web system",
                size_bytes=4 * GIB,
                content=LinuxDiskSpec(
                    hostname="web", files_bytes=700 * MIB, database_bytes=256 * MIB, log_bytes=8 * MIB
                ),
            ),
        ),
    ),
    VmPlan(
        name="db",
        disks=(
            DiskPlan(
                name="db system",
                size_bytes=2 * GIB,
                content=LinuxDiskSpec(hostname="db", files_bytes=200 * MIB, database_bytes=16 * MIB, log_bytes=4 * MIB),
            ),
            DiskPlan(
                name="db data",
                size_bytes=2 * GIB,
                content=DataDiskSpec(database_bytes=384 * MIB, media_bytes=96 * MIB, log_bytes=8 * MIB),
            ),
        ),
    ),
)

_TINY_LINUX = LinuxDiskSpec(files_bytes=3 * MIB, database_bytes=MIB, log_bytes=64 * KIB)

_TINY = (
    VmPlan(name="web", disks=(DiskPlan(name="web system", size_bytes=64 * MIB, content=_TINY_LINUX),)),
    VmPlan(
        name="db",
        disks=(
            DiskPlan(name="db system", size_bytes=64 * MIB, content=_TINY_LINUX),
            DiskPlan(
                name="db data",
                size_bytes=64 * MIB,
                content=DataDiskSpec(database_bytes=3 * MIB, media_bytes=3 * MIB, log_bytes=64 * KIB),
            ),
        ),
    ),
)

SCENARIOS: dict[str, tuple[VmPlan, ...]] = {"demo": _DEMO, "empty": (), "tiny": _TINY}


def fill_disk(
    store: DiskStore, uuid: str, content: DiskSpec, *, entropy: Entropy, tools: E2fsprogs | None = None
) -> None:
    """Put that content on a disk that was never written."""
    match content:
        case LinuxDiskSpec():
            fill_linux_disk(store, uuid, content, entropy=entropy, tools=tools)
        case DataDiskSpec():
            fill_data_disk(store, uuid, content, entropy=entropy)
        case PreparedDiskSpec():
            fill_prepared_disk(store, uuid, content, entropy=entropy)
