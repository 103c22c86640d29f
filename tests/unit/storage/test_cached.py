"""The memory of a store saves reading and never costs more than that: lost, spoiled, full, or shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core import SeededEntropy
from holdfast.model import Extent
from holdfast.storage import CachedStore, MemoryStore, MeteredStore, ObjectMissing, ObjectStore, Verb
from holdfast.storage.wrapper import StoreWrapper

NOISE = SeededEntropy(1).token_bytes(100_000)


class World:
    """A metered store, and caches of it in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.memory = MemoryStore()
        self.metered = MeteredStore(self.memory)

    def cache(self, *, bytes_max: int = 50_000, inner: ObjectStore | None = None) -> CachedStore:
        return CachedStore(
            inner or self.metered,
            folder=self.folder,
            prefixes=["points/", "index/"],
            bytes_max=bytes_max,
            object_bytes_max=10_000,
        )

    @property
    def gets(self) -> int:
        return self.metered.meters()[Verb.GET].requests

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for number in range(10):
        world.memory.put(f"points/{number}", NOISE[: 5000 + number])
    world.memory.put("packs/aa", NOISE[:5000])
    world.memory.put("index/large", NOISE)
    return world


def test_an_object_is_fetched_once_also_by_the_next_process(world: World) -> None:
    for cache in (world.cache(), world.cache()):
        for _ in range(3):
            assert cache.get("points/1") == NOISE[:5001]
        assert cache.get_range("points/1", offset_bytes=10, length_bytes=20) == NOISE[10:30]
    assert world.gets == 1


def test_only_chosen_and_small_objects_are_kept(world: World) -> None:
    cache = world.cache()
    for _ in range(2):
        cache.get("packs/aa")
        cache.get("index/large")
        cache.get_range("points/1", offset_bytes=0, length_bytes=10)
    assert world.gets == 6
    assert world.files() == []


def test_nothing_in_the_folder_tells_a_name_and_others_cannot_read_it(world: World) -> None:
    world.cache().get("points/1")
    (file,) = world.files()
    assert "points" not in str(file.relative_to(world.folder))
    assert world.folder.stat().st_mode & 0o077 == 0


def test_the_least_recently_used_goes_first_and_the_bound_holds(world: World) -> None:
    cache = world.cache(bytes_max=20_000)
    for number in (0, 1, 2, 0, 3, 0, 4):
        cache.get(f"points/{number}")
        assert sum(file.stat().st_size for file in world.files()) <= 20_000
    before = world.gets
    cache.get("points/0")
    assert world.gets == before
    cache.get("points/1")
    assert world.gets == before + 1


def test_what_an_earlier_process_left_counts_towards_the_bound(world: World) -> None:
    first = world.cache()
    for number in range(6):
        first.get(f"points/{number}")
    second = world.cache(bytes_max=20_000)
    second.get("points/9")
    assert sum(file.stat().st_size for file in world.files()) <= 20_000


def test_half_a_copy_of_a_dead_process_is_removed(world: World) -> None:
    world.folder.mkdir()
    (world.folder / ("0" * 32 + ".123.0")).write_bytes(b"half")
    world.cache()
    assert world.files() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_spoiled_copy_is_fetched_again(world: World, data: st.DataObject) -> None:
    cache = world.cache()
    cache.get("points/1")
    (file,) = world.files()
    stored = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del stored[data.draw(st.integers(0, len(stored) - 1)) :]
    file.write_bytes(stored)
    before = world.gets
    assert cache.get("points/1") == NOISE[:5001]
    assert world.gets == before + 1
    assert cache.get("points/1") == NOISE[:5001]
    assert world.gets == before + 1


def test_a_copy_under_another_name_is_not_taken(world: World) -> None:
    cache = world.cache()
    cache.get("points/1")
    (one,) = world.files()
    cache.get("points/2")
    (other,) = (file for file in world.files() if file != one)
    other.write_bytes(one.read_bytes())
    assert cache.get("points/2") == NOISE[:5002]


def test_a_folder_that_vanishes_or_cannot_be_made_costs_reading_only(world: World) -> None:
    cache = world.cache()
    cache.get("points/1")
    for file in world.files():
        file.unlink()
    world.folder.rmdir()
    assert cache.get("points/1") == NOISE[:5001]
    world.folder.rename(world.folder.with_name("away"))
    world.folder.write_bytes(b"a file is in the way")
    assert cache.get("points/3") == NOISE[:5003]
    assert world.cache().get("points/3") == NOISE[:5003]


def test_a_deleted_or_punched_object_is_forgotten(world: World) -> None:
    cache = world.cache()
    cache.get("points/1")
    cache.get("points/2")
    cache.delete("points/1")
    with pytest.raises(ObjectMissing):
        cache.get("points/1")
    cache.try_punch("points/2", [Extent(offset_bytes=0, length_bytes=100)])
    assert cache.get("points/2")[:100] == bytes(100)


def test_an_object_deleted_while_it_is_read_is_not_remembered(world: World) -> None:
    class DeletedMeanwhile(StoreWrapper):
        def get(self, key: str) -> bytes:
            content = self._inner.get(key)
            cache.delete(key)
            return content

    cache = world.cache(inner=DeletedMeanwhile(world.memory))
    assert cache.get("points/1") == NOISE[:5001]
    assert world.files() == []


def test_two_processes_in_one_folder_do_not_harm_each_other(world: World) -> None:
    one, other = world.cache(bytes_max=12_000), world.cache(bytes_max=12_000)
    for number in (0, 1, 2, 3, 0, 1, 2, 3):
        assert one.get(f"points/{number}") == NOISE[: 5000 + number]
        assert other.get(f"points/{3 - number}") == NOISE[: 5003 - number]
    assert sum(file.stat().st_size for file in world.files()) <= 24_000
