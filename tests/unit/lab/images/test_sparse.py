"""Lab disks as files and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import BLOCK_BYTES, KIB, MIB
from holdfast.lab.disks import DiskBusy, DiskStore
from holdfast.lab.images import materialise, write_back
from holdfast.lab.images.sparse import absorb

SIZE_BYTES = 6 * MIB + 512


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks") as store:
        store.create("disk", SIZE_BYTES)
        yield store


def filled(store: DiskStore) -> bytes:
    store.write("disk", 100 * KIB, os.urandom(3 * MIB))
    store.write("disk", SIZE_BYTES - 100, b"e" * 100)
    return store.read("disk", 0, SIZE_BYTES)


def test_a_materialised_disk_is_equal_and_sparse(store: DiskStore, tmp_path: Path) -> None:
    content = filled(store)
    materialise(store, "disk", tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == content
    assert (tmp_path / "image").stat().st_blocks * 512 < 4 * MIB


def test_only_what_differs_is_written_back(store: DiskStore, tmp_path: Path) -> None:
    content = bytearray(filled(store))
    materialise(store, "disk", tmp_path / "image")
    store.enable_cbt("disk")
    store.snapshot("disk", "before")
    with (tmp_path / "image").open("r+b") as file:
        for place in (5, MIB + 17, 5 * MIB, SIZE_BYTES - 1):
            file.seek(place)
            file.write(b"#")
            content[place : place + 1] = b"#"
    assert write_back(store, "disk", tmp_path / "image") == 3 * BLOCK_BYTES + 512
    assert store.read("disk", 0, SIZE_BYTES) == content
    changed = store.changed_blocks("before", "disk").nonzero()[0].tolist()
    assert changed == [place // BLOCK_BYTES for place in (5, MIB + 17, 5 * MIB, SIZE_BYTES - 1)]


def test_what_became_a_hole_is_zeroed(store: DiskStore, tmp_path: Path) -> None:
    filled(store)
    with (tmp_path / "image").open("xb") as file:
        file.truncate(SIZE_BYTES)
    write_back(store, "disk", tmp_path / "image")
    assert store.read("disk", 0, SIZE_BYTES) == bytes(SIZE_BYTES)


def test_an_absorbed_file_is_the_disk_and_its_zeros_take_no_space(store: DiskStore) -> None:
    content = bytearray(SIZE_BYTES)
    content[2 * MIB + 5 : 2 * MIB + 9] = b"data"
    content[-1:] = b"e"
    with store.scratch() as folder:
        (folder / "image").write_bytes(content)
        absorb(store, "disk", folder / "image")
        assert not (folder / "image").exists()
    assert store.read("disk", 0, SIZE_BYTES) == content
    assert store.allocated_blocks("disk").tolist() == [1, 3]
    assert [extent.length_bytes for extent in store.data_extents("disk")] == [BLOCK_BYTES, 512]


def test_absorbing_counts_as_a_change_and_only_an_empty_disk_can(store: DiskStore) -> None:
    store.enable_cbt("disk")
    store.snapshot("disk", "before")
    with store.scratch() as folder:
        (folder / "image").write_bytes(b"x" * 512)
        with pytest.raises(DiskBusy):  # it stands on a base copy since the snapshot
            absorb(store, "disk", folder / "image")
        store.create("other", SIZE_BYTES)
        store.write("other", 0, b"x")
        with pytest.raises(DiskBusy):
            absorb(store, "other", folder / "image")
