"""One wrapper retries: only what can help, a bounded number of times, never doing a thing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock, Retry, SeededEntropy, limits
from holdfast.storage import (
    Fault,
    FaultEffect,
    FaultyStore,
    MemoryStore,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    RetryStore,
    StoreFull,
    StoreUnreachable,
    Verb,
)
from holdfast.storage.wrapper import StoreWrapper


class World:
    """A memory store behind faults behind retries, and its clock."""

    def __init__(self, *faults: Fault) -> None:
        self.memory = MemoryStore()
        self.faulty = FaultyStore(self.memory, faults)
        self.clock = ManualClock()
        self.cancel = Cancellation()
        self.store = self.around(self.faulty)

    def around(self, inner: StoreWrapper) -> RetryStore:
        return RetryStore(inner, clock=self.clock, entropy=SeededEntropy(7), cancel=self.cancel)


def outage(*, until: int, verb: Verb | None = None, effect: FaultEffect = FaultEffect.FAIL_BEFORE) -> list[Fault]:
    return [Fault(at=n, effect=effect, verb=verb) for n in range(1, until + 1)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.put("new", b"x"),
        lambda store: store.get("a"),
        lambda store: store.get_range("a", offset_bytes=0, length_bytes=1),
        lambda store: store.size("a"),
        lambda store: store.delete("a"),
        lambda store: store.try_punch("a", []),
        lambda store: list(store.list("")),
    ],
)
@pytest.mark.parametrize("effect", [FaultEffect.FAIL_BEFORE, FaultEffect.FAIL_AFTER])
def test_every_verb_outlives_an_outage_of_two_attempts(
    ask: Callable[[RetryStore], object], effect: FaultEffect
) -> None:
    calm = World()
    calm.memory.put("a", b"0123456789")
    world = World(*outage(until=2, effect=effect))
    world.memory.put("a", b"0123456789")
    assert ask(world.store) == ask(calm.store)
    assert world.memory.snapshot() == calm.memory.snapshot()
    assert world.clock.monotonic_s() > 0


def test_a_put_whose_answer_got_lost_is_no_clash() -> None:
    world = World(Fault(at=1, effect=FaultEffect.FAIL_AFTER))
    world.store.put("a", [b"on", b"e"])
    assert world.memory.get("a") == b"one"


def test_a_clash_is_a_clash_even_after_an_outage() -> None:
    world = World(Fault(at=1, effect=FaultEffect.FAIL_BEFORE))
    world.memory.put("a", b"theirs")
    with pytest.raises(ObjectExists):
        world.store.put("a", b"ours!!")
    assert world.memory.get("a") == b"theirs"


def test_equal_bytes_of_somebody_else_are_a_clash_when_nothing_failed() -> None:
    # Whoever claims a name must know whether it was them: a claim that succeeds twice is no claim.
    world = World()
    world.memory.put("leases/1", b"same")
    with pytest.raises(ObjectExists):
        world.store.put("leases/1", b"same")


def test_attempts_are_bounded_and_take_about_two_minutes() -> None:
    world = World(*outage(until=100))
    with pytest.raises(StoreUnreachable):
        world.store.get("a")
    assert world.faulty.operations == limits.RETRY_ATTEMPTS_MAX
    assert 60 <= world.clock.monotonic_s() <= 125


def test_pauses_grow_and_differ_between_clients() -> None:
    pauses: list[float] = []

    class WatchedClock(ManualClock):
        def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
            pauses.append(duration_s)

    for seed in (1, 2):
        faulty = FaultyStore(MemoryStore(), outage(until=100))
        store = RetryStore(faulty, clock=WatchedClock(), entropy=SeededEntropy(seed), cancel=Cancellation())
        with pytest.raises(StoreUnreachable):
            store.get("a")
    first, second = pauses[:5], pauses[5:]
    assert first != second
    for n, pause_s in enumerate(first):
        assert 2 * 2**n <= pause_s <= 4 * 2**n


def test_what_a_retry_cannot_help_fails_at_once() -> None:
    class Full(StoreWrapper):
        calls = 0

        def put(self, key: str, parts: object, *, locked_until: datetime | None = None) -> None:
            self.calls += 1
            raise StoreFull(store="full", key=key)

    full = Full(MemoryStore())
    world = World()
    with pytest.raises(StoreFull):
        world.around(full).put("a", b"x")
    with pytest.raises(ObjectMissing):
        world.store.get("missing")
    assert full.calls == 1
    assert world.clock.monotonic_s() == 0


def test_an_error_that_asks_for_it_is_retried_without_a_pause_once() -> None:
    class Hiccup(StoreUnreachable):
        code = "test.hiccup"
        retry = Retry.NOW

    class Hiccups(StoreWrapper):
        left = 1

        def get(self, key: str) -> bytes:
            if self.left:
                self.left -= 1
                raise Hiccup(store="hiccups", key=key, reason="hiccup")
            return super().get(key)

    world = World()
    world.memory.put("a", b"x")
    assert world.around(Hiccups(world.memory)).get("a") == b"x"
    assert world.clock.monotonic_s() == 0


def test_a_listing_that_breaks_goes_on_where_it_was() -> None:
    keys = [f"packs/{n:02x}" for n in range(10)]
    world = World(*outage(until=2, verb=Verb.LIST, effect=FaultEffect.FAIL_AFTER))
    for key in keys:
        world.memory.put(key, b"x")
    assert [info.key for info in world.store.list("packs/")] == keys


def test_a_listing_that_advances_may_break_more_often_than_a_call_may() -> None:
    keys = [f"{n:03d}" for n in range(40)]

    class Stumbling(StoreWrapper):
        """Yields one item beyond what it yielded before, then breaks off."""

        steps = 0

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            self.steps += 1
            for n, info in enumerate(self._inner.list(prefix)):
                if n == self.steps:
                    raise StoreUnreachable(store="stumbling", key=None, reason="broken off")
                yield info

    world = World()
    for key in keys:
        world.memory.put(key, b"x")
    assert [info.key for info in world.around(Stumbling(world.memory)).list("")] == keys


def test_a_dead_listing_ends_with_the_error() -> None:
    world = World(*outage(until=100, verb=Verb.LIST))
    with pytest.raises(StoreUnreachable):
        list(world.store.list(""))
    assert world.faulty.operations == limits.RETRY_ATTEMPTS_MAX


def test_a_cancelled_run_neither_waits_nor_asks() -> None:
    world = World(*outage(until=100))

    class CancellingClock(ManualClock):
        def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
            assert cancel is world.cancel
            world.cancel.cancel()
            super().sleep(duration_s, cancel=cancel)

    store = RetryStore(world.faulty, clock=CancellingClock(), entropy=SeededEntropy(1), cancel=world.cancel)
    with pytest.raises(Cancelled):
        store.get("a")
    assert world.faulty.operations == 1
    with pytest.raises(Cancelled):
        store.put("a", b"x")
    with pytest.raises(Cancelled):
        list(store.list(""))
    assert world.faulty.operations == 1
