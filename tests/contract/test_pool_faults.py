"""What the pool client makes of a pool that fails: the cause is named, another way is taken, nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.core import MIB, Cancellation, Cancelled, HoldfastError, NoProgress, SystemEntropy
from holdfast.model import ChangeSource, DiskUuid, PowerState, Reference
from holdfast.xapi import (
    ChangesUnknown,
    Credentials,
    DiskInUse,
    DiskIoError,
    ExportDamaged,
    LoginRefused,
    NbdConnectionLost,
    NoTls,
    ObjectBusy,
    PoolAddress,
    PoolFailure,
    PoolUnreachable,
    ReadPlan,
    ReadTransport,
    SrFull,
    TaskVanished,
    VmSnapshot,
    open_pool,
)
from tests.contract.pool_world import HurriedClock, World, pool_world
from tests.contract.test_pool import CHANGES
from tests.support.vhd import MemoryDisk, pattern

pytestmark = pytest.mark.slow(reason="each test starts a lab pool on real sockets")


@pytest.fixture
def world() -> Iterator[World]:
    with pool_world() as made:
        yield made


@pytest.fixture
def world_without_nbd() -> Iterator[World]:
    with pool_world(nbd="none") as made:
        yield made


def _stream(world: World) -> tuple[VmSnapshot, ReadPlan]:
    """Plan a read over the export stream."""
    snapshot = world.snapshot()
    plan = world.plan(snapshot)
    assert plan.transport is ReadTransport.STREAM
    return snapshot, plan


def _increment(world: World, *, has_data: bool = True) -> tuple[Reference, VmSnapshot]:
    first = world.snapshot("holdfast 1")
    world.guest_writes(*CHANGES)
    return Reference(snapshot=first.disks[world.disk], has_data=has_data), world.snapshot("holdfast 2")


# --- sessions and calls


def test_a_session_lost_in_the_middle_is_renewed_without_a_word(world: World) -> None:
    world.fault("session-invalid", method="VM.get_all_records")
    assert world.pool.inventory().find_vm("alpha").power_state is PowerState.RUNNING


def test_a_toolstack_restart_costs_one_login(world: World) -> None:
    snapshot = world.snapshot()
    world.lab.control.restart_toolstack()
    assert world.pool.find_snapshots(world.vm.uuid, name_label="holdfast test") == [snapshot]


def test_a_login_that_is_refused_and_a_master_that_is_nowhere_are_told_apart(world: World) -> None:
    def connect() -> None:
        open_pool(
            PoolAddress.parse(world.lab.plain_url),
            Credentials(user=world.lab.user, password=world.lab.password),
            NoTls(),
            clock=HurriedClock(),
            entropy=SystemEntropy(),
            cancel=Cancellation(),
        )

    world.fault("login-refused")
    with pytest.raises(LoginRefused):
        connect()
    world.fault("host-is-slave", count=-1, address="127.0.0.2")
    with pytest.raises(PoolUnreachable, match=r"127\.0\.0\.2"):
        connect()


@pytest.mark.parametrize("fault", ["too-many-tasks", "operation-in-progress"])
def test_a_pool_that_says_not_now_is_asked_again(world: World, fault: str) -> None:
    world.fault(fault, count=2, method="VM.snapshot")
    assert world.snapshot().disks
    assert world.lab.control.faults() == []


def test_a_pool_that_stays_busy_is_given_up_with_its_answer(world: World) -> None:
    world.fault("operation-in-progress", count=-1, method="VM.snapshot")
    with pytest.raises(ObjectBusy):
        world.snapshot()


def test_a_task_that_vanished_may_have_done_its_work_and_that_is_found(world: World) -> None:
    world.fault("task-vanishes", method="VM.snapshot")
    with pytest.raises(TaskVanished):
        world.snapshot("holdfast lost")
    (found,) = world.pool.find_snapshots(world.vm.uuid, name_label="holdfast lost")
    world.pool.destroy_snapshot(found.vm, keep_disks=False)
    assert world.lab.control.ours() == []


def test_an_unknown_answer_keeps_its_raw_text(world: World) -> None:
    world.fault("call-fails", method="VM.snapshot", code="SOMETHING_NEW", parameters="first|second")
    with pytest.raises(PoolFailure) as caught:
        world.snapshot()
    assert caught.value.xapi_code == "SOMETHING_NEW"
    assert caught.value.xapi_text == "first | second"


# --- snapshots


def test_a_snapshot_without_space_leaves_nothing_behind(world: World) -> None:
    disks = world.lab.control.status()["disks"]
    world.fault("snapshot-fails", disk=0)
    with pytest.raises(SrFull, match="insufficient space"):
        world.snapshot()
    assert world.lab.control.status()["disks"] == disks


def test_tracking_lost_at_a_snapshot_is_a_warning_and_then_a_full_read(world: World) -> None:
    first = world.snapshot("holdfast 1")
    world.fault("cbt-lost")
    second = world.snapshot("holdfast 2")
    plan = world.plan(second, Reference(snapshot=first.disks[world.disk], has_data=False))
    assert plan.source is ChangeSource.FULL
    assert "change tracking is off" in plan.reason


def test_a_disk_that_the_host_holds_for_a_while_is_waited_for(world: World) -> None:
    world.fault("disk-stays-in-use", count=-1, seconds=0.2)
    snapshot = world.snapshot()
    world.read(world.plan(snapshot))
    world.pool.destroy_snapshot(snapshot.vm, keep_disks=False)
    assert world.pool.disk(snapshot.disks[world.disk]) is None


def test_a_disk_that_the_host_never_lets_go_is_taken_from_it(world: World) -> None:
    world.fault("vbd-leaks", count=-1)
    snapshot = world.snapshot()
    disk = snapshot.disks[world.disk]
    world.read(world.plan(snapshot))
    assert disk in world.lab.control.attachments()
    world.pool.destroy_snapshot(snapshot.vm, keep_disks=True)
    world.pool.data_destroy(disk)
    world.pool.destroy_disk(disk)
    assert world.lab.control.attachments() == []
    assert world.lab.control.ours() == []


def test_a_disk_that_a_vm_uses_is_never_taken_away(world: World) -> None:
    with pytest.raises(DiskInUse):
        world.pool.destroy_disk(world.disk)
    assert world.pool.vm(world.vm.uuid).disks == world.vm.disks


# --- where changes come from


def test_changes_that_the_pool_cannot_tell_are_taken_from_a_difference(world: World) -> None:
    reference, second = _increment(world)
    world.fault("changed-blocks-fail")
    plan = world.plan(second, reference)
    assert plan.source is ChangeSource.VHD_DIFFERENCE
    assert "SR_BACKEND_FAILURE_460" in plan.reason
    assert world.read(plan, onto=world.content(reference.snapshot)) == world.content(second.disks[world.disk])


def test_a_reference_of_another_disk_is_no_reference(world: World) -> None:
    other = world.pool.inventory().find_vm("beta")
    strange = world.pool.snapshot_vm(other.uuid, name_label="other")
    reference = Reference(snapshot=next(iter(strange.disks.values())), has_data=False)
    snapshot = world.snapshot()
    plan = world.plan(snapshot, reference)
    assert plan.source is ChangeSource.FULL
    assert ChangesUnknown.what in plan.reason


def test_a_reference_that_somebody_deleted_means_a_full_read(world: World) -> None:
    snapshot = world.snapshot()
    gone = Reference(snapshot=DiskUuid("11111111-1111-1111-1111-111111111111"), has_data=True)
    plan = world.plan(snapshot, gone)
    assert plan.source is ChangeSource.FULL
    assert "gone from the pool" in plan.reason


# --- NBD


def test_an_nbd_connection_that_breaks_is_resumed_where_it_was(world: World) -> None:
    snapshot = world.snapshot()
    world.fault("nbd-disconnects", count=3, after_bytes=3 * MIB // 2)
    assert world.read(world.plan(snapshot)) == world.content(snapshot.disks[world.disk])
    assert world.lab.control.faults() == []


def test_an_nbd_server_that_keeps_breaking_ends_the_read_with_its_place(world: World) -> None:
    snapshot = world.snapshot()
    world.fault("nbd-disconnects", count=-1, after_bytes=0)
    with pytest.raises(NbdConnectionLost) as caught:
        world.read(world.plan(snapshot))
    assert caught.value.disk == snapshot.disks[world.disk]


def test_a_busy_nbd_server_means_the_difference_and_the_reason(world: World) -> None:
    reference, second = _increment(world)
    world.fault("nbd-busy", count=-1)
    plan = world.plan(second, reference)
    assert plan.source is ChangeSource.VHD_DIFFERENCE
    assert "busy" in plan.reason


def test_nbd_that_went_away_after_planning_is_replaced_by_another_plan(world: World) -> None:
    reference, second = _increment(world)
    plan = world.plan(second, reference)
    assert plan.source is ChangeSource.CBT
    world.fault("nbd-info-empty", count=-1)
    with world.pool.open_reader(plan, cancel=Cancellation()) as reader:
        assert reader.plan.source is ChangeSource.VHD_DIFFERENCE
        assert "purpose 'nbd'" in reader.plan.reason
        assert list(reader.runs())


def test_plain_nbd_is_not_used_by_a_pool_that_is_spoken_to_over_tls() -> None:
    with pool_world(nbd="plain") as world:
        plan = world.plan(world.snapshot())
        assert plan.transport is ReadTransport.STREAM
        assert "insecure_nbd" in plan.reason


def test_a_stalled_nbd_read_ends_within_two_seconds_of_cancelling(world: World) -> None:
    plan = world.plan(world.snapshot())
    world.fault("nbd-stalls", count=-1, after_bytes=0, seconds=4)
    _assert_cancelled_soon(world, lambda: world.read(plan))


# --- exports and uploads


def _assert_cancelled_soon(world: World, action: object) -> None:
    assert callable(action)
    timer = threading.Timer(0.2, world.cancel.cancel)
    timer.start()
    begun = time.perf_counter()
    with pytest.raises(Cancelled):
        action()
    timer.join()
    assert time.perf_counter() - begun < 2.2


def test_a_stalled_export_ends_within_two_seconds_of_cancelling(world_without_nbd: World) -> None:
    world = world_without_nbd
    _, plan = _stream(world)
    world.fault("export-stalls", count=-1, seconds=4)
    _assert_cancelled_soon(world, lambda: world.read(plan))


def test_a_stalled_call_ends_within_two_seconds_of_cancelling(world: World) -> None:
    world.fault("call-stalls", method="VM.get_all_records", seconds=4)
    _assert_cancelled_soon(world, world.pool.inventory)
    after = world.pool.with_cancel(Cancellation())
    assert after.inventory().vms, "cleaning up goes on with another cancellation"


@pytest.mark.parametrize("fault", ["export-cut", "export-fails-late", "export-truncated", "export-lies"])
def test_an_export_that_is_not_whole_is_never_taken_for_one(world_without_nbd: World, fault: str) -> None:
    world = world_without_nbd
    _, plan = _stream(world)
    world.fault(fault, **({} if fault == "export-lies" else {"after_bytes": 3 * MIB}))
    with pytest.raises((ExportDamaged, PoolFailure)) as caught:
        world.read(plan)
    assert caught.value.effect.startswith(("Nothing from this", "No restore point"))
    assert world.lab.control.faults() == []


def test_a_damaged_block_table_means_that_the_holes_are_read_too(world: World) -> None:
    snapshot = world.snapshot()
    world.fault("export-lies")
    plan = world.plan(snapshot)
    assert plan.transport is ReadTransport.NBD
    assert plan.planned_bytes == plan.size_bytes
    assert world.read(plan) == world.content(snapshot.disks[world.disk])


def _upload(world: World) -> DiskUuid:
    content = pattern(3 * MIB, seed=5)
    disk = world.pool.create_disk(world.pool.inventory().srs[0].uuid, size_bytes=len(content), name="restored")
    world.pool.write_disk(disk, MemoryDisk(content), progress=NoProgress(), cancel=world.cancel)
    assert world.content(disk)[: len(content)] == content
    return disk


def test_an_upload_whose_connection_is_reset_after_success_is_a_success(world: World) -> None:
    world.fault("import-resets")
    assert world.pool.disk(_upload(world)) is not None


def test_an_upload_that_fails_after_its_last_byte_is_a_failure(world: World) -> None:
    world.fault("import-fails-late")
    with pytest.raises(DiskIoError):
        _upload(world)


def test_every_failure_tells_effect_and_next_step(world: World) -> None:
    for code in ("SR_BACKEND_FAILURE_44", "SR_BACKEND_FAILURE_46", "SR_BACKEND_FAILURE_82", "SR_BACKEND_FAILURE_109"):
        world.fault("call-fails", method="VM.snapshot", code=code, parameters="|detail|")
        with pytest.raises(HoldfastError) as caught:
            world.snapshot()
        assert code in str(caught.value)
        assert caught.value.effect
        assert caught.value.next_step()
