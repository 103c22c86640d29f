"""The space of a repository: whose it is, what comes back when, and giving it back."""

from __future__ import annotations

from holdfast.core import Cancellation, Progress
from holdfast.repository import DeletionPlan, GcPlan, GcReport, GcSettings, SpaceReport
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = ["collect_garbage", "measure_space", "plan_collection", "plan_deletion"]


def plan_collection(
    workspace: Workspace, repository: str, *, is_thorough: bool = False, cancel: Cancellation
) -> GcPlan:
    """Return what garbage collection would give back now, and what later."""
    settings = GcSettings(is_thorough=is_thorough)
    return open_by_name(workspace, repository, cancel=cancel).plan_gc(settings=settings)


def collect_garbage(
    workspace: Workspace,
    repository: str,
    *,
    is_thorough: bool = False,
    budget_bytes: int | None = None,
    budget_s: float | None = None,
    progress: Progress,
    cancel: Cancellation,
) -> GcReport:
    """Give back the space of deleted points and interrupted runs. Safe while backups run."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    settings = GcSettings(is_thorough=is_thorough, budget_bytes=budget_bytes, budget_s=budget_s)
    plan = opened.plan_gc(settings=settings)
    return opened.apply_gc(plan, cancel=cancel, settings=settings, progress=progress)


def measure_space(
    workspace: Workspace, repository: str, *, is_exact: bool, progress: Progress, cancel: Cancellation
) -> SpaceReport:
    """Return what each VM and point takes alone, and what is shared; by frames when it is to be exact."""
    return open_by_name(workspace, repository, cancel=cancel).space(is_exact=is_exact, progress=progress, cancel=cancel)


def plan_deletion(workspace: Workspace, repository: str, point: str, *, cancel: Cancellation) -> DeletionPlan:
    """Return what deleting a point would give back, and when."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    return opened.plan_deletion(opened.point(point), cancel=cancel)
