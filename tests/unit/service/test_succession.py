"""A new backup takes the place of a waiting one only when it does all of its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.backup import BackupArgs
from holdfast.model import JsonObject, RunStatus
from holdfast.service.succession import give_up_leases, take_place_of_waiting
from tests.unit.service.fakes import FakeRuns, make_workspace, run_record

_NEW = BackupArgs(pool="lab", repository="main", vms=("a", "b"))


def _args(*vms: str, pool: str = "lab", repository: str = "main") -> JsonObject:
    return {"pool": pool, "repository": repository, "vms": list(vms)}


class _Told:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def start(self, what: str, *, total_bytes: int | None = None) -> None:
        raise AssertionError(what)


def _take(runs: FakeRuns, *on_pool: str) -> tuple[list[str], str]:
    told = _Told()
    closed = take_place_of_waiting(runs.runs, _NEW, on_pool=on_pool or ("a", "b", "c"), progress=told)  # type: ignore[arg-type]
    return [each.run_id for each in closed], "\n".join(told.notes)


@pytest.mark.parametrize("status", [RunStatus.PAUSED, RunStatus.INTERRUPTED])
@pytest.mark.parametrize("vms", [("a",), ("a", "b")])
def test_a_waiting_run_of_the_same_vms_is_replaced(status: RunStatus, vms: tuple[str, ...]) -> None:
    runs = FakeRuns([run_record("r-old", status, args=_args(*vms))])
    closed, told = _take(runs)
    assert closed == ["r-old"]
    assert runs.records[0].status is RunStatus.CANCELLED
    assert "takes its place" in told


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (_args("a", "c"), "backup"),
        (_args("a", repository="second"), "backup"),
        (_args("a"), "restore"),
    ],
)
def test_a_run_that_would_do_more_or_something_else_is_told_and_left(args: JsonObject, kind: str) -> None:
    runs = FakeRuns([run_record("r-old", RunStatus.PAUSED, kind=kind, args=args)])
    closed, told = _take(runs)
    assert closed == []
    assert runs.records[0].status is RunStatus.PAUSED
    assert "r-old" in told
    assert "resume or cancel" in told


def test_what_the_waiting_run_has_done_already_does_not_count() -> None:
    runs = FakeRuns([run_record("r-old", RunStatus.PAUSED, args=_args("a", "c"), done=("commit c", "plan a"))])
    assert _take(runs)[0] == ["r-old"]


def test_a_vm_that_is_gone_from_the_pool_does_not_count() -> None:
    runs = FakeRuns([run_record("r-old", RunStatus.PAUSED, args=_args("a", "c"))])
    assert _take(runs, "a", "b")[0] == ["r-old"]


def test_runs_of_other_pools_and_runs_at_work_are_nobodys_business() -> None:
    runs = FakeRuns(
        [
            run_record("r-1", RunStatus.PAUSED, args=_args("a", pool="other")),
            run_record("r-2", RunStatus.RUNNING, args=_args("a")),
        ]
    )
    assert _take(runs) == ([], "")


def test_a_run_that_somebody_resumes_this_moment_is_left() -> None:
    runs = FakeRuns([run_record("r-old", RunStatus.PAUSED, args=_args("a"))], busy={"r-old"})
    assert _take(runs) == ([], "")


def test_a_repository_that_vanished_does_not_keep_a_run_from_being_closed(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    refused = give_up_leases(workspace, run_record("r", RunStatus.CANCELLED, args=_args("a")))
    assert refused is not None
    assert refused.code == "config.name-unknown"
    assert give_up_leases(workspace, run_record("r", RunStatus.CANCELLED, kind="restore", args=_args("a"))) is None
