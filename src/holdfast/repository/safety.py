"""Every margin that keeps a writer and garbage collection apart, in one record.

The argument that these margins are enough is in ``docs/formats/leases.md``. Nothing else in the engine compares times.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core import Clock

__all__ = ["SAFETY", "Safety", "Since"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """Margins, in seconds and counts."""

    lease_s: float
    """How long a lease lasts after its last renewal. Longer: an interrupted run is noticed later."""
    lease_renewal_s: float
    """How often a writer renews; a few renewals may fail before the lease is lost."""
    lease_fence_s: float
    """A writer stops publishing this long before its lease ends, so that a slow put is not overtaken."""
    clock_skew_s: float
    """How far the clocks of two machines may differ, and how long one put may hang. Added when others' leases end."""
    resume_grace_s: float
    """How long packs of an interrupted run are kept for its resumption after its lease has ended."""
    collection_s: float
    """How long one garbage collection may go on deleting by its own condemned list."""
    packs_announced: int
    """How many pack ids a lease names ahead, so that it is not written anew for each pack."""

    def __post_init__(self) -> None:
        assert self.lease_renewal_s * 2 < self.lease_s
        assert self.lease_fence_s < self.lease_s
        assert self.packs_announced > 0


class Since:
    """How long ago a moment was: the moment it was made."""

    __slots__ = ("_at", "_clock", "_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._s, self._at = clock.monotonic_s(), clock.now()

    def age_s(self) -> float:
        """Return the seconds since then, by the clock that says more.

        The monotonic clock stands still while the machine sleeps; the wall clock may be set back.
        """
        return max(self._clock.monotonic_s() - self._s, (self._clock.now() - self._at).total_seconds())


SAFETY = Safety(
    lease_s=15 * 60,
    lease_renewal_s=3 * 60,
    lease_fence_s=3 * 60,
    clock_skew_s=2 * 60 * 60,
    resume_grace_s=24 * 60 * 60,
    collection_s=6 * 60 * 60,
    packs_announced=16,
)
"""The margins for real repositories."""
