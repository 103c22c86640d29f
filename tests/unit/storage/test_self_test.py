"""The self-test finds every kind of store that would lose data, says what that means, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock, NoProgress, SeededEntropy, SystemClock
from holdfast.storage import (
    FaultyStore,
    LaggingStore,
    MemoryStore,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    Parts,
    RangeNotSatisfiable,
    SelfTest,
    Severity,
    StoreFailed,
    StoreFull,
    StoreUnreachable,
    run_self_test,
)
from holdfast.storage.self_test import PROBE_PREFIX
from holdfast.storage.wrapper import StoreWrapper

pytestmark = pytest.mark.slow(reason="objects of 64 MiB in memory")

CLOCK = ManualClock()


def tried(store: ObjectStore, *, cleaner: ObjectStore | None = None, with_lock: bool = False) -> SelfTest:
    return run_self_test(
        store,
        cleaner or store,
        with_lock=with_lock,
        clock=CLOCK,
        entropy=SeededEntropy(1),
        progress=NoProgress(),
        cancel=Cancellation(),
    )


def risks(outcome: SelfTest) -> list[str]:
    return [each.name for each in outcome.findings if each.severity is Severity.RISK]


class Overwriting(StoreWrapper):
    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        self._inner.delete(key)
        self._inner.put(key, parts)


class RefusingButOverwriting(StoreWrapper):
    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        try:
            self._inner.put(key, parts)
        except ObjectExists:
            self._inner.delete(key)
            self._inner.put(key, parts)
            raise


class OverwritingInARace(StoreWrapper):
    """Looks first and writes then, as a rename on some servers does."""

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        if "race" in key:
            self._inner.delete(key)
        self._inner.put(key, parts)


class ShortRanges(StoreWrapper):
    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        return self._inner.get(key)[offset_bytes : offset_bytes + length_bytes]


class ShiftedRanges(StoreWrapper):
    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        content = self._inner.get(key)
        return content[offset_bytes + 1 : offset_bytes + 1 + length_bytes]


class Truncating(StoreWrapper):
    def get(self, key: str) -> bytes:
        return self._inner.get(key)[: 63 << 20]


class NotDeleting(StoreWrapper):
    def delete(self, key: str) -> None:
        pass


class Unsorted(StoreWrapper):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(sorted(self._inner.list(prefix), reverse=True))


class CallingMissingBroken(StoreWrapper):
    def get(self, key: str) -> bytes:
        try:
            return self._inner.get(key)
        except ObjectMissing as missing:
            raise StoreFailed(store="x", key=key, error_number=5, reason="input/output error") from missing


class LockingInNameOnly(StoreWrapper):
    def try_lock(self, key: str, until: datetime) -> datetime | None:
        return until + timedelta(hours=1)


def test_a_store_that_keeps_its_promises_is_fit() -> None:
    memory = MemoryStore()
    memory.put("packs/aa/1", b"somebody's data")
    outcome = tried(memory)
    assert outcome.is_fit
    assert risks(outcome) == []
    assert outcome.verdict == "Fit for backups."
    assert outcome.speed is not None
    assert [info.key for info in memory.list("")] == ["packs/aa/1"]
    assert all(each.seen and each.meaning for each in outcome.findings)


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (Overwriting, "create only"),
        (RefusingButOverwriting, "create only"),
        (OverwritingInARace, "create only, at once"),
        (ShortRanges, "ranges beyond the end"),
        (ShiftedRanges, "ranges"),
        (Truncating, "lengths"),
        (NotDeleting, "deleting"),
        (Unsorted, "listing"),
        (CallingMissingBroken, "missing objects"),
        (lambda inner: LaggingStore(inner, lag_changes=1), "listing"),
    ],
)
def test_every_broken_promise_is_found(bad: type[StoreWrapper], name: str) -> None:
    memory = MemoryStore()
    outcome = tried(bad(memory), cleaner=memory)
    assert name in risks(outcome)
    assert not outcome.is_fit
    assert outcome.verdict.startswith("Not fit")
    assert list(memory.list("")) == []


def test_a_store_that_cannot_lock_is_told_but_fit() -> None:
    outcome = tried(MemoryStore(), with_lock=True)
    assert [each.name for each in outcome.findings if each.severity is Severity.WARNING] == ["lock"]
    assert outcome.is_fit
    assert outcome.verdict == "Fit for backups, with 1 warning."


def test_a_lock_that_holds_is_told_with_what_stays() -> None:
    memory = MemoryStore(clock=CLOCK)
    outcome = tried(memory, with_lock=True)
    assert outcome.is_fit
    lock, clean_up = (next(each for each in outcome.findings if each.name == name) for name in ("lock", "clean-up"))
    assert lock.severity is Severity.GOOD
    assert clean_up.severity is Severity.NOTE
    assert "1 object" in clean_up.seen
    assert len(list(memory.list(""))) == 1


def test_what_a_lock_or_a_killed_test_left_is_removed_by_the_next_one() -> None:
    memory = MemoryStore(clock=CLOCK)
    tried(memory, with_lock=True)
    memory.put(f"{PROBE_PREFIX}nobody-knows", b"x")
    CLOCK.advance(7200)
    tried(memory)
    assert [info.key for info in memory.list("")] == [f"{PROBE_PREFIX}nobody-knows"]


def test_a_lock_that_holds_nothing_is_a_risk() -> None:
    assert risks(tried(LockingInNameOnly(MemoryStore()), with_lock=True)) == ["lock"]


class Failing(StoreWrapper):
    """Works for a while."""

    def __init__(self, inner: ObjectStore, failure: BaseException, *, after: int) -> None:
        super().__init__(inner)
        self._failure = failure
        self._left = after

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._failure
        self._inner.put(key, parts)


@pytest.mark.parametrize("after", [0, 1, 7, 20])
@pytest.mark.parametrize(
    "failure",
    [
        StoreUnreachable(store="x", key=None, reason="gone"),
        StoreFull(store="x", key=None),
        Cancelled("stopped"),
        KeyboardInterrupt(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_whatever_ends_a_test_nothing_is_left_behind(failure: BaseException, after: int) -> None:
    memory = MemoryStore()
    with pytest.raises(type(failure)):
        tried(Failing(memory, failure, after=after), cleaner=memory)
    assert list(memory.list("")) == []


def test_an_error_that_nobody_expects_is_a_finding_and_the_test_goes_on() -> None:
    memory = MemoryStore()
    refusal = RangeNotSatisfiable(store="x", key="k", offset_bytes=0, length_bytes=1, size_bytes=0)

    class Odd(StoreWrapper):
        def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            raise refusal

    outcome = tried(Odd(memory))
    assert risks(outcome) == ["ranges", "missing objects"]
    assert "deleting" in [each.name for each in outcome.findings]


def test_a_slow_store_gets_a_warning_in_words() -> None:
    clock = ManualClock()

    class Slow(StoreWrapper):
        def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
            clock.advance(4.0)
            self._inner.put(key, parts)

        def get(self, key: str) -> bytes:
            clock.advance(2.0)
            return self._inner.get(key)

    outcome = run_self_test(
        Slow(MemoryStore()),
        MemoryStore(),
        clock=clock,
        entropy=SeededEntropy(1),
        progress=NoProgress(),
        cancel=Cancellation(),
    )
    speed = next(each for each in outcome.findings if each.name == "speed")
    assert speed.severity is Severity.WARNING
    assert "2000 ms (worst 4000 ms)" in speed.seen
    assert "4 MB/s up, 8 MB/s down" in speed.seen
    assert "takes about 3 days, its restore 33 hours" in speed.meaning


def test_a_store_that_is_nearly_full_is_told() -> None:
    class Small(StoreWrapper):
        def free_bytes(self) -> int | None:
            return 5 << 30

    outcome = tried(Small(MemoryStore()))
    assert [each.seen for each in outcome.findings if each.name == "space"] == ["only 5.0 GiB are free"]


def test_the_test_itself_can_be_run_by_a_real_clock_around_faults_that_do_not_come() -> None:
    outcome = run_self_test(
        FaultyStore(MemoryStore()),
        MemoryStore(),
        clock=SystemClock(),
        entropy=SeededEntropy(1),
        progress=NoProgress(),
        cancel=Cancellation(),
    )
    assert outcome.is_fit
