"""One login, kept alive, followed to the master, never a call sent twice."""

from __future__ import annotations

import threading
import time

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock, SeededEntropy, limits
from holdfast.xapi import (
    LoginRefused,
    NoTls,
    ObjectGone,
    Patience,
    PoolAnswerInvalid,
    PoolConnectionLost,
    PoolUnreachable,
    SessionLost,
)
from holdfast.xapi.address import PoolAddress
from holdfast.xapi.calls import Calls
from holdfast.xapi.session import PoolSession
from tests.unit.xapi.fake_pool import CREDENTIALS, FakePool, Refusal, fake_pool, logged_in


def _session(pool: FakePool) -> PoolSession:
    return PoolSession(pool.address, CREDENTIALS, NoTls())


def test_a_call_carries_the_session_and_its_answer_is_plain() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["VM.get_record"] = lambda session, ref: {"uuid": ref, "session": session, "n": "5"}
        assert calls.record("VM", "OpaqueRef:x") == {"uuid": "OpaqueRef:x", "session": "OpaqueRef:session", "n": "5"}


def test_a_wrong_password_is_refused_without_repeating_it() -> None:
    def refuse(*_: str) -> str:
        raise Refusal("SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure")

    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = refuse
        with pytest.raises(LoginRefused) as caught:
            _session(pool).login(cancel=Cancellation())
        assert "secret" not in str(caught.value) + repr(caught.value.facts())
        assert pool.names() == ["session.login_with_password"]


def test_a_member_names_the_master_and_is_followed_there() -> None:
    def first_a_member(*_: str) -> str:
        if len(pool.calls) == 1:
            raise Refusal("HOST_IS_SLAVE", "127.0.0.1")
        return "OpaqueRef:session"

    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = first_a_member
        session = _session(pool)
        session.login(cancel=Cancellation())
        assert session.reference == "OpaqueRef:session"
        assert session.address == pool.address
        session.close()


def test_hosts_that_send_us_round_in_circles_are_unreachable() -> None:
    def always(*_: str) -> str:
        raise Refusal("HOST_IS_SLAVE", "127.0.0.1")

    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = always
        with pytest.raises(PoolUnreachable, match="do not agree"):
            _session(pool).login(cancel=Cancellation())


def test_a_forgotten_session_is_renewed_once_and_the_call_repeated() -> None:
    logins = iter(["OpaqueRef:first", "OpaqueRef:second"])

    def record(session: str, ref: str) -> dict[str, str]:
        if session == "OpaqueRef:first":
            raise Refusal("SESSION_INVALID", session)
        return {"ref": ref}

    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = lambda *_: next(logins)
        pool.methods["VM.get_record"] = record
        with logged_in(pool) as calls:
            assert calls.record("VM", "r") == {"ref": "r"}
            assert calls.session.reference == "OpaqueRef:second"


def test_many_threads_that_lose_the_session_log_in_once() -> None:
    logins = iter(f"OpaqueRef:{number}" for number in range(100))

    def record(session: str, ref: str) -> dict[str, str]:
        if session == "OpaqueRef:0":
            raise Refusal("SESSION_INVALID", session)
        return {}

    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = lambda *_: next(logins)
        pool.methods["VM.get_record"] = record
        with logged_in(pool) as calls:
            threads = [threading.Thread(target=calls.record, args=("VM", "r")) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert calls.session.reference == "OpaqueRef:1"


def test_a_session_that_stays_invalid_is_an_error_not_a_loop() -> None:
    def never(*_: str) -> str:
        raise Refusal("SESSION_INVALID", "x")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["VM.get_record"] = never
        with pytest.raises(SessionLost, match="SESSION_INVALID"):
            calls.record("VM", "r")
        assert pool.names().count("VM.get_record") == 2 * limits.POOL_LOGINS_PER_CALL_MAX


@pytest.mark.parametrize("answer", [("SESSION_INVALID", "x"), ("HOST_IS_SLAVE", "127.0.0.1")])
def test_several_sessions_lost_in_a_row_cost_a_call_that_changes_something_only_time(answer: tuple[str, ...]) -> None:
    refusals = [Refusal(*answer) for _ in range(5)]

    def start(*_: str) -> str:
        if refusals:
            raise refusals.pop()
        return "OpaqueRef:task"

    with fake_pool() as pool, logged_in(pool) as calls:
        logins = iter(range(100))
        pool.methods["session.login_with_password"] = lambda *_: f"OpaqueRef:{next(logins)}"
        pool.methods["Async.VM.start"] = start
        assert calls.call("Async.VM.start", "r") == "OpaqueRef:task"
        assert pool.names().count("Async.VM.start") == 6


def _logs_in(pool: FakePool, clock: ManualClock, *, patience: Patience, tell: list[str]) -> str:
    calls = Calls(
        _session(pool),
        clock=clock,
        entropy=SeededEntropy(1),
        cancel=Cancellation(),
        patience=patience,
        tell=tell.append,
    )
    calls.login()
    return calls.session.reference


@pytest.mark.parametrize("drops", [True, False])
def test_a_run_waits_minutes_for_a_pool_whose_toolstack_starts_and_tells_it_once(drops: bool) -> None:
    def boots(*_: str) -> str:
        if len(pool.calls) <= 40:
            raise Refusal("HOST_STILL_BOOTING")
        return "OpaqueRef:session"

    clock, told = ManualClock(), list[str]()
    with fake_pool() as pool:
        if drops:
            pool.drops += ["session.login_with_password"] * 40
        else:
            pool.methods["session.login_with_password"] = boots
        assert _logs_in(pool, clock, patience=Patience.RUN, tell=told) == "OpaqueRef:session"
    assert 60 < clock.monotonic_s() < 300
    (sentence,) = told
    assert "waiting up to 4 min 56 s for the pool" in sentence
    assert ("hung up during the login" if drops else "HOST_STILL_BOOTING") in sentence


def test_whoever_waits_for_an_answer_is_told_within_seconds_that_there_is_no_pool() -> None:
    clock, told = ManualClock(), list[str]()
    with fake_pool() as pool:
        pool.drops += ["session.login_with_password"] * 100
        with pytest.raises(PoolUnreachable):
            _logs_in(pool, clock, patience=Patience.BRIEF, tell=told)
        assert pool.names().count("session.login_with_password") == limits.POOL_AWAY_ATTEMPTS_BRIEF_MAX
    assert 5 < clock.monotonic_s() < 20
    assert told == []


def test_a_run_does_not_wait_for_a_password_to_become_right() -> None:
    def refuse(*_: str) -> str:
        raise Refusal("SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure")

    clock = ManualClock()
    with fake_pool() as pool:
        pool.methods["session.login_with_password"] = refuse
        with pytest.raises(LoginRefused):
            _logs_in(pool, clock, patience=Patience.RUN, tell=[])
    assert clock.monotonic_s() == 0


def test_a_master_that_moved_during_a_call_is_followed() -> None:
    def moved_once(*_: str) -> dict[str, str]:
        if pool.names().count("VM.get_record") == 1:
            raise Refusal("HOST_IS_SLAVE", "127.0.0.1")
        return {"uuid": "u"}

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["session.login_with_password"] = lambda *_: "OpaqueRef:second"
        pool.methods["VM.get_record"] = moved_once
        assert calls.record("VM", "r") == {"uuid": "u"}
        assert calls.session.reference == "OpaqueRef:second"


def test_what_the_pool_refuses_after_a_new_login_is_told() -> None:
    answers = iter([Refusal("SESSION_INVALID", "x"), Refusal("HANDLE_INVALID", "VM", "r")])

    def refuse(*_: str) -> str:
        raise next(answers)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["session.login_with_password"] = lambda *_: "OpaqueRef:second"
        pool.methods["VM.get_record"] = refuse
        with pytest.raises(ObjectGone):
            calls.record("VM", "r")


def test_a_kept_connection_that_the_server_gave_up_is_replaced_before_it_is_used() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["Async.VM.start"] = lambda *_: "OpaqueRef:task"
        pool.hang_up_after.append("VM.get_record")
        pool.methods["VM.get_record"] = lambda *_: {}
        calls.record("VM", "r")
        assert pool.hung_up.wait(2)
        assert calls.call("Async.VM.start", "r") == "OpaqueRef:task"
        assert pool.names().count("Async.VM.start") == 1


def test_a_call_that_changes_something_is_never_sent_twice() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.drops.append("Async.VM.snapshot")
        pool.methods["Async.VM.snapshot"] = lambda *_: "OpaqueRef:task"
        with pytest.raises(PoolConnectionLost) as caught:
            calls.call("Async.VM.snapshot", "r", "name")
        assert caught.value.operation == "Async.VM.snapshot"
        assert pool.names().count("Async.VM.snapshot") == 1


def test_a_call_that_reads_is_repeated_when_the_connection_breaks() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.drops.append("VM.get_record")
        pool.methods["VM.get_record"] = lambda *_: {}
        assert calls.record("VM", "r") == {}
        assert pool.names().count("VM.get_record") == 2


def test_a_pool_that_is_not_there_is_unreachable() -> None:
    session = PoolSession(PoolAddress(scheme="http", host="127.0.0.1", port=1), CREDENTIALS, NoTls())
    with pytest.raises(PoolUnreachable, match="refused"):
        session.login(cancel=Cancellation())


def test_a_server_that_is_no_pool_is_told_apart() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["VM.get_record"] = lambda *_: "not a record"
        with pytest.raises(Exception, match="get_record"):
            calls.record("VM", "r")
        pool.methods["pool.get_all_records"] = lambda *_: [1]
        with pytest.raises(Exception, match="get_all_records"):
            calls.table("pool")


def test_an_answer_that_is_no_xml_rpc_is_an_error_of_ours() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["x.get_y"] = lambda *_: object()
        with pytest.raises((PoolAnswerInvalid, PoolConnectionLost)):
            calls.call("x.get_y")


def test_a_gone_object_is_none_where_it_may_be_gone() -> None:
    def gone(*_: str) -> str:
        raise Refusal("HANDLE_INVALID", "VM", "r")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["VM.get_record"] = gone
        assert calls.try_record("VM", "r") is None
        assert calls.try_record("VM", "OpaqueRef:NULL") is None
        with pytest.raises(ObjectGone):
            calls.record("VM", "r")


def test_closing_logs_out_and_can_be_done_twice() -> None:
    with fake_pool() as pool:
        with logged_in(pool) as calls:
            pass
        calls.session.close()
        assert pool.names().count("session.logout") == 1


def test_a_blocked_call_ends_soon_after_cancelling() -> None:
    blocked = threading.Event()
    release = threading.Event()

    def hang(*_: str) -> dict[str, str]:
        blocked.set()
        release.wait(5)
        return {}

    cancel = Cancellation()
    with fake_pool() as pool, logged_in(pool, cancel=cancel) as calls:
        pool.methods["VM.get_record"] = hang

        def cancel_when_blocked() -> None:
            blocked.wait()
            cancel.cancel()

        threading.Thread(target=cancel_when_blocked).start()
        begun = time.perf_counter()
        with pytest.raises(Cancelled):
            calls.record("VM", "r")
        assert time.perf_counter() - begun < 2
        release.set()
        assert calls.with_cancel(Cancellation()).try_record("VM", "OpaqueRef:NULL") is None
