"""What a pool does as time passes, and the clock that lets time pass at once."""

from __future__ import annotations

import threading

from holdfast.core import ManualClock
from holdfast.lab.clock import LabClock
from holdfast.lab.housekeeping import Housekeeping


def made() -> tuple[LabClock, Housekeeping]:
    clock = LabClock(ManualClock())
    return clock, Housekeeping(clock)


def test_chores_are_done_in_the_order_of_their_moments_and_see_them() -> None:
    clock, chores = made()
    seen: list[tuple[str, float]] = []
    chores.after("late", 30, lambda: seen.append(("late", clock.monotonic_s())))
    chores.every("often", 20, lambda: seen.append(("often", clock.monotonic_s())))
    chores.advance(45)
    assert seen == [("often", 20), ("late", 30), ("often", 40)]
    assert clock.monotonic_s() == 45


def test_a_chore_may_ask_for_the_next_one_on_the_way() -> None:
    clock, chores = made()
    seen: list[float] = []
    chores.after("first", 10, lambda: chores.after("second", 5, lambda: seen.append(clock.monotonic_s())))
    chores.advance(60)
    assert seen == [15]


def test_a_chore_of_the_same_name_moves_the_moment() -> None:
    clock, chores = made()
    seen: list[float] = []
    chores.after("merge", 10, lambda: seen.append(clock.monotonic_s()))
    chores.advance(8)
    chores.after("merge", 10, lambda: seen.append(clock.monotonic_s()))
    chores.advance(8)
    assert seen == []
    chores.advance(8)
    assert seen == [18]
    assert not chores.is_due("merge")


def test_a_cancelled_chore_is_not_done() -> None:
    _, chores = made()
    seen: list[int] = []
    chores.after("never", 1, lambda: seen.append(1))
    chores.cancel("never")
    chores.cancel("never")
    chores.advance(10)
    assert seen == []


def test_a_chore_that_fails_stops_neither_the_next_nor_itself() -> None:
    _, chores = made()
    seen: list[int] = []

    def fail() -> None:
        seen.append(0)
        raise RuntimeError("a chore that fails")

    chores.every("broken", 10, fail)
    chores.every("sound", 10, lambda: seen.append(1))
    chores.advance(20)
    assert seen == [0, 1, 0, 1]


def test_moving_the_clock_wakes_who_sleeps_on_it() -> None:
    clock = LabClock(ManualClock())
    woken = threading.Event()

    def sleep() -> None:
        clock.sleep(3600)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    while not woken.wait(0.001):
        clock.move(3600)
    thread.join()


def test_the_thread_does_what_a_move_made_due() -> None:
    clock, chores = made()
    done = threading.Event()
    chores.after("soon", 60, done.set)
    chores.start()
    try:
        clock.move(60)
        assert done.wait(5)
    finally:
        chores.close()
        chores.close()
