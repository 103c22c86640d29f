"""Restoring one disk of a restore point to a file; from a damaged repository too, when that is asked for.

Invariant: a file that appears under the name that was asked for is the disk, bit by bit; or the list of what is missing
in it lies beside it, and did so before the file itself appeared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.core import Cancellation, Cancelled, Clock, Entropy, ExitStatus, HoldfastError, Progress
from holdfast.model import DiskSource
from holdfast.repository import (
    Damage,
    MapDamaged,
    MissingExtent,
    MissingLog,
    PackDamaged,
    PackMissing,
    PointDisk,
    Repository,
    RestorePoint,
)
from holdfast.restore.disk_file import check_free, create_disk_file
from holdfast.restore.disk_image import ImageFormat, format_of, write_image

__all__ = ["RestoredFile", "find_disk", "restore_disk"]


class DiskUnknown(HoldfastError):
    """The restore point has no such disk."""

    code = "restore.disk-unknown"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was restored."

    def __init__(self, *, disk: str, point: str, known: str) -> None:
        super().__init__(f"point {point} has no disk {disk!r}")
        self.disk, self.point, self.known = disk, point, known

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Its disks, by position and name: {self.known or 'none'}."


class DiskAmbiguous(HoldfastError):
    """Several disks of the restore point have this name."""

    code = "restore.disk-ambiguous"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was restored."

    def __init__(self, *, disk: str, positions: str) -> None:
        super().__init__(f"several disks are named {disk!r}")
        self.disk, self.positions = disk, positions

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Name the disk by its position: {self.positions}."


class DiskDamaged(HoldfastError):
    """A part of the disk cannot be read from the repository."""

    code = "restore.disk-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was restored: a file that is silently wrong in places would be worse than none."
    advice = (
        "Another restore point may be whole: 'holdfast point verify' tells. To get all that can be read of this one, "
        "add --partial: what cannot be read becomes zeros, and the exact list of it lies beside the file."
    )

    def __init__(self, *, disk: str, point: str, cause: str) -> None:
        super().__init__(f"disk {disk} of point {point} cannot be restored whole: {cause}")
        self.disk, self.point, self.cause = disk, point, cause


class DiskLost(HoldfastError):
    """Nothing of the disk can be found, because the root of its map cannot be read."""

    code = "restore.disk-lost"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was restored, and --partial cannot help: the root of the map says where everything else is."
    advice = "Bring the object back from a copy of the repository, or restore from another restore point."

    def __init__(self, *, disk: str, point: str, cause: str) -> None:
        super().__init__(f"the map of disk {disk} of point {point} cannot be read: {cause}")
        self.disk, self.point, self.cause = disk, point, cause


class RestoreStopped(HoldfastError):
    """The restore of a disk was asked to stop."""

    code = "restore.stopped"
    exit_status = ExitStatus.INTERRUPTED
    effect = "The restore point is untouched; the unfinished file was removed."
    advice = "Start it again when it suits; it begins anew."


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredFile:
    """A disk that was restored to a file."""

    path: str
    format: ImageFormat
    point: str
    vm_name: str
    disk: str
    disk_name: str
    size_bytes: int
    missing_bytes: int
    missing: tuple[MissingExtent, ...]
    """What could not be read and is zero in the file; always empty unless a partial restore was asked for."""
    missing_list: str | None
    """The file that lists it."""


class _MissingList(msgspec.Struct, kw_only=True):
    format: str
    point: str
    vm_name: str
    disk: str
    disk_name: str
    file: str
    size_bytes: int
    missing_bytes: int
    missing: tuple[MissingExtent, ...]


def find_disk(point: RestorePoint, name: str) -> PointDisk:
    """Return a disk of a point by its position, its uuid or its name. ``DiskUnknown``, ``DiskAmbiguous``."""
    for disk in point.disks:
        if name in (disk.facts.position, disk.facts.uuid):
            return disk
    named = [disk for disk in point.disks if disk.facts.name == name]
    if len(named) > 1:
        raise DiskAmbiguous(disk=name, positions=", ".join(disk.facts.position for disk in named))
    if not named:
        known = ", ".join(f"{disk.facts.position} {disk.facts.name!r}" for disk in point.disks)
        raise DiskUnknown(disk=name, point=point.id, known=known)
    return named[0]


def restore_disk(
    repository: Repository,
    point: RestorePoint,
    disk: PointDisk,
    path: Path,
    *,
    partial: bool,
    clock: Clock,
    entropy: Entropy,
    progress: Progress,
    cancel: Cancellation,
) -> RestoredFile:
    """Restore a disk to a new file whose name tells the format; ``partial`` puts zeros where nothing can be read.

    ``FormatUnknown``, ``DiskDamaged``, ``DiskLost``, ``RestoreStopped``, and what ``write_image`` raises.
    """
    format = format_of(path)
    listed = path.with_name(path.name + ".missing.json")
    for name in (path, listed):
        check_free(name)
    missing = MissingLog() if partial else None
    where = f"{disk.facts.position} {disk.facts.name!r}"
    source = _open(repository, point, disk, missing, cancel=cancel)
    found: tuple[MissingExtent, ...] = ()

    def write_list() -> None:
        nonlocal found
        found = missing.extents() if missing is not None else ()
        if found:
            _write_list(listed, _list(point, disk, path, found))

    try:
        with progress.start(f"disk {where} to {path.name}") as task:
            write_image(
                path, source, format, task=task, entropy=entropy, created_at=clock.now(), before_publishing=write_list
            )
    except Damage as damage:
        raise DiskDamaged(disk=where, point=point.id, cause=str(damage)) from damage
    except Cancelled as stopped:
        raise RestoreStopped(str(stopped)) from stopped
    return RestoredFile(
        path=str(path),
        format=format,
        point=point.id,
        vm_name=point.facts.vm.name,
        disk=disk.facts.position,
        disk_name=disk.facts.name,
        size_bytes=source.size_bytes,
        missing_bytes=sum(extent.length_bytes for extent in found),
        missing=found,
        missing_list=str(listed) if found else None,
    )


def _open(
    repository: Repository, point: RestorePoint, disk: PointDisk, missing: MissingLog | None, *, cancel: Cancellation
) -> DiskSource:
    try:
        return repository.source(disk.stored, cancel=cancel, missing=missing)
    except (PackDamaged, PackMissing, MapDamaged) as damage:
        where = f"{disk.facts.position} {disk.facts.name!r}"
        raise DiskLost(disk=where, point=point.id, cause=str(damage)) from damage


def _list(point: RestorePoint, disk: PointDisk, path: Path, found: tuple[MissingExtent, ...]) -> _MissingList:
    return _MissingList(
        format="holdfast-missing",
        point=point.id,
        vm_name=point.facts.vm.name,
        disk=disk.facts.position,
        disk_name=disk.facts.name,
        file=path.name,
        size_bytes=disk.facts.size_bytes,
        missing_bytes=sum(extent.length_bytes for extent in found),
        missing=found,
    )


def _write_list(listed: Path, content: _MissingList) -> None:
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    with create_disk_file(listed, room_bytes=len(text)) as file:
        file.write(0, text)
