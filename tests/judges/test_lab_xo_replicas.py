"""Xen Orchestra's backup engine, onto the pool itself and with memory: replicas that follow, machines that sleep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.judges.xo import SLOW, Machine, Orchestra, orchestra_at

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="another product's backups of real disks")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    with orchestra_at(tmp_path_factory.mktemp("folder")) as running:
        yield running


@pytest.fixture
def db(engine: Orchestra) -> Iterator[Machine]:
    """The VM with two disks, as it is found and as it is left: running, without snapshots and replicas."""
    machine = engine.machine("db")
    yield machine
    for replica in engine.replicas_of(machine):
        engine.remove(replica)
    for snapshot in engine.api.VM.get_snapshots(machine.ref):
        engine.remove(engine.machine_at(snapshot))
    engine.pass_time()


@pytest.mark.parametrize("nbd", [False, True])
def test_a_replica_follows_its_machine_by_increments(engine: Orchestra, db: Machine, nbd: bool) -> None:
    job = engine.new_job()
    for number in range(3):
        done = engine.run(job, db, onto=engine, schedule={"copyRetention": 2}, settings={"preferNbd": nbd})
        assert done.complaints == []
        assert done.named("export")[0].told["isFull"] is (number == 0)
        (replica,) = engine.replicas_of(db)
        assert engine.content(replica) == engine.content(db)
        assert "start" in engine.api.VM.get_blocked_operations(replica.ref)
        assert len(engine.api.VM.get_snapshots(replica.ref)) == min(number + 1, 2)
        engine.pass_a_day(db)


def test_a_machine_with_its_memory_is_kept_and_wakes_where_it_was(engine: Orchestra, db: Machine) -> None:
    job = engine.new_job()
    assert engine.run(job, db, settings={"checkpointSnapshot": True}).complaints == []
    assert engine.api.VM.get_power_state(db.ref) == "Running"
    made, _ = engine.restore(engine.points(db, job)[-1], newMacAddresses=True)
    assert engine.content(made) == engine.content(db)
    assert engine.api.VM.get_power_state(made.ref) == "Suspended"
    engine.api.VM.resume(made.ref, False, False)
    assert engine.api.VM.get_power_state(made.ref) == "Running"
    engine.remove(made)


def test_a_replica_with_memory_sleeps(engine: Orchestra, db: Machine) -> None:
    done = engine.run(engine.new_job(), db, onto=engine, settings={"checkpointSnapshot": True})
    assert done.complaints == []
    (replica,) = engine.replicas_of(db)
    assert engine.content(replica) == engine.content(db)
    assert engine.api.VM.get_power_state(replica.ref) == "Suspended"


def test_a_pool_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    with orchestra_at(tmp_path, delays=SLOW) as engine:
        db, job = engine.machine("db"), engine.new_job()
        settings = {"preferNbd": True, "cbtDestroySnapshotData": True}
        for number in range(2):
            done = engine.run(job, db, settings=settings)
            assert done.complaints == []
            assert done.named("export")[0].told["isFull"] is (number == 0)
            engine.pass_a_day(db)
        made, _ = engine.restore(engine.points(db, job)[-1])
        assert len(made.disks) == len(db.disks)
