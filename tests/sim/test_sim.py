"""Histories with crashes at any store operation: what is published restores, what is dead goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.world import World

_SEEDS_FILE = Path(__file__).with_name("seeds.txt")
_ROUNDS = 8
_BATCH = 20


def _kept_seeds() -> list[int]:
    """Return the seeds that once failed."""
    lines = (line.split("#")[0].strip() for line in _SEEDS_FILE.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


@pytest.mark.slow(reason="twenty histories of some thousand store operations")
@pytest.mark.parametrize("first", range(0, 100, _BATCH))
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
    assert first.memory.snapshot() == second.memory.snapshot()
