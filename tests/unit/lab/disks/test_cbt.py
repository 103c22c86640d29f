"""What changed block tracking promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.lab.disks import CbtLogMissing, CbtUnrelated, DiskStore

SIZE_BYTES = 4 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path) as store:
        store.create("live", SIZE_BYTES)
        store.enable_cbt("live")
        yield store


def changed(store: DiskStore, source: str, target: str) -> list[int]:
    flags = store.changed_blocks(source, target)
    assert len(flags) == -(-store.size_bytes(target) // BLOCK_BYTES)
    return [int(index) for index in flags.nonzero()[0]]


def snapshot_after(store: DiskStore, name: str, *granules: int) -> None:
    for granule in granules:
        store.write("live", granule * BLOCK_BYTES + 17, b"w")
    store.snapshot("live", name)


def test_changes_between_two_snapshots_are_exactly_what_was_written_between(store: DiskStore) -> None:
    snapshot_after(store, "a", 1, 2)
    snapshot_after(store, "b", 2, 9)
    store.write("live", 20 * BLOCK_BYTES, b"later")
    assert changed(store, "a", "b") == [2, 9]


def test_changes_add_up_along_the_chain(store: DiskStore) -> None:
    for name, granule in (("a", 0), ("b", 5), ("c", 6), ("d", 7)):
        snapshot_after(store, name, granule)
    assert changed(store, "a", "d") == [5, 6, 7]
    assert changed(store, "b", "d") == [6, 7]
    assert changed(store, "c", "live") == [7]


def test_a_write_across_a_border_and_a_zeroing_both_count(store: DiskStore) -> None:
    snapshot_after(store, "a")
    store.write("live", 2 * BLOCK_BYTES - 1, b"xx")
    store.zero("live", 10 * BLOCK_BYTES, 1)
    snapshot_after(store, "b")
    assert changed(store, "a", "b") == [1, 2, 10]


def test_the_wrong_direction_and_a_disk_to_itself_are_unrelated(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    snapshot_after(store, "b", 2)
    for source, target in (("b", "a"), ("a", "a")):
        with pytest.raises(CbtUnrelated):
            store.changed_blocks(source, target)


def test_a_disk_without_a_log_says_so(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    store.create("plain", SIZE_BYTES)
    store.snapshot("plain", "plain-snap")
    assert not store.cbt_enabled("plain-snap")
    for source, target in (("a", "plain-snap"), ("plain", "live")):
        with pytest.raises(CbtLogMissing):
            store.changed_blocks(source, target)


def test_data_destroy_keeps_the_log_and_needs_one(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    store.data_destroy("a")
    snapshot_after(store, "b", 3)
    assert changed(store, "a", "b") == [3]
    assert store.cbt_enabled("a")
    store.create("plain", SIZE_BYTES)
    with pytest.raises(CbtLogMissing):
        store.data_destroy("plain")


def test_destroying_a_middle_snapshot_loses_no_change(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    snapshot_after(store, "b", 5)
    snapshot_after(store, "c", 6)
    store.destroy("b")
    assert changed(store, "a", "c") == [5, 6]


def test_destroying_the_newest_snapshot_keeps_its_changes_for_the_next(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    snapshot_after(store, "b", 5)
    store.destroy("b")
    snapshot_after(store, "c", 6)
    assert changed(store, "a", "c") == [5, 6]


def test_switching_tracking_off_and_on_breaks_the_chain(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    store.disable_cbt("live")
    store.disable_cbt("live")
    store.write("live", 0, b"unseen")
    store.enable_cbt("live")
    store.enable_cbt("live")
    snapshot_after(store, "b", 2)
    with pytest.raises(CbtUnrelated):
        store.changed_blocks("a", "b")


def test_growth_counts_the_new_range_only_where_it_was_written(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    snapshot_after(store, "b", 2)
    store.resize("live", 2 * SIZE_BYTES)
    snapshot_after(store, "c", 100)
    assert changed(store, "a", "b") == [2]
    assert changed(store, "a", "c") == [2, 100]


def test_a_clone_is_not_tracked_and_leaves_the_chain_alone(store: DiskStore) -> None:
    snapshot_after(store, "a", 1)
    store.clone("live", "clone")
    snapshot_after(store, "b", 2)
    assert not store.cbt_enabled("clone")
    assert changed(store, "a", "b") == [2]


def test_a_copy_of_data_is_seen_as_a_change_of_the_target(store: DiskStore) -> None:
    store.create("other", SIZE_BYTES)
    store.write("other", 7 * BLOCK_BYTES, b"x")
    snapshot_after(store, "a", 1)
    store.copy("other", "live")
    snapshot_after(store, "b")
    assert 7 in changed(store, "a", "b")
    assert 1 in changed(store, "a", "b")


def test_a_snapshot_of_a_snapshot_is_put_into_the_chain(store: DiskStore) -> None:
    snapshot_after(store, "one", 0)
    snapshot_after(store, "two", 0)
    store.write("two", 3 * BLOCK_BYTES, b"by somebody who writes to snapshots")
    store.snapshot("two", "two again")
    store.write("live", 5 * BLOCK_BYTES, b"x")
    assert changed(store, "one", "two again") == [0, 3]
    assert changed(store, "two", "live") == [5]
    assert changed(store, "one", "live") == [0, 3, 5]


def test_a_log_in_doubt_stays_with_the_live_disk_until_it_is_thrown_away(store: DiskStore) -> None:
    store.break_log("live")
    store.snapshot("live", "snap")
    assert (store.log_is_consistent("snap"), store.log_is_consistent("live")) == (True, False)
    store.disable_cbt("live")
    store.enable_cbt("live")
    assert store.log_is_consistent("live")


def test_a_log_that_outgrew_the_next_one_is_added_as_far_as_that_reaches(store: DiskStore) -> None:
    store.enable_cbt("live")
    store.snapshot("live", "first")
    store.write("live", 0, b"x")
    store.snapshot("live", "second")
    store.resize("second", store.size_bytes("live") + BLOCK_BYTES)
    store.write("second", store.size_bytes("live"), b"y")
    store.destroy("second")
    assert store.changed_blocks("first", "live").nonzero()[0].tolist() == [0]
