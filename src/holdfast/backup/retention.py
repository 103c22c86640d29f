"""Which points stay. A pure rule: the newest N of one VM, whatever run made them.

The newest point is never dropped. Dropping a point removes one object and nothing else; space comes back with garbage
collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.repository import Repository, RestorePoint

__all__ = ["Decision", "RetentionPlan", "apply_retention", "plan_retention"]


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


def plan_retention(points: Sequence[RestorePoint], *, keep_points: int) -> RetentionPlan:
    """Return what keeping the newest ``keep_points`` of these points of one VM means."""
    assert keep_points >= 1
    newest_first = sorted(points, key=lambda each: (each.facts.taken_at, each.id), reverse=True)
    return RetentionPlan(
        decisions=tuple(
            Decision(point=point, keep=True, reason=f"number {rank} of the newest {keep_points}")
            if rank <= keep_points
            else Decision(point=point, keep=False, reason=f"older than the newest {keep_points}")
            for rank, point in enumerate(newest_first, start=1)
        )
    )


def apply_retention(repository: Repository, plan: RetentionPlan) -> None:
    """Delete the points that the plan drops. Safe to run twice: a point that is gone already is fine."""
    for point in plan.dropped:
        repository.delete_point(point.id)
