"""The rows of runs: one owner at a time, the truth about who lives, nothing told twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import ManualClock, SystemEntropy
from holdfast.model import Finding, PoolUuid, RunId, RunStatus, Severity
from holdfast.runs import LedgerState, RunAlreadyExists, RunNotFound, StepState, TaskProgress
from holdfast.runs.attempt_log import AttemptLog
from holdfast.runs.database import Database
from holdfast.runs.executors import Executor, take_executor
from holdfast.runs.journal import Attempt, Journal
from holdfast.runs.pruning import prune_runs, unfinished_runs
from holdfast.runs.record import ErrorFacts
from holdfast.runs.sql_ledger import SqlLedger

_RUN = RunId("r-1")


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Executor]:
    with take_executor(tmp_path / "executors", entropy=SystemEntropy()) as taken:
        yield taken


@pytest.fixture
def log(database: Database, clock: ManualClock) -> AttemptLog:
    return AttemptLog(database=database, clock=clock, run_id=_RUN)


def _create(journal: Journal, executor: Executor | str, run_id: RunId = _RUN) -> Attempt:
    executor_id = executor if isinstance(executor, str) else executor.id
    return journal.create(
        run_id=run_id, kind="backup", flow_version=1, title="web", args={"vm": "web"}, executor=executor_id
    )


def test_a_run_is_running_while_its_executor_lives_and_interrupted_at_once_when_not(
    journal: Journal, executor: Executor
) -> None:
    _create(journal, executor)
    assert journal.record(_RUN).status is RunStatus.RUNNING
    assert not journal.record(_RUN).is_resumable
    executor.close()
    record = journal.record(_RUN)
    assert record.status is RunStatus.INTERRUPTED
    assert record.is_resumable
    assert [summary.status for summary in journal.summaries()] == [RunStatus.INTERRUPTED]


def test_of_two_claims_on_one_row_exactly_one_wins(journal: Journal) -> None:
    _create(journal, "x-dead")
    seen_by_both = journal.row(_RUN)
    first = journal.try_claim(seen_by_both, executor="x-first")
    second = journal.try_claim(seen_by_both, executor="x-second")
    assert first == Attempt(run_id=_RUN, executor="x-first", number=2)
    assert second is None


def test_a_claim_and_a_close_of_one_row_exclude_each_other(journal: Journal) -> None:
    _create(journal, "x-dead")
    row = journal.row(_RUN)
    assert journal.try_claim(row, executor="x-first") is not None
    assert not journal.try_close(row, reason="too late")
    again = journal.row(_RUN)
    assert journal.try_close(again, reason="in time")
    assert journal.try_claim(again, executor="x-second") is None
    assert journal.record(_RUN).status is RunStatus.CANCELLED


def test_an_attempt_that_lost_its_run_cannot_speak_for_it(journal: Journal, executor: Executor) -> None:
    lost = _create(journal, "x-dead")
    now = journal.try_claim(journal.row(_RUN), executor=executor.id)
    assert now is not None
    journal.end(lost, status=RunStatus.FAILED)
    assert journal.beat(lost, progress=(TaskProgress(what="late", done_bytes=1, total_bytes=None),)) == ("", "")
    record = journal.record(_RUN)
    assert (record.status, record.progress) == (RunStatus.RUNNING, ())


def test_an_id_is_given_to_one_run_only(journal: Journal, executor: Executor) -> None:
    _create(journal, executor)
    with pytest.raises(RunAlreadyExists):
        _create(journal, executor)


def test_an_unknown_run_is_told(journal: Journal) -> None:
    with pytest.raises(RunNotFound, match="r-nowhere"):
        journal.record(RunId("r-nowhere"))


def test_a_request_reaches_the_attempt_with_its_reason(journal: Journal, executor: Executor) -> None:
    attempt = _create(journal, executor)
    assert journal.beat(attempt, progress=None) == ("", "")
    assert journal.request(journal.row(_RUN), what="pause", reason="maintenance")
    assert journal.beat(attempt, progress=None) == ("pause", "maintenance")
    row = journal.row(_RUN)
    journal.end(attempt, status=RunStatus.SUCCEEDED)
    assert not journal.request(row, what="pause", reason="too late")


def test_an_old_request_does_not_stop_the_next_attempt(journal: Journal, executor: Executor) -> None:
    first = _create(journal, executor)
    journal.request(journal.row(_RUN), what="pause", reason="maintenance")
    journal.end(first, status=RunStatus.PAUSED, reason="maintenance")
    second = journal.try_claim(journal.row(_RUN), executor=executor.id)
    assert second is not None
    assert journal.beat(second, progress=None) == ("", "")
    assert journal.record(_RUN).reason == ""


def test_progress_is_shown_while_the_run_is_carried_out_only(
    journal: Journal, executor: Executor, clock: ManualClock
) -> None:
    attempt = _create(journal, executor)
    clock.advance(5)
    progress = (TaskProgress(what="web: disk 0", done_bytes=7, total_bytes=10),)
    journal.beat(attempt, progress=progress)
    record = journal.record(_RUN)
    assert (record.progress, record.updated) == (progress, clock.now())
    executor.close()
    assert journal.record(_RUN).progress == ()


def test_an_ended_run_tells_how(journal: Journal, executor: Executor, clock: ManualClock) -> None:
    attempt = _create(journal, executor)
    clock.advance(60)
    error = ErrorFacts.of(RunNotFound(run_id=RunId("r-0")))
    journal.end(attempt, status=RunStatus.PARTIAL, reason="db was busy", result={"points": 1}, error=error)
    record = journal.record(_RUN)
    assert (record.status, record.reason, record.result, record.error) == (
        RunStatus.PARTIAL,
        "db was busy",
        {"points": 1},
        error,
    )
    assert record.ended == clock.now()
    assert not record.is_resumable


def test_steps_are_told_in_order_with_attempts_and_duration(
    journal: Journal, executor: Executor, log: AttemptLog, clock: ManualClock
) -> None:
    attempt = _create(journal, executor)
    log.step_started("snapshot")
    clock.advance(1.25)
    log.step_ended("snapshot", StepState.DONE, None)
    log.step_started("copy")
    log.step_ended("copy", StepState.STOPPED, None)
    log.step_started("copy")
    error = ErrorFacts.of(ValueError("bad"))
    log.step_ended("copy", StepState.FAILED, error)
    log.step_started("release")
    steps = journal.record(_RUN).steps
    assert [(s.name, s.state, s.attempts, s.duration_s, s.error) for s in steps] == [
        ("snapshot", StepState.DONE, 1, 1.25, None),
        ("copy", StepState.FAILED, 2, 0.0, error),
        ("release", StepState.RUNNING, 1, None, None),
    ]
    journal.end(attempt, status=RunStatus.PAUSED)
    assert journal.record(_RUN).steps[2].state is StepState.STOPPED


def test_a_step_whose_process_died_is_stopped_and_a_replay_repairs_it(journal: Journal, log: AttemptLog) -> None:
    _create(journal, "x-dead")
    log.step_started("copy")
    log.step_started("verify")
    assert [step.state for step in journal.record(_RUN).steps] == [StepState.STOPPED] * 2
    journal.try_claim(journal.row(_RUN), executor="x-next")
    error = ErrorFacts.of(ValueError("bad"))
    log.step_replayed("copy", None)
    log.step_replayed("verify", error)
    steps = journal.record(_RUN).steps
    assert [(step.state, step.error) for step in steps] == [(StepState.DONE, None), (StepState.FAILED, error)]


def test_findings_and_notes_are_kept_once(journal: Journal, executor: Executor, log: AttemptLog) -> None:
    _create(journal, executor)
    finding = Finding(severity=Severity.WARNING, subject="web", message="full read", next_step="enable CBT")
    assert [log.add_finding(finding), log.add_finding(finding)] == [True, False]
    assert [log.add_note("full read"), log.add_note("full read"), log.add_note("done")] == [True, False, True]
    record = journal.record(_RUN)
    assert record.findings == (finding,)
    assert [note.message for note in record.notes] == ["full read", "done"]


def test_what_goes_beyond_the_bound_is_told_once(
    journal: Journal, executor: Executor, log: AttemptLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(journal, executor)
    monkeypatch.setattr("holdfast.core.limits.RUN_NOTES_MAX", 2)
    monkeypatch.setattr("holdfast.core.limits.RUN_FINDINGS_MAX", 1)
    for n in range(5):
        log.add_note(f"note {n}")
        log.add_finding(Finding(severity=Severity.NOTE, subject="s", message=f"finding {n}"))
    log.add_finding(Finding(severity=Severity.DATA_AT_RISK, subject="s", message="never crowded out"))
    record = journal.record(_RUN)
    assert [finding.severity for finding in record.findings] == [Severity.NOTE, Severity.DATA_AT_RISK]
    assert [note.message for note in record.notes if "not kept" in note.message] == [
        "More than 1 findings: further ones of this run are not kept.",
        "More than 2 notes: further ones of this run are not kept.",
    ]


def test_the_oldest_finished_runs_are_forgotten_with_all_they_told(
    journal: Journal, database: Database, ledger: SqlLedger, executor: Executor, clock: ManualClock
) -> None:
    for name in ("r-1", "r-2", "r-3", "r-paused", "r-5"):
        attempt = _create(journal, executor, RunId(name))
        log = AttemptLog(database=database, clock=clock, run_id=RunId(name))
        log.step_started("copy")
        log.add_note("note")
        journal.end(attempt, status=RunStatus.PAUSED if name == "r-paused" else RunStatus.SUCCEEDED)
        clock.advance(60)
    lines = {
        state: ledger.intend(run=RunId(run), pool=PoolUuid("p"), kind="snapshot", name=state.value, details={})
        for run, state in [("r-1", LedgerState.INTENDED), ("r-2", LedgerState.GONE), ("r-2", LedgerState.KEPT)]
    }
    ledger.gone(lines[LedgerState.GONE])
    ledger.keep(lines[LedgerState.KEPT], why="reference")

    assert prune_runs(database, kept_max=1) == [RunId("r-3"), RunId("r-2")]
    assert [summary.run_id for summary in journal.summaries()] == ["r-5", "r-paused", "r-1"]
    assert {line.id for line in ledger.lines()} == {lines[LedgerState.INTENDED], lines[LedgerState.KEPT]}
    with database.read() as connection:
        for table in ("steps", "notes"):
            kept = connection.exec_driver_sql(f"SELECT run_id FROM {table} ORDER BY id").scalars().all()
            assert kept == ["r-1", "r-paused", "r-5"]
    assert unfinished_runs(database) == {RunId("r-paused")}
    assert prune_runs(database, kept_max=1) == []


def test_a_record_as_json_has_the_names_of_the_record(
    journal: Journal, ledger: SqlLedger, executor: Executor, log: AttemptLog
) -> None:
    attempt = _create(journal, executor)
    log.step_started("copy")
    log.step_ended("copy", StepState.FAILED, ErrorFacts.of(ValueError("bad")))
    log.add_note("note")
    log.add_finding(Finding(severity=Severity.DATA_AT_RISK, subject="web", message="m", next_step="n"))
    ledger.intend(run=_RUN, pool=PoolUuid("p"), kind="snapshot", name="s", details={})
    journal.beat(attempt, progress=(TaskProgress(what="w", done_bytes=1, total_bytes=2),))
    record = journal.record(_RUN)
    as_json = record.to_json()
    assert {name for name in dir(record) if not name.startswith("_") and name != "to_json"} == set(as_json)
    assert as_json["status"] == "running"
    assert as_json["progress"] == [{"what": "w", "done_bytes": 1, "total_bytes": 2}]
    assert as_json["findings"] == [
        {"severity": "data at risk", "subject": "web", "message": "m", "next_step": "n"},
    ]
