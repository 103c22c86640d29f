"""Restore points: list, show, verify, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.backup import newest_of
from holdfast.core import Cancellation, Progress
from holdfast.model import PointId, VmUuid
from holdfast.repository import CheckGrade, PointSummary, RestorePoint, VerifyReport
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = [
    "ListedPoints",
    "PointView",
    "delete_point",
    "find_point",
    "list_points",
    "newest_by_vm",
    "show_point",
    "verify",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPoints:
    """The points of a repository, oldest first, and the objects in the points' place that cannot be read."""

    points: tuple[PointSummary, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointView:
    """A restore point, and what is known of it now."""

    point: RestorePoint
    checked: CheckGrade | None
    """Since when its data is checked."""
    held_until: datetime | None
    """Until when the store says that it holds the point; None when it does not."""


def list_points(workspace: Workspace, repository: str, *, vm: str | None = None, cancel: Cancellation) -> ListedPoints:
    """Return all points, or those of one VM by its name at backup time or its uuid."""
    listing = open_by_name(workspace, repository, browsing=True, cancel=cancel).summaries()
    wanted = (each for each in listing.points if vm is None or vm in (each.vm_name, each.vm_uuid))
    return ListedPoints(points=tuple(wanted), damaged=tuple(str(each) for each in listing.damaged))


def find_point(workspace: Workspace, repository: str, point: str, *, cancel: Cancellation) -> RestorePoint:
    """Return one point by its id or a unique beginning of it."""
    return open_by_name(workspace, repository, browsing=True, cancel=cancel).point(point)


def show_point(workspace: Workspace, repository: str, point: str, *, cancel: Cancellation) -> PointView:
    """Return one point by its id or a unique beginning of it, and how it is kept."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    found = opened.point(point)
    return PointView(
        point=found,
        checked=opened.care.grades([found.key]).get(found.id),
        held_until=opened.protection.held_until(found),
    )


def verify(
    workspace: Workspace, repository: str, points: tuple[str, ...], *, progress: Progress, cancel: Cancellation
) -> VerifyReport:
    """Read and check every byte that the points need, all points when none is named."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    chosen = [opened.point(each) for each in points] if points else None
    return opened.verify(chosen, progress=progress, cancel=cancel)


def delete_point(workspace: Workspace, repository: str, point: str, *, cancel: Cancellation) -> PointId:
    """Delete one point and return its whole id. Its space comes back with the next garbage collection."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    found = opened.point(point)
    opened.delete_point(found.id)
    return found.id


def newest_by_vm(points: Sequence[RestorePoint]) -> dict[VmUuid, RestorePoint]:
    """Return the newest point of each VM."""
    by_vm: dict[VmUuid, list[RestorePoint]] = {}
    for point in points:
        by_vm.setdefault(point.facts.vm.uuid, []).append(point)
    return {vm: newest for vm, own in by_vm.items() if (newest := newest_of(own)) is not None}
