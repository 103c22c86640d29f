"""The made-up repository of a hosting company is one that the engine opens, lists, walks and collects."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.scale import STEPS, measure_scale
from bench.scale_world import ScaleRecipe, make_repository

from holdfast.core import GIB, Cancellation, SystemClock, SystemEntropy
from holdfast.repository import OpenUnlock, Repository, open_repository
from holdfast.storage import PosixStore

SMALL = ScaleRecipe(vms=3, points_per_vm=5, disk_bytes=2 * GIB, first_blocks=1500)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("scale") / "repository"
    make_repository(folder, SMALL, say=lambda _: None)
    return open_repository(PosixStore(folder), unlock=OpenUnlock(), clock=SystemClock(), entropy=SystemEntropy())


def test_it_holds_what_the_recipe_says(repository: Repository) -> None:
    points = repository.points()
    assert len(points) == len(repository.summaries().points) == 15
    assert repository.damaged_points() == []
    assert SMALL.blocks == 3 * (1500 + 4 * 20)


def test_its_maps_lead_to_blocks_and_agree_with_the_tables(repository: Repository) -> None:
    for point in repository.points():
        disk = point.disks[0].stored
        source = repository.source(disk, cancel=Cancellation())
        used = sum(extent.length_bytes for extent in source.data_extents()) // 65536
        leaves = sum(use.references for _, use in disk.packs.items()) - used - 1
        assert used >= 1500
        assert 1 <= leaves <= 8


def test_no_pack_of_it_is_dead(repository: Repository) -> None:
    assert repository.plan_gc().dead_bytes == 0


@pytest.mark.slow(reason="a process for each step")
def test_every_step_is_measured(tmp_path: Path) -> None:
    table = measure_scale(tmp_path, ScaleRecipe(vms=8, points_per_vm=2, first_blocks=1100), say=lambda _: None)
    for step in STEPS:
        assert f"| {step} |" in table
