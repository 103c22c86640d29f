"""Kill -9 at any instant: the run shows as interrupted at once, resumes, and does nothing twice that was recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core import Cancellation, NoProgress
from holdfast.model import RunId, RunStatus
from holdfast.runs import LedgerState, RunNotFound, RunRecord, Runs, StepState
from tests.unit.runs import worker
from tests.unit.runs.worker import LOST_STATUS, RESULT, STEPS, World, open_folder, start_process

pytestmark = pytest.mark.slow(reason="real processes that load the engine and are killed, about 0.3 s each")

_RUN = RunId("r-1")


def _wait_killed(target: Callable[..., None], *args: object) -> int:
    process = start_process(target, *args)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def _resume(runs: Runs, run_id: RunId = _RUN) -> RunRecord:
    return runs.resume(run_id, cancel=Cancellation(), progress=NoProgress())


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_in_a_step_repeats_that_step_only(tmp_path: Path, step: str) -> None:
    assert _wait_killed(worker.carry_out_killed_in, tmp_path, _RUN, step) == -signal.SIGKILL
    world = World(tmp_path / "world")
    with open_folder(tmp_path) as runs:
        found = runs.show(_RUN)
        assert found.status is RunStatus.INTERRUPTED
        assert {each.state for each in found.steps if each.name == step} == {StepState.STOPPED}
        before = world.told()
        record = _resume(runs)
        assert (record.status, record.result, record.attempts) == (RunStatus.SUCCEEDED, RESULT, 2)
        _check_nothing_recorded_ran_again(found, before, world)
        assert world.told()[f"{_RUN} begin {step}"] == 2


def test_a_run_killed_before_any_transaction_resumes_and_loses_nothing(tmp_path: Path) -> None:
    """All transactions of a run, ours and the engine's, one kill before each; all found by one later process."""
    world = World(tmp_path / "world")
    transactions_max = 200
    for number in range(1, transactions_max):
        if _wait_killed(worker.carry_out_killed_at_commit, tmp_path, f"r-{number}", number) == 0:
            break
    else:
        raise AssertionError("the run did not end")
    assert number > 25, "a run of five steps has more transactions than that"
    killed = [RunId(f"r-{n}") for n in range(1, number)]
    with open_folder(tmp_path) as runs:
        statuses = [_check_killed_run(runs, run_id, world) for run_id in killed]
    assert statuses.count(RunStatus.INTERRUPTED) > 20


def _check_killed_run(runs: Runs, run_id: RunId, world: World) -> RunStatus | None:
    before = world.told()
    try:
        found = runs.show(run_id)
    except RunNotFound:
        assert before[f"{run_id} begin snapshot"] == 0, "a run that is not written down has not begun"
        return None
    if before[f"{run_id} made snapshot"]:
        assert len(found.ledger) == 1, "what exists on the pool was written down before"
    if found.status is RunStatus.INTERRUPTED:
        record = _resume(runs, run_id)
        _check_nothing_recorded_ran_again(found, before, world)
    else:
        record = found
    assert (record.status, record.result) == (RunStatus.SUCCEEDED, RESULT)
    assert {step.state for step in record.steps} == {StepState.DONE}
    assert [(line.state, line.external_id) for line in record.ledger] == [(LedgerState.KEPT, "uuid-1")]
    return found.status


def _check_nothing_recorded_ran_again(found: RunRecord, before: object, world: World) -> None:
    now = world.told()
    for step in found.steps:
        line = f"{found.run_id} begin {step.name}"
        if step.state is StepState.DONE:
            assert now[line] == 1, f"{step.name} was completed and ran again"
        assert now[line] <= 2


def test_a_killed_run_is_interrupted_at_once_and_was_listed_while_it_ran(tmp_path: Path) -> None:
    reached = worker.context().Event()
    process = start_process(worker.carry_out_waiting, tmp_path, _RUN, reached)
    assert reached.wait(60)
    with open_folder(tmp_path) as runs:
        assert [(run.run_id, run.status) for run in runs.list()] == [(_RUN, RunStatus.RUNNING)]
        assert runs.list(status=RunStatus.INTERRUPTED) == []
        process.kill()
        process.join(60)
        assert [run.status for run in runs.list()] == [RunStatus.INTERRUPTED]
        assert runs.list(status=RunStatus.RUNNING) == []


@pytest.mark.parametrize(
    ("stop", "status", "reason"),
    [
        (lambda runs, _: runs.request_pause(_RUN, reason="maintenance"), RunStatus.PAUSED, "maintenance"),
        (lambda runs, _: runs.request_cancel(_RUN, reason="not needed"), RunStatus.CANCELLED, "not needed"),
        (lambda _, process: os.kill(process, signal.SIGINT), RunStatus.PAUSED, "stopped with Ctrl-C"),
    ],
    ids=["pause", "cancel", "ctrl-c"],
)
def test_a_run_of_another_process_is_stopped(
    tmp_path: Path, stop: Callable[[Runs, int], object], status: RunStatus, reason: str
) -> None:
    reached = worker.context().Event()
    process = start_process(worker.carry_out_waiting, tmp_path, _RUN, reached)
    assert reached.wait(60)
    assert process.pid is not None
    with open_folder(tmp_path) as runs:
        stop(runs, process.pid)
        process.join(60)
        assert process.exitcode == 0
        record = runs.show(_RUN)
        assert (record.status, record.reason) == (status, reason)
        assert {step.name: step.state for step in record.steps}["publish"] is StepState.STOPPED
        if record.is_resumable:
            assert _resume(runs).result == RESULT


def test_of_two_processes_that_resume_a_run_exactly_one_does(tmp_path: Path) -> None:
    assert _wait_killed(worker.carry_out_killed_in, tmp_path, _RUN, "publish") == -signal.SIGKILL
    go = worker.context().Event()
    ready = [worker.context().Event() for _ in range(2)]
    processes = [start_process(worker.resume_when_told, tmp_path, _RUN, each, go) for each in ready]
    assert all(each.wait(60) for each in ready)
    go.set()
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode or 0 for process in processes) == [0, LOST_STATUS]
    told = World(tmp_path / "world").told()
    assert [told[f"{_RUN} begin {step}"] for step in STEPS] == [1, 1, 1, 2, 1]


def test_listing_runs_loads_no_engine_and_naming_them_no_database_library(tmp_path: Path) -> None:
    """Each is about a second, or half of one, that every command would pay."""
    program = f"""
import sys
from pathlib import Path
from holdfast.core import SystemClock, SystemEntropy
from holdfast.runs import open_runs
assert "sqlalchemy" not in sys.modules
with open_runs(Path({str(tmp_path)!r}), clock=SystemClock(), entropy=SystemEntropy()) as runs:
    assert runs.list() == []
    assert runs.ledger.open_lines() == []
assert "dbos" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_several_processes_carry_out_runs_of_one_folder_side_by_side(tmp_path: Path) -> None:
    processes = [start_process(worker.carry_out_many, tmp_path, f"r-{n}", 3) for n in range(4)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    with open_folder(tmp_path) as runs:
        assert [run.status for run in runs.list()] == [RunStatus.SUCCEEDED] * 12
    told = World(tmp_path / "world").told()
    assert {told[f"r-{n}-{m} begin {step}"] for n in range(4) for m in range(3) for step in STEPS} == {1}
