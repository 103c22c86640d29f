"""When the engine or the records fail: the run stops, nothing is recorded wrongly, and it goes on when all is well."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

from holdfast.core import Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.model import JsonObject, JsonValue, RunId, RunStatus
from holdfast.runs import RunRecord, Runs, RunsDatabaseBusy, RunsDiskFull, RunsUnavailable, StepContext, open_runs
from holdfast.runs import engine as engine_module
from holdfast.runs.context import RunStopped
from holdfast.runs.journal import Journal

pytestmark = pytest.mark.slow(reason="each test starts the engine anew, 0.1 s, and the file loads it, 1 s")

_RUN = RunId("r-1")


def _open(folder: Path, *, result: JsonValue = 1, during: Callable[[], None] = lambda: None) -> Runs:
    def work(value: JsonValue) -> JsonValue:
        during()
        return value

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        context.step("small", partial(work, 1))
        context.step("large", partial(work, result))
        return {}

    runs = open_runs(folder, clock=SystemClock(), entropy=SystemEntropy(), poll_s=0.01)
    runs.register("backup", flow)
    return runs


def _execute(runs: Runs) -> RunRecord:
    return runs.execute("backup", _RUN, {}, cancel=Cancellation(), progress=NoProgress(), title="t")


def _resume(runs: Runs) -> RunRecord:
    return runs.resume(_RUN, cancel=Cancellation(), progress=NoProgress())


def test_a_full_disk_under_the_engine_pauses_the_run_before_the_unrecorded_step_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _open(tmp_path) as runs:
        runs.register("first", lambda context, args: {})
        runs.execute("first", RunId("r-0"), {}, cancel=Cancellation(), progress=NoProgress(), title="makes the file")
    with closing(sqlite3.connect(tmp_path / "engine.db")) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]

    def fill_up(connection: Any, _record: object) -> None:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        if path.endswith("engine.db"):
            connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    sa.event.listen(sa.Engine, "connect", fill_up)
    try:
        with _open(tmp_path, result="x" * 1_000_000) as runs, pytest.raises(RunsDiskFull, match=r"engine\.db"):
            _execute(runs)
    finally:
        sa.event.remove(sa.Engine, "connect", fill_up)
    with _open(tmp_path, result="x" * 1_000_000) as runs:
        paused = runs.show(_RUN)
        assert (paused.status, [step.state.value for step in paused.steps]) == (RunStatus.PAUSED, ["done", "stopped"])
        assert paused.error is not None and paused.error.code == "runs.disk-full"
        record = _resume(runs)
    assert (record.status, record.error) == (RunStatus.SUCCEEDED, None)
    assert [step.attempts for step in record.steps] == [1, 2]


def test_an_end_that_cannot_be_written_leaves_the_run_interrupted_and_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RunsDiskFull(path=tmp_path / "runs.db")

    with _open(tmp_path) as runs, monkeypatch.context() as patch:
        patch.setattr(Journal, "end", full)
        patch.setattr("holdfast.runs.attempt_log.AttemptLog.step_ended", full)
        with pytest.raises(RunsDiskFull):
            _execute(runs)
    with _open(tmp_path) as runs:
        assert runs.show(_RUN).status is RunStatus.INTERRUPTED
        assert _resume(runs).status is RunStatus.SUCCEEDED


def test_progress_that_cannot_be_saved_does_not_stop_the_run_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def busy(*_: object, **__: object) -> None:
        failed.set()
        raise RunsDatabaseBusy(path=tmp_path / "runs.db")

    monkeypatch.setattr(Journal, "beat", busy)
    with _open(tmp_path, during=lambda: _wait(failed)) as runs:
        record = _execute(runs)
    assert record.status is RunStatus.SUCCEEDED
    assert [finding.message for finding in record.findings if "Progress could not be saved" in finding.message]


def test_a_run_that_the_engine_does_not_begin_is_told_and_stays_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _open(tmp_path) as runs:
        with monkeypatch.context() as patch:
            patch.setattr("holdfast.core.limits.RUNS_ENGINE_START_S", 0.0)
            patch.setattr(engine_module, "_WAIT_S", 0.001)
            patch.setattr(DBOS, "start_workflow", lambda *_: None)
            with pytest.raises(RunsUnavailable, match="did not begin"):
                _execute(runs)
        assert runs.show(_RUN).status is RunStatus.PAUSED
        assert _resume(runs).status is RunStatus.SUCCEEDED


@pytest.mark.parametrize("presses", [1, 2])
def test_a_first_interrupt_stops_the_run_cleanly_and_a_second_one_gets_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """The main thread is interrupted while it waits; the step sees its token cancelled."""
    leave = threading.Event()

    class Pressed(threading.Event):
        left = presses

        def wait(self, timeout: float | None = None) -> bool:
            if Pressed.left:
                Pressed.left -= 1
                raise KeyboardInterrupt
            leave.set()
            return super().wait(timeout)

    class Job(engine_module._Job):
        def __init__(self, body: engine_module.Body) -> None:
            super().__init__(body)
            self.left = Pressed()

    monkeypatch.setattr(engine_module, "_Job", Job)
    with _open(tmp_path, during=lambda: _wait(leave)) as runs:
        if presses == 1:
            record = _execute(runs)
            assert (record.status, record.reason) == (RunStatus.PAUSED, "stopped with Ctrl-C")
            return
        with pytest.raises(KeyboardInterrupt):
            _execute(runs)
        leave.set()


def test_a_workflow_that_nobody_waits_for_records_nothing(tmp_path: Path) -> None:
    with _open(tmp_path) as runs:
        _execute(runs)
        handle = DBOS.start_workflow(engine_module._carry_out, "r-nobody")
        with pytest.raises(RunStopped):
            handle.get_result()
        assert handle.get_status().status == "PENDING"


def test_what_the_engine_complains_about_reaches_our_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _open(tmp_path) as runs:
        _execute(runs)
        logging.getLogger("dbos").info("nothing to worry about")
        assert capsys.readouterr().err == ""
        logging.getLogger("dbos").error("queue %s is stuck", "q")
    assert "queue q is stuck" in capsys.readouterr().err


def test_an_engine_that_fails_to_start_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("unheard of")

    with _open(tmp_path) as runs:
        with monkeypatch.context() as patch:
            patch.setattr(DBOS, "launch", fail)
            with pytest.raises(RunsUnavailable, match="unheard of"):
                _execute(runs)
        assert runs.list() == []
        assert list((tmp_path / "executors").iterdir()) == []
        assert _execute(runs).status is RunStatus.SUCCEEDED, "the next try starts from nothing"


def _wait(event: threading.Event) -> None:
    assert event.wait(30)
