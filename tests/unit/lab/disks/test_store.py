"""What the lab's storage promises about bytes, trees and space."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import KIB, MIB, SeededEntropy
from holdfast.lab.disks import (
    CHAIN_DEPTH_MAX,
    DiskBusy,
    DiskChainTooLong,
    DiskExists,
    DiskHasNoData,
    DiskRangeInvalid,
    DiskReadOnly,
    DiskSizeInvalid,
    DiskStore,
    DiskStoreDamaged,
    DiskStoreInUse,
    DiskStoreOutdated,
    DiskUnknown,
)
from holdfast.model import Extent

SIZE_BYTES = 8 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks", entropy=SeededEntropy(1)) as store:
        store.create("live", SIZE_BYTES)
        yield store


def test_a_new_disk_reads_as_zeros_and_takes_no_space(store: DiskStore) -> None:
    assert store.read("live", 0, SIZE_BYTES) == bytes(SIZE_BYTES)
    assert store.used_bytes("live") == 0
    assert list(store.data_extents("live")) == []


def test_bytes_written_at_any_alignment_are_read_back(store: DiskStore) -> None:
    data = os.urandom(300_001)
    store.write("live", 65_535, data)
    assert store.read("live", 65_534, len(data) + 2) == b"\0" + data + b"\0"


def test_a_snapshot_never_changes(store: DiskStore) -> None:
    store.write("live", 100, b"before")
    store.snapshot("live", "snap")
    store.write("live", 102, b"AFTER")
    assert store.read("snap", 99, 8) == b"\0before\0"
    assert store.read("live", 99, 9) == b"\0beAFTER\0"


def test_a_snapshot_leaves_a_hidden_base_copy_under_both(store: DiskStore) -> None:
    store.write("live", 0, b"x")
    made = store.snapshot("live", "snap")
    assert made.base_is_new
    assert store.is_base_copy(made.base_uuid)
    assert store.parent("live") == store.parent("snap") == made.base_uuid
    assert sorted(store.children(made.base_uuid)) == ["live", "snap"]
    assert store.chain("live") == ["live", made.base_uuid]
    assert store.depth("live") == 2


def test_a_snapshot_of_an_unchanged_disk_is_a_sibling_and_adds_no_layer(store: DiskStore) -> None:
    store.write("live", 0, b"x")
    first = store.snapshot("live", "snap-1")
    second = store.snapshot("live", "snap-2")
    assert second.base_uuid == first.base_uuid
    assert not second.base_is_new
    assert store.depth("live") == 2


def test_a_snapshot_copies_no_data(store: DiskStore, tmp_path: Path) -> None:
    store.write("live", 0, os.urandom(4 * MIB))
    before = sorted(path.name for path in (tmp_path / "disks").glob("*.data"))
    store.snapshot("live", "snap")
    assert sorted(path.name for path in (tmp_path / "disks").glob("*.data")) == before


def test_the_31st_layer_is_refused_and_nothing_is_changed(store: DiskStore) -> None:
    for number in range(CHAIN_DEPTH_MAX - 1):
        store.write("live", number * 512, b"x")
        store.snapshot("live", f"snap-{number}")
    store.write("live", 0, b"y")
    before = store.uuids()
    with pytest.raises(DiskChainTooLong):
        store.snapshot("live", "one-too-many")
    assert store.uuids() == before
    assert store.depth("live") == CHAIN_DEPTH_MAX


def test_a_clone_is_independent_both_ways(store: DiskStore) -> None:
    store.write("live", 0, b"common")
    store.clone("live", "clone")
    store.write("clone", 0, b"C")
    store.write("live", 1, b"L")
    assert store.read("live", 0, 6) == b"cLmmon"
    assert store.read("clone", 0, 6) == b"Common"


def test_a_partial_write_keeps_the_rest_of_the_granule_from_below(store: DiskStore) -> None:
    below = os.urandom(128 * KIB)
    store.write("live", 0, below)
    store.snapshot("live", "snap")
    store.write("live", 60 * KIB, b"z" * 8 * KIB)
    assert store.read("live", 0, 128 * KIB) == below[: 60 * KIB] + b"z" * 8 * KIB + below[68 * KIB :]


def test_zeroing_hides_what_lies_below_and_allocates_nothing_new(store: DiskStore) -> None:
    store.write("live", 0, b"x" * 256 * KIB)
    store.snapshot("live", "snap")
    store.zero("live", 1000, 200 * KIB)
    store.zero("live", 4 * MIB, MIB)
    assert store.read("live", 0, 256 * KIB) == b"x" * 1000 + bytes(200 * KIB) + b"x" * (56 * KIB - 1000)
    assert store.read("snap", 0, 256 * KIB) == b"x" * 256 * KIB
    assert store.allocated_blocks("live").tolist() == [0]


def test_a_write_into_a_zeroed_granule_does_not_bring_old_bytes_back(store: DiskStore) -> None:
    store.write("live", 0, b"x" * 128 * KIB)
    store.zero("live", 0, 128 * KIB)
    store.write("live", 10, b"y")
    assert store.read("live", 0, 128 * KIB) == bytes(10) + b"y" + bytes(128 * KIB - 11)


def test_space_is_counted_in_whole_vhd_blocks_of_the_node_alone(store: DiskStore) -> None:
    store.write("live", 3 * MIB, b"x")
    made = store.snapshot("live", "snap")
    store.write("live", 2 * MIB - 1, b"xx")
    assert store.used_bytes(made.base_uuid) == 2 * MIB
    assert store.used_bytes("snap") == 0
    assert store.used_bytes("live") == 4 * MIB
    assert store.allocated_blocks("live").tolist() == [0, 1]
    assert store.allocated_blocks("snap").tolist() == [1]


def test_the_difference_is_every_block_of_every_node_on_one_branch_only(store: DiskStore) -> None:
    store.write("live", 0, b"base")
    store.snapshot("live", "old")
    store.write("live", 2 * MIB, b"between")
    store.snapshot("live", "new")
    store.write("live", 6 * MIB, b"later")
    assert store.difference_blocks("old", "new").tolist() == [1]
    assert store.difference_blocks("old", "live").tolist() == [1, 3]
    assert store.difference_blocks("live", "new").tolist() == [3]
    assert store.difference_blocks("new", "new").tolist() == []


def test_a_block_that_changed_back_is_still_part_of_the_difference(store: DiskStore) -> None:
    store.write("live", 0, b"a")
    store.snapshot("live", "old")
    store.write("live", 0, b"b")
    store.write("live", 0, b"a")
    store.snapshot("live", "new")
    assert store.difference_blocks("old", "new").tolist() == [0]


def test_disks_of_different_trees_are_unrelated(store: DiskStore) -> None:
    store.create("other", SIZE_BYTES)
    store.write("live", 0, b"x")
    store.write("other", 2 * MIB, b"x")
    store.snapshot("live", "snap")
    assert store.related("live", "snap")
    assert not store.related("live", "other")
    assert store.difference_blocks("live", "other").tolist() == [0, 1]


def test_data_extents_are_granules_merged_and_cut_at_the_window(store: DiskStore) -> None:
    store.write("live", 64 * KIB, b"x" * 128 * KIB)
    store.write("live", 5 * MIB + 7, b"x")
    assert list(store.data_extents("live")) == [
        Extent(offset_bytes=64 * KIB, length_bytes=128 * KIB),
        Extent(offset_bytes=5 * MIB, length_bytes=64 * KIB),
    ]
    assert list(store.data_extents("live", offset_bytes=100 * KIB, length_bytes=10 * KIB)) == [
        Extent(offset_bytes=100 * KIB, length_bytes=10 * KIB)
    ]


def test_a_source_gives_the_same_bytes_as_the_disk(store: DiskStore) -> None:
    store.write("live", 3 * 64 * KIB, os.urandom(5 * MIB))
    source = store.as_source("live")
    content = bytearray(source.size_bytes)
    for run in source.runs():
        content[run.offset_bytes : run.offset_bytes + run.length_bytes] = run.data
    assert bytes(content) == store.read("live", 0, SIZE_BYTES) == source.read(0, SIZE_BYTES)


def test_growing_adds_zeros_and_keeps_the_snapshot_small(store: DiskStore) -> None:
    store.create("odd", 100 * KIB)
    store.write("odd", 0, b"x" * 100 * KIB)
    store.snapshot("odd", "snap")
    store.resize("odd", 3 * MIB)
    store.write("odd", 3 * MIB - 1, b"e")
    assert store.read("odd", 99 * KIB, 40 * KIB) == b"x" * KIB + bytes(39 * KIB)
    assert (store.size_bytes("odd"), store.size_bytes("snap")) == (3 * MIB, 100 * KIB)


def test_a_copy_makes_the_target_equal_whatever_it_held(store: DiskStore) -> None:
    store.write("live", 70 * KIB, os.urandom(3 * MIB))
    store.create("target", SIZE_BYTES + MIB)
    store.write("target", 0, b"old" * MIB)
    store.copy("live", "target")
    assert store.read("target", 0, SIZE_BYTES) == store.read("live", 0, SIZE_BYTES)


def test_a_copy_of_the_difference_brings_the_base_to_the_target(store: DiskStore) -> None:
    store.write("live", 0, b"a" * 5 * MIB)
    store.snapshot("live", "old")
    store.copy("old", _created(store, "copy"))
    store.write("live", 2 * MIB, b"b" * 100)
    store.zero("live", 4 * MIB, MIB)
    store.copy("live", "copy", blocks=store.difference_blocks("old", "live"))
    assert store.sha256("copy") == store.sha256("live")


def test_the_hash_counts_holes_as_zeros(store: DiskStore) -> None:
    store.write("live", 5 * MIB, b"x")
    content = store.read("live", 0, SIZE_BYTES)
    assert store.sha256("live") == hashlib.sha256(content).hexdigest()
    store.write("live", 0, b"y")
    assert store.sha256("live") == hashlib.sha256(b"y" + content[1:]).hexdigest()


def test_pruning_frees_base_copies_and_their_files_when_nothing_stands_on_them(
    store: DiskStore, tmp_path: Path
) -> None:
    bases = []
    for name in ("snap-1", "snap-2"):
        store.write("live", 0, os.urandom(512))
        bases.append(store.snapshot("live", name).base_uuid)
    store.destroy("snap-2")
    store.destroy("live")
    assert len(store.uuids()) == 3
    assert store.prune(store.uuids()) == bases[1:]
    assert store.read("snap-1", 0, 512) != bytes(512)
    store.destroy("snap-1")
    assert store.prune([]) == []
    assert store.prune(bases) == bases[:1]
    assert store.uuids() == []
    assert sorted(path.name for path in (tmp_path / "disks").iterdir()) == ["disks.json", "in-use"]


def test_a_base_copy_is_neither_written_nor_destroyed_nor_snapshotted(store: DiskStore) -> None:
    store.write("live", 0, b"x")
    base = store.snapshot("live", "snap").base_uuid
    for refused in (
        lambda: store.write(base, 0, b"y"),
        lambda: store.destroy(base),
        lambda: store.snapshot(base, "again"),
        lambda: store.zero(base, 0, 1),
        lambda: store.resize(base, 2 * SIZE_BYTES),
    ):
        with pytest.raises(DiskReadOnly):
            refused()


def test_wrong_names_sizes_and_ranges_are_refused(store: DiskStore) -> None:
    with pytest.raises(DiskUnknown):
        store.read("nobody", 0, 1)
    with pytest.raises(DiskExists):
        store.create("live", 512)
    with pytest.raises(DiskExists):
        store.snapshot("live", "live")
    with pytest.raises(DiskSizeInvalid):
        store.create("new", -512)
    with pytest.raises(DiskSizeInvalid):
        store.resize("live", SIZE_BYTES - 512)
    with pytest.raises(DiskSizeInvalid):
        store.copy("live", _created(store, "small", size_bytes=512))
    for offset_bytes, length_bytes in ((SIZE_BYTES, 1), (-1, 2), (0, SIZE_BYTES + 1)):
        with pytest.raises(DiskRangeInvalid):
            store.read("live", offset_bytes, length_bytes)
        with pytest.raises(DiskRangeInvalid):
            store.write("live", offset_bytes, bytes(length_bytes))


def test_merging_base_copies_shortens_the_chain_and_changes_no_byte(store: DiskStore) -> None:
    for number in range(6):
        store.write("live", number * 100 * KIB, os.urandom(300 * KIB))
        store.zero("live", number * 90 * KIB, 70 * KIB)
        store.snapshot("live", f"snap-{number}")
        if number != 2:
            store.destroy(f"snap-{number}")
    store.write("live", 0, b"top")
    hashes = {name: store.sha256(name) for name in ("live", "snap-2")}
    while names := store.coalescable():
        store.coalesce(names[0])
    assert {name: hashlib.sha256(store.read(name, 0, SIZE_BYTES)).hexdigest() for name in hashes} == hashes
    assert store.depth("live") == 2
    assert store.parent("live") == store.parent("snap-2")


def test_a_disk_that_stands_alone_takes_the_place_of_its_base(store: DiskStore) -> None:
    store.write("live", 0, b"below")
    store.snapshot("live", "snap")
    store.write("live", 2, b"ABOVE")
    store.destroy("snap")
    assert store.coalesce("live") == 64 * KIB
    assert store.uuids() == ["live"]
    assert store.read("live", 0, 8) == b"beABOVE\0"
    assert store.parent("live") is None


def test_a_node_that_others_stand_beside_is_not_merged(store: DiskStore) -> None:
    store.write("live", 0, b"x")
    store.snapshot("live", "snap")
    assert store.coalescable() == []
    with pytest.raises(DiskBusy):
        store.coalesce("live")


def test_a_restarted_store_has_everything_back(tmp_path: Path) -> None:
    folder = tmp_path / "disks"
    with DiskStore(folder) as first:
        first.create("live", SIZE_BYTES)
        first.enable_cbt("live")
        first.write("live", 0, b"one")
        first.snapshot("live", "old")
        first.write("live", MIB, b"two")
        first.snapshot("live", "new")
        first.data_destroy("old")
        expected = (first.sha256("live"), first.chain("new"), first.used_bytes("live"))
    with DiskStore(folder) as second:
        assert (second.sha256("live"), second.chain("new"), second.used_bytes("live")) == expected
        assert second.changed_blocks("old", "new").nonzero()[0].tolist() == [16]
        assert not second.has_data("old")
        second.write("live", 0, b"three")
        assert second.read("new", 0, 5) == b"one\0\0"


def test_a_killed_store_keeps_what_it_acknowledged_and_sweeps_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "disks"
    with DiskStore(folder) as first:
        first.create("live", SIZE_BYTES)
        first.write("live", 5, b"kept")
    (folder / "layer-00000099.data").write_bytes(b"a layer that no list names")
    (folder / "log-00000098.map").write_bytes(b"a log that no list names")
    (folder / "disks.new").write_bytes(b"{ half a list")
    (folder / "scratch-of-the-dead").mkdir()
    with DiskStore(folder) as second:
        assert second.read("live", 5, 4) == b"kept"
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".data", ".json", ".map", ".new"]


@pytest.mark.slow(reason="a writer and snapshots need time to meet")
def test_pieces_written_together_are_in_a_snapshot_all_or_not_at_all(store: DiskStore) -> None:
    stop = threading.Event()

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            number = number % 250 + 1
            store.write_together("live", [(0, bytes([number])), (5 * MIB, bytes([number])), (MIB, bytes([number]))])

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for number in range(20):
            store.snapshot("live", f"snap-{number}")
            torn = {store.read(f"snap-{number}", offset_bytes, 1) for offset_bytes in (0, MIB, 5 * MIB)}
            assert len(torn) == 1
            store.destroy(f"snap-{number}")
    finally:
        stop.set()
        writer.join()


def test_pieces_written_together_are_tracked_each_for_itself(store: DiskStore) -> None:
    store.enable_cbt("live")
    store.snapshot("live", "old")
    store.write_together("live", [])
    store.write_together("live", [(0, b"x"), (5 * MIB, b"y")])
    assert store.changed_blocks("old", "live").nonzero()[0].tolist() == [0, 80]
    with pytest.raises(DiskRangeInvalid):
        store.write_together("live", [(0, b"x"), (SIZE_BYTES, b"y")])


def test_a_scratch_folder_is_lent_and_taken_back(store: DiskStore) -> None:
    with store.scratch() as folder:
        (folder / "file").write_bytes(b"x")
    assert not folder.exists()


def test_a_folder_serves_one_store_at_a_time(store: DiskStore, tmp_path: Path) -> None:
    with pytest.raises(DiskStoreInUse):
        DiskStore(tmp_path / "disks")
    store.close()
    store.close()
    DiskStore(tmp_path / "disks").close()


@pytest.mark.parametrize("content", [b"", b"not json", b"{}", b'{"version":2}'])
def test_an_unreadable_list_is_refused_and_the_folder_is_let_go(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "disks.json").write_bytes(content)
    for _ in range(2):
        with pytest.raises(DiskStoreDamaged):
            DiskStore(tmp_path)


def test_reads_of_destroyed_data_say_so(store: DiskStore) -> None:
    store.enable_cbt("live")
    store.snapshot("live", "snap")
    store.data_destroy("snap")
    store.data_destroy("snap")
    with pytest.raises(DiskHasNoData):
        store.read("snap", 0, 1)
    with pytest.raises(DiskHasNoData):
        store.sha256("snap")
    assert store.exists("snap") and store.size_bytes("snap") == SIZE_BYTES and store.used_bytes("snap") == 0


def _created(store: DiskStore, uuid: str, *, size_bytes: int = SIZE_BYTES) -> str:
    store.create(uuid, size_bytes)
    return uuid


def test_a_list_of_another_version_or_with_a_missing_layer_is_refused(tmp_path: Path) -> None:
    with DiskStore(tmp_path) as store:
        store.create("live", SIZE_BYTES)
    path = tmp_path / "disks.json"
    good = path.read_bytes()
    older, halved = good.replace(b'"version":2', b'"version":1'), good.replace(b'"layer":1', b'"layer":7')
    for bad, refusal in ((older, DiskStoreOutdated), (halved, DiskStoreDamaged)):
        assert bad != good
        path.write_bytes(bad)
        with pytest.raises(refusal):
            DiskStore(tmp_path)
    path.write_bytes(good)
    with DiskStore(tmp_path) as store:
        assert store.exists("live")


def test_a_batch_of_changes_is_durable_at_its_end_and_costs_one_save(tmp_path: Path) -> None:
    folder = tmp_path / "batch"
    with DiskStore(folder, entropy=SeededEntropy(1)) as store:
        with store.batch():
            store.create("golden", SIZE_BYTES)
            with store.batch():
                for number in range(20):
                    store.clone("golden", f"clone-{number}")
                    store.write(f"clone-{number}", 0, b"%d" % number)
            assert not (folder / "disks.json").exists()
        saved = (folder / "disks.json").stat().st_ino
        store.write("clone-3", 4096, b"later")
        assert (folder / "disks.json").stat().st_ino == saved
        store.destroy("clone-4")
        assert (folder / "disks.json").stat().st_ino != saved
    with DiskStore(folder) as store:
        assert store.read("clone-3", 0, 1) == b"3" and store.read("clone-19", 0, 2) == b"19"
        assert not store.exists("clone-4")


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 65_537])
def test_a_disk_of_any_size_is_read_grown_tracked_and_found_again(tmp_path: Path, size_bytes: int) -> None:
    with DiskStore(tmp_path) as store:
        store.create("one", size_bytes)
        store.enable_cbt("one")
        store.write("one", 0, b"x" * size_bytes)
        store.snapshot("one", "before")
        store.resize("one", size_bytes + 70_000)
        store.write("one", size_bytes, b"y")
        store.clone("before", "copy")
        store.snapshot("one", "after")
        assert store.changed_blocks("before", "after").any()
    with DiskStore(tmp_path) as store:
        assert store.read("copy", 0, size_bytes) == b"x" * size_bytes
        assert store.read("one", 0, size_bytes + 2) == b"x" * size_bytes + b"y\0"
        assert len(list(store.data_extents("before"))) == (size_bytes > 0)
        assert len(store.sha256("copy")) == 64
