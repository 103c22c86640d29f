"""Single disks of restore points: restored to files, without any pool."""

from __future__ import annotations

from pathlib import Path

from holdfast.core import Cancellation, Progress
from holdfast.restore import RestoredFile, find_disk
from holdfast.restore import restore_disk as restore_disk_to_file
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = ["restore_disk"]


def restore_disk(
    workspace: Workspace,
    repository: str,
    point: str,
    disk: str,
    path: Path,
    *,
    partial: bool,
    progress: Progress,
    cancel: Cancellation,
) -> RestoredFile:
    """Restore one disk of a point to a new file, in the format that the file's name asks for."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    found = opened.point(point)
    return restore_disk_to_file(
        opened,
        found,
        find_disk(found, disk),
        path.absolute(),
        partial=partial,
        clock=workspace.clock,
        entropy=workspace.entropy,
        progress=progress,
        cancel=cancel,
    )
