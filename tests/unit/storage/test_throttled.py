"""A limit of the line holds on the average, for everybody together, and never keeps anybody who wants to stop."""

from __future__ import annotations

import threading

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock
from holdfast.storage import MemoryStore, ObjectExists, Throttle, ThrottledStore

MB = 1_000_000


def store_of(clock: ManualClock, *, up: int | None = None, down: int | None = None) -> ThrottledStore:
    def throttle(bytes_per_s: int | None) -> Throttle | None:
        return None if bytes_per_s is None else Throttle(bytes_per_s_max=bytes_per_s, clock=clock)

    return ThrottledStore(MemoryStore(), up=throttle(up), down=throttle(down), cancel=Cancellation())


def test_puts_take_the_time_that_their_bytes_are_worth() -> None:
    clock = ManualClock()
    store = store_of(clock, up=MB)
    for number in range(11):
        store.put(f"a/{number}", bytes(MB))
    # Eleven seconds of bytes, less the second that an idle line is worth and the last object, nobody waits for.
    assert clock.monotonic_s() == pytest.approx(9.0)


def test_gets_and_ranges_share_one_budget_and_puts_have_their_own() -> None:
    clock = ManualClock()
    store = store_of(clock, down=MB)
    for number in range(5):
        store.put(f"a/{number}", bytes(2 * MB))
    assert clock.monotonic_s() == 0
    for number in range(5):
        store.get(f"a/{number}")
        store.get_range(f"a/{number}", offset_bytes=0, length_bytes=MB)
    store.get("a/0")
    assert clock.monotonic_s() == pytest.approx(14.0)


def test_without_a_limit_nothing_waits() -> None:
    clock = ManualClock()
    store = store_of(clock)
    store.put("a", bytes(MB))
    store.get("a")
    store.get_range("a", offset_bytes=0, length_bytes=MB)
    assert clock.monotonic_s() == 0


def test_an_idle_hour_is_worth_one_second() -> None:
    clock = ManualClock()
    store = store_of(clock, up=MB)
    store.put("a/0", bytes(MB))
    clock.advance(3600)
    for number in range(1, 5):
        store.put(f"a/{number}", bytes(MB))
    assert clock.monotonic_s() - 3600 == pytest.approx(2.0)


def test_a_put_that_failed_has_travelled_and_is_paid_for() -> None:
    clock = ManualClock()
    store = store_of(clock, up=MB)
    store.put("a", bytes(MB))
    for _ in range(4):
        with pytest.raises(ObjectExists):
            store.put("a", bytes(MB))
    assert clock.monotonic_s() == pytest.approx(3.0)


def test_stores_and_threads_that_share_a_throttle_share_its_budget() -> None:
    clock = ManualClock()
    throttle = Throttle(bytes_per_s_max=MB, clock=clock)
    stores = [ThrottledStore(MemoryStore(), up=throttle, down=None, cancel=Cancellation()) for _ in range(4)]
    begun_s: list[float] = []

    def work(store: ThrottledStore) -> None:
        for number in range(5):
            store.put(f"a/{number}", bytes(MB))
            begun_s.append(clock.monotonic_s())

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A clock that every sleeper moves runs fast, never slow: twenty seconds of bytes take no less than eighteen.
    assert len(begun_s) == 20
    assert clock.monotonic_s() >= 18.0


def test_who_waits_for_the_line_stops_at_once_when_asked() -> None:
    clock = ManualClock()
    cancel = Cancellation()
    memory = MemoryStore()
    store = ThrottledStore(memory, up=Throttle(bytes_per_s_max=1, clock=clock), down=None, cancel=cancel)
    store.put("a/0", b"x" * 3600)
    cancel.cancel()
    with pytest.raises(Cancelled):
        store.put("a/1", b"x")
    assert [info.key for info in memory.list("")] == ["a/0"]
