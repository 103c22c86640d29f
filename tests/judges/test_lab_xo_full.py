"""Xen Orchestra's backup engine, full: whole machines as one file, full replicas, and the pool's own database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.judges.xo import Machine, Orchestra, orchestra_at, other_pool
from tests.support.lab import logged_in

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="another product's backups of real disks")]


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


@pytest.mark.parametrize("compression", ["", "zstd", "native"])
def test_a_whole_machine_is_kept_and_restored(engine: Orchestra, db: Machine, compression: str) -> None:
    job = engine.new_job()
    for _ in range(2):
        engine.pass_a_day(db)
        assert engine.run(job, db, mode="full", compression=compression).complaints == []
    made, _ = engine.restore(engine.points(db, job)[-1])
    assert engine.content(made) == engine.content(db)
    assert engine.api.VM.get_power_state(made.ref) == "Halted"
    engine.remove(made)


def test_a_machine_that_is_off_is_kept_without_a_snapshot(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    assert engine.run(job, db, mode="full", settings={"offlineBackup": True}).complaints == []
    engine.wait_until_running(db)
    made, _ = engine.restore(engine.points(db, job)[-1])
    assert engine.content(made) == engine.content(db)
    engine.remove(made)


def test_a_full_replica_on_another_pool_replaces_the_one_before(engine: Orchestra, db: Machine) -> None:
    # Onto its own pool the engine destroys the very snapshot it copies, and fails: that is its own affair.
    job = engine.new_job()
    seen: set[str] = set()
    with other_pool(engine) as target:
        for _ in range(2):
            engine.pass_a_day(db)
            assert engine.run(job, db, mode="full", onto=target, compression="zstd").complaints == []
            (replica,) = target.replicas_of(db)
            assert target.content(replica) == engine.content(db)
            assert "start" in target.api.VM.get_blocked_operations(replica.ref)
            seen.add(replica.uuid)
    assert len(seen) == 2


@pytest.mark.parametrize("mode", ["full", "delta"])
def test_a_restored_machine_is_started_to_see_whether_it_boots(engine: Orchestra, db: Machine, mode: str) -> None:
    schedule = {"healthCheckSr": engine.sr, "healthCheckVmsWithTags": []}
    done = engine.run(engine.new_job(), db, mode=mode, schedule=schedule)
    assert done.complaints == []
    (check,) = done.named("health check")
    assert [step.name for step in check.steps] == ["transfer", "vmstart"]


def test_a_machine_that_does_not_boot_fails_its_check(tmp_path: Path) -> None:
    with orchestra_at(tmp_path) as engine:
        web = engine.machine("web")
        engine.lab.pool.disks.write(web.disks["0"], 0, bytes(4096))  # its boot sector and partition table
        schedule = {"healthCheckSr": engine.sr, "healthCheckVmsWithTags": []}
        done = engine.run(engine.new_job(), web, schedule=schedule, settings={"healthCheckTimeout": "4s"})
        (start,) = done.named("vmstart")
        assert start.status == "failure"
        assert "Xen tools" in str(start.told["result"]["message"])


def test_the_pools_database_is_kept_and_given_back(tmp_path: Path) -> None:
    with orchestra_at(tmp_path) as engine:
        done = engine.dump_pool()
        assert done.complaints == []
        before = {vm["uuid"] for vm in engine.api.VM.get_all_records().values()}
        assert engine.restore_pool().complaints == []
        with logged_in(engine.lab) as session:  # the sessions of before ended with the old database
            assert {vm["uuid"] for vm in session.xenapi.VM.get_all_records().values()} == before
