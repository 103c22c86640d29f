"""Whether the file system on a lab disk is clean, said by the file system's own checker.

Invariant: ``clean`` is True only when ``e2fsck`` found nothing to say; without that tool a damaged file system is still
found by reading it, and a readable one is reported as not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.lab.disks import DiskStore
from holdfast.lab.images.gpt import GptDamaged, read_gpt
from holdfast.lab.images.sparse import materialise
from holdfast.lab.images.tools import E2fsprogs, run_tool
from holdfast.lab.images.volume import FilesystemDamaged, open_volume

__all__ = ["FilesystemReport", "check_filesystem"]

_E2FSCK_STATUSES = range(16)
"""Its exit status is a sum of flags: 4 says that errors were left, 8 that it could not work at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemReport:
    """What a check found. ``clean`` is None when nothing could judge; ``detail`` says why, or what was said."""

    clean: bool | None
    detail: str


def check_filesystem(store: DiskStore, uuid: str, *, tools: E2fsprogs | None = None) -> FilesystemReport:
    """Return what the checker says of the first partition's file system. The disk is only read."""
    tools = tools or E2fsprogs.find()

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        return store.read(uuid, offset_bytes, length_bytes)

    try:
        partitions = read_gpt(read, size_bytes=store.size_bytes(uuid))
    except GptDamaged as cause:
        return _without_partitions(store, uuid, cause)
    if not partitions:
        return FilesystemReport(clean=None, detail="the partition table is empty")
    if tools.e2fsck is None:
        return _read_everything(store, uuid)
    with store.scratch() as scratch:
        image = scratch / "image"
        materialise(store, uuid, image)
        place = f"{image}?offset={partitions[0].offset_bytes}"
        status, said = run_tool(tools.e2fsck, ["-f", "-n", place], statuses=_E2FSCK_STATUSES)
    return FilesystemReport(clean=status == 0, detail=f"e2fsck -fn: {_shortened(said.replace(place, uuid))}")


def _without_partitions(store: DiskStore, uuid: str, cause: GptDamaged) -> FilesystemReport:
    """A data disk has no partition table and no file system; on any other disk the table is missing."""
    try:
        files = open_volume(store, uuid).files
    except FilesystemDamaged as damage:
        return FilesystemReport(clean=False, detail=str(damage))
    except GptDamaged:
        return FilesystemReport(clean=False, detail=str(cause))
    return FilesystemReport(clean=None, detail=f"a data disk without a file system; its table names {len(files)} files")


def _read_everything(store: DiskStore, uuid: str) -> FilesystemReport:
    try:
        files = open_volume(store, uuid).files
    except FilesystemDamaged as damage:
        return FilesystemReport(clean=False, detail=str(damage))
    if "etc/fstab" not in files:
        return FilesystemReport(clean=False, detail="the file system is readable but /etc/fstab is missing")
    detail = f"e2fsck is not installed; the directories are readable and name {len(files)} files"
    return FilesystemReport(clean=None, detail=detail)


def _shortened(said: str) -> str:
    lines = [line for line in said.splitlines() if line and not line.startswith(("e2fsck ", "Pass "))]
    return " / ".join(lines[:8])
