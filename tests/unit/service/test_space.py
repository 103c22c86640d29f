"""Space through the use cases: what a plan says comes back, comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast import service
from holdfast.core import Cancellation, NoProgress
from holdfast.model import RunId, VmUuid
from holdfast.service import Workspace
from holdfast.storage import MemoryStore
from tests.support.repositories import disk_facts, image_of, point_facts, write_whole
from tests.unit.service.fakes import make_workspace

CANCEL = Cancellation()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    stores: dict[str, MemoryStore] = {}
    workspace = make_workspace(tmp_path, stores=stores)
    service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    repository = service.open_by_name(workspace, "main", cancel=CANCEL)
    for number, vm in enumerate(["one", "two"]):
        image = image_of({0: 2, 1 + number: 4 + 2 * number}, count=4)
        with repository.begin_run(RunId(f"r-{vm}"), cancel=CANCEL) as writer:
            facts = point_facts(f"r-{vm}", vm=VmUuid(vm), taken_at=workspace.clock.now())
            writer.publish(facts, [(disk_facts(len(image)), write_whole(writer, image))])
    return workspace


def test_what_a_deletion_is_said_to_free_the_next_collection_gives_back(workspace: Workspace) -> None:
    before = service.measure_space(workspace, "main", is_exact=True, progress=NoProgress(), cancel=CANCEL)
    assert {vm.vm_uuid for vm in before.vms} == {"one", "two"}
    point = next(each for each in before.points if each.vm_uuid == "two")
    planned = service.plan_deletion(workspace, "main", point.point, cancel=CANCEL)
    assert planned.frees_bytes == point.unique_bytes > 65536
    service.delete_point(workspace, "main", point.point, cancel=CANCEL)
    plan = service.plan_collection(workspace, "main", cancel=CANCEL)
    assert (plan.now_bytes, plan.later_bytes, plan.waits) == (plan.dead_bytes, 0, ())
    assert plan.dead_bytes > planned.frees_bytes, "the pack's header and trailer come back, too"
    report = service.collect_garbage(workspace, "main", progress=NoProgress(), cancel=CANCEL)
    assert report.freed_bytes == plan.dead_bytes
    after = service.measure_space(workspace, "main", is_exact=False, progress=NoProgress(), cancel=CANCEL)
    assert after.pack_bytes == before.pack_bytes - plan.dead_bytes
    assert after.dead_bytes == 0


def test_a_running_backup_makes_now_to_later_with_a_time(workspace: Workspace) -> None:
    repository = service.open_by_name(workspace, "main", cancel=CANCEL)
    for each in repository.points():
        repository.delete_point(each.id)
    with repository.begin_run(RunId("r-three"), cancel=CANCEL):
        plan = service.plan_collection(workspace, "main", is_thorough=True, cancel=CANCEL)
    assert (plan.now_bytes, plan.later_bytes) == (0, plan.dead_bytes)
    (wait,) = plan.waits
    assert wait.until is not None
    assert wait.until > workspace.clock.now()
    assert wait.length_bytes == plan.dead_bytes > 0
    assert "r-three" in plan.explain()
