"""The end of a run is told the same way for people and for programs, and its exit status says what counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest

from holdfast.cli.output import Output
from holdfast.cli.report import tell_work, work_document
from holdfast.cli.session import Session
from holdfast.core import ExitStatus, HoldfastError
from holdfast.model import Finding, RunStatus, Severity
from holdfast.runs import ErrorFacts, RunRecord
from holdfast.service import WorkReport
from holdfast.upkeep import NOTHING_SWEPT, LeftOnPool, SweepReport
from tests.unit.service.fakes import run_record


class _Full(HoldfastError):
    code = "test.full"
    exit_status = ExitStatus.NO_SPACE
    effect = "Nothing was lost."
    advice = "Make room."


class _Session:
    def __init__(self, *, as_json: bool) -> None:
        self.out = Output(as_json=as_json)


def _tell(run: RunRecord, *, sweep: SweepReport = NOTHING_SWEPT) -> ExitStatus:
    return tell_work(cast(Session, _Session(as_json=False)), WorkReport(run=run, sweep=sweep))


@pytest.mark.parametrize(
    ("status", "with_error", "wanted"),
    [
        (RunStatus.SUCCEEDED, False, ExitStatus.OK),
        (RunStatus.PARTIAL, False, ExitStatus.PARTIAL),
        (RunStatus.FAILED, True, ExitStatus.NO_SPACE),
        (RunStatus.FAILED, False, ExitStatus.FAILED),
        (RunStatus.PAUSED, True, ExitStatus.NO_SPACE),
        (RunStatus.PAUSED, False, ExitStatus.INTERRUPTED),
        (RunStatus.INTERRUPTED, False, ExitStatus.INTERRUPTED),
        (RunStatus.CANCELLED, False, ExitStatus.INTERRUPTED),
        (RunStatus.RUNNING, False, ExitStatus.INTERRUPTED),
    ],
)
def test_the_exit_status_says_what_became_of_the_run(
    status: RunStatus, with_error: bool, wanted: ExitStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ErrorFacts.of(_Full("no space")) if with_error else None
    assert _tell(replace(run_record("r-1", status), error=error)) is wanted
    told = capsys.readouterr().err
    assert ("Make room." in told) == with_error
    assert ("holdfast run resume r-1" in told) == (status in (RunStatus.PAUSED, RunStatus.INTERRUPTED))


def test_a_backup_is_told_vm_by_vm_with_its_findings(capsys: pytest.CaptureFixture[str]) -> None:
    disk = {
        "position": "0",
        "name": "root",
        "source": "cbt",
        "reason": "r",
        "provisioned_bytes": 4 << 30,
        "read_bytes": 1 << 20,
        "new_bytes": 1 << 20,
        "stored_bytes": 1 << 10,
    }
    vm = {"vm": "u", "vm_name": "web", "point": "p-1", "disks": [disk], "dropped_points": ["p-0"]}
    finding = Finding(severity=Severity.WARNING, subject="web", message="slow", next_step="look")
    result = {"vms": [vm, {"vm": "v", "vm_name": "db"}]}
    run = replace(run_record("r-1", RunStatus.PARTIAL), result=result, findings=(finding,))  # type: ignore[arg-type]
    _tell(run)
    told = capsys.readouterr().out
    for part in ("4.00 GiB", "cbt", "web: point p-1; 1 older dropped", "warning: web: slow", "look", "took"):
        assert part in told


def test_a_restore_is_told_disk_by_disk(capsys: pytest.CaptureFixture[str]) -> None:
    disk = {"position": "0", "name": "root", "original": "o", "disk": "d", "size_bytes": 1, "data_bytes": 1 << 20}
    result = {"vm": "u", "vm_name": "web", "point": "p", "disks": [disk], "notes": [], "started": True}
    run = replace(run_record("r-1", RunStatus.SUCCEEDED, kind="restore"), result=result)  # type: ignore[arg-type]
    _tell(run)
    told = capsys.readouterr().out
    assert "disk 0 'root': 1.00 MiB written to d" in told
    assert "VM 'web' is restored: u, and runs" in told


def test_what_is_left_on_the_pool_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SweepReport(removed=("disk 'a'",), left=(LeftOnPool(what="disk 'b'", error=_Full("busy")),))
    _tell(run_record("r-1", RunStatus.SUCCEEDED), sweep=sweep)
    told = capsys.readouterr().err
    assert "left on the pool: disk 'b': busy" in told
    assert "Make room." in told
    report = WorkReport(run=run_record("r-1", RunStatus.SUCCEEDED), sweep=sweep, not_given_up=_Full("vanished"))
    document = json.loads(json.dumps(work_document(report)))
    assert document["removed_from_pool"] == ["disk 'a'"]
    assert document["left_on_pool"][0]["code"] == "test.full"
    assert document["not_given_up"]["error"] == "vanished"
