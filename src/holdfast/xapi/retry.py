"""When the pool says "not now": which answers are worth waiting for, how long, and the one wrapper that waits.

Invariant: nothing else in this package repeats a call. Every rule has an end, and every wait can be cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.core import Cancellation, Clock, Entropy, HoldfastError, get_log
from holdfast.xapi.errors import PoolConnectionLost, PoolFailure, PoolUnreachable

__all__ = ["CALL_RULES", "READ_RULES", "REMOVAL_RULES", "Retrier", "RetryRule"]

_log = get_log(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """One kind of refusal: how often it is waited for, and for how long each time."""

    answers: frozenset[str]
    """XAPI codes, or our own error codes for connection trouble."""
    attempts_max: int
    wait_s_min: float
    wait_s_max: float
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
        answers=frozenset({"HOST_STILL_BOOTING", "CANNOT_CONTACT_HOST"}),
        attempts_max=30,
        wait_s_min=5,
        wait_s_max=10,
        why="a toolstack restart takes about a minute",
    ),
)
"""For every call."""

READ_RULES: tuple[RetryRule, ...] = (
    *CALL_RULES,
    RetryRule(
        answers=frozenset({PoolConnectionLost.code, PoolUnreachable.code}),
        attempts_max=4,
        wait_s_min=1,
        wait_s_max=4,
        why="a call that only reads may be repeated when the connection breaks",
    ),
)
"""For calls that change nothing."""

REMOVAL_RULES: tuple[RetryRule, ...] = (
    *READ_RULES,
    RetryRule(
        answers=frozenset({"VDI_IN_USE", "SR_BACKEND_FAILURE_24"}),
        attempts_max=10,
        wait_s_min=5,
        wait_s_max=5,
        why="after an NBD connection the control domain needs seconds to let go of the disk",
    ),
    RetryRule(
        answers=frozenset({"SR_BACKEND_FAILURE_46", "VDI_NOT_AVAILABLE", "SR_BACKEND_FAILURE_82"}),
        attempts_max=6,
        wait_s_min=10,
        wait_s_max=10,
        why="the SR is merging this disk's chain; a pass over one layer takes up to a minute",
    ),
)
"""For removing disks and snapshots, which is safe twice."""


class Retrier:
    """Runs actions and waits as the rules say."""

    def __init__(self, *, clock: Clock, entropy: Entropy, cancel: Cancellation) -> None:
        self._clock, self._entropy, self._cancel = clock, entropy, cancel

    def run(
        self,
        action: Callable[[], _T],
        *,
        rules: Sequence[RetryRule],
        before_wait: Callable[[HoldfastError], None] = lambda _: None,
    ) -> _T:
        """Return what ``action`` returns. Its last error is raised when the rules are used up or do not know it.

        ``before_wait`` may remove the cause; what it raises ends the attempts.
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
                if used[rule] >= rule.attempts_max:
                    raise
                before_wait(failure)
                wait_s = self._entropy.uniform(rule.wait_s_min, rule.wait_s_max)
                _log.info("pool.waits", answer=_answer(failure), attempt=used[rule], wait_s=round(wait_s, 1))
                self._clock.sleep(wait_s, cancel=self._cancel)


def _answer(failure: HoldfastError) -> str:
    return failure.xapi_code if isinstance(failure, PoolFailure) else failure.code


def _rule_for(failure: HoldfastError, rules: Sequence[RetryRule]) -> RetryRule | None:
    answer = _answer(failure)
    return next((rule for rule in rules if answer in rule.answers), None)
