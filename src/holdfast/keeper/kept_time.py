"""The keeper's own time: it follows the server's clock, and cannot be made to run away with it.

Whoever sets the clock years ahead would otherwise end every lock. Invariant: this time never goes back, is never ahead
of the server's clock but for that clock's own steps back, and gains at most a quarter on the time that really passes
while the keeper runs. While no keeper runs it stands still; locks then last longer, never shorter.
"""

from __future__ import annotations

__all__ = ["KeptTime"]

_GAIN = 1.25
"""A week without a keeper is caught up in four; a clock set ahead costs a lock a fifth of its time at most."""


class KeptTime:
    """A time in seconds since 1970 that begins where the last keeper's ended."""

    def __init__(self, *, last_s: float | None, wall_s: float, monotonic_s: float) -> None:
        """``last_s`` is where it stood when it was last kept; None for the first keeper, who believes the clock."""
        self._now_s = wall_s if last_s is None else last_s
        self._monotonic_s = monotonic_s

    def advance(self, *, wall_s: float, monotonic_s: float) -> float:
        """Return the time now."""
        passed_s = max(0.0, monotonic_s - self._monotonic_s)
        self._monotonic_s = monotonic_s
        self._now_s += min(max(0.0, wall_s - self._now_s), passed_s * _GAIN)
        return self._now_s
