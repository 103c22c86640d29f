"""The lab benchmark measures whole answers and tells medians."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.lab import Figure, _drain, _rss_mib, _table

from holdfast.core import Secret
from holdfast.lab import LabOptions, spawn_lab


def test_a_row_is_a_median_with_its_unit_and_the_real_figure() -> None:
    figures = [Figure(name="x", value=value, unit="MB/s", real="500 MB/s") for value in (1.0, 900.0, 300.0)]
    assert "| x | 3 | 300 MB/s | 500 MB/s |" in _table(figures)
    assert "| y | 1 | 0.25 s |  |" in _table([Figure(name="y", value=0.25, unit="s")])


@pytest.mark.slow(reason="starts a lab in a process of its own")
def test_an_answer_is_drained_to_its_end_and_memory_is_read(tmp_path: Path) -> None:
    lab = spawn_lab(LabOptions(state_dir=tmp_path / "lab", scenario="empty", nbd="none", password=Secret("x" * 8)))
    try:
        assert _drain(lab, "/nothing-here") > 50
        assert _rss_mib(lab.pid) > 10
    finally:
        lab.stop()
