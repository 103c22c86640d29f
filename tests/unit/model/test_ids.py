"""A run id sorts by time, is short enough to read aloud, and differs between two runs of one second."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from holdfast.core import ManualClock, SeededEntropy
from holdfast.model import new_run_id


def test_a_run_id_tells_its_time_and_sorts_by_it() -> None:
    clock, entropy = ManualClock(datetime(2026, 11, 20, 9, 8, 20, tzinfo=UTC)), SeededEntropy(1)
    first = new_run_id(clock=clock, entropy=entropy)
    clock.advance(1)
    second = new_run_id(clock=clock, entropy=entropy)
    assert re.fullmatch(r"r-20261120-090820-[0-9a-f]{6}", first)
    assert first < second


def test_two_runs_of_the_same_second_have_different_ids() -> None:
    clock, entropy = ManualClock(), SeededEntropy(1)
    assert len({new_run_id(clock=clock, entropy=entropy) for _ in range(50)}) == 50
