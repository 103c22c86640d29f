"""Whatever happens to an object of whatever kind, it is refused and named or harmless, and others are unharmed."""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog

from holdfast.core import Cancellation
from holdfast.repository import Damage, GcSettings
from holdfast.storage import MemoryStore, ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper
from tests.corruption.judge import Verdict, judge, keys_of_all_kinds, sound_objects
from tests.corruption.spoil import WAYS, spoil
from tests.support.repositories import World, image_of, read_all

_BATCH = 60
_BATCHES = 2
_THOROUGH = GcSettings(is_thorough=True, poor_bytes_min=0, moved_live_part_max=0.9)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Damage is all over the place here, and the engine says so each time."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_the_sound_repository_is_harmless_and_can_be_worked_on() -> None:
    assert judge(sound_objects(), "packs/", is_worked_on=True) is Verdict.HARMLESS


@pytest.mark.slow(reason="each object is spoiled in a repository that is opened and restored, some worked on")
@pytest.mark.parametrize("batch", range(_BATCHES))
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_spoiled_object_is_refused_by_name_or_harmless(way: str, batch: int) -> None:
    chance = random.Random(zlib.crc32(f"{way} {batch}".encode()))
    verdicts = set()
    for number in range(_BATCH):
        spoiled = spoil(chance, way)
        verdicts.add(judge(spoiled.objects, spoiled.key, is_worked_on=number % 5 == 0))
    assert verdicts == set(Verdict), "objects that matter were spoiled, and others"


@pytest.mark.slow(reason="a repository for each object")
@pytest.mark.parametrize("key", [key for key in keys_of_all_kinds() if not key.startswith("packs/")])
def test_a_missing_object_is_named_or_harmless(key: str) -> None:
    objects = sound_objects()
    del objects[key]
    if not key.startswith(("points/", "moved/")):
        judge(objects, key, is_worked_on=True)


class Archive(StoreWrapper):
    """A store that remembers every object that there ever was."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.ever: dict[str, bytes] = {}

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        self._inner.put(key, parts, locked_until=locked_until)
        self.ever[key] = self._inner.get(key)


def _history() -> tuple[World, dict[str, bytes], dict[str, bytes]]:
    """Return a repository that has lived, what the disk of each run held, and every object that there ever was."""
    memory = MemoryStore()
    archive = Archive(memory)
    world = World(archive, memory=memory)
    images = {f"r-{number}": image_of({0: number, 1: 3, 2: number + 1, 3: 8}, count=5) for number in range(1, 7)}
    for run, image in images.items():
        world.back_up(image, run=run)
    for point in world.repository.points()[:3]:
        world.repository.delete_point(point.id)
        world.clock.advance(2000)
        for _ in range(2):
            plan = world.repository.plan_gc(settings=_THOROUGH)
            world.repository.apply_gc(plan, settings=_THOROUGH, cancel=Cancellation())
    world.verify()
    return world, images, archive.ever


def test_an_older_object_that_comes_back_is_harmless_or_refused_by_name() -> None:
    world, images, ever = _history()
    now = dict(world.memory.snapshot())
    gone = sorted(ever.keys() - now.keys())
    kinds = {key.partition("/")[0] for key in gone}
    assert kinds >= {"points", "packs", "leases", "condemned", "index"}, kinds
    alive = {str(point.facts.run) for point in world.repository.points()}
    for back in [*([key] for key in gone), gone]:
        world.memory.restore({**now, **{key: ever[key] for key in back}})
        world.reopen()
        restored = _restored(world, images)
        assert alive <= restored, f"{back} harms those that are there"
        world.clock.advance(20_000)
        world.collect()
        assert alive <= _restored(world, images), f"{back} harms those that are there after a collection"


def _restored(world: World, images: dict[str, bytes]) -> set[str]:
    restored = set()
    for point in world.repository.points():
        try:
            image = read_all(world.repository, point.disks[0].stored, Cancellation())
        except Damage as damage:
            assert "packs/" in str(damage), "a point that came back says what it misses"
            continue
        assert image == images[str(point.facts.run)], "wrong data was restored as if it were right"
        restored.add(str(point.facts.run))
    return restored
