"""What a guest does to its disks, as change tracking, snapshots and e2fsck see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import BLOCK_BYTES, KIB, MIB, SeededEntropy
from holdfast.lab.disks import DiskReadOnly, DiskStore
from holdfast.lab.guests import BackgroundWriter, Guest
from holdfast.lab.images import (
    DATA_FOLDER,
    DATABASE_PATH,
    LOG_PATH,
    NO_TOOLS,
    DataDiskSpec,
    E2fsprogs,
    LinuxDiskSpec,
    ToolFailed,
    check_filesystem,
    fill_disk,
    open_volume,
)

TOOLS = E2fsprogs.find()
SIZE_BYTES = 64 * MIB

needs_tools = pytest.mark.skipif(
    None in (TOOLS.mke2fs, TOOLS.debugfs, TOOLS.e2fsck), reason="e2fsprogs is not installed"
)
both_ways = pytest.mark.parametrize("tools", [pytest.param(TOOLS, marks=needs_tools, id="debugfs"), NO_TOOLS])
pytestmark = pytest.mark.slow(reason="works on whole file systems")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks", entropy=SeededEntropy(9)) as store:
        yield store


def linux_guest(store: DiskStore, tools: E2fsprogs) -> Guest:
    spec = LinuxDiskSpec(files_bytes=4 * MIB, database_bytes=4 * MIB, log_bytes=64 * KIB)
    store.create("disk", SIZE_BYTES)
    fill_disk(store, "disk", spec, entropy=SeededEntropy(1), tools=tools)
    store.enable_cbt("disk")
    store.snapshot("disk", "before")
    return Guest(store, "disk", entropy=SeededEntropy(2), tools=tools)


def changed(store: DiskStore) -> int:
    return int(store.changed_blocks("before", "disk").sum())


@both_ways
def test_the_file_system_stays_clean_through_changes_of_files(store: DiskStore, tools: E2fsprogs) -> None:
    guest = linux_guest(store, tools)
    for _ in range(4):
        guest.change_files(12, 300_000)
        guest.write_database_pages(0.02)
        guest.append_log(5000)
        store.clone("disk", "checked")
        report = check_filesystem(store, "checked")
        assert report.clean in (True, None), report.detail
        assert report.clean is True or TOOLS.e2fsck is None
        store.destroy("checked")


@needs_tools
def test_files_are_created_replaced_and_deleted_and_tracking_sees_little_else(store: DiskStore) -> None:
    guest = linux_guest(store, TOOLS)
    before = set(open_volume(store, "disk").files)
    done = guest.change_files(10, 200_000)
    after = set(open_volume(store, "disk").files)
    assert (len(after - before), len(before - after)) == (done.created, done.deleted)
    assert all(path.startswith(f"{DATA_FOLDER}/") for path in after - before)
    assert done.created + done.replaced == 10
    assert 150_000 < done.written_bytes <= 200_000
    assert 1 <= changed(store) < 40
    assert store.sha256("before") != store.sha256("disk")


@needs_tools
def test_guests_delete_what_guests_made(store: DiskStore) -> None:
    guest = linux_guest(store, TOOLS)
    deleted = sum(guest.change_files(8, 50_000).deleted for _ in range(4))
    assert deleted > 0
    assert {DATABASE_PATH, LOG_PATH, "etc/hostname"} < set(open_volume(store, "disk").files)


@needs_tools
def test_a_change_that_does_not_fit_leaves_the_disk_as_it_was(store: DiskStore) -> None:
    guest = linux_guest(store, TOOLS)
    before = store.sha256("disk")
    with pytest.raises(ToolFailed):
        guest.change_files(4, 80 * MIB)
    assert store.sha256("disk") == before


def test_without_debugfs_files_are_rewritten_where_they_are(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    before = open_volume(store, "disk").files
    done = guest.change_files(10, 200_000)
    assert open_volume(store, "disk").files == before
    assert (done.created, done.replaced, done.deleted) == (0, 10, 0)
    assert 10 * 2 >= changed(store) >= 1


def test_database_writes_hit_the_database_and_nothing_else(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    done = guest.write_database_pages(0.01)
    volume = open_volume(store, "disk")
    database = volume.files[DATABASE_PATH]
    assert done.pages == round(database.size_bytes // 8192 * 0.01)
    assert done.pages * 4096 <= done.written_bytes <= done.pages * 16384
    held = {
        granule
        for extent in database.extents
        for granule in range(extent.offset_bytes // BLOCK_BYTES, -(-extent.end_bytes // BLOCK_BYTES))
    }
    assert set(store.changed_blocks("before", "disk").nonzero()[0].tolist()) <= held
    assert volume.read(database, 0, 4096).startswith(b"SQLite format 3")


def test_about_half_of_a_rewritten_page_is_new(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    volume = open_volume(store, "disk")
    database = volume.files[DATABASE_PATH]
    before = volume.read(database, 0, database.size_bytes)
    done = guest.rewrite_pages(60)
    after = volume.read(database, 0, database.size_bytes)
    sectors = sum(before[low : low + 512] != after[low : low + 512] for low in range(0, len(before), 512))
    assert 0.25 < sectors * 512 / done.written_bytes < 0.75


def test_the_log_grows_by_lines_and_begins_again_when_full(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    log = open_volume(store, "disk").files[LOG_PATH]
    first, second = guest.append_log(1000), guest.append_log(500)
    assert (first.position_bytes, second.position_bytes) == (64, 1064)
    again = Guest(store, "disk", entropy=SeededEntropy(3), tools=NO_TOOLS)
    assert again.append_log(log.size_bytes).position_bytes == 64
    volume = open_volume(store, "disk")
    assert b"\n\n" not in volume.read(log, 64, 4096)


def test_a_data_disk_has_guests_too(store: DiskStore) -> None:
    store.create("disk", SIZE_BYTES)
    spec = DataDiskSpec(database_bytes=2 * MIB, media_bytes=2 * MIB, log_bytes=64 * KIB)
    fill_disk(store, "disk", spec, entropy=SeededEntropy(1))
    store.enable_cbt("disk")
    store.snapshot("disk", "before")
    guest = Guest(store, "disk", entropy=SeededEntropy(2))
    assert guest.write_database_pages(0.01).pages == 3
    assert guest.change_files(3, 10_000).replaced == 1
    assert guest.append_log(100).written_bytes == 164
    assert 2 <= changed(store) <= 8


def test_the_same_seed_does_the_same(store: DiskStore) -> None:
    linux_guest(store, NO_TOOLS)
    hashes = []
    for name in ("one", "two"):
        store.clone("disk", name)
        guest = Guest(store, name, entropy=SeededEntropy(4), tools=NO_TOOLS)
        guest.change_files(5, 50_000)
        guest.write_database_pages(0.02)
        hashes.append(store.sha256(name))
    assert hashes[0] == hashes[1]


def test_a_guest_keeps_writing_while_snapshots_stay_as_they_were(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    with BackgroundWriter(guest, interval_s=0.001) as writer:
        hashes = {}
        for number in range(5):
            store.snapshot("disk", f"snap-{number}")
            hashes[f"snap-{number}"] = store.sha256(f"snap-{number}")
            wait_for_writes(writer, writer.written.writes + 3)
        done = writer.stop()
    assert done.writes >= 15 and done.written_bytes >= done.writes * 4096
    assert {name: store.sha256(name) for name in hashes} == hashes
    assert writer.stop() == done


def test_what_stops_a_guest_by_itself_is_told_when_it_is_stopped(store: DiskStore) -> None:
    guest = linux_guest(store, NO_TOOLS)
    base = store.parent("disk")
    assert base is not None
    writer = BackgroundWriter(Guest(store, base, entropy=SeededEntropy(1), tools=NO_TOOLS))
    writer.start()
    with pytest.raises(DiskReadOnly):
        writer.stop()
    assert guest.disk == "disk"


def wait_for_writes(writer: BackgroundWriter, count: int) -> None:
    pause = threading.Event()
    for _ in range(5000):
        if writer.written.writes >= count:
            return
        pause.wait(0.002)
    raise AssertionError("the guest does not write")
