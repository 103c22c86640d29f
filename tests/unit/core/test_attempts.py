"""Trying again is bounded, told, and stops when asked to."""

from __future__ import annotations

import pytest

from holdfast.core import Cancellation, Cancelled, HoldfastError, ManualClock, repeat_patiently


class _Trouble(HoldfastError):
    code = "test.trouble"


def _repeat(
    outcomes: list[HoldfastError | str], *, cancel: Cancellation | None = None, passes: bool = True
) -> tuple[str, list[str], float]:
    told: list[str] = []
    clock = ManualClock()

    def action() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, HoldfastError):
            raise outcome
        return outcome

    result = repeat_patiently(
        action,
        may_pass=lambda _: passes,
        attempts_max=3,
        wait_s=15,
        tell=told.append,
        clock=clock,
        cancel=cancel or Cancellation(),
    )
    return result, told, clock.monotonic_s()


def test_what_works_at_once_is_not_repeated() -> None:
    assert _repeat(["done"]) == ("done", [], 0)


def test_each_further_attempt_is_told_and_waited_for() -> None:
    result, told, waited_s = _repeat([_Trouble("lost"), _Trouble("lost again"), "done"])
    assert (result, waited_s) == ("done", 30)
    assert told == ["lost; attempt 2 of 3 begins in 15.0 s", "lost again; attempt 3 of 3 begins in 15.0 s"]


def test_the_last_attempts_error_is_the_answer() -> None:
    outcomes: list[HoldfastError | str] = [_Trouble("1"), _Trouble("2"), _Trouble("3"), "too late"]
    with pytest.raises(_Trouble, match="3"):
        _repeat(outcomes)
    assert outcomes == ["too late"]


def test_what_cannot_pass_is_not_repeated() -> None:
    outcomes: list[HoldfastError | str] = [_Trouble("broken"), "never"]
    with pytest.raises(_Trouble):
        _repeat(outcomes, passes=False)
    assert outcomes == ["never"]


def test_a_stop_is_a_stop_whatever_error_it_showed_as() -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        _repeat([_Trouble("socket closed"), "never"], cancel=cancel)
