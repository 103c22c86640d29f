"""The use cases around runs: what begins, what is swept, what is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast import service
from holdfast.backup import KeepInvalid, NothingToBackUp
from holdfast.core import Cancellation, HoldfastError, NoProgress, Secret
from holdfast.model import PoolUuid, RunId, RunStatus
from holdfast.runs import LedgerState
from holdfast.service import BackupRequest, NameUnknown, PoolConfig, SelectionAmbiguous, Workspace
from holdfast.xapi import PinnedCertificate, PoolUnreachable, VmAmbiguous, VmUnknown
from tests.support.flows import NOW, POOL, MemoryPool, blocks
from tests.unit.service.fakes import FakeRuns, make_workspace, run_record

CANCEL = Cancellation()
PIN = f"sha256:{'ab' * 32}"
HOSTS = ("ab" * 32, "cd" * 32)


@dataclass
class _Place:
    """A workspace that knows the pool ``lab`` and the repository ``main``, and what stands behind them."""

    workspace: Workspace
    pool: MemoryPool
    runs: FakeRuns

    def backup(self, **changes: Any) -> service.WorkReport:
        request = BackupRequest(**{"pool": "lab", "repository": "main", "vms": ("web",), **changes})
        return service.run_backup(self.workspace, request, progress=NoProgress(), cancel=CANCEL)

    def left_by(self, run: str, *, pool: PoolUuid = POOL) -> None:
        """Leave a disk of a run on the pool."""
        name = f"disk of {run}"
        self.pool.add_disk(name, blocks(1))
        line = self.runs.ledger.intend(run=RunId(run), pool=pool, kind="disk", name=name, details={})
        self.runs.ledger.made(line, external_id=name)

    def kept_for(self, vm: str, repository: str) -> None:
        """Keep a reference on the pool."""
        name = f"reference of {vm} into {repository}"
        self.pool.add_disk(name, blocks(1), kind="cbt_metadata")
        details: Any = {"vm": vm, "vm_name": vm, "repository": repository}
        line = self.runs.ledger.intend(run=RunId("r-0"), pool=POOL, kind="disk-snapshot", name=name, details=details)
        self.runs.ledger.made(line, external_id=name)
        self.runs.ledger.keep(line, why="reference")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Place:
    runs, pool = FakeRuns(), MemoryPool()
    pool.add_vm("web", blocks(1))
    pool.add_vm("db", blocks(2))
    workspace = make_workspace(tmp_path, runs=runs)
    workspace.registry.add_pool(
        PoolConfig(name="lab", url="https://lab", user="root", trust=PIN, pool=POOL, added_at=NOW)
    )
    service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    pool.host_fingerprints = lambda: HOSTS  # type: ignore[attr-defined]

    def connect(given: Workspace, name: str, cancel: Cancellation, **_: object) -> MemoryPool:
        given.registry.pool(name)
        pool._called("connect", changes=False)
        return pool

    for module in ("work", "sweeping", "history"):
        monkeypatch.setattr(f"holdfast.service.{module}.connect_pool", connect)
    return _Place(workspace=workspace, pool=pool, runs=runs)


def test_a_backup_is_recorded_with_what_was_resolved(place: _Place) -> None:
    report = place.backup(vms=("WEB", "vm-web"), keep_points=3)
    ((kind, args, title),) = place.runs.executed
    assert (kind, title) == ("backup", "back up web")
    assert args["vms"] == ["vm-web"], "named twice, backed up once"
    assert args["vm_names"] == {"vm-web": "web"}
    assert args["keep_points"] == 3
    assert report.run.status is RunStatus.SUCCEEDED
    assert place.workspace.registry.pool("lab").other_hosts == HOSTS


def test_all_means_every_vm(place: _Place) -> None:
    place.backup(vms=(), all_vms=True)
    assert sorted(place.runs.executed[0][1]["vms"]) == ["vm-db", "vm-web"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"vms": ()}, NothingToBackUp),
        ({"all_vms": True}, SelectionAmbiguous),
        ({"vms": ("wbe",)}, VmUnknown),
        ({"keep_points": 0}, KeepInvalid),
        ({"pool": "nowhere"}, NameUnknown),
        ({"repository": "nowhere"}, NameUnknown),
    ],
)
def test_what_cannot_begin_leaves_no_run_and_closes_none(
    place: _Place, changes: dict[str, Any], error: type[HoldfastError]
) -> None:
    args: Any = {"pool": "lab", "repository": "main", "vms": ["vm-web"]}
    place.runs.records.append(run_record("r-old", RunStatus.PAUSED, args=args))
    with pytest.raises(error):
        place.backup(**changes)
    assert place.runs.executed == []
    assert place.runs.records[0].status is RunStatus.PAUSED


def test_a_name_that_two_vms_have_is_refused_with_their_uuids(place: _Place) -> None:
    place.pool.add_vm("web", blocks(1), uuid="vm-other")
    with pytest.raises(VmAmbiguous) as caught:
        place.backup()
    assert "vm-other" in caught.value.next_step()


def test_the_heir_of_a_waiting_run_is_told_so_and_sweeps_after_it(place: _Place) -> None:
    args: Any = {"pool": "lab", "repository": "main", "vms": ["vm-web"]}
    place.runs.records.append(run_record("r-old", RunStatus.INTERRUPTED, args=args))
    place.left_by("r-old")
    report = place.backup()
    assert [each.run_id for each in report.closed] == ["r-old"]
    assert place.runs.executed[0][1]["heir_of"] == ["r-old"]
    assert report.sweep.removed == ("disk 'disk of r-old'",)


def test_what_unfinished_runs_have_made_is_not_swept_however_old_they_are(place: _Place) -> None:
    for run, status in (("r-paused", RunStatus.PAUSED), ("r-running", RunStatus.RUNNING)):
        place.runs.records.append(run_record(run, status, args={"pool": "other"}))
        place.left_by(run)
    place.left_by("r-forgotten")
    place.runs.list = lambda **_: []  # type: ignore[method-assign]
    assert place.backup().sweep.removed == ("disk 'disk of r-forgotten'",)
    assert "disk of r-running" in place.pool.disks
    assert "disk of r-paused" in place.pool.disks


def test_a_pool_that_cannot_be_reached_any_more_is_told_as_left(place: _Place) -> None:
    place.left_by("r-dead")
    place.pool.fail("connect", None, PoolUnreachable(address="https://lab", why="no answer"))
    report = place.backup()
    assert report.run.status is RunStatus.SUCCEEDED
    assert [(each.what, each.error.code) for each in report.sweep.left] == [
        ("disk 'disk of r-dead'", "pool.unreachable")
    ]
    assert place.backup().sweep.left == ()


def test_closing_a_run_sweeps_and_says_what_could_not_be_given_up(place: _Place) -> None:
    args: Any = {"pool": "lab", "repository": "vanished", "vms": ["vm-web"]}
    place.runs.records.append(run_record("r-1", RunStatus.PAUSED, args=args))
    place.left_by("r-1")
    report = service.cancel_run(place.workspace, RunId("r-1"), reason="enough")
    assert report.run.status is RunStatus.CANCELLED
    assert report.sweep.removed == ("disk 'disk of r-1'",)
    assert report.not_given_up is not None
    assert {line.state for line in report.run.ledger} == {LedgerState.GONE}, "the report shows the ledger as it is now"


def test_closing_a_run_of_a_forgotten_pool_says_that_something_stays(place: _Place) -> None:
    args: Any = {"pool": "lab", "repository": "main", "vms": ["vm-web"]}
    place.runs.records.append(run_record("r-1", RunStatus.INTERRUPTED, args=args))
    place.left_by("r-1")
    removed = service.remove_pool(place.workspace, "lab")
    assert (removed.references, removed.leftovers) == (0, 1)
    report = service.cancel_run(place.workspace, RunId("r-1"), reason="enough")
    (left,) = report.sweep.left
    assert left.error.code == "pool.forgotten"
    assert "pool add" in left.error.next_step()
    assert place.runs.ledger.open_lines() != []


def test_a_pool_added_again_under_another_name_is_swept(place: _Place) -> None:
    place.left_by("r-dead")
    service.remove_pool(place.workspace, "lab")
    place.workspace.registry.add_pool(
        PoolConfig(name="anew", url="https://lab", user="root", trust="plain", pool=POOL, added_at=NOW)
    )
    assert place.backup(pool="anew").sweep.removed == ("disk 'disk of r-dead'",)


def test_a_damaged_configuration_does_not_hide_how_the_run_went(place: _Place, tmp_path: Path) -> None:
    args: Any = {"pool": "lab", "repository": "main", "vms": ["vm-web"]}
    place.runs.records.append(run_record("r-1", RunStatus.PAUSED, args=args))
    place.left_by("r-1")
    (tmp_path / "config" / "pools" / "lab.json").write_text("{")
    report = service.resume_run(place.workspace, RunId("r-1"), progress=NoProgress(), cancel=CANCEL)
    assert report.run.status is RunStatus.SUCCEEDED
    assert [each.error.code for each in report.sweep.left] == ["config.damaged"]


def test_a_run_at_work_elsewhere_is_asked_to_stop_and_nothing_is_swept(place: _Place) -> None:
    place.runs.records.append(run_record("r-1", RunStatus.RUNNING, args={"pool": "lab"}))
    place.left_by("r-1")
    report = service.cancel_run(place.workspace, RunId("r-1"), reason="enough")
    assert (report.run.status, report.run.reason) == (RunStatus.RUNNING, "enough")
    assert "disk of r-1" in place.pool.disks


def test_a_finished_run_is_swept_again_when_it_is_cancelled(place: _Place) -> None:
    place.runs.records.append(run_record("r-1", RunStatus.FAILED, args={"pool": "lab"}))
    place.left_by("r-1")
    report = service.cancel_run(place.workspace, RunId("r-1"), reason="")
    assert report.run.status is RunStatus.FAILED
    assert report.sweep.removed == ("disk 'disk of r-1'",)


def test_runs_that_wait_are_all_found_oldest_first(place: _Place) -> None:
    for run, status in (("r-3", RunStatus.PAUSED), ("r-1", RunStatus.INTERRUPTED), ("r-2", RunStatus.FAILED)):
        place.runs.records.append(run_record(run, status))
    assert [each.run_id for each in service.list_waiting_runs(place.workspace)] == ["r-1", "r-3"]


def test_cleaning_removes_what_nobody_needs_and_keeps_the_rest(place: _Place) -> None:
    main = place.workspace.registry.repository("main").repository
    for vm, repository in (("vm-web", main), ("vm-web", "unknown"), ("vm-gone", main)):
        place.kept_for(vm, repository)
    place.left_by("r-dead")
    plan = service.explain_cleaning(place.workspace, "lab", everything=False, cancel=CANCEL)
    assert (len(plan.dropped), plan.staying) == (2, 1)
    report = service.clean_pool(place.workspace, "lab", everything=False, cancel=CANCEL)
    assert len(report.removed) == 3
    assert [uuid for uuid in place.pool.disks if uuid.startswith("reference")] == [f"reference of vm-web into {main}"]
    assert service.remove_pool(place.workspace, "lab").references == 1


def test_a_reference_that_could_not_be_removed_is_tried_again_by_every_sweep(place: _Place) -> None:
    place.kept_for("vm-web", "unknown")

    class Busy(HoldfastError):
        code = "test.busy"

    place.pool.fail("destroy_disk", Busy("attached"))
    assert len(service.clean_pool(place.workspace, "lab", everything=True, cancel=CANCEL).left) == 1
    assert len(place.backup().sweep.removed) == 1


def test_nothing_to_clean_is_no_work(place: _Place) -> None:
    report = service.clean_pool(place.workspace, "lab", everything=True, cancel=CANCEL)
    assert (report.removed, report.left) == ((), ())


def _refuse(*_: object) -> None:
    raise OSError("full")


def test_a_pool_whose_password_cannot_be_kept_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, seen = make_workspace(tmp_path), list[Any]()
    pool = MemoryPool()
    pool.host_fingerprints = lambda: HOSTS  # type: ignore[attr-defined]
    pool.address = cast(Any, type("Address", (), {"url": "https://master"}))  # type: ignore[attr-defined]

    def open_pool(address: Any, credentials: Any, trust: Any, **_: Any) -> MemoryPool:
        seen.append(trust)
        return pool

    monkeypatch.setattr("holdfast.service.pools.open_pool", open_pool)

    def add() -> PoolConfig:
        return service.add_pool(
            workspace,
            name="lab",
            url="https://lab",
            user="root",
            password=Secret("p"),
            trust=PIN,
            cancel=CANCEL,
        )

    with monkeypatch.context() as patch:
        patch.setattr("holdfast.daemon.FileVault.store", _refuse)
        with pytest.raises(OSError, match="full"):
            add()
    assert service.list_pools(workspace) == []
    assert add().other_hosts == HOSTS
    with service.connect_pool(workspace, "lab", CANCEL):
        assert seen[-1] == PinnedCertificate("ab" * 32, others=HOSTS), "a new master is known by its certificate"
