"""Whether the file systems on a lab disk are clean, said by each file system's own checker.

Invariant: ``clean`` is True only when a checker looked at every file system of the disk and found nothing to say; where
one is not installed, damage is still found by reading what can be read, and the rest is reported as not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.lab.disks import DiskStore
from holdfast.lab.images.gpt import GptDamaged
from holdfast.lab.images.lvm import read_label
from holdfast.lab.images.partitions import partition_places
from holdfast.lab.images.sparse import materialise
from holdfast.lab.images.superblock import SUPERBLOCKS_BYTES, FilesystemKind, find_filesystem
from holdfast.lab.images.swap import is_swap
from holdfast.lab.images.tools import E2fsprogs, find_tool, run_tool
from holdfast.lab.images.volume import FilesystemDamaged, open_volume
from holdfast.model import Extent

__all__ = ["FilesystemReport", "check_filesystem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemReport:
    """What a check found. ``clean`` is None when nothing could judge; ``detail`` says why, or what was said."""

    clean: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checker:
    """A file system's own checker, told to change nothing."""

    tool: str
    arguments: tuple[str, ...]
    statuses: Collection[int]
    """What it may end with when it could work; 0 means clean."""
    silent: tuple[str, ...] = ()
    """How lines begin that say nothing of interest."""


_CHECKERS: dict[FilesystemKind, _Checker] = {
    # Its exit status is a sum of flags: 4 says that errors were left, 8 that it could not work at all.
    "ext4": _Checker(tool="e2fsck", arguments=("-f", "-n"), statuses=range(16), silent=("e2fsck ", "Pass ")),
    "xfs": _Checker(
        tool="xfs_repair",
        arguments=("-n", "-f"),
        statuses=(0, 1, 2),
        silent=(
            "Phase ",
            "        - ",
            "Cannot get host filesystem geometry",
            "Repair may fail if there is a sector",
            "the image and the host filesystem",
            "No modify flag set",
        ),
    ),
    "btrfs": _Checker(
        tool="btrfs", arguments=("check", "--readonly"), statuses=(0, 1), silent=("[", "Opening ", "Checking ")
    ),
    "ntfs": _Checker(tool="ntfsfix", arguments=("-n",), statuses=(0, 1)),
    "vfat": _Checker(tool="fsck.vfat", arguments=("-n",), statuses=(0, 1, 2), silent=("fsck.fat ",)),
}


def check_filesystem(store: DiskStore, uuid: str, *, tools: E2fsprogs | None = None) -> FilesystemReport:
    """Return what the checkers say of every partition's file system. The disk is only read.

    ``tools`` stands for the e2fsprogs of this machine where it is given; the other checkers are looked for.
    """

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        return store.read(uuid, offset_bytes, length_bytes)

    try:
        places = partition_places(read, size_bytes=store.size_bytes(uuid))
    except GptDamaged as cause:
        return _without_partitions(store, uuid, cause)
    if not places:
        return FilesystemReport(clean=None, detail="the partition table is empty")
    return _together([_check_partition(store, uuid, place, tools or E2fsprogs.find()) for place in places])


def _check_partition(store: DiskStore, uuid: str, place: Extent, tools: E2fsprogs) -> FilesystemReport:
    if place.length_bytes < SUPERBLOCKS_BYTES:
        return FilesystemReport(clean=None, detail="a partition too small for a file system")

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        return store.read(uuid, offset_bytes, length_bytes)

    kind = find_filesystem(read, base_bytes=place.offset_bytes)
    if kind is None:
        return _unknown(read(place.offset_bytes, 4096), store, uuid)
    checker = _CHECKERS[kind]
    tool = tools.e2fsck if kind == "ext4" else find_tool(checker.tool)
    if tool is None:
        return _read_everything(store, uuid, missing=checker.tool)
    with store.scratch() as scratch:
        image = scratch / "partition"
        materialise(store, uuid, image, part=place)
        return _judge(checker, tool, image, uuid)


def _judge(checker: _Checker, tool: Path, image: Path, uuid: str) -> FilesystemReport:
    status, said = run_tool(tool, [*checker.arguments, str(image)], statuses=checker.statuses)
    told = said.replace(str(image), uuid).splitlines()
    lines = [line.strip() for line in told if line.strip() and not line.startswith(checker.silent)]
    command = " ".join((checker.tool, *checker.arguments))
    return FilesystemReport(clean=status == 0, detail=f"{command}: {' / '.join(lines[:8]) or 'nothing to say'}")


def _unknown(head: bytes, store: DiskStore, uuid: str) -> FilesystemReport:
    """What is no file system may be swap or a part of a volume group; anything else should have been one."""
    if is_swap(head):
        return FilesystemReport(clean=True, detail="swap")
    label = read_label(head[512:1024])
    if label is not None:
        return FilesystemReport(clean=None, detail=f"a part of a volume group (physical volume {label})")
    try:
        open_volume(store, uuid)
    except FilesystemDamaged as damage:
        return FilesystemReport(clean=False, detail=str(damage))
    return FilesystemReport(clean=False, detail="a partition has nothing on it that can be recognised")


def _together(reports: Sequence[FilesystemReport]) -> FilesystemReport:
    """The worst of them counts; one that could not be judged keeps the whole from being called clean."""
    detail = "; ".join(report.detail for report in reports)
    if any(report.clean is False for report in reports):
        return FilesystemReport(clean=False, detail=detail)
    return FilesystemReport(clean=None if any(report.clean is None for report in reports) else True, detail=detail)


def _without_partitions(store: DiskStore, uuid: str, cause: GptDamaged) -> FilesystemReport:
    """A data disk has no partition table and no file system; on any other disk the table is missing."""
    try:
        files = open_volume(store, uuid).files
    except FilesystemDamaged as damage:
        return FilesystemReport(clean=False, detail=str(damage))
    except GptDamaged:
        return FilesystemReport(clean=False, detail=str(cause))
    return FilesystemReport(clean=None, detail=f"a data disk without a file system; its table names {len(files)} files")


def _read_everything(store: DiskStore, uuid: str, *, missing: str) -> FilesystemReport:
    try:
        volume = open_volume(store, uuid)
    except FilesystemDamaged as damage:
        return FilesystemReport(clean=False, detail=str(damage))
    if volume.filesystem == "ext4" and "etc/fstab" not in volume.files:
        return FilesystemReport(clean=False, detail="the file system is readable but /etc/fstab is missing")
    detail = f"{missing} is not installed; the directories are readable and name {len(volume.files)} files"
    return FilesystemReport(clean=None, detail=detail)
