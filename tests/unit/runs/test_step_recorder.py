"""What every step recorder promises: the engine, and the one in memory that the flow tests rest on."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator

import pytest

from holdfast.core import SystemEntropy
from holdfast.model import JsonObject, RunId
from holdfast.runs.context import StepRecorder, StepsChanged
from holdfast.runs.engine import Engine
from holdfast.runs.executors import take_executor
from tests.unit.runs.fakes import MemoryRecorder

pytestmark = pytest.mark.slow(reason="the engine is started once for the file and takes a second")

Attempts = Callable[[Callable[[StepRecorder], None]], None]
"""Makes one more attempt of one run: calls the flow with the recorder, and leaves the run unfinished."""


class _Unfinished(BaseException):
    """Leaves a run as a stop does."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with (
        take_executor(folder / "executors", entropy=SystemEntropy()) as executor,
        Engine(path=folder / "engine.db", executor=executor.id, dead=lambda _: False) as opened,
    ):
        yield opened


@pytest.fixture(params=["memory", "engine"])
def attempt(request: pytest.FixtureRequest, engine: Engine) -> Attempts:
    if request.param == "memory":
        record = MemoryRecorder()
        return lambda flow: flow(record.replay())
    run_id = RunId(f"r-{request.node.name}")

    def attempt_on_engine(flow: Callable[[StepRecorder], None]) -> None:
        def body() -> JsonObject:
            flow(engine)
            raise _Unfinished

        with pytest.raises(_Unfinished):
            engine.resume(run_id, body, has_completed_steps=False, interrupted=lambda: None)

    return attempt_on_engine


class Counter:
    """Work that counts how often it was done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def work(self, name: str) -> Callable[[], JsonObject]:
        def work() -> JsonObject:
            self.done.append(name)
            return {"value": name, "times": self.done.count(name)}

        return work


def test_what_was_recorded_is_given_back_without_running(attempt: Attempts) -> None:
    counter, seen = Counter(), list[JsonObject]()
    for _ in range(3):
        attempt(lambda recorder: seen.append(recorder.reserve("one")(counter.work("one"))))
    assert seen == [{"value": "one", "times": 1}] * 3


def test_an_exception_records_nothing(attempt: Attempts) -> None:
    counter, seen = Counter(), list[JsonObject]()

    class Stop(BaseException):
        pass

    def stopped() -> JsonObject:
        counter.work("one")()
        raise Stop

    def flow(recorder: StepRecorder) -> None:
        with pytest.raises(Stop):
            recorder.reserve("one")(stopped)

    attempt(flow)
    attempt(lambda recorder: seen.append(recorder.reserve("one")(counter.work("one"))))
    assert seen == [{"value": "one", "times": 2}]


def test_places_are_those_of_the_reservation_whatever_order_they_are_filled_in(attempt: Attempts) -> None:
    counter, seen = Counter(), list[JsonObject]()

    def flow(recorder: StepRecorder) -> None:
        first, second = recorder.reserve("first"), recorder.reserve("second")
        seen.append(second(counter.work("second")))
        seen.append(first(counter.work("first")))

    attempt(flow)
    attempt(flow)
    assert [each["value"] for each in seen] == ["second", "first"] * 2
    assert counter.done == ["second", "first"]


def test_places_may_be_filled_from_threads(attempt: Attempts) -> None:
    counter, seen = Counter(), dict[str, JsonObject]()

    def flow(recorder: StepRecorder) -> None:
        def fill(name: str, place: Callable[[Callable[[], JsonObject]], JsonObject]) -> None:
            seen[name] = place(counter.work(name))

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(fill, name, recorder.reserve(name)))
            for name in ("a", "b", "c", "d")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    attempt(flow)
    attempt(flow)
    assert seen == {name: {"value": name, "times": 1} for name in ("a", "b", "c", "d")}


def test_another_name_at_a_recorded_place_is_refused_without_running(attempt: Attempts) -> None:
    counter = Counter()

    def changed(recorder: StepRecorder) -> None:
        with pytest.raises(StepsChanged, match="two"):
            recorder.reserve("two")(counter.work("two"))

    def first(recorder: StepRecorder) -> None:
        recorder.reserve("one")(counter.work("one"))

    attempt(first)
    attempt(changed)
    assert counter.done == ["one"]
