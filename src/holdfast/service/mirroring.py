"""Mirroring: the points of one repository are given to another one that this machine knows."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core import Cancellation, Progress
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace
from holdfast.upkeep import MirrorPlan, MirrorReport, apply_mirror
from holdfast.upkeep import plan_mirror as plan_between

__all__ = ["mirror_repository", "plan_mirror"]


def plan_mirror(
    workspace: Workspace,
    source: str,
    target: str,
    *,
    vms: Sequence[str] = (),
    newest: int | None = None,
    cancel: Cancellation,
) -> MirrorPlan:
    """Return which points of ``source`` the repository ``target`` lacks."""
    ours = open_by_name(workspace, source, cancel=cancel)
    return plan_between(ours, open_by_name(workspace, target, cancel=cancel), vms=vms, newest=newest)


def mirror_repository(
    workspace: Workspace, source: str, target: str, plan: MirrorPlan, *, progress: Progress, cancel: Cancellation
) -> MirrorReport:
    """Send what a plan names."""
    ours = open_by_name(workspace, source, cancel=cancel)
    theirs = open_by_name(workspace, target, cancel=cancel)
    return apply_mirror(ours, theirs, plan, progress=progress, cancel=cancel)
