"""What remains provable after a snapshot was destroyed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import MIB
from holdfast.lab.disks import DiskStore, DiskUnknown


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path) as store:
        store.set_witness(enabled=True)
        store.create("live", 4 * MIB)
        store.write("live", MIB, os.urandom(MIB))
        yield store


def test_the_hash_of_a_destroyed_snapshot_is_still_known(store: DiskStore) -> None:
    expected = store.sha256("live")
    store.snapshot("live", "snap")
    store.write("live", MIB, b"changed")
    store.destroy("snap")
    assert store.sha256("snap") == expected
    assert store.sha256("snap") == expected
    assert not store.exists("snap")


def test_the_hash_survives_data_destroy_the_metadata_and_every_other_disk(store: DiskStore) -> None:
    expected = store.sha256("live")
    store.enable_cbt("live")
    store.snapshot("live", "snap")
    store.data_destroy("snap")
    store.destroy("snap")
    store.destroy("live")
    store.prune(store.uuids())
    assert store.uuids() == []
    assert store.sha256("snap") == expected


def test_the_witness_outlives_a_restart(store: DiskStore, tmp_path: Path) -> None:
    expected = store.sha256("live")
    store.snapshot("live", "snap")
    store.destroy("snap")
    store.close()
    with DiskStore(tmp_path) as again:
        assert again.witness_enabled
        assert again.sha256("snap") == expected
    with DiskStore(tmp_path) as once_more:
        assert once_more.sha256("snap") == expected


def test_a_merge_does_not_change_what_is_witnessed(store: DiskStore) -> None:
    expected = store.sha256("live")
    store.snapshot("live", "snap")
    store.write("live", MIB, b"changed")
    store.destroy("snap")
    store.coalesce("live")
    assert store.read("live", MIB, 7) == b"changed"
    assert store.sha256("snap") == expected


def test_a_witnessed_snapshot_does_not_show_in_the_tree(store: DiskStore) -> None:
    base = store.snapshot("live", "snap").base_uuid
    store.destroy("snap")
    assert store.children(base) == ["live"]
    assert "snap" not in store.uuids()


def test_only_snapshots_are_witnessed_and_only_while_it_is_on(store: DiskStore) -> None:
    store.clone("live", "clone")
    store.destroy("clone")
    store.set_witness(enabled=False)
    store.snapshot("live", "snap")
    store.destroy("snap")
    for name in ("clone", "snap"):
        with pytest.raises(DiskUnknown):
            store.sha256(name)


@pytest.mark.slow(reason="makes 70 disks")
def test_bytes_are_kept_for_a_bounded_number_of_witnesses(store: DiskStore, tmp_path: Path) -> None:
    expected = []
    for number in range(70):
        store.create(f"disk-{number}", 1024)
        store.write(f"disk-{number}", 0, b"%d" % number)
        store.snapshot(f"disk-{number}", f"snap-{number}")
        expected.append(store.sha256(f"snap-{number}"))
        store.destroy(f"disk-{number}")
        store.destroy(f"snap-{number}")
    store.prune(store.uuids())
    assert len(list(tmp_path.glob("layer-*.data"))) == 64 + 1
    assert [store.sha256(f"snap-{number}") for number in range(70)] == expected


def test_a_merge_does_not_change_a_witness_whose_own_base_copy_was_pruned(store: DiskStore) -> None:
    store.write("live", 0, b"common")
    store.snapshot("live", "seen")
    store.write("seen", 0, b"early ")
    store.freeze("seen")
    expected = store.sha256("seen")
    store.destroy("seen")
    store.prune(store.uuids())
    store.write("live", 0, b"later ")
    while names := store.coalescable():
        store.coalesce(names[0])
    assert store.sha256("seen") == expected
