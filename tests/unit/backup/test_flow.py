"""A backup run keeps its promises at every place where it can be cut off or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.backup import NoPointMade
from holdfast.core import HoldfastError, Retry, limits
from holdfast.model import ChangeSource, Consistency, DiskUuid, PowerState, Severity
from holdfast.repository import PackMissing
from holdfast.runs import LedgerState
from holdfast.upkeep import sweep_ledger
from holdfast.xapi import (
    DiskUnavailable,
    ExportDamaged,
    NbdConnectionLost,
    PoolConnectionLost,
    SrFull,
    TaggedKind,
    TaskVanished,
)
from tests.support.flows import blocks, vm_disk
from tests.support.repositories import World
from tests.unit.backup.runner import Runner


class _Killed(BaseException):
    """The process died here."""


class _Refused(HoldfastError):
    code = "test.refused"
    retry = Retry.LATER
    advice = "Do that."


@pytest.fixture
def runner() -> Runner:
    return Runner()


def _kept(runner: Runner) -> list[str]:
    return sorted(str(line.external_id) for line in runner.ledger.lines(states=(LedgerState.KEPT,)))


def _assert_restores(runner: Runner, number: int, *contents: bytes) -> None:
    point = runner.world.repository.points()[number]
    assert [runner.world.restore(point, disk=n) for n in range(len(point.disks))] == list(contents)


def test_two_runs_make_two_whole_points_and_leave_one_reference(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2, 3), blocks(4))
    first = runner.run("r-1", web.uuid)
    runner.pool.write("web-disk-0", blocks(1, 9, 3))
    second = runner.run("r-2", web.uuid)

    _assert_restores(runner, 0, blocks(1, 2, 3), blocks(4))
    _assert_restores(runner, 1, blocks(1, 9, 3), blocks(4))
    assert [disk.source for disk in first.vms[0].disks] == [ChangeSource.FULL] * 2
    assert [disk.read_bytes for disk in second.vms[0].disks] == [65536, 0]
    old, new = runner.world.repository.points()
    assert new.facts.previous == old.id
    assert new.facts.consistency is Consistency.CRASH
    assert new.facts.vm_metadata == b"tar"
    assert _kept(runner) == sorted(uuid for uuid in runner.pool.disks if "snap" in uuid)
    assert len(_kept(runner)) == 2
    assert [each for each in runner.pool.vms if each.startswith("snap")] == []
    assert runner.ledger.open_lines() == []


_MOMENTS = [
    "export_metadata",
    "snapshot_vm",
    "tag",
    "plan_read",
    "runs",
    "destroy_snapshot",
    "data_destroy",
    "destroy_disk",
]


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize("moment", _MOMENTS)
def test_killed_anywhere_and_resumed_it_ends_as_if_nothing_had_been(runner: Runner, moment: str, when: int) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2), blocks(3))
    runner.run("r-1", web.uuid)
    runner.pool.write("web-disk-0", blocks(1, 8))
    runner.pool.fail(moment, *[None] * when, _Killed())
    try:
        runner.run("r-2", web.uuid)
    except _Killed:
        runner.run("r-2", web.uuid)
    _assert_restores(runner, 1, blocks(1, 8), blocks(3))
    assert len(runner.world.repository.points()) == 2
    assert sorted(runner.pool.disks) == sorted(["web-disk-0", "web-disk-1", *_kept(runner)])
    assert list(runner.pool.vms) == [web.uuid]
    assert runner.ledger.open_lines() == []


def test_a_snapshot_of_an_earlier_attempt_is_never_adopted(runner: Runner) -> None:
    """It may be half made: the dead process's call is still at work."""
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.fail("snapshot_vm", _Killed())
    with pytest.raises(_Killed):
        runner.run("r-1", web.uuid)
    (leftover,) = [each for each in runner.pool.vms if each.startswith("snap")]
    runner.run("r-1", web.uuid)
    assert leftover not in runner.pool.vms
    names = {line.name for line in runner.ledger.lines() if line.kind == "vm-snapshot"}
    assert len(names) == 2, "each attempt has a name of its own"


@pytest.mark.parametrize(
    "trouble",
    [
        PoolConnectionLost(address="a", operation="VM.snapshot", why="reset"),
        TaskVanished(operation="VM.snapshot", task="t"),
        DiskUnavailable(operation="VM.snapshot", params=["SR_BACKEND_FAILURE_46"]),
    ],
)
def test_a_snapshot_whose_answer_is_lost_is_removed_and_another_taken(runner: Runner, trouble: HoldfastError) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.fail("snapshot_vm", trouble, trouble)
    result = runner.run("r-1", web.uuid, vm_names={web.uuid: "web"})
    assert result.vms[0].point is not None
    made = [each for each in runner.pool.calls if each.startswith("snapshot_vm")]
    assert len(set(made)) == 3, "each attempt has a name of its own"
    assert list(runner.pool.vms) == [web.uuid]
    assert len([each for each in runner.pool.disks if "snap" in each]) == 1, "the reference"
    assert [note for note in runner.notes if note.startswith("web: ") and "attempt 3 of 3" in note]


def test_a_snapshot_is_given_up_after_a_bounded_number_of_attempts(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    lost = [PoolConnectionLost(address="a", operation="o", why=f"w{n}") for n in range(limits.MAKING_ATTEMPTS_MAX)]
    runner.pool.fail("snapshot_vm", *lost)
    with pytest.raises(NoPointMade, match="w2"):
        runner.run("r-1", web.uuid)
    sweep_ledger(runner.pool.client, runner.ledger, runner.ledger.open_lines())
    assert list(runner.pool.vms) == [web.uuid]


def test_vms_of_one_name_have_snapshots_and_points_of_their_own(runner: Runner) -> None:
    one = runner.pool.add_vm("web", blocks(1), uuid="vm-1")
    runner.pool.vms["vm-2"] = replace(one, uuid="vm-2", disks=(vm_disk("0", runner.pool.add_disk("d-2", blocks(2))),))  # type: ignore[arg-type]
    runner.pool.fail("plan_read", _Refused("no"))
    runner.run("r-1", "vm-1", "vm-2")
    left = {line.details["vm"] for line in runner.ledger.open_lines() if line.kind == "vm-snapshot"}
    assert left == {"vm-1"}, "the first one's snapshot is still in the ledger"


def test_a_disk_that_comes_or_goes_at_the_last_moment_is_told_or_saved(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1), blocks(2))
    fresh = vm_disk("5", runner.pool.add_disk("fresh", blocks(7)))
    describe = runner.pool.describe_vm

    def change_disks(uuid: object) -> object:
        described = describe(web.uuid)
        runner.pool.vms[web.uuid] = replace(web, disks=(web.disks[0], fresh))
        return described

    runner.pool.describe_vm = change_disks  # type: ignore[method-assign, assignment]
    runner.run("r-1", web.uuid)
    _assert_restores(runner, 0, blocks(1), blocks(7))
    assert "disk 1 'web-disk-1' was detached at this moment" in runner.told()


def test_a_snapshot_disk_without_a_live_one_is_saved_too(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    snapshot = runner.pool._snapshot

    def orphan(uuid: object, name: str) -> object:
        made = snapshot(web.uuid, name)
        (frozen,) = made.disks.values()
        runner.pool.disks[frozen] = replace(runner.pool.disks[frozen], snapshot_of=None)
        return made

    runner.pool._snapshot = orphan  # type: ignore[method-assign, assignment]
    runner.run("r-1", web.uuid)
    _assert_restores(runner, 0, blocks(1))


@pytest.mark.parametrize(
    ("new", "source"),
    [(blocks(1, 2, 3), ChangeSource.FULL), (blocks(1), ChangeSource.FULL), (blocks(1, 2)[:-512], ChangeSource.FULL)],
)
def test_a_resized_disk_is_read_whole_once(runner: Runner, new: bytes, source: ChangeSource) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    runner.run("r-1", web.uuid)
    runner.pool.write("web-disk-0", new)
    result = runner.run("r-2", web.uuid)
    assert result.vms[0].disks[0].source is source
    assert "resized" in result.vms[0].disks[0].reason
    _assert_restores(runner, 1, new)
    assert runner.run("r-3", web.uuid).vms[0].disks[0].source is ChangeSource.CBT


def test_a_vm_without_disks_has_a_point_and_leaves_nothing(runner: Runner) -> None:
    bare = runner.pool.add_vm("bare", power_state=PowerState.HALTED)
    result = runner.run("r-1", bare.uuid)
    assert result.vms[0].point is not None
    assert runner.world.repository.points()[0].facts.consistency is Consistency.OFFLINE
    assert list(runner.pool.vms) == [bare.uuid]
    assert runner.ledger.lines(states=(LedgerState.KEPT,)) == []


def test_trouble_of_the_pool_is_waited_for_and_told(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    lost = NbdConnectionLost(disk="d", offset_bytes=0, attempts=6, why="reset")
    runner.pool.fail("runs", None, lost, ExportDamaged(disk="d", why="short"))
    result = runner.run("r-1", web.uuid)
    assert result.vms[0].point is not None
    assert any("attempt 2 of 3" in note for note in runner.notes)
    assert any("attempt 3 of 3" in note for note in runner.notes)
    _assert_restores(runner, 0, blocks(1, 2))


def test_a_disk_is_given_up_after_a_bounded_number_of_attempts(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    lost = [PoolConnectionLost(address="a", operation="o", why=f"w{n}") for n in range(limits.TRANSFER_ATTEMPTS_MAX)]
    runner.pool.fail("open_reader", *lost)
    with pytest.raises(NoPointMade, match="w2"):
        runner.run("r-1", web.uuid)
    assert runner.world.repository.points() == []
    assert all(line.state is not LedgerState.KEPT for line in runner.ledger.lines())


def test_a_base_that_cannot_be_trusted_is_read_anew(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    runner.run("r-1", web.uuid)
    old = runner.world.repository.points()[0]
    for key in runner.world.keys("packs/"):
        runner.world.memory.delete(key)
    result = runner.run("r-2", web.uuid)
    assert "cannot be built upon" in result.vms[0].disks[0].reason
    _assert_restores(runner, 1, blocks(1, 2))
    with pytest.raises(PackMissing):
        runner.world.restore(old)


def test_a_previous_point_that_was_deleted_meanwhile_means_a_full_read(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    runner.run("r-1", web.uuid)
    runner.pool.fail("snapshot_vm", _Killed())
    with pytest.raises(_Killed):
        runner.run("r-2", web.uuid)
    runner.world.repository.delete_point(runner.world.repository.points()[0].id)
    assert runner.run("r-2", web.uuid).vms[0].disks[0].source is ChangeSource.FULL
    _assert_restores(runner, 0, blocks(1, 2))


def test_one_vms_failure_is_that_vms_alone(runner: Runner) -> None:
    web, db = runner.pool.add_vm("web", blocks(1)), runner.pool.add_vm("db", blocks(2))
    runner.pool.fail("snapshot_vm", SrFull(operation="VM.snapshot", params=["SR_BACKEND_FAILURE_44"]))
    result = runner.run("r-1", web.uuid, db.uuid, vm_names={web.uuid: "web", db.uuid: "db"})
    assert [each.point is None for each in result.vms] == [True, False]
    assert runner.partial == "1 of 2 VMs have no new point"
    assert result.vms[0].error_code == "pool.sr-full"
    assert [(each.subject, each.severity) for each in runner.findings if "no new" in each.message] == [
        ("web", Severity.DATA_AT_RISK)
    ]


def test_a_vm_that_is_gone_is_called_by_the_name_it_had(runner: Runner) -> None:
    with pytest.raises(NoPointMade, match=r"^web: "):
        runner.run("r-1", "vm-gone", vm_names={"vm-gone": "web"})


@pytest.mark.parametrize("moment", ["destroy_snapshot", "destroy_disk", "data_destroy"])
def test_trouble_after_the_point_is_published_never_hides_the_point(runner: Runner, moment: str) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.run("r-1", web.uuid)
    runner.pool.fail(moment, _Refused("busy"))
    result = runner.run("r-2", web.uuid, keep_points=1)
    assert result.vms[0].point == runner.world.repository.points()[-1].id
    assert result.vms[0].error == ""
    assert "busy" in runner.told()
    assert Severity.DATA_AT_RISK not in {each.severity for each in runner.findings}
    sweep_ledger(runner.pool.client, runner.ledger, runner.ledger.open_lines())
    runner.run("r-3", web.uuid)
    newest = runner.world.repository.points()[-1]
    assert _kept(runner) == [each.facts.reference.snapshot for each in newest.disks if each.facts.reference]


def test_older_points_that_cannot_be_deleted_are_told_and_the_point_stays(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.run("r-1", web.uuid)

    def refuse(_: object, point: object) -> None:
        raise _Refused("read-only")

    monkeypatch.setattr("holdfast.repository.Repository.delete_point", refuse)
    result = runner.run("r-2", web.uuid, keep_points=1)
    assert result.vms[0].point is not None
    assert "older ones were not deleted: read-only" in runner.told()


def test_without_nbd_the_snapshot_stays_whole_because_nothing_else_helps_the_next_run(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.nbd_refusal = "no network is marked"
    runner.run("r-1", web.uuid)
    assert not any(each.startswith("data_destroy") for each in runner.pool.calls)
    (reference,) = [each.facts.reference for each in runner.world.repository.points()[0].disks]
    assert reference is not None
    assert reference.has_data
    assert any("no network is marked" in note for note in runner.notes)
    runner.pool.nbd_refusal = ""
    runner.run("r-2", web.uuid)
    assert [each for each in runner.pool.vms if each.startswith("snap")] == []
    assert len([uuid for uuid in runner.pool.disks if "snap" in uuid]) == 1


def test_without_change_tracking_the_snapshot_stays_whole(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.supports_cbt = False
    runner.run("r-1", web.uuid)
    assert any("does not track its changes" in note for note in runner.notes)


def test_change_tracking_that_is_refused_is_no_reason_for_no_backup(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.fail("enable_cbt", SrFull(operation="VDI.enable_cbt", params=["SR_FULL"]))
    assert runner.run("r-1", web.uuid).vms[0].point is not None
    assert "could not be switched on" in runner.told()


@pytest.mark.parametrize("too_large", [False, True])
def test_without_the_pools_own_description_the_vm_is_backed_up_and_it_is_told(runner: Runner, too_large: bool) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    if too_large:
        runner.pool.metadata = bytes(limits.VM_METADATA_BYTES_MAX + 1)
    else:
        runner.pool.fail("export_metadata", _Refused("licence"))
    runner.run("r-1", web.uuid)
    assert runner.world.repository.points()[0].facts.vm_metadata == b""
    assert "virtual TPM is not saved" in runner.told()


def test_clocks_that_disagree_are_told(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.pool.clock = type(runner.pool.clock)()
    runner.run("r-1", web.uuid)
    assert "clock" in runner.told()


def test_references_of_other_repositories_and_other_vms_are_left_alone(runner: Runner) -> None:
    web, db = runner.pool.add_vm("web", blocks(1)), runner.pool.add_vm("db", blocks(2))
    other = World(seed=2)
    runner.run("r-1", web.uuid, db.uuid)
    runner.run("r-2", web.uuid, repository=other)
    before = set(_kept(runner))
    runner.run("r-3", db.uuid)
    after = set(_kept(runner))
    assert len(before) == len(after) == 3
    assert len(before & after) == 2, "only the reference of db into the first repository was replaced"
    assert after <= set(runner.pool.disks)


def test_the_second_of_two_runs_at_once_takes_nothing_from_the_first(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    runner.run("r-1", web.uuid)
    runner.pool.fail("runs", _Killed())
    with pytest.raises(_Killed):
        runner.run("r-2", web.uuid)  # its snapshot is taken, its transfer is under way
    runner.pool.write("web-disk-0", blocks(1, 7))
    runner.run("r-3", web.uuid)  # begins, ends, and replaces the reference of r-1
    runner.run("r-2", web.uuid)  # goes on
    contents = [runner.world.restore(each) for each in runner.world.repository.points()]
    assert sorted(contents) == sorted([blocks(1, 2), blocks(1, 2), blocks(1, 7)])
    newest = max(runner.world.repository.points(), key=lambda each: each.facts.taken_at)
    assert newest.facts.run == "r-3"
    (reference,) = [each.facts.reference for each in newest.disks]
    assert reference is not None
    assert _kept(runner) == [reference.snapshot], "what the newest point needs stayed, whoever ended last"
    assert runner.run("r-4", web.uuid).vms[0].disks[0].source is ChangeSource.CBT


def test_an_index_that_cannot_be_written_costs_time_never_the_points(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = runner.pool.add_vm("web", blocks(1))

    def refuse(_: object) -> None:
        raise _Refused("full")

    monkeypatch.setattr("holdfast.repository.writing.run_writer.WriteSession.write_index", refuse)
    assert runner.run("r-1", web.uuid).vms[0].point is not None
    assert "index was not written" in runner.told()


def test_a_forced_full_read_stores_nothing_that_is_known(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1, 2))
    runner.run("r-1", web.uuid)
    (disk,) = runner.run("r-2", web.uuid, force_full=True).vms[0].disks
    assert (disk.source, disk.read_bytes, disk.new_bytes) == (ChangeSource.FULL, 2 * 65536, 0)


def test_what_the_run_made_carries_its_mark_and_nothing_else_does(runner: Runner) -> None:
    web = runner.pool.add_vm("web", blocks(1))
    runner.run("r-1", web.uuid)
    (kept,) = _kept(runner)
    assert runner.pool.marked() == [kept]
    assert runner.pool.tags[(TaggedKind.DISK, DiskUuid(kept))] == {"holdfast:run": "r-1"}
