"""Chance comes through one seam: a seed repeats a whole simulation, the system's source never repeats."""

from __future__ import annotations

import pytest

from holdfast.core import Entropy, SeededEntropy, SystemEntropy


def _draws(source: Entropy) -> list[object]:
    return [source.token_bytes(16), source.uniform(0, 1), source.token_bytes(1), source.uniform(5, 6)]


def test_one_seed_gives_one_history() -> None:
    assert _draws(SeededEntropy(7)) == _draws(SeededEntropy(7))
    assert _draws(SeededEntropy(7)) != _draws(SeededEntropy(8))


def test_the_system_source_does_not_repeat() -> None:
    assert SystemEntropy().token_bytes(32) != SystemEntropy().token_bytes(32)


@pytest.mark.parametrize("source", [SystemEntropy(), SeededEntropy(1)], ids=["system", "seeded"])
def test_draws_have_the_asked_length_and_range(source: Entropy) -> None:
    assert [len(source.token_bytes(n)) for n in (0, 1, 33)] == [0, 1, 33]
    assert all(0.5 <= source.uniform(0.5, 1.5) <= 1.5 for _ in range(100))
