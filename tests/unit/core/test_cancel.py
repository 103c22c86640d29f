"""A cancellation reaches every waiter once, from any thread, and never blocks the one who asks."""

from __future__ import annotations

import threading

import pytest

from holdfast.core import Cancellation, Cancelled, ExitStatus


def test_a_fresh_token_lets_everything_pass() -> None:
    token = Cancellation()
    token.check()
    token.wait(0)
    assert not token.is_cancelled
    assert token.reason == ""


def test_check_and_wait_raise_with_the_reason_once_cancelled() -> None:
    token = Cancellation()
    token.cancel(reason="Ctrl-C")
    with pytest.raises(Cancelled, match="Ctrl-C"):
        token.check()
    with pytest.raises(Cancelled, match="Ctrl-C"):
        token.wait(3600)


def test_cancelling_twice_keeps_the_first_reason_and_calls_back_once() -> None:
    token, calls = Cancellation(), []
    with token.on_cancel(lambda: calls.append("closed")):
        token.cancel(reason="first")
        token.cancel(reason="second")
    assert token.reason == "first"
    assert calls == ["closed"]


def test_a_sleeping_waiter_is_woken_from_another_thread() -> None:
    token, seen = Cancellation(), []

    def wait_long() -> None:
        try:
            token.wait(3600)
        except Cancelled as stopped:
            seen.append(str(stopped))

    waiter = threading.Thread(target=wait_long)
    waiter.start()
    token.cancel(reason="from outside")
    waiter.join(timeout=5)
    assert seen == ["from outside"]


def test_a_callback_registered_too_late_runs_at_once() -> None:
    token, calls = Cancellation(), []
    token.cancel()
    with token.on_cancel(lambda: calls.append("closed")):
        assert calls == ["closed"]


def test_a_callback_is_forgotten_when_its_block_ends() -> None:
    token, calls = Cancellation(), []
    with token.on_cancel(lambda: calls.append("closed")):
        pass
    with pytest.raises(ZeroDivisionError), token.on_cancel(lambda: calls.append("closed")):
        raise ZeroDivisionError
    token.cancel()
    assert calls == []


def test_every_registered_callback_runs() -> None:
    token, calls = Cancellation(), []
    with token.on_cancel(lambda: calls.append("first")), token.on_cancel(lambda: calls.append("second")):
        token.cancel()
    assert sorted(calls) == ["first", "second"]


def test_being_cancelled_is_told_apart_from_failing() -> None:
    assert Cancelled("x").exit_status is ExitStatus.INTERRUPTED
    assert "holdfast run resume" in Cancelled("x").next_step()
