"""The pool benchmark counts what the commands reported."""

from __future__ import annotations

import os

from bench.measure import Cost
from bench.pool import Sample, WideDisk, _cpu_of, _sum_of, _table

from holdfast.core import GIB, MIB


def test_bytes_are_summed_wherever_a_document_names_them() -> None:
    document = {"vms": [{"disks": [{"read_bytes": 3}, {"read_bytes": 4, "name": "read_bytes"}]}, {"disks": []}]}
    assert _sum_of(document, "read_bytes") == 7


def test_a_row_is_a_median_and_memory_the_worst() -> None:
    samples = [
        Sample(
            step="x", cost=Cost(wall_s=wall, cpu_s=1, rss_peak_bytes=rss * MIB), moved_bytes=200_000_000, lab_cpu_s=0.5
        )
        for wall, rss in ((1.0, 100), (2.0, 300), (9.0, 200))
    ]
    assert "| x | 3 | 2.00 | 200.0 | 100 | 1.0 | 0.5 | 300 |" in _table(samples)


def test_the_wide_disk_is_what_it_says() -> None:
    disk = WideDisk()
    extents = list(disk.data_extents())
    assert disk.size_bytes == 64 * GIB
    assert sum(each.length_bytes for each in extents) == GIB
    assert extents[-1].end_bytes <= disk.size_bytes
    assert len(next(disk.runs()).data) == 4 * MIB


def test_cpu_time_of_a_process_is_read() -> None:
    assert _cpu_of(os.getpid()) > 0
