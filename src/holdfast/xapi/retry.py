"""When the pool says "not now": which answers are worth waiting for, how long, and the one wrapper that waits.

Invariant: nothing else in this package repeats a call. Every rule has an end, and every wait can be cancelled.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.core import Cancellation, Clock, Entropy, HoldfastError, format_duration, get_log, limits
from holdfast.xapi.errors import PoolConnectionLost, PoolFailure, PoolUnreachable, TaskVanished

__all__ = ["CALL_RULES", "READ_RULES", "REMOVAL_RULES", "Patience", "Retrier", "RetryRule"]

_log = get_log(__name__)
_T = TypeVar("_T")

_TOLD_S_MIN = 120.0
"""A wait that may last longer than two minutes is told; shorter ones are the pool's daily life."""


class Patience(enum.Enum):
    """Who waits for a pool that is away."""

    BRIEF = "brief"
    """A person, for an answer."""
    RUN = "run"
    """A run, which may take the night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """One kind of refusal: how often it is waited for, and for how long each time."""

    answers: frozenset[str]
    """XAPI codes, or our own error codes for connection trouble."""
    attempts_max: int
    wait_s_min: float
    wait_s_max: float
    attempts_brief_max: int | None = None
    """The same where somebody waits for the answer, when that is fewer."""
    why: str
    """The reason for these numbers; shown in docs/pool-client.md."""


CALL_RULES: tuple[RetryRule, ...] = (
    RetryRule(
        answers=frozenset({"TOO_MANY_PENDING_TASKS"}),
        attempts_max=240,
        wait_s_min=5,
        wait_s_max=10,
        why="the master refuses at once when 100 operations wait; half an hour lets a storm of snapshots pass",
    ),
    RetryRule(
        answers=frozenset({"OTHER_OPERATION_IN_PROGRESS"}),
        attempts_max=30,
        wait_s_min=1,
        wait_s_max=20,
        why="the master itself waits up to two hours where it can; five minutes cover the calls where it does not",
    ),
    RetryRule(
        answers=frozenset(
            {"HOST_STILL_BOOTING", "HOST_IN_EMERGENCY_MODE", "CANNOT_CONTACT_HOST", PoolUnreachable.code}
        ),
        attempts_max=limits.POOL_AWAY_ATTEMPTS_MAX,
        attempts_brief_max=limits.POOL_AWAY_ATTEMPTS_BRIEF_MAX,
        wait_s_min=2,
        wait_s_max=6,
        why="nothing was begun; a toolstack restarts within a minute, a host within about four",
    ),
    RetryRule(
        answers=frozenset({"SESSION_INVALID", "HOST_IS_SLAVE"}),
        attempts_max=limits.POOL_LOGINS_PER_CALL_MAX,
        wait_s_min=1,
        wait_s_max=4,
        why="the call was refused before it began; each attempt logs in again, at the master that is named",
    ),
)
"""For every call."""

READ_RULES: tuple[RetryRule, ...] = (
    *CALL_RULES,
    RetryRule(
        answers=frozenset({PoolConnectionLost.code}),
        attempts_max=limits.POOL_AWAY_ATTEMPTS_MAX,
        attempts_brief_max=limits.POOL_AWAY_ATTEMPTS_BRIEF_MAX,
        wait_s_min=2,
        wait_s_max=6,
        why="a call that only reads may be repeated when the connection breaks",
    ),
)
"""For calls that change nothing."""

REMOVAL_RULES: tuple[RetryRule, ...] = (
    *READ_RULES,
    RetryRule(
        answers=frozenset({"VDI_IN_USE", "SR_BACKEND_FAILURE_24", "DEVICE_DETACH_REJECTED"}),
        attempts_max=10,
        wait_s_min=5,
        wait_s_max=5,
        why="after a transfer the control domain needs seconds to let go of the disk",
    ),
    RetryRule(
        answers=frozenset({"SR_BACKEND_FAILURE_46", "VDI_NOT_AVAILABLE", "SR_BACKEND_FAILURE_82"}),
        attempts_max=6,
        wait_s_min=10,
        wait_s_max=10,
        why="the SR is merging this disk's chain; a pass over one layer takes up to a minute",
    ),
    RetryRule(
        answers=frozenset({TaskVanished.code}),
        attempts_max=4,
        wait_s_min=1,
        wait_s_max=4,
        why="the toolstack was restarted; what was removed nevertheless is found to be gone",
    ),
)
"""For removing disks and snapshots, which is safe twice."""


class Retrier:
    """Runs actions and waits as the rules say."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Entropy,
        cancel: Cancellation,
        patience: Patience = Patience.BRIEF,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._clock, self._entropy, self._cancel = clock, entropy, cancel
        self._patience, self._tell = patience, tell

    def run(
        self,
        action: Callable[[], _T],
        *,
        rules: Sequence[RetryRule],
        before_wait: Callable[[HoldfastError], None] = lambda _: None,
    ) -> _T:
        """Return what ``action`` returns. Its last error is raised when the rules are used up or do not know it.

        ``before_wait`` may remove the cause; what it raises ends the attempts. A wait that may be long is told once.
        """
        used: dict[RetryRule, int] = {}
        while True:
            self._cancel.check()
            try:
                return action()
            except HoldfastError as failure:
                rule = _rule_for(failure, rules)
                if rule is None:
                    raise
                used[rule] = used.get(rule, 0) + 1
                if used[rule] >= self._attempts_max(rule):
                    raise
                if used[rule] == 1:
                    self._tell_wait(failure, rule)
                before_wait(failure)
                wait_s = self._entropy.uniform(rule.wait_s_min, rule.wait_s_max)
                _log.info("pool.waits", answer=_answer(failure), attempt=used[rule], wait_s=round(wait_s, 1))
                self._clock.sleep(wait_s, cancel=self._cancel)

    def _attempts_max(self, rule: RetryRule) -> int:
        if self._patience is Patience.BRIEF and rule.attempts_brief_max is not None:
            return rule.attempts_brief_max
        return rule.attempts_max

    def _tell_wait(self, failure: HoldfastError, rule: RetryRule) -> None:
        at_most_s = (self._attempts_max(rule) - 1) * (rule.wait_s_min + rule.wait_s_max) / 2
        if at_most_s >= _TOLD_S_MIN:
            self._tell(f"waiting up to {format_duration(at_most_s)} for the pool: {failure}")


def _answer(failure: HoldfastError) -> str:
    return failure.xapi_code if isinstance(failure, PoolFailure) else failure.code


def _rule_for(failure: HoldfastError, rules: Sequence[RetryRule]) -> RetryRule | None:
    answer = _answer(failure)
    return next((rule for rule in rules if answer in rule.answers), None)
