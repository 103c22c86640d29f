"""Trying again: the one loop that repeats a whole piece of work whose obstacle may pass.

Invariant: the number of attempts is bounded, every wait can be cancelled, and each further attempt is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from holdfast.core.cancel import Cancellation
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.core.units import format_duration

__all__ = ["repeat_patiently"]

_T = TypeVar("_T")


def repeat_patiently(
    action: Callable[[], _T],
    *,
    may_pass: Callable[[HoldfastError], bool],
    attempts_max: int,
    wait_s: float,
    tell: Callable[[str], None],
    clock: Clock,
    cancel: Cancellation,
) -> _T:
    """Return what ``action`` returns; its last error is raised when ``may_pass`` denies it or no attempt is left.

    ``action`` is safe to run again after it failed. Raises ``Cancelled`` when asked to stop, whatever ``action`` made
    of that.
    """
    assert attempts_max >= 1
    for attempt in range(1, attempts_max):
        try:
            return action()
        except HoldfastError as error:
            cancel.check()
            if not may_pass(error):
                raise
            tell(f"{error}; attempt {attempt + 1} of {attempts_max} begins in {format_duration(wait_s)}")
        clock.sleep(wait_s, cancel=cancel)
    return action()
