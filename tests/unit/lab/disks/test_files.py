"""The bound on open data files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.lab.disks.files import OpenFiles, read_exactly


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_more_files_stay_open_than_allowed(tmp_path: Path) -> None:
    files = OpenFiles(files_max=4)
    before = open_descriptors()
    for number in range(20):
        with files.borrow(tmp_path / str(number), create=True):
            assert open_descriptors() <= before + 5
    assert open_descriptors() == before + 4
    files.close()
    assert open_descriptors() == before


def test_a_borrowed_file_stays_open_through_removal_and_closing(tmp_path: Path) -> None:
    files = OpenFiles(files_max=1)
    path = tmp_path / "file"
    before = open_descriptors()
    with files.borrow(path, create=True) as descriptor:
        os.pwrite(descriptor, b"kept", 0)
        for number in range(3):
            with files.borrow(tmp_path / str(number), create=True):
                pass
        files.remove(path)
        files.remove(path)
        files.close()
        buffer = bytearray(6)
        read_exactly(descriptor, memoryview(buffer), 0)
        assert buffer == b"kept\0\0"
    assert open_descriptors() == before
    with pytest.raises(FileNotFoundError), files.borrow(path):
        pass
