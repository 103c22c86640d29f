"""A flow's view: what a step gives now it gives replayed, failed or not; a stop records nothing."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import Cancellation, Cancelled, ExitStatus, HoldfastError, Retry
from holdfast.model import JsonObject, JsonValue
from holdfast.runs import RunStopped, StepContext, StepFailed
from holdfast.runs.context import RecordsBroken, StepsChanged
from holdfast.runs.errors import RunsDiskFull
from tests.unit.runs.fakes import MemoryLog, MemoryRecorder, memory_context


class DiskBusy(HoldfastError):
    """The pool says that the disk is in use."""

    code = "test.disk-busy"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "The disk has no new point."

    def __init__(self, *, disk: str, waited_s: float) -> None:
        super().__init__(f"disk {disk} is busy")
        self.disk, self.waited_s = disk, waited_s

    def next_step(self) -> str:
        return f"Free {self.disk}."


def _fail(error: Exception) -> JsonValue:
    raise error


def test_a_completed_step_is_not_run_again() -> None:
    recorder = MemoryRecorder()
    runs = []

    def work() -> JsonValue:
        runs.append(1)
        return {"snapshot": "s-1"}

    first = memory_context(recorder=recorder).step("snapshot", work)
    again = memory_context(recorder=recorder.replay()).step("snapshot", work)
    assert first == again == {"snapshot": "s-1"}
    assert len(runs) == 1


def test_a_step_gives_the_same_value_now_as_replayed() -> None:
    recorder = MemoryRecorder()
    live = memory_context(recorder=recorder).step("plan", lambda: {"sizes": [1, 2.5], "none": None})
    replayed = memory_context(recorder=recorder.replay()).step("plan", lambda: "never called")
    assert live == replayed
    # A tuple comes back as the list that a replay gives, so no flow can depend on the difference.
    assert memory_context().step("pair", lambda: (1, 2)) == [1, 2]  # type: ignore[arg-type, return-value]


def test_a_failed_step_raises_the_same_facts_now_as_replayed() -> None:
    recorder = MemoryRecorder()
    failures = []
    for each in (recorder, recorder.replay()):
        with pytest.raises(StepFailed) as caught:
            memory_context(recorder=each).step("copy", lambda: _fail(DiskBusy(disk="d-1", waited_s=2.5)))
        failures.append(caught.value)
    live, replayed = failures
    assert isinstance(live.__cause__, DiskBusy)
    assert replayed.__cause__ is None
    assert live.error == replayed.error
    for failure in failures:
        assert str(failure) == "disk d-1 is busy"
        assert failure.code == "test.disk-busy"
        assert failure.retry is Retry.LATER
        assert failure.exit_status is ExitStatus.BUSY
        assert failure.effect == "The disk has no new point."
        assert failure.next_step() == "Free d-1."
        assert failure.facts() == {"disk": "d-1", "waited_s": 2.5, "step": "copy"}


def test_a_crash_in_a_step_is_told_as_our_mistake() -> None:
    with pytest.raises(StepFailed) as caught:
        memory_context().step("copy", lambda: _fail(KeyError("vdi")))
    assert caught.value.code == "run.unexpected"
    assert "KeyError: 'vdi'" in str(caught.value)
    assert "report" in caught.value.next_step()


@pytest.mark.parametrize("value", [math.nan, object(), b"bytes", "x" * 100])
def test_a_result_that_cannot_be_recorded_fails_its_step(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.core.limits.STEP_RESULT_BYTES_MAX", 50)
    with pytest.raises(StepFailed) as caught:
        memory_context().step("odd", lambda: value)  # type: ignore[arg-type, return-value]
    assert caught.value.code == "run.unexpected"


def test_two_steps_of_one_name_are_refused() -> None:
    context = memory_context()
    context.step("once", lambda: 1)
    with pytest.raises(AssertionError, match="'once'"):
        context.step("once", lambda: 1)


def test_a_changed_order_of_steps_is_noticed() -> None:
    recorder = MemoryRecorder()
    memory_context(recorder=recorder).step("first", lambda: 1)
    with pytest.raises(StepsChanged, match="second"):
        memory_context(recorder=recorder.replay()).step("second", lambda: 1)


def test_a_stop_in_a_step_records_nothing_and_passes_through_the_flow() -> None:
    recorder, cancel, log = MemoryRecorder(), Cancellation(), MemoryLog()

    def work() -> JsonValue:
        cancel.cancel(reason="enough")
        cancel.check()
        return None

    def flow(context: StepContext) -> str:
        try:
            context.step("copy", work)
        except Exception:
            return "held"
        return "done"

    with pytest.raises(RunStopped, match="enough"):
        flow(memory_context(recorder=recorder, cancel=cancel, log=log))
    assert recorder.record == {}
    assert log.lines == [("started", "copy"), ("stopped", "copy")]


def test_an_error_that_a_stop_caused_is_not_the_steps_failure() -> None:
    recorder, cancel = MemoryRecorder(), Cancellation()

    def work() -> JsonValue:
        cancel.cancel()
        raise ConnectionResetError("the socket was closed to wake us")

    with pytest.raises(RunStopped):
        memory_context(recorder=recorder, cancel=cancel).step("copy", work)
    assert recorder.record == {}


def test_a_cancelled_part_of_a_run_that_goes_on_is_an_ordinary_failure() -> None:
    with pytest.raises(StepFailed) as caught:
        memory_context().step("copy", lambda: _fail(Cancelled("its own token")))
    assert caught.value.code == "run.cancelled"


def test_no_step_begins_after_a_stop() -> None:
    cancel, log = Cancellation(), MemoryLog()
    cancel.cancel()
    with pytest.raises(RunStopped):
        memory_context(cancel=cancel, log=log).step("copy", lambda: 1)
    assert log.lines == []


def test_a_step_that_cannot_be_logged_is_not_recorded_and_stops_the_flow() -> None:
    class FullLog(MemoryLog):
        def step_started(self, name: str) -> None:
            raise RunsDiskFull(path=Path("runs.db"))

    recorder = MemoryRecorder()
    with pytest.raises(RecordsBroken) as caught:
        memory_context(recorder=recorder, log=FullLog()).step("copy", lambda: 1)
    assert isinstance(caught.value.error, RunsDiskFull)
    assert recorder.record == {}


def test_a_replayed_step_repairs_the_log() -> None:
    recorder, log = MemoryRecorder(), MemoryLog()
    memory_context(recorder=recorder).step("copy", lambda: 1)
    memory_context(recorder=recorder.replay(), log=log).step("copy", lambda: 1)
    assert log.lines == [("replayed", "copy")]


def test_parallel_steps_answer_in_order_and_a_failure_does_not_stop_the_others() -> None:
    results = memory_context().steps_parallel(
        [("a", lambda: 1), ("b", lambda: _fail(DiskBusy(disk="d", waited_s=1.0))), ("c", lambda: 3)], at_once=2
    )
    assert [result.name for result in results] == ["a", "b", "c"]
    assert (results[0].unwrap(), results[2].unwrap()) == (1, 3)
    with pytest.raises(StepFailed, match="disk d is busy"):
        results[1].unwrap()


def test_no_more_parallel_steps_run_than_allowed() -> None:
    lock, pair = threading.Lock(), threading.Barrier(2)
    now, most = 0, 0

    def work() -> JsonValue:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pair.wait(timeout=10)
        with lock:
            now -= 1
        pair.wait(timeout=10)
        return None

    memory_context().steps_parallel([(f"s{n}", work) for n in range(6)], at_once=2)
    assert most == 2


def test_a_stop_waits_for_parallel_steps_under_way_and_begins_no_other() -> None:
    recorder, cancel, log = MemoryRecorder(), Cancellation(), MemoryLog()
    both, is_cancelled = threading.Barrier(2), threading.Event()

    def stopper() -> JsonValue:
        both.wait(timeout=10)
        cancel.cancel()
        is_cancelled.set()
        cancel.check()
        return None

    def finisher() -> JsonValue:
        both.wait(timeout=10)
        assert is_cancelled.wait(timeout=10)
        return "finished"

    steps = [("stopper", stopper), ("finisher", finisher), ("late", lambda: 1)]
    with pytest.raises(RunStopped):
        memory_context(recorder=recorder, cancel=cancel, log=log).steps_parallel(steps, at_once=2)
    assert [name for name, _ in recorder.record.values()] == ["finisher"]
    assert ("started", "late") not in log.lines


@given(
    program=st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=6),
    stops=st.lists(st.integers(min_value=0, max_value=23), max_size=5),
)
def test_any_sequence_of_stops_ends_as_the_uninterrupted_run(program: list[list[bool]], stops: list[int]) -> None:
    """Stops hit the nth piece of work of an attempt; every step is completed exactly once in all attempts together."""
    expected = _flow_of(program)(memory_context())
    recorder, completions = MemoryRecorder(), list[str]()
    for stop in stops:
        cancel = Cancellation()
        flow = _flow_of(program, completions=completions, stop_at=stop, cancel=cancel)
        try:
            result = flow(memory_context(recorder=recorder, cancel=cancel))
        except RunStopped:
            recorder = recorder.replay()
            continue
        break
    else:
        result = _flow_of(program, completions=completions)(memory_context(recorder=recorder))
    assert result == expected
    assert len(completions) == len(set(completions)) == sum(len(group) for group in program)


def _flow_of(  # type: ignore[no-untyped-def]
    program: list[list[bool]],
    *,
    completions: list[str] | None = None,
    stop_at: int | None = None,
    cancel: Cancellation | None = None,
):
    done = [] if completions is None else completions
    works = 0

    def work(name: str, succeeds: bool) -> JsonValue:
        nonlocal works
        works += 1
        if stop_at == works - 1 and cancel is not None:
            cancel.cancel()
            cancel.check()
        done.append(name)
        return name if succeeds else _fail(DiskBusy(disk=name, waited_s=0.0))

    def flow(context: StepContext) -> JsonObject:
        told: list[JsonValue] = []
        for number, group in enumerate(program):
            named = [(f"{number}.{n}", succeeds) for n, succeeds in enumerate(group)]
            steps = [(name, lambda name=name, ok=ok: work(name, ok)) for name, ok in named]
            results = context.steps_parallel(steps, at_once=1)
            told.extend(str(result.failure or result.value) for result in results)
        return {"told": told}

    return flow
