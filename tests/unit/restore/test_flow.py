"""A restore makes a whole VM or leaves nothing, and nothing that fails after the VM is whole costs it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import msgspec
import pytest

from holdfast.core import Cancellation, HoldfastError, ManualClock, NoProgress, Retry, SeededEntropy
from holdfast.model import RUN_TAG, Finding, RunId
from holdfast.repository import PackMissing
from holdfast.restore import RestoreArgs, RestoreFlow, RestoreResult
from holdfast.runs import LedgerState, StepContext, StepFailed
from holdfast.upkeep import remove_line, sweep_ledger
from holdfast.xapi import MetadataImportFailed, PoolClient, PoolConnectionLost, UploadIncomplete
from tests.support.flows import MemoryLedger, MemoryPool, blocks
from tests.support.ova import pack_ova
from tests.support.repositories import World
from tests.unit.restore.points import make_point, saved_vm
from tests.unit.runs.fakes import MemoryLog, MemoryRecorder


class _Killed(BaseException):
    """The process died here."""


class _Refused(HoldfastError):
    code = "test.refused"
    retry = Retry.NEVER


class _Runner:
    def __init__(self) -> None:
        self.world = World()
        self.pool = MemoryPool()
        self.ledger = MemoryLedger()
        self.recorder = MemoryRecorder()
        self.log = MemoryLog()
        self.clock = ManualClock()
        self.entropy = SeededEntropy(3)
        self.partial: str | None = None

    def run(self, **args: Any) -> RestoreResult:
        """Run, or run again what was recorded so far."""
        self.recorder, self.log = self.recorder.replay(), MemoryLog()
        flow = RestoreFlow(
            open_pool=lambda name, context: cast(PoolClient, nullcontext(self.pool)),
            open_repository=lambda name, cancel: self.world.repository,
            ledger=self.ledger,
            remove_line=remove_line,
            clock=self.clock,
            entropy=self.entropy,
        )
        context = StepContext(
            run_id=RunId("r-9"),
            cancel=Cancellation(),
            progress=NoProgress(),
            recorder=self.recorder,
            log=self.log,
        )
        point = max(self.world.repository.points(), key=lambda each: each.facts.run).id
        wanted = RestoreArgs(pool="lab", repository="main", point=point, **args)
        result = msgspec.convert(flow(context, msgspec.to_builtins(wanted)), RestoreResult)
        self.partial = context.partial_reason
        return result

    @property
    def findings(self) -> list[Finding]:
        return self.log.findings

    def sweep(self) -> None:
        report = sweep_ledger(self.pool.client, self.ledger, self.ledger.open_lines())
        assert report.left == ()

    def assert_whole(self, result: RestoreResult, *contents: bytes) -> None:
        assert list(self.pool.vms) == [result.vm]
        assert [self.pool.content(each.disk) for each in result.disks] == list(contents)
        assert sorted(self.pool.disks) == sorted(each.disk for each in result.disks)
        assert self.ledger.open_lines() == []


@pytest.fixture
def runner() -> _Runner:
    made = _Runner()
    make_point(made.world, blocks(1, 0, 3), blocks(4))
    return made


def test_the_vm_comes_back_with_disks_drives_and_cards(runner: _Runner) -> None:
    result = runner.run(start=True)
    runner.assert_whole(result, blocks(1, 0, 3), blocks(4))
    assert result.started
    assert runner.partial is None
    vm = runner.pool.vms[result.vm]
    assert [each.position for each in vm.disks] == ["0", "1"]
    assert [each.mac for each in vm.nics] == ["02:00:00:00:00:01"]
    assert [each for each in runner.pool.calls if each.startswith("create_drive")] == [
        "create_drive 3",
        "create_drive 4",
    ]
    assert {line.state for line in runner.ledger.lines()} == {LedgerState.KEPT}
    assert runner.pool.marked() == []


def test_a_disk_keeps_its_labels_and_settings_but_nothing_of_ours(runner: _Runner) -> None:
    seen: list[dict[str, str]] = []
    create = runner.pool.create_disk

    def watch(sr: Any, **facts: Any) -> Any:
        assert facts["labels"] == ("gold",)
        assert facts["description"] == "what it is"
        seen.append(dict(facts["other_config"]))
        return create(sr, **facts)

    runner.pool.create_disk = watch  # type: ignore[method-assign]
    runner.run()
    assert [set(each) for each in seen] == [{"config-drive", RUN_TAG}] * 2
    assert len({each[RUN_TAG] for each in seen}) == 2, "each disk has a mark of its own"


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize(
    "moment", ["create_disk", "write_disk", "create_vm", "create_vbd", "create_vif", "untag", "set_blocked_operations"]
)
def test_killed_anywhere_it_resumes_to_one_whole_vm(runner: _Runner, moment: str, when: int) -> None:
    make_point(runner.world, blocks(7), record=saved_vm(blocked_operations={"destroy": "no"}), run="r-2")
    runner.pool.fail(moment, *[None] * when, _Killed())
    try:
        result = runner.run()
    except _Killed:
        result = runner.run()
    runner.assert_whole(result, blocks(7))


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize("moment", ["create_disk", "write_disk", "create_vm", "create_vbd", "create_vif"])
def test_killed_before_it_is_handed_over_and_swept_nothing_is_left(runner: _Runner, moment: str, when: int) -> None:
    runner.pool.fail(moment, *[None] * when, _Killed())
    try:
        runner.run()
    except _Killed:
        runner.sweep()
        assert runner.pool.vms == {}
        assert runner.pool.disks == {}


def test_an_upload_that_did_not_arrive_is_repeated_on_a_fresh_disk(runner: _Runner) -> None:
    runner.pool.fail("write_disk", UploadIncomplete(disk="d", why="short"))
    runner.assert_whole(runner.run(), blocks(1, 0, 3), blocks(4))
    assert runner.clock.monotonic_s() > 0


@pytest.mark.parametrize("method", ["create_vm", "create_vbd", "create_vif"])
def test_a_vm_whose_making_broke_off_is_made_anew_from_the_same_disks(runner: _Runner, method: str) -> None:
    lost = PoolConnectionLost(address="a", operation=method, why="reset")
    runner.pool.fail(method, lost, lost)
    runner.assert_whole(runner.run(), blocks(1, 0, 3), blocks(4))
    assert len([each for each in runner.pool.calls if each.startswith("create_disk")]) == 2


def test_every_disk_is_taken_from_the_control_domain_before_the_vm_starts(runner: _Runner) -> None:
    result = runner.run(start=True)
    at = [runner.pool.calls.index(f"detach_disk {each.disk}") for each in result.disks]
    assert max(at) < runner.pool.calls.index(f"start_vm {result.vm}")


def test_a_damaged_point_makes_no_vm_and_leaves_nothing(runner: _Runner) -> None:
    for key in runner.world.keys("packs/"):
        runner.world.memory.delete(key)
    with pytest.raises((StepFailed, PackMissing)):
        runner.run()
    runner.sweep()
    assert (runner.pool.vms, runner.pool.disks) == ({}, {})


def test_settings_that_are_refused_are_told_and_the_vm_stays(runner: _Runner) -> None:
    record = saved_vm(blocked_operations={"destroy": "no"}, bios_strings={"bios-vendor": "x"})
    make_point(runner.world, blocks(1), record=record, run="r-2")
    for method in ("set_bios_strings", "set_blocked_operations", "untag", "detach_disk"):
        runner.pool.fail(method, _Refused(f"{method} no"))
    runner.assert_whole(runner.run(), blocks(1))
    told = "\n".join(each.message for each in runner.findings)
    for part in (
        "BIOS strings could not be set",
        "blocked operations could not be set",
        "the mark on",
        "the control domain still holds disk 0",
    ):
        assert part in told
    runner.sweep()
    assert len(runner.pool.vms) == 1


def test_bios_strings_are_set_once_even_if_the_step_runs_twice(runner: _Runner) -> None:
    make_point(runner.world, blocks(1), record=saved_vm(bios_strings={"bios-vendor": "x"}), run="r-2")
    runner.pool.fail("untag", _Killed())
    with pytest.raises(_Killed):
        runner.run()
    runner.run()
    assert len([each for each in runner.pool.calls if each.startswith("set_bios_strings")]) == 1
    assert runner.findings == []


def test_a_vm_that_does_not_start_is_there_and_the_run_says_so(runner: _Runner) -> None:
    runner.pool.fail("start_vm", _Refused("no memory"))
    result = runner.run(start=True)
    assert not result.started
    assert runner.partial is not None
    assert "could not be started: no memory" in runner.partial
    runner.assert_whole(result, blocks(1, 0, 3), blocks(4))


def test_starting_is_safe_twice(runner: _Runner) -> None:
    runner.run(start=True)
    runner.recorder.record.popitem()
    assert runner.run(start=True).started
    assert len([each for each in runner.pool.calls if each.startswith("start_vm")]) == 1


def _description() -> bytes:
    vm: dict[str, object] = {"uuid": "vm-web", "name_label": "web", "other_config": {}}
    return pack_ova([("VM", "Ref:0", vm)], {})


def _with_tpm(runner: _Runner, metadata: bytes) -> None:
    make_point(runner.world, blocks(1), blocks(2), record=saved_vm(VTPMs=["x"]), metadata=metadata, run="r-2")


def test_a_vm_with_a_virtual_tpm_is_made_from_the_pools_own_description(runner: _Runner) -> None:
    _with_tpm(runner, _description())
    result = runner.run()
    assert "import_metadata" in runner.pool.calls
    assert runner.findings == []
    runner.assert_whole(result, blocks(1), blocks(2))
    assert len(runner.pool.vms[result.vm].nics) == 1


def test_a_pool_that_drops_the_tpm_is_told(runner: _Runner) -> None:
    _with_tpm(runner, _description())
    create = runner.pool.create_vm
    runner.pool.create_vm = lambda record: create({**record, "VTPMs": []})  # type: ignore[method-assign]
    runner.run()
    assert "did not take over the virtual TPM" in runner.findings[0].message


@pytest.mark.parametrize("trouble", ["unreadable", "refused", "foreign disk"])
def test_a_description_that_does_not_work_is_replaced_by_the_record_and_told(runner: _Runner, trouble: str) -> None:
    _with_tpm(runner, b"no tar" if trouble == "unreadable" else _description())
    if trouble == "refused":
        runner.pool.fail("import_metadata", MetadataImportFailed(count=0))
    if trouble == "foreign disk":
        make = runner.pool.import_metadata

        def attach_a_strangers_disk(description: bytes, **facts: Any) -> Any:
            made = make(description, **facts)
            disk = runner.pool.add_disk("stranger", blocks(9)).uuid
            runner.pool.create_vbd(made, disk, position="7", bootable=False, read_only=False, record={})
            return made

        runner.pool.import_metadata = attach_a_strangers_disk  # type: ignore[method-assign]
    result = runner.run()
    assert "the virtual TPM is not restored" in runner.findings[0].message
    stranger = runner.pool.disks.pop("stranger", None)
    assert (stranger is not None) == (trouble == "foreign disk"), "another VM's disk is never removed"
    runner.assert_whole(result, blocks(1), blocks(2))


def test_every_thing_is_written_down_before_it_is_made(runner: _Runner) -> None:
    for method, kind in (("create_disk", "disk"), ("create_vm", "vm")):
        original = getattr(runner.pool, method)

        def watch(*args: Any, _original: Any = original, _kind: str = kind, **facts: Any) -> Any:
            lines = [line for line in runner.ledger.open_lines() if line.kind == _kind and line.external_id is None]
            marks = facts.get("other_config") or args[0]["other_config"]
            assert marks[RUN_TAG] in {line.name for line in lines}
            return _original(*args, **facts)

        setattr(runner.pool, method, watch)
    runner.run()
