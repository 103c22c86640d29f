"""A process that is killed at any instant loses nothing that was published and leaves nothing for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.storage import StorePlace
from tests.kill.harness import kill_workers
from tests.support.s3_servers import s3_place, shared_moto

_KILLS = 8


@pytest.mark.slow(reason="real processes, killed at random instants")
def test_killed_processes_lose_nothing_in_a_folder(tmp_path: Path) -> None:
    report = kill_workers(StorePlace(location=str(tmp_path / "repository")), kills=_KILLS, seed=1)
    assert report.points_seen > _KILLS


@pytest.mark.slow(reason="real processes, killed at random instants")
def test_killed_processes_lose_nothing_in_a_bucket() -> None:
    report = kill_workers(s3_place(shared_moto()), kills=_KILLS, seed=2)
    assert report.points_seen > _KILLS
