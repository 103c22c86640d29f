"""Histories with crashes at any store operation: what is published restores, what is dead goes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import holdfast.repository
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.world import World

_SEEDS_FILE = Path(__file__).with_name("seeds.txt")
_ROUNDS = 8
_SEEDS = 500
_BATCH = 20
_ENGINE = Path(holdfast.repository.__file__).parent


def _kept_seeds() -> list[int]:
    """Return the seeds that once failed."""
    lines = (line.split("#")[0].strip() for line in _SEEDS_FILE.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Actors meet faults all the time, and the engine says so each time."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.slow(reason="twenty histories of some thousand store operations")
@pytest.mark.parametrize("first", range(0, _SEEDS, _BATCH))
def test_published_points_restore_and_dead_packs_go_whatever_crashes(first: int) -> None:
    for seed in range(first, first + _BATCH):
        World(seed).play(_ROUNDS)


@pytest.mark.slow(reason="every seed that ever failed")
def test_seeds_that_once_failed_hold() -> None:
    for seed in _kept_seeds():
        World(seed).play(_ROUNDS)


def test_a_seed_makes_the_same_history_each_time() -> None:
    first, second = World(5), World(5)
    first.play(2)
    second.play(2)
    assert first.log == second.log
    assert _objects(first) == _objects(second)


def _objects(world: World) -> dict[str, bytes]:
    """Return what is stored, but for the files of key holders and their records, which are random by themselves."""
    objects = world.main.memory.snapshot()
    return {key: content for key, content in objects.items() if not key.startswith(("keys/", "holders/"))}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_safeguard_that_mutants_take_out_is_there(mutant: Mutant) -> None:
    text = (_ENGINE / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.safe) == 1, "the engine was changed here: make the mutant anew, and see whether it dies"
