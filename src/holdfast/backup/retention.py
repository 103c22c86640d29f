"""Which points stay. A pure rule: the newest N of one VM, whatever run made them.

Invariants: the newest point is never dropped, and neither is the one that was made just now, whatever the clocks say.
Only points that can be read are counted, so a damaged one never takes the place of a good one; nor is one counted that
claims to come from the future, because made-up points must not push out good ones. Dropping a point removes one object
and nothing else; space comes back with garbage collection. A point that is held against deletion waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.core import ExitStatus, HoldfastError, limits
from holdfast.model import PointId
from holdfast.repository import PointUnknown, Repository, RestorePoint
from holdfast.storage import ObjectLocked

__all__ = [
    "Decision",
    "HeldBack",
    "KeepInvalid",
    "RetentionPlan",
    "RetentionResult",
    "apply_retention",
    "check_keep_points",
    "newest_first",
    "newest_of",
    "plan_retention",
]

_SKEW = timedelta(seconds=limits.CLOCKS_APART_S_MAX)


class KeepInvalid(HoldfastError):
    """A retention that would keep nothing."""

    code = "backup.keep-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was backed up and nothing was deleted."
    advice = "Keep at least one restore point, or leave --keep out to keep all of them."

    def __init__(self, keep_points: int) -> None:
        super().__init__(f"{keep_points} restore points cannot be kept")
        self.keep_points = keep_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one point, and by which rule."""

    point: RestorePoint
    keep: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """A decision for every point, newest first."""

    decisions: tuple[Decision, ...]

    @property
    def dropped(self) -> tuple[RestorePoint, ...]:
        """The points that would be deleted, newest first."""
        return tuple(each.point for each in self.decisions if not each.keep)

    def explain(self) -> str:
        """Return a line per point."""
        return "\n".join(f"{'keep' if each.keep else 'drop'} {each.point.id}: {each.reason}" for each in self.decisions)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """A point that is due, and until when the store holds it; None: it does not say."""

    point: PointId
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionResult:
    """What became of the points that a plan drops."""

    deleted: tuple[PointId, ...]
    held: tuple[HeldBack, ...]


def check_keep_points(keep_points: int | None) -> None:
    """Return when that many points can be kept; ``KeepInvalid`` otherwise."""
    if keep_points is not None and keep_points < 1:
        raise KeepInvalid(keep_points)


def newest_of(points: Sequence[RestorePoint]) -> RestorePoint | None:
    """Return the newest point of one VM; None when there is none."""
    return next(iter(newest_first(points)), None)


def plan_retention(
    points: Sequence[RestorePoint], *, keep_points: int, now: datetime, just_made: str | None = None
) -> RetentionPlan:
    """Return what keeping the newest ``keep_points`` of these points of one VM means.

    ``just_made`` is the id of the point that is kept in any case.
    """
    check_keep_points(keep_points)
    decisions = []
    rank = 0
    for point in newest_first(points):
        if _taken_at(point) > now + _SKEW:
            reason = f"taken on {_taken_at(point):%Y-%m-%d}, which is still to come; it is not counted"
            decisions.append(Decision(point=point, keep=True, reason=reason))
            continue
        rank += 1
        decisions.append(_decide(point, rank=rank, keep_points=keep_points, just_made=just_made))
    return RetentionPlan(decisions=tuple(decisions))


def apply_retention(repository: Repository, plan: RetentionPlan) -> RetentionResult:
    """Delete the points that the plan drops, as far as the store lets go of them; return what became of each.

    Safe to run twice: a point that is gone already is fine.
    """
    deleted, held = [], []
    for point in plan.dropped:
        try:
            repository.delete_point(point.id)
        except PointUnknown:
            continue  # another run, or a person, was faster
        except ObjectLocked as lock:
            held.append(HeldBack(point=point.id, until=lock.until))
            continue
        deleted.append(point.id)
    return RetentionResult(deleted=tuple(deleted), held=tuple(held))


def _decide(point: RestorePoint, *, rank: int, keep_points: int, just_made: str | None) -> Decision:
    if rank <= keep_points:
        return Decision(point=point, keep=True, reason=f"number {rank} of the newest {keep_points}")
    if point.id == just_made:
        return Decision(point=point, keep=True, reason="made just now")
    return Decision(point=point, keep=False, reason=f"older than the newest {keep_points}")


def newest_first(points: Sequence[RestorePoint]) -> list[RestorePoint]:
    """Return the points by age.

    The pool's clock says when a point was taken, but no snapshot is younger than its own publication: a pool whose
    clock ran ahead for a day would otherwise have the newest point for years. Times are whole seconds; within one, a
    point is younger than the one it was read against.
    """
    by_id = {point.id: point for point in points}

    def age_key(point: RestorePoint) -> tuple[datetime, datetime, int, str]:
        taken_at, steps, earlier = _taken_at(point), 0, point
        while (before := by_id.get(earlier.facts.previous or PointId(""))) and _taken_at(before) == taken_at:
            steps, earlier = steps + 1, before
            assert steps < len(points), "points that were read against each other"
        return (taken_at, point.published_at, steps, point.id)

    return sorted(points, key=age_key, reverse=True)


def _taken_at(point: RestorePoint) -> datetime:
    return min(point.facts.taken_at, point.published_at)
