"""For how long new objects are held, as pure arithmetic on dates.

A point is held for the days its owner asked for. Its packs are held longer, up to a date on a common grid, so that most
later points that use the same packs find them held for long enough and ask the store for nothing.
Invariant: what ``horizon`` returns now is enough for every point that is published within the next day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.core import limits

__all__ = ["NO_HOLD", "Hold", "LockTerms"]

_RUN = timedelta(days=1)
"""A run that publishes within a day after it stored a pack need not extend that pack's lock."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Hold:
    """What holds a point that is about to be published. Both None: nothing does."""

    point_until: datetime | None
    packs_until: datetime | None
    """Until when the store holds every pack of the point, at least."""


NO_HOLD = Hold(None, None)
"""Of a point in a repository that is not immutable, or in a store that cannot lock."""


@dataclass(frozen=True, slots=True)
class LockTerms:
    """How long a repository holds what is new."""

    days: int

    def __post_init__(self) -> None:
        assert 1 <= self.days <= limits.LOCK_DAYS_MAX

    @property
    def step_days(self) -> int:
        """How far apart the dates are to which packs are held: a quarter of the days, a month at most."""
        return max(1, min(30, self.days // 4))

    def point_until(self, now: datetime) -> datetime:
        """Return until when a point is held that is published now."""
        return _whole_seconds(now) + timedelta(days=self.days)

    def enough(self, now: datetime) -> datetime:
        """Return until when a pack must be held so that a point that is published soon may use it as it is."""
        return self.point_until(now) + _RUN

    def horizon(self, now: datetime) -> datetime:
        """Return until when a pack is held that is stored now, or whose lock is extended now."""
        days = (self.enough(now) + _RUN - _EPOCH) // timedelta(days=1) + 1
        return _EPOCH + timedelta(days=-(-days // self.step_days) * self.step_days)


def _whole_seconds(moment: datetime) -> datetime:
    """Return the moment without its fraction, rounded up: stores keep whole seconds, and none may be lost."""
    return moment.replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)
