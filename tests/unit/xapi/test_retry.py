"""What is waited for, how long, and what is not."""

from __future__ import annotations

import pytest

from holdfast.core import Cancellation, Cancelled, HoldfastError, ManualClock, SeededEntropy
from holdfast.xapi.catalogue import failure_from
from holdfast.xapi.errors import PoolConnectionLost
from holdfast.xapi.retry import CALL_RULES, READ_RULES, REMOVAL_RULES, Retrier


class _Action:
    """Fails as told, then succeeds."""

    def __init__(self, *failures: HoldfastError) -> None:
        self.failures = list(failures)
        self.runs = 0

    def __call__(self) -> str:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def _busy(code: str) -> HoldfastError:
    return failure_from([code, "OpaqueRef:x"], operation="test")


def _retrier(clock: ManualClock, cancel: Cancellation | None = None) -> Retrier:
    return Retrier(clock=clock, entropy=SeededEntropy(1), cancel=cancel or Cancellation())


def test_a_busy_disk_is_waited_for_every_five_seconds_and_its_cause_is_removed_each_time() -> None:
    clock = ManualClock()
    action = _Action(*[_busy("VDI_IN_USE")] * 3)
    seen: list[HoldfastError] = []
    assert _retrier(clock).run(action, rules=REMOVAL_RULES, before_wait=seen.append) == "done"
    assert clock.monotonic_s() == 15
    assert len(seen) == 3


def test_patience_ends_after_ten_attempts_with_the_pools_own_answer() -> None:
    action = _Action(*[_busy("VDI_IN_USE")] * 50)
    with pytest.raises(HoldfastError, match="VDI_IN_USE"):
        _retrier(ManualClock()).run(action, rules=REMOVAL_RULES)
    assert action.runs == 10


def test_a_full_queue_is_waited_for_half_an_hour_at_least() -> None:
    clock = ManualClock()
    with pytest.raises(HoldfastError, match="TOO_MANY_PENDING_TASKS"):
        _retrier(clock).run(_Action(*[_busy("TOO_MANY_PENDING_TASKS")] * 1000), rules=CALL_RULES)
    assert 1100 < clock.monotonic_s() < 2500


def test_a_busy_disk_is_not_waited_for_where_the_rules_do_not_say_so() -> None:
    action = _Action(_busy("VDI_IN_USE"))
    with pytest.raises(HoldfastError):
        _retrier(ManualClock()).run(action, rules=CALL_RULES)
    assert action.runs == 1


def test_a_broken_connection_is_only_forgiven_to_calls_that_read() -> None:
    lost = PoolConnectionLost(address="a", operation="o", why="w")
    assert _retrier(ManualClock()).run(_Action(lost), rules=READ_RULES) == "done"
    with pytest.raises(PoolConnectionLost):
        _retrier(ManualClock()).run(_Action(lost), rules=CALL_RULES)


def test_each_kind_of_refusal_has_its_own_patience() -> None:
    mixed = [_busy("VDI_IN_USE"), _busy("OTHER_OPERATION_IN_PROGRESS")] * 9
    assert _retrier(ManualClock()).run(_Action(*mixed), rules=REMOVAL_RULES) == "done"


def test_a_cancelled_wait_ends_at_once() -> None:
    cancel = Cancellation()
    action = _Action(*[_busy("VDI_IN_USE")] * 3)
    with pytest.raises(Cancelled):
        _retrier(ManualClock(), cancel).run(action, rules=REMOVAL_RULES, before_wait=lambda _: cancel.cancel())
    assert action.runs == 1


def test_every_rule_ends_and_says_why() -> None:
    for rule in (*READ_RULES, *REMOVAL_RULES):
        assert rule.attempts_max * rule.wait_s_max <= 3600
        assert 0 < rule.wait_s_min <= rule.wait_s_max
        assert rule.why
