"""Everything wired: limits that all stores of a place share, a memory only where the place is far."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core import Cancellation, ManualClock, SeededEntropy
from holdfast.daemon import Settings, build_workspace
from holdfast.service import LineLimits, RepositoryPlace, Workspace
from holdfast.storage import CachedStore, MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def workspace(tmp_path: Path, clock: ManualClock) -> Workspace:
    return build_workspace(Settings(home=tmp_path / "home"), clock=clock, entropy=SeededEntropy(1))


def test_all_stores_at_one_place_share_its_limits(workspace: Workspace, clock: ManualClock, tmp_path: Path) -> None:
    limits = LineLimits(up_bytes_per_s_max=1000)
    place = RepositoryPlace(location=str(tmp_path / "store"), limits=limits)
    stores = [workspace.open_store(place, True, Cancellation()) for _ in range(3)]
    for number, store in enumerate(stores * 2):
        store.put(f"a/{number}", bytes(1000))
    assert clock.monotonic_s() == pytest.approx(4.0)
    other = workspace.open_store(RepositoryPlace(location=str(tmp_path / "other"), limits=limits), True, Cancellation())
    other.put("a", bytes(1000))
    assert clock.monotonic_s() == pytest.approx(4.0)


def test_without_limits_nothing_waits(workspace: Workspace, clock: ManualClock, tmp_path: Path) -> None:
    store = workspace.open_store(RepositoryPlace(location=str(tmp_path / "store")), True, Cancellation())
    for number in range(5):
        store.put(f"a/{number}", bytes(1_000_000))
    assert clock.monotonic_s() == 0


def test_only_places_that_are_far_are_remembered(workspace: Workspace, tmp_path: Path) -> None:
    memory = MemoryStore()
    assert workspace.cached(RepositoryPlace(location=str(tmp_path)), memory) is memory
    for location in ("s3://bucket/x", "azure://account/container", "smb://nas/share"):
        assert isinstance(workspace.cached(RepositoryPlace(location=location), memory), CachedStore)


def test_repositories_do_not_share_their_copies_and_packs_are_never_kept(workspace: Workspace, tmp_path: Path) -> None:
    one, other = MemoryStore(), MemoryStore()
    for store, content in ((one, b"one"), (other, b"other")):
        store.put("points/a", content)
        store.put("packs/aa/a", content)
    cached_one = workspace.cached(RepositoryPlace(location="s3://bucket/one"), one)
    cached_other = workspace.cached(RepositoryPlace(location="s3://bucket/other"), other)
    for _ in range(2):
        assert cached_one.get("points/a") == cached_one.get("packs/aa/a") == b"one"
        assert cached_other.get("points/a") == b"other"
    copies = [path for path in (tmp_path / "home" / "cache").rglob("*") if path.is_file()]
    assert len(copies) == 2
