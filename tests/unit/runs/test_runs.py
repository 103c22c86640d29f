"""Runs carried out by the real engine in this process: stopped, resumed, closed, and their records true."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from holdfast.core import Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.model import Finding, JsonObject, JsonValue, RunId, RunStatus, Severity
from holdfast.runs import (
    FlowUnknown,
    RunAlreadyExists,
    RunFinished,
    RunIsRunning,
    RunRecord,
    Runs,
    RunsDiskFull,
    StepContext,
    StepState,
    open_runs,
)
from holdfast.runs.journal import Journal

_POLL_S = 0.02


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """One engine for all tests of this file: it takes a second to load."""
    with _open(tmp_path_factory.mktemp("runs")) as opened:
        yield opened


def _open(folder: Path) -> Runs:
    return open_runs(folder, clock=SystemClock(), entropy=SystemEntropy(), poll_s=_POLL_S)


class World:
    """Counts what the steps did and is asked by them what to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}

    def work(self, name: str, value: JsonValue = None) -> Callable[[], JsonValue]:
        def work() -> JsonValue:
            self.before.pop(name, lambda: None)()
            self.done.append(name)
            return value

        return work

    def flow(self, context: StepContext, args: JsonObject) -> JsonObject:
        plan = context.step("plan", self.work("plan", {"disks": args["disks"]}))
        assert isinstance(plan, dict) and isinstance(plan["disks"], list)
        context.note(f"{len(plan['disks'])} disks")
        context.finding(Finding(severity=Severity.NOTE, subject="web", message="full read"))
        copied = context.steps_parallel([(f"copy {d}", self.work(f"copy {d}", d)) for d in plan["disks"]], at_once=2)
        failed = [result.name for result in copied if result.failure is not None]
        if failed:
            context.mark_partial(f"not copied: {', '.join(failed)}")
        context.step("commit", self.work("commit"))
        return {"copied": [result.value for result in copied if result.failure is None]}


_numbers = count()
_ARGS: JsonObject = {"disks": ["a", "b"]}


@pytest.fixture
def world(runs: Runs) -> World:
    """A new world with a flow of its own kind: ``world.kind``."""
    made = World()
    runs.register(f"kind-{id(made)}", made.flow)
    return made


def _execute(runs: Runs, world: World, *, cancel: Cancellation | None = None, args: JsonObject = _ARGS) -> RunRecord:
    return runs.execute(
        f"kind-{id(world)}",
        RunId(f"r-{next(_numbers)}"),
        args,
        cancel=cancel or Cancellation(),
        progress=NoProgress(),
        title="web",
    )


def _resume(runs: Runs, run_id: RunId) -> RunRecord:
    return runs.resume(run_id, cancel=Cancellation(), progress=NoProgress())


def test_a_run_ends_with_its_result_and_its_steps(runs: Runs, world: World) -> None:
    record = _execute(runs, world)
    assert (record.status, record.result) == (RunStatus.SUCCEEDED, {"copied": ["a", "b"]})
    assert {(step.name, step.state) for step in record.steps} == {(name, StepState.DONE) for name in world.done}
    assert sorted(world.done) == ["commit", "copy a", "copy b", "plan"]
    assert [finding.message for finding in record.findings] == ["full read"]
    assert [note.message for note in record.notes] == ["2 disks"]
    assert (record.args, record.title, record.attempts, record.reason) == (_ARGS, "web", 1, "")
    assert record.ended is not None


@pytest.mark.parametrize("stopped_in", ["plan", "copy a", "commit"])
def test_a_stopped_run_is_paused_and_resumes_in_exactly_that_step(runs: Runs, world: World, stopped_in: str) -> None:
    cancel = Cancellation()

    def stop() -> None:
        cancel.cancel(reason="stopped with Ctrl-C")
        cancel.check()

    world.before[stopped_in] = stop
    paused = _execute(runs, world, cancel=cancel)
    assert (paused.status, paused.reason) == (RunStatus.PAUSED, "stopped with Ctrl-C")
    assert paused.is_resumable
    assert {step.state for step in paused.steps if step.name == stopped_in} == {StepState.STOPPED}
    completed = list(world.done)
    assert stopped_in not in completed

    record = _resume(runs, paused.run_id)
    assert (record.status, record.result, record.attempts) == (RunStatus.SUCCEEDED, {"copied": ["a", "b"]}, 2)
    assert sorted(world.done) == ["commit", "copy a", "copy b", "plan"]
    assert world.done[: len(completed)] == completed
    assert {step.state for step in record.steps} == {StepState.DONE}
    assert len(record.notes) == len(record.findings) == 1, "told again by the replay, kept once"


def test_a_token_that_is_cancelled_already_starts_nothing(runs: Runs, world: World) -> None:
    cancel = Cancellation()
    cancel.cancel(reason="too late")
    assert _execute(runs, world, cancel=cancel).status is RunStatus.PAUSED
    assert world.done == []


def test_a_failed_step_leaves_the_rest_to_the_flow(runs: Runs, world: World) -> None:
    def fail() -> None:
        raise RunsDiskFull(path=Path("disk"))

    world.before["copy a"] = fail
    record = _execute(runs, world)
    assert (record.status, record.reason) == (RunStatus.PARTIAL, "not copied: copy a")
    assert record.result == {"copied": ["b"]}
    (failed,) = [step for step in record.steps if step.name == "copy a"]
    assert failed.state is StepState.FAILED
    assert failed.error is not None and failed.error.code == "runs.disk-full"


def test_a_failed_step_stays_failed_when_the_run_resumes(runs: Runs, world: World) -> None:
    cancel = Cancellation()

    def fail() -> None:
        raise RunsDiskFull(path=Path("disk"))

    def stop() -> None:
        cancel.cancel()
        cancel.check()

    world.before.update({"copy a": fail, "commit": stop})
    paused = _execute(runs, world, cancel=cancel)
    record = _resume(runs, paused.run_id)
    assert (record.status, record.reason) == (RunStatus.PARTIAL, "not copied: copy a")
    assert "copy a" not in world.done


def test_a_failure_of_the_flow_is_told_by_the_record(runs: Runs, world: World) -> None:
    def fail() -> None:
        raise RunsDiskFull(path=Path("disk"))

    world.before["plan"] = fail
    record = _execute(runs, world)
    assert record.status is RunStatus.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.message) == ("runs.disk-full", "no space left to write disk")
    assert "Free some space" in record.error.next_step


def test_an_obstacle_outside_the_steps_that_may_pass_pauses_what_was_begun(runs: Runs) -> None:
    """A resumed run whose pool is still unreachable must not be lost for that."""
    obstacles = [RunsDiskFull(path=Path("disk"))]

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        context.step("one", lambda: 1)
        if obstacles:
            raise obstacles.pop()
        return {}

    runs.register("obstructed", flow)
    run_id = RunId("r-obstructed")
    record = runs.execute("obstructed", run_id, {}, cancel=Cancellation(), progress=NoProgress(), title="t")
    assert (record.status, record.reason) == (RunStatus.PAUSED, "no space left to write disk")
    assert record.error is not None and record.error.code == "runs.disk-full"
    again = _resume(runs, run_id)
    assert (again.status, again.error, again.reason) == (RunStatus.SUCCEEDED, None, "")


@pytest.mark.parametrize("error", [RunsDiskFull(path=Path("disk")), FlowUnknown(run_id=RunId("r"), kind="k")])
def test_an_error_before_the_first_step_fails_the_run(runs: Runs, error: Exception) -> None:
    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        raise error

    kind = f"failing-{next(_numbers)}"
    runs.register(kind, flow)
    record = runs.execute(kind, RunId(f"r-{kind}"), {}, cancel=Cancellation(), progress=NoProgress(), title="t")
    assert record.status is RunStatus.FAILED


def test_a_mistake_in_the_flow_is_told_by_the_record(runs: Runs) -> None:
    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        raise KeyError(args["what"])

    runs.register("mistaken", flow)
    record = runs.execute(
        "mistaken",
        RunId("r-mistaken"),
        {"what": "vdi"},
        cancel=Cancellation(),
        progress=NoProgress(),
        title="t",
    )
    assert record.status is RunStatus.FAILED
    assert record.error is not None and record.error.code == "run.unexpected"


def test_a_stop_between_two_steps_pauses_too(runs: Runs) -> None:
    cancel = Cancellation()
    seen: list[str] = []

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        context.step("one", lambda: 1)
        if not seen:
            seen.append("stopped")
            cancel.cancel()
            context.cancel.check()
        return {"two": context.step("two", lambda: 2)}

    runs.register("between", flow)
    paused = runs.execute("between", RunId("r-between"), {}, cancel=cancel, progress=NoProgress(), title="t")
    assert paused.status is RunStatus.PAUSED
    assert _resume(runs, paused.run_id).result == {"two": 2}


def test_a_request_stops_a_run_through_its_row(runs: Runs, world: World) -> None:
    """The request travels through the database, as one of another process would."""
    _check_request(runs, world, lambda run_id: runs.request_pause(run_id, reason="maintenance"), RunStatus.PAUSED)


def test_a_request_to_cancel_closes_the_run(runs: Runs, world: World) -> None:
    record = _check_request(
        runs, world, lambda run_id: runs.request_cancel(run_id, reason="maintenance"), RunStatus.CANCELLED
    )
    assert record.ended is not None
    with pytest.raises(RunFinished, match="cancelled"):
        _resume(runs, record.run_id)


def _check_request(runs: Runs, world: World, request: Callable[[RunId], RunRecord], expected: RunStatus) -> RunRecord:
    contexts: list[StepContext] = []

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        contexts.append(context)
        return world.flow(context, args)

    def ask_and_wait() -> None:
        assert request(contexts[0].run_id).status is RunStatus.RUNNING
        contexts[0].cancel.wait(30)

    world.before["copy b"] = ask_and_wait
    kind = f"requested-{id(world)}"
    runs.register(kind, flow)
    run_id = RunId(f"r-{next(_numbers)}")
    record = runs.execute(kind, run_id, _ARGS, cancel=Cancellation(), progress=NoProgress(), title="t")
    assert (record.status, record.reason) == (expected, "maintenance")
    return record


def test_a_paused_run_can_be_closed_and_is_not_paused_twice(runs: Runs, world: World) -> None:
    cancel = Cancellation()
    cancel.cancel()
    paused = _execute(runs, world, cancel=cancel)
    assert runs.request_pause(paused.run_id).status is RunStatus.PAUSED
    closed = runs.request_cancel(paused.run_id, reason="not needed")
    assert (closed.status, closed.reason) == (RunStatus.CANCELLED, "not needed")
    with pytest.raises(RunFinished):
        runs.request_cancel(paused.run_id)
    with pytest.raises(RunFinished):
        runs.close_run(paused.run_id, reason="again")


def test_progress_reaches_the_row_while_the_run_goes_on(runs: Runs) -> None:
    seen: list[JsonValue] = []

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        def copy() -> JsonValue:
            with context.progress.start("web: disk 0", total_bytes=10) as task:
                task.advance(4)
                for _ in range(500):
                    progress = runs.show(context.run_id).progress
                    if progress:
                        seen.append(progress[0].to_json())
                        break
                    context.cancel.wait(_POLL_S)
            return None

        context.step("copy", copy)
        return {}

    runs.register("progressing", flow)
    record = runs.execute(
        "progressing", RunId("r-progress"), {}, cancel=Cancellation(), progress=NoProgress(), title="t"
    )
    assert record.status is RunStatus.SUCCEEDED
    assert seen == [{"what": "web: disk 0", "done_bytes": 4, "total_bytes": 10}]


def test_runs_are_listed_newest_first_by_status_and_bounded(runs: Runs, world: World) -> None:
    first, second = _execute(runs, world, args={"disks": []}).run_id, None
    cancel = Cancellation()
    cancel.cancel()
    second = _execute(runs, world, cancel=cancel).run_id
    assert {summary.run_id for summary in runs.list()} >= {first, second}
    assert second in {summary.run_id for summary in runs.list(status=RunStatus.PAUSED)}
    assert first not in {summary.run_id for summary in runs.list(status=RunStatus.PAUSED)}
    assert len(runs.list(limit=1)) == 1


def test_an_id_is_carried_out_once(runs: Runs, world: World) -> None:
    record = _execute(runs, world)
    with pytest.raises(RunAlreadyExists):
        runs.execute(f"kind-{id(world)}", record.run_id, _ARGS, cancel=Cancellation(), progress=NoProgress(), title="t")


def test_a_run_that_is_carried_out_can_be_neither_resumed_nor_closed(runs: Runs, world: World) -> None:
    def interfere(run_id: RunId) -> None:
        with pytest.raises(RunIsRunning):
            _resume(runs, run_id)
        with pytest.raises(RunIsRunning):
            runs.close_run(run_id, reason="impatient")

    run_id = RunId("r-interfered")
    world.before["copy a"] = lambda: interfere(run_id)
    record = runs.execute(f"kind-{id(world)}", run_id, _ARGS, cancel=Cancellation(), progress=NoProgress(), title="t")
    assert (record.status, record.attempts) == (RunStatus.SUCCEEDED, 1)


def test_a_run_that_another_process_took_meanwhile_is_neither_resumed_nor_closed(
    runs: Runs, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = Cancellation()
    cancel.cancel()
    run_id = _execute(runs, world, cancel=cancel).run_id
    monkeypatch.setattr(Journal, "try_claim", lambda *_, **__: None)
    monkeypatch.setattr(Journal, "try_close", lambda *_, **__: False)
    with pytest.raises(RunIsRunning):
        _resume(runs, run_id)
    with pytest.raises(RunIsRunning):
        runs.request_cancel(run_id)
    assert runs.show(run_id).status is RunStatus.PAUSED


def test_a_flow_whose_steps_changed_closes_the_run(runs: Runs, world: World) -> None:
    _check_changed(runs, world, lambda c, _: {"x": c.step("renamed", lambda: 1)}, "step 'renamed' is not the recorded")


def test_a_flow_that_leaves_a_recorded_step_out_closes_the_run(runs: Runs, world: World) -> None:
    _check_changed(runs, world, lambda c, _: {}, "recorded step 'plan' is not reached any more")


def _check_changed(
    runs: Runs, world: World, changed: Callable[[StepContext, JsonObject], JsonObject], message: str
) -> None:
    cancel = Cancellation()

    def stop() -> None:
        cancel.cancel()
        cancel.check()

    world.before["copy a"] = stop
    flows: list[Callable[[StepContext, JsonObject], JsonObject]] = [changed, world.flow]
    kind = f"changing-{id(world)}"
    runs.register(kind, lambda context, args: flows.pop()(context, args))
    run_id = RunId(f"r-{next(_numbers)}")
    paused = runs.execute(kind, run_id, {"disks": ["a"]}, cancel=cancel, progress=NoProgress(), title="t")
    assert paused.is_resumable
    record = _resume(runs, run_id)
    assert record.status is RunStatus.FAILED
    assert record.error is not None and record.error.code == "run.flow-changed"
    assert message in record.error.message


def test_several_runs_at_once_do_not_mix(runs: Runs, world: World) -> None:
    records: list[RunRecord] = []
    args: list[JsonObject] = [{"disks": [f"{n}-a", f"{n}-b"]} for n in range(4)]
    threads = [threading.Thread(target=lambda a=a: records.append(_execute(runs, world, args=a))) for a in args]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.result["copied"] for record in records if record.result) == [a["disks"] for a in args]  # type: ignore[type-var]


def test_the_engine_leaves_signals_and_the_log_alone_and_opens_no_connection(
    runs: Runs, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with caplog.at_level(logging.DEBUG, logger="root"):
        assert _execute(runs, world).status is RunStatus.SUCCEEDED
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert caplog.records == []
    assert logging.getLogger("dbos").propagate is False
