"""What the lab's storage refuses, one class per cause; the lab's XAPI translates them into XAPI error codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError, Retry

__all__ = [
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
    "DiskStoreDamaged",
    "DiskStoreFull",
    "DiskStoreInUse",
    "DiskStoreOutdated",
    "DiskUnknown",
    "DisksDamaged",
]


_LISTED_MAX = 6
"""A message is read by a person; the error's fields have them all."""


class _DiskError(HoldfastError):
    """An error about one disk of the lab."""

    effect = "The lab's disk is as it was."
    advice = "Look at the lab's disks with 'holdfast lab status'."

    def __init__(self, text: str, *, disk: str) -> None:
        super().__init__(f"lab disk {disk}: {text}")
        self.disk = disk


class DiskUnknown(_DiskError):
    """The store has no disk of that uuid."""

    code = "lab.disk-unknown"
    exit_status = ExitStatus.NOT_FOUND

    def __init__(self, *, disk: str) -> None:
        super().__init__("there is none of this uuid", disk=disk)


class DiskExists(_DiskError):
    """A new disk was given a uuid that is taken."""

    code = "lab.disk-exists"

    def __init__(self, *, disk: str) -> None:
        super().__init__("the uuid is taken", disk=disk)


class DiskFull(_DiskError):
    """The repository that the disk lies in has no room for what was to be written."""

    code = "lab.disk-full"
    retry = Retry.LATER
    advice = "Remove disks or snapshots of the repository; the pool frees their space some minutes later."

    def __init__(self, *, disk: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(f"the write needs {needed_bytes} bytes, its repository has {free_bytes}", disk=disk)
        self.needed_bytes, self.free_bytes = needed_bytes, free_bytes


class DiskOffline(_DiskError):
    """The SR that holds the disk is gone for the moment, so that nothing can be read or written."""

    code = "lab.disk-offline"
    retry = Retry.LATER
    advice = "Bring the SR back; 'holdfast lab fault clear' does when a fault took it away."

    def __init__(self, *, disk: str) -> None:
        super().__init__("the SR that holds it is gone", disk=disk)


class DiskHasNoData(_DiskError):
    """Only the change log of the disk is left: its data was destroyed."""

    code = "lab.disk-has-no-data"

    def __init__(self, *, disk: str) -> None:
        super().__init__("its data was destroyed, only its change log is left", disk=disk)


class DiskReadOnly(_DiskError):
    """A hidden base copy was to be changed; disks that people see stand on it."""

    code = "lab.disk-read-only"

    def __init__(self, *, disk: str) -> None:
        super().__init__("it is a base copy, which never changes", disk=disk)


class DiskRangeInvalid(_DiskError):
    """A read or write reaches beyond the end of the disk."""

    code = "lab.disk-range-invalid"

    def __init__(self, *, disk: str, offset_bytes: int, length_bytes: int, size_bytes: int) -> None:
        text = f"{length_bytes} bytes at {offset_bytes} are not inside its {size_bytes} bytes"
        super().__init__(text, disk=disk)
        self.offset_bytes, self.length_bytes, self.size_bytes = offset_bytes, length_bytes, size_bytes


class DiskSizeInvalid(_DiskError):
    """The size is negative, or smaller than it must be."""

    code = "lab.disk-size-invalid"

    def __init__(self, *, disk: str, size_bytes: int, reason: str) -> None:
        super().__init__(f"size {size_bytes} refused: {reason}", disk=disk)
        self.size_bytes = size_bytes


class DiskChainTooLong(_DiskError):
    """A snapshot would make the tree deeper than a VHD storage repository allows."""

    code = "lab.disk-chain-too-long"
    retry = Retry.LATER
    advice = "Coalesce the tree: layers that only one disk stands on are merged."

    def __init__(self, *, disk: str, depth: int, depth_max: int) -> None:
        super().__init__(f"{depth} layers deep, limit {depth_max}", disk=disk)
        self.depth, self.depth_max = depth, depth_max


class DiskBusy(_DiskError):
    """The tree around the disk does not allow the merge that was asked for."""

    code = "lab.disk-busy"
    retry = Retry.LATER

    def __init__(self, *, disk: str, reason: str) -> None:
        super().__init__(reason, disk=disk)


class CbtLogMissing(_DiskError):
    """Changed blocks were asked of a disk that keeps no change log."""

    code = "lab.cbt-log-missing"

    def __init__(self, *, disk: str) -> None:
        super().__init__("it has no change log", disk=disk)


class CbtUnrelated(_DiskError):
    """No chain of change logs leads from the one disk to the other."""

    code = "lab.cbt-unrelated"

    def __init__(self, *, disk: str, target: str) -> None:
        super().__init__(f"no change log leads from it to {target}", disk=disk)
        self.target = target


class DiskStoreInUse(HoldfastError):
    """Another process serves the lab's disks in this folder."""

    code = "lab.store-in-use"
    exit_status = ExitStatus.BUSY
    effect = "Nothing was read or changed in the folder."
    advice = "Stop the lab that runs on this folder ('holdfast lab stop'), or choose another folder."

    def __init__(self, *, folder: Path) -> None:
        super().__init__(f"the lab disks in {folder} are in use by another process")
        self.folder = str(folder)


class DiskStoreFull(HoldfastError):
    """The machine that the lab runs on has no room for what was to be written."""

    code = "lab.store-full"
    retry = Retry.LATER
    effect = "The lab's disks are as they were; what was to be written is not there."
    advice = "Free space on the file system that holds the lab's folder."

    def __init__(self, *, folder: Path) -> None:
        super().__init__(f"the file system has no room for the lab's disks in {folder}")
        self.folder = str(folder)


class DiskStoreOutdated(HoldfastError):
    """The folder was written by another version of the lab."""

    code = "lab.other-version"
    exit_status = ExitStatus.REFUSED
    effect = "No lab was started, and nothing was changed in the folder."
    advice = "Use the Holdfast that made this lab, or remove its folder and start a new lab."

    def __init__(self, *, path: Path, version: object, expected: int) -> None:
        super().__init__(f"{path} is of version {version} of the lab's files; this Holdfast writes version {expected}")
        self.path = str(path)


class DiskStoreDamaged(HoldfastError):
    """A file of the lab's disks cannot be believed."""

    code = "lab.store-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "The lab's disks cannot be used; nothing outside the lab's folder is concerned."
    advice = "Remove the lab's folder and start a new lab."

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


class DisksDamaged(HoldfastError):
    """Files that hold disks of the lab, or their change logs, are missing, cut short or changed by somebody else."""

    code = "lab.disks-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "No lab was started and nothing was changed in the folder; nothing outside it is concerned."
    advice = "Put the folder back as it was, or remove it and start a new lab."

    def __init__(self, *, folder: Path, files: Sequence[str], disks: Sequence[str]) -> None:
        text = f"the lab disks {_listed(disks)} in {folder} are damaged: {_listed(files)}"
        super().__init__(text)
        self.folder, self.files, self.disks = str(folder), list(files), list(disks)


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED_MAX
    return ", ".join(items[:_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")
