"""Wrappers for tests, simulations and measurements do exactly what their plan says."""

from __future__ import annotations

import itertools
import threading

import pytest

from holdfast.model import Extent
from holdfast.storage import (
    CappedStore,
    Fault,
    FaultEffect,
    FaultyStore,
    LaggingStore,
    MemoryStore,
    Meter,
    MeteredStore,
    ObjectExists,
    ObjectMissing,
    SimulatedCrash,
    StoreFull,
    StoreUnreachable,
    Verb,
)


def with_object() -> MemoryStore:
    memory = MemoryStore()
    memory.put("a", b"0123456789")
    return memory


class TestMemory:
    def test_going_back_to_a_snapshot_undoes_everything_since(self) -> None:
        memory = with_object()
        state = memory.snapshot()
        memory.put("b", b"x")
        memory.delete("a")
        memory.restore(state)
        assert [info.key for info in memory.list("")] == ["a"]
        assert memory.get("a") == b"0123456789"

    def test_a_snapshot_does_not_follow_the_store(self) -> None:
        memory = with_object()
        state = memory.snapshot()
        memory.try_punch("a", [Extent(offset_bytes=0, length_bytes=5)])
        memory.put("b", b"x")
        assert dict(state) == {"a": b"0123456789"}


class TestFaulty:
    def test_a_failure_before_does_nothing_and_one_after_does_it(self) -> None:
        for effect, expected in [(FaultEffect.FAIL_BEFORE, []), (FaultEffect.FAIL_AFTER, ["b"])]:
            memory = MemoryStore()
            store = FaultyStore(memory, [Fault(at=1, effect=effect)])
            with pytest.raises(StoreUnreachable):
                store.put("b", b"x")
            assert [info.key for info in memory.list("")] == expected
            store.put("c", b"x")

    def test_a_fault_counts_one_verb_or_all(self) -> None:
        store = FaultyStore(with_object(), [Fault(at=2, effect=FaultEffect.FAIL_BEFORE, verb=Verb.GET)])
        assert store.get("a")
        assert store.size("a")
        with pytest.raises(StoreUnreachable):
            store.get("a")
        assert store.get("a")
        assert store.operations == 4

    @pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
    def test_a_crash_is_for_good_and_no_error_handler_catches_it(self, effect: FaultEffect) -> None:
        memory = with_object()
        store = FaultyStore(memory, [Fault(at=1, effect=effect)])
        with pytest.raises(SimulatedCrash):
            try:
                store.put("b", b"x")
            except Exception:
                pytest.fail("a crash must not look like an error")
        assert store.is_dead
        for attempt in (
            lambda: store.delete("a"),
            lambda: store.get("a"),
            lambda: list(store.list("")),
            lambda: store.put("c", b"x"),
        ):
            with pytest.raises(SimulatedCrash):
                attempt()
        expected = ["a", "b"] if effect is FaultEffect.CRASH_AFTER else ["a"]
        assert [info.key for info in memory.list("")] == expected
        assert not FaultyStore(memory).is_dead

    def test_a_crash_after_an_operation_that_failed_is_a_crash_too(self) -> None:
        store = FaultyStore(with_object(), [Fault(at=1, effect=FaultEffect.CRASH_AFTER)])
        with pytest.raises(SimulatedCrash):
            store.put("a", b"x")

    def test_a_flipped_read_differs_in_one_bit_and_the_object_is_unharmed(self) -> None:
        memory = with_object()
        store = FaultyStore(memory, [Fault(at=1, effect=FaultEffect.FLIP), Fault(at=2, effect=FaultEffect.FLIP)])
        for read in (store.get("a"), store.get_range("a", offset_bytes=0, length_bytes=10)):
            bits = sum((x ^ y).bit_count() for x, y in zip(read, b"0123456789", strict=True))
            assert bits == 1
        assert store.get("a") == b"0123456789"

    def test_a_truncated_read_is_short(self) -> None:
        store = FaultyStore(with_object(), [Fault(at=1, effect=FaultEffect.TRUNCATE)])
        assert store.get("a") == b"01234"

    def test_a_flip_of_an_empty_object_is_nothing(self) -> None:
        memory = MemoryStore()
        memory.put("empty", b"")
        store = FaultyStore(memory, [Fault(at=1, effect=FaultEffect.FLIP)])
        assert store.get("empty") == b""

    def test_a_listing_can_break_in_its_middle(self) -> None:
        memory = MemoryStore()
        for key in "abcd":
            memory.put(key, b"x")
        store = FaultyStore(memory, [Fault(at=1, effect=FaultEffect.FAIL_AFTER)])
        seen = []
        with pytest.raises(StoreUnreachable):
            for info in store.list(""):
                seen.append(info.key)
        assert seen == ["a", "b"]

    def test_the_same_plan_does_the_same_thing(self) -> None:
        def history() -> list[str]:
            store = FaultyStore(with_object(), [Fault(at=n, effect=FaultEffect.FLIP) for n in range(1, 9, 2)])
            return [store.get("a").hex() for _ in range(10)]

        assert history() == history()
        assert len(set(history())) > 2


class TestCapped:
    def test_a_put_beyond_the_end_stores_nothing(self) -> None:
        memory = with_object()
        store = CappedStore(memory, capacity_bytes=15)
        with pytest.raises(StoreFull) as refusal:
            store.put("b", [b"123", b"456"])
        assert refusal.value.free_bytes == 5
        assert [info.key for info in memory.list("")] == ["a"]
        store.put("b", b"12345")
        assert store.free_bytes() == 0

    def test_deleting_makes_room(self) -> None:
        store = CappedStore(with_object(), capacity_bytes=10)
        assert store.free_bytes() == 0
        store.delete("a")
        store.delete("a")
        assert store.free_bytes() == 10
        store.put("b", b"0123456789")

    def test_a_refused_put_costs_no_room(self) -> None:
        store = CappedStore(with_object(), capacity_bytes=100)
        with pytest.raises(ObjectExists):
            store.put("a", b"x" * 50)
        assert store.free_bytes() == 90


class TestLagging:
    def test_only_listings_are_late(self) -> None:
        store = LaggingStore(MemoryStore(), lag_changes=2)
        for key in "abc":
            store.put(key, b"x")
        assert [info.key for info in store.list("")] == ["a"]
        assert store.get("c") == b"x"
        with pytest.raises(ObjectExists):
            store.put("c", b"y")
        store.settle()
        assert [info.key for info in store.list("")] == ["a", "b", "c"]

    def test_a_deleted_object_is_listed_for_a_while(self) -> None:
        store = LaggingStore(with_object(), lag_changes=1)
        store.delete("a")
        assert [(info.key, info.length_bytes) for info in store.list("")] == [("a", 10)]
        with pytest.raises(ObjectMissing):
            store.get("a")
        store.delete("a")  # changes nothing, so it pushes nothing out
        assert [info.key for info in store.list("")] == ["a"]
        store.put("b", b"x")
        assert [info.key for info in store.list("")] == []

    def test_a_late_listing_keeps_to_its_prefix(self) -> None:
        store = LaggingStore(with_object(), lag_changes=5)
        store.delete("a")
        assert list(store.list("b")) == []

    def test_a_listing_is_exactly_the_past(self) -> None:
        for lag in range(6):
            store = LaggingStore(MemoryStore(), lag_changes=lag)
            past: list[list[str]] = [[]]
            for verb, key in [("put", "a"), ("put", "b"), ("delete", "a"), ("put", "a"), ("delete", "b")]:
                store.put(key, b"x") if verb == "put" else store.delete(key)
                past.append([info.key for info in store._inner.list("")])
            assert [info.key for info in store.list("")] == past[max(0, len(past) - 1 - lag)]


class TestMetered:
    def test_requests_bytes_and_failures_are_counted_by_verb(self) -> None:
        store = MeteredStore(with_object())
        store.put("b", [b"12", b"345"])
        with pytest.raises(ObjectExists):
            store.put("b", b"12345678")
        store.get("a")
        store.get_range("a", offset_bytes=0, length_bytes=3)
        store.size("a")
        store.try_punch("a", [Extent(offset_bytes=1, length_bytes=2)])
        list(store.list(""))
        next(iter(store.list("")))
        store.delete("a")
        assert store.meters() == {
            Verb.PUT: Meter(requests=2, failures=1, length_bytes=5),
            Verb.GET: Meter(requests=2, length_bytes=13),
            Verb.SIZE: Meter(requests=1),
            Verb.LIST: Meter(requests=2),
            Verb.DELETE: Meter(requests=1),
            Verb.PUNCH: Meter(requests=1, length_bytes=2),
            Verb.LOCK: Meter(),
        }

    def test_threads_lose_no_count(self) -> None:
        store = MeteredStore(with_object())
        threads = [
            threading.Thread(target=lambda: [store.get("a") for _ in itertools.repeat(None, 200)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.meters()[Verb.GET] == Meter(requests=800, length_bytes=8000)
