"""What the next process finds: unfinished runs to resume, lost or damaged engine state, other versions, old runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from holdfast.core import Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.model import JsonObject, JsonValue, RunId, RunStatus
from holdfast.runs import (
    FlowUnknown,
    RunRecord,
    Runs,
    RunsDatabaseDamaged,
    RunsDiskFull,
    RunsFolderNotWritable,
    StepContext,
    open_runs,
)
from holdfast.runs.attempt_log import AttemptLog

pytestmark = pytest.mark.slow(reason="each test starts the engine anew, 0.1 s, and the file loads it, 1 s")

_RUN = RunId("r-1")


@contextmanager
def _process(folder: Path, *, version: int = 1, stop_at: str | None = None) -> Iterator[Callable[..., RunRecord]]:
    """Open the runs as a new process would; yields what carries ``r-1`` out or resumes it."""
    cancel = Cancellation()

    def work(name: str) -> JsonValue:
        if name == stop_at:
            cancel.cancel()
            cancel.check()
        return name

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        return {name: context.step(name, partial(work, name)) for name in ("one", "two")}

    with open_runs(folder, clock=SystemClock(), entropy=SystemEntropy(), poll_s=0.02) as runs:
        runs.register("backup", flow, version=version)

        def carry_out(run_id: RunId = _RUN, *, resume: bool = False) -> RunRecord:
            if resume:
                return runs.resume(run_id, cancel=cancel, progress=NoProgress())
            return runs.execute("backup", run_id, {}, cancel=cancel, progress=NoProgress(), title="t")

        yield carry_out


def test_a_paused_run_is_resumed_by_the_next_process(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="two") as carry_out:
        assert carry_out().status is RunStatus.PAUSED
    with _process(tmp_path) as carry_out:
        record = carry_out(resume=True)
    assert (record.status, record.attempts) == (RunStatus.SUCCEEDED, 2)
    assert [(step.name, step.attempts) for step in record.steps] == [("one", 1), ("two", 2)]


def test_a_run_of_another_flow_version_is_closed_before_anything_runs(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="two") as carry_out:
        carry_out()
    with _process(tmp_path, version=2) as carry_out:
        record = carry_out(resume=True)
    assert record.status is RunStatus.FAILED
    assert record.error is not None
    assert record.error.code == "run.flow-changed"
    assert "follows version 1 of 'backup', this program has version 2" in record.error.message
    assert [step.attempts for step in record.steps] == [1, 1]


def test_a_run_of_an_unknown_kind_is_left_as_it_is(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="two") as carry_out:
        carry_out()
    with _open(tmp_path) as runs:
        with pytest.raises(FlowUnknown, match="'backup'"):
            runs.resume(_RUN, cancel=Cancellation(), progress=NoProgress())
        assert runs.show(_RUN).status is RunStatus.PAUSED


def test_a_run_whose_recorded_results_are_lost_is_closed(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="two") as carry_out:
        carry_out()
    (tmp_path / "engine.db").unlink()
    with _process(tmp_path) as carry_out:
        record = carry_out(resume=True)
    assert record.status is RunStatus.FAILED
    assert record.error is not None and record.error.code == "run.state-lost"


def test_a_run_that_completed_no_step_begins_anew_when_the_engine_knows_nothing(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="one") as carry_out:
        carry_out()
    (tmp_path / "engine.db").unlink()
    with _process(tmp_path) as carry_out:
        assert carry_out(resume=True).status is RunStatus.SUCCEEDED


def test_a_damaged_engine_file_is_told_before_a_run_is_written_down(tmp_path: Path) -> None:
    (tmp_path / "engine.db").write_bytes(b"not a database" * 1000)
    with _process(tmp_path) as carry_out, pytest.raises(RunsDatabaseDamaged, match=r"engine\.db"):
        carry_out()
    with _open(tmp_path) as runs:
        assert runs.list() == []
    (tmp_path / "engine.db").unlink()
    with _process(tmp_path) as carry_out:
        assert carry_out().status is RunStatus.SUCCEEDED, "moving the file aside, as advised, is enough"


def test_an_executors_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "executors").write_text("in the way")
    with _process(tmp_path) as carry_out, pytest.raises(RunsFolderNotWritable, match="executors"):
        carry_out()


def test_a_disk_that_fills_up_stops_the_run_which_resumes_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(log: AttemptLog, name: str) -> None:
        raise RunsDiskFull(path=tmp_path / "runs.db")

    with _process(tmp_path) as carry_out, monkeypatch.context() as patch:
        patch.setattr(AttemptLog, "step_started", full)
        with pytest.raises(RunsDiskFull):
            carry_out()
    with _process(tmp_path) as carry_out:
        record = carry_out(resume=True)
    assert (record.status, record.error) == (RunStatus.SUCCEEDED, None)


def test_the_engine_remembers_unfinished_runs_only(tmp_path: Path) -> None:
    with _process(tmp_path, stop_at="two") as carry_out:
        carry_out(RunId("r-paused"))
    with _process(tmp_path) as carry_out:
        carry_out(RunId("r-done"))
        assert _engine_rows(tmp_path, "workflow_status", "workflow_uuid") == {"r-paused", "r-done"}
    with _process(tmp_path) as carry_out:
        carry_out(RunId("r-next"))
        assert _engine_rows(tmp_path, "workflow_status", "workflow_uuid") == {"r-paused", "r-next"}
        assert len(_engine_rows(tmp_path, "queues", "name")) == 1, "queues of ended processes are removed"
    assert _engine_rows(tmp_path, "queues", "name") == set()


def _engine_rows(folder: Path, table: str, column: str) -> set[str]:
    with closing(sqlite3.connect(folder / "engine.db")) as connection:
        return {str(value) for (value,) in connection.execute(f"SELECT {column} FROM {table}")}


def _open(folder: Path) -> Runs:
    return open_runs(folder, clock=SystemClock(), entropy=SystemEntropy())
