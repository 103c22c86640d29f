"""Xen Orchestra's backup engine, incremental: its runs end well and what it restores is what the lab holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.judges.xo import Machine, Orchestra, orchestra_at

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="another product's backups of real disks")]

_BY_NBD = "Transfer data using NBD"
_PURGED = "Snapshot data has been deleted"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    with orchestra_at(tmp_path_factory.mktemp("folder")) as running:
        yield running


@pytest.fixture
def db(engine: Orchestra) -> Iterator[Machine]:
    """The VM with two disks, as it is found and as it is left: running, without snapshots."""
    machine = engine.machine("db")
    yield machine
    for snapshot in engine.api.VM.get_snapshots(machine.ref):
        engine.remove(engine.machine_at(snapshot))
    engine.pass_time()


def _restored_equals(engine: Orchestra, machine: Machine, job: str) -> None:
    """Restore what a job kept last, compare with the machine as it is now, and remove what was made."""
    made, _ = engine.restore(engine.points(machine, job)[-1])
    try:
        assert engine.content(made) == engine.content(machine)
    finally:
        engine.remove(made)


def test_increments_are_merged_and_restore_what_the_pool_held(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    for number in range(3):
        done = engine.run(job, db)
        assert done.complaints == []
        (export,) = done.named("export")
        assert export.told["isFull"] is (number == 0)
        assert len(done.named("merge")) == (0 if number == 0 else len(db.disks))
        assert len(engine.points(db, job)) == 1
        _restored_equals(engine, db, job)
        engine.pass_a_day(db)
    assert engine.check_folder(db) == []


def test_a_guest_that_writes_all_the_time_is_kept_as_it_was_at_the_snapshot(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    for disk in db.disks.values():
        engine.lab.control.start_writing(disk)
    try:
        for _ in range(2):
            assert engine.run(job, db).complaints == []
    finally:
        written = [engine.lab.control.stop_writing(disk) for disk in db.disks.values()]
    assert all(each["writes"] for each in written)
    point = engine.points(db, job)[-1]
    made, _ = engine.restore(point)
    kept = {disk["name"]: engine.lab.control.sha256(disk["uuid"]) for disk in point["disks"]}
    found = {engine.api.VDI.get_name_label(ref): engine.lab.control.sha256(disk) for ref, disk in _by_ref(engine, made)}
    assert found == kept
    engine.remove(made)


def _by_ref(engine: Orchestra, machine: Machine) -> list[tuple[str, str]]:
    return [(engine.api.VDI.get_by_uuid(disk), disk) for disk in machine.disks.values()]


def test_a_differential_restore_moves_only_what_changed(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    before = engine.content(db)
    for _ in range(2):
        assert engine.run(job, db, schedule={"exportRetention": 2}).complaints == []
        engine.pass_a_day(db)
    oldest = engine.points(db, job)[0]
    whole, plain = engine.restore(oldest)
    made, done = engine.restore(oldest, useDifferentialRestore=True, newMacAddresses=True)
    assert engine.content(made) == engine.content(whole) == before
    assert 0 < done.told["result"]["size"] < plain.told["result"]["size"]
    engine.remove(made)
    engine.remove(whole)


def test_disks_are_read_through_nbd(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    for number in range(2):
        done = engine.run(job, db, settings={"preferNbd": True, "nbdConcurrency": 3})
        assert done.complaints == []
        assert _BY_NBD in done.infos
        assert done.named("export")[0].told["isFull"] is (number == 0)
        _restored_equals(engine, db, job)
        assert engine.lab.control.attachments() == []
        engine.pass_a_day(db)


def test_changes_are_tracked_and_the_snapshots_data_purged(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    settings = {"preferNbd": True, "cbtDestroySnapshotData": True}
    for number in range(3):
        done = engine.run(job, db, settings=settings, schedule={"exportRetention": 3})
        assert done.complaints == []
        assert done.named("export")[0].told["isFull"] is (number == 0)
        assert done.infos.count(_PURGED) == len(db.disks)
        assert engine.api.VM.get_snapshots(db.ref) == []
        _restored_equals(engine, db, job)
        engine.pass_a_day(db)
    kept = [vdi for vdi in engine.api.VDI.get_all_records().values() if vdi["type"] == "cbt_metadata"]
    assert len(kept) == len(db.disks)
    assert engine.check_folder(db) == []


@pytest.mark.parametrize("setting", ["offlineSnapshot", "offlineBackup"])
def test_a_machine_is_shut_down_for_its_backup_and_started_again(engine: Orchestra, db: Machine, setting: str) -> None:
    job = engine.new_job()
    assert engine.run(job, db, settings={setting: True}).complaints == []
    engine.wait_until_running(db)
    _restored_equals(engine, db, job)


def test_a_disk_that_is_marked_is_left_out(engine: Orchestra) -> None:
    web = engine.machine("web")
    scratch = engine.add_disk(web, name="[NOBAK] scratch")
    try:
        job = engine.new_job()
        assert engine.run(job, web).complaints == []
        made, _ = engine.restore(engine.points(web, job)[-1])
        assert engine.content(made) == {
            device: digest for device, digest in engine.content(web).items() if device != scratch
        }
        engine.remove(made)
    finally:
        engine.remove_disk(web, scratch)
