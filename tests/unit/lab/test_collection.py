"""Base copies that nobody needs any more are pruned and merged in time, as the storage manager does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import new_disk, refusal

pytestmark = pytest.mark.slow(reason="each test starts a lab and writes and merges real bytes")

MIB = 1 << 20
SIZE_BYTES = 128 * MIB
PAUSE_S = 301


@pytest.fixture
def lab() -> Iterator[RunningLab]:
    with tiny_lab(scenario="empty", nbd="none") as running:
        yield running


@pytest.fixture
def session(lab: RunningLab) -> Iterator[Any]:
    with logged_in(lab) as session:
        yield session


class Tree:
    """One disk with what is under it."""

    def __init__(self, lab: RunningLab, api: Any, *, size_bytes: int = SIZE_BYTES) -> None:
        self.lab, self.api = lab, api
        self.disk = new_disk(api, size_bytes)
        self.uuid = api.VDI.get_uuid(self.disk)
        self.sr = api.VDI.get_SR(self.disk)

    def write(self, length_bytes: int) -> None:
        """Let the guest write so much at the disk's beginning."""
        self.lab.pool.disks.write(self.uuid, 0, os.urandom(length_bytes))

    def config(self, name: str) -> str:
        """Return one of the disk's storage settings."""
        return str(self.api.VDI.get_sm_config(self.disk).get(name, ""))

    def bases(self) -> list[str]:
        """Return the uuids of the hidden base copies."""
        records = self.api.VDI.get_all_records().values()
        return [each["uuid"] for each in records if not each["managed"]]


@pytest.fixture
def tree(lab: RunningLab, api: Any) -> Tree:
    return Tree(lab, api)


def test_a_destroyed_snapshot_leaves_its_base_copy_until_the_quiet_period_is_over(tree: Tree) -> None:
    tree.write(MIB)
    tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    (base,) = tree.bases()
    content = tree.lab.pool.disks.sha256(tree.uuid)
    tree.lab.control.advance(PAUSE_S - 10)
    assert tree.config("vhd-parent") == base
    tree.lab.control.advance(20)
    assert (tree.bases(), tree.config("vhd-parent")) == ([], "")
    assert tree.lab.pool.disks.sha256(tree.uuid) == content


def test_a_merge_can_be_seen_while_it_goes_on(tree: Tree) -> None:
    for _ in range(2):
        tree.write(100 * MIB)
        snapshot = tree.api.VDI.snapshot(tree.disk)
    tree.api.VDI.destroy(tree.api.VDI.get_snapshots(tree.disk)[1])
    tree.api.VDI.destroy(snapshot)
    tree.write(MIB)
    seen = _watch(tree)
    assert seen[0] == (2, "")
    assert (2, "true") in seen
    assert seen[-1] == (0, "")


def _watch(tree: Tree) -> list[tuple[int, str]]:
    """Let a run pass in steps; return how many base copies there were and whether the disk was being relinked."""
    tree.lab.control.advance(PAUSE_S - 10)
    seen = [(len(tree.bases()), tree.config("relinking"))]
    for _ in range(40):
        tree.lab.control.advance(0.5)
        seen.append((len(tree.bases()), tree.config("relinking")))
    return seen


def test_a_disk_that_a_snapshot_stands_beside_is_not_merged(tree: Tree) -> None:
    tree.write(MIB)
    tree.api.VDI.snapshot(tree.disk)
    tree.api.SR.scan(tree.sr)
    tree.lab.control.advance(PAUSE_S)
    assert len(tree.bases()) == 1


@pytest.mark.parametrize("switch", ["gc", "coalesce", "leaf-coalesce"])
def test_collection_can_be_switched_off(tree: Tree, switch: str) -> None:
    tree.api.SR.add_to_other_config(tree.sr, switch, "false")
    tree.write(MIB)
    tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    tree.lab.control.advance(PAUSE_S)
    assert len(tree.bases()) == 1
    tree.api.SR.remove_from_other_config(tree.sr, switch)
    tree.api.SR.scan(tree.sr)
    tree.lab.control.advance(PAUSE_S)
    assert tree.bases() == []


def test_a_large_leaf_is_merged_by_way_of_a_helper(tree: Tree) -> None:
    tree.write(MIB)
    snapshot = tree.api.VDI.snapshot(tree.disk)
    tree.write(60 * MIB)
    tree.api.VDI.destroy(snapshot)
    counts = [count for count, _ in _watch(tree)]
    assert (counts[0], max(counts), counts[-1]) == (1, 2, 0)


def test_a_merge_needs_room_and_says_so(tree: Tree) -> None:
    api, pool = tree.api, tree.lab.pool
    tree.write(40 * MIB)
    snapshot = api.VDI.snapshot(tree.disk)
    pool.disks.write(tree.uuid, 60 * MIB, os.urandom(40 * MIB))
    api.VDI.destroy(snapshot)
    whole_bytes = api.SR.get_physical_size(tree.sr)
    pool.db.set("SR", tree.sr, "physical_size", pool.space.used_bytes(tree.sr) + MIB)
    tree.lab.control.advance(PAUSE_S)
    (message,) = [each for each in api.message.get_all_records().values() if each["name"] == "SM_GC_NO_SPACE"]
    assert message["obj_uuid"] == api.SR.get_uuid(tree.sr)
    assert api.SR.get_sm_config(tree.sr)["gc_no_space"] == tree.config("gc_no_space") != ""
    pool.db.set("SR", tree.sr, "physical_size", int(whole_bytes))
    api.SR.scan(tree.sr)
    tree.lab.control.advance(PAUSE_S + 60)
    assert (tree.bases(), tree.config("gc_no_space"), api.SR.get_sm_config(tree.sr)) == ([], "", {})


def test_a_run_is_a_task_that_ends(tree: Tree) -> None:
    tree.write(MIB)
    tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    assert [each["status"] for each in _runs(tree)] == ["pending"]
    tree.lab.control.advance(PAUSE_S + 10)
    assert [each["status"] for each in _runs(tree)] == ["success"]


def _runs(tree: Tree) -> list[Any]:
    return [each for each in tree.api.task.get_all_records().values() if each["name_label"] == "Garbage Collection"]


def test_a_snapshot_in_the_middle_of_a_merge_is_kept(tree: Tree) -> None:
    tree.write(10 * MIB)
    tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    tree.write(18 * MIB)
    content = tree.lab.pool.disks.sha256(tree.uuid)
    tree.lab.control.advance(PAUSE_S - 10)
    while not tree.config("paused"):
        tree.lab.control.advance(0.1)
    snapshot = tree.api.VDI.snapshot(tree.disk)
    tree.lab.control.advance(60)
    assert tree.lab.pool.disks.sha256(tree.api.VDI.get_uuid(snapshot)) == content
    assert tree.config("paused") == ""
    assert tree.api.VDI.get_sm_config(snapshot)["vhd-parent"] == tree.config("vhd-parent")


def test_a_detached_repository_is_not_collected(tree: Tree) -> None:
    (pbd,) = tree.api.SR.get_PBDs(tree.sr)
    tree.write(MIB)
    tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    tree.api.PBD.unplug(pbd)
    tree.lab.control.advance(PAUSE_S)
    assert len(tree.bases()) == 1
    tree.api.PBD.plug(pbd)
    tree.lab.control.advance(PAUSE_S)
    assert tree.bases() == []


def test_thirty_layers_are_the_limit_until_they_are_merged(tree: Tree) -> None:
    for _ in range(29):
        tree.write(512)
        tree.api.VDI.destroy(tree.api.VDI.snapshot(tree.disk))
    tree.write(512)
    assert refusal(lambda: tree.api.VDI.snapshot(tree.disk))[0] == "SR_BACKEND_FAILURE_109"
    tree.lab.control.advance(PAUSE_S + 120)
    assert tree.bases() == []
    tree.api.VDI.snapshot(tree.disk)


def test_a_disk_that_is_reset_on_boot_keeps_what_it_goes_back_to(tree: Tree) -> None:
    tree.write(MIB)
    tree.api.VDI.set_on_boot(tree.disk, "reset")
    content = tree.lab.pool.disks.sha256(tree.uuid)
    tree.write(MIB)
    tree.api.SR.scan(tree.sr)
    tree.lab.control.advance(PAUSE_S)
    assert len(tree.bases()) == 1
    tree.lab.pool.disks.reset(tree.uuid)
    assert tree.lab.pool.disks.sha256(tree.uuid) == content


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(("write", "write", "snapshot", "snapshot", "destroy", "pass")), min_size=20, max_size=40)
)
def test_no_disk_changes_whatever_is_collected(lab: RunningLab, api: Any, steps: list[str]) -> None:
    tree = Tree(lab, api, size_bytes=16 * MIB)
    proofs = {tree.uuid: lab.pool.disks.sha256(tree.uuid)}
    for number, step in enumerate(steps):
        if step == "write":
            lab.pool.disks.write(tree.uuid, number % 12 * MIB, os.urandom(3 * MIB))
            proofs[tree.uuid] = lab.pool.disks.sha256(tree.uuid)
        elif step == "snapshot":
            proofs[api.VDI.get_uuid(api.VDI.snapshot(tree.disk))] = proofs[tree.uuid]
        elif step == "destroy" and len(proofs) > 1:
            oldest = next(uuid for uuid in proofs if uuid != tree.uuid)
            api.VDI.destroy(api.VDI.get_by_uuid(oldest))
            del proofs[oldest]
        else:
            lab.control.advance(130.5)
        assert {uuid: lab.pool.disks.sha256(uuid) for uuid in proofs} == proofs
    lab.control.advance(2 * PAUSE_S)
    assert {uuid: lab.pool.disks.sha256(uuid) for uuid in proofs} == proofs
    for base in tree.bases():
        standing = lab.pool.disks.children(base)
        assert len(standing) > 1, "a node that one other stands on was left"
    for uuid in proofs:
        api.VDI.destroy(api.VDI.get_by_uuid(uuid))
    lab.control.advance(PAUSE_S + 60)
    assert lab.pool.disks.uuids() == []
    assert tree.api.SR.get_physical_utilisation(tree.sr) == "0"
