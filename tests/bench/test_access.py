"""The figures of random access are of reads that really happened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench.access import access_table

from bench import ours
from holdfast.core import MIB


@pytest.mark.slow(reason="derives keys and stores a disk")
def test_every_kind_of_access_has_a_figure(tmp_path: Path) -> None:
    disk, repository, key = tmp_path / "disk.raw", tmp_path / "repository", tmp_path / "key"
    disk.write_bytes(os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB))
    for step in ("create", "back-up"):
        assert ours.main([step, f"--repository={repository}", f"--key={key}", f"--disk={disk}"]) == 0
    rows = access_table(repository, key, for_s=0.02, say=lambda _: None).splitlines()[2:]
    figures = [float(row.split("|")[2].split()[0].replace(",", "")) for row in rows]
    assert len(figures) == 6
    assert all(figure > 0 for figure in figures)
