"""What is on a freshly made lab disk, with e2fsprogs and without."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import KIB, MIB, SeededEntropy
from holdfast.lab.disks import DiskSizeInvalid, DiskStore
from holdfast.lab.images import (
    DATABASE_PATH,
    LOG_PATH,
    NO_TOOLS,
    SCENARIOS,
    DataDiskSpec,
    E2fsprogs,
    FilesystemDamaged,
    GptDamaged,
    ImageTooSmall,
    LinuxDiskSpec,
    ToolFailed,
    check_filesystem,
    fill_disk,
    open_volume,
    read_boot_record,
)

TOOLS = E2fsprogs.find()
SPEC = LinuxDiskSpec(hostname="tested", files_bytes=2 * MIB, database_bytes=MIB, log_bytes=64 * KIB)
DATA_SPEC = DataDiskSpec(database_bytes=2 * MIB, media_bytes=5 * MIB, log_bytes=64 * KIB)
SIZE_BYTES = 64 * MIB

needs_mke2fs = pytest.mark.skipif(TOOLS.mke2fs is None, reason="mke2fs is not installed (Debian: e2fsprogs)")
needs_e2fsck = pytest.mark.skipif(TOOLS.e2fsck is None, reason="e2fsck is not installed (Debian: e2fsprogs)")
both_ways = pytest.mark.parametrize("tools", [pytest.param(TOOLS, marks=needs_mke2fs, id="mke2fs"), NO_TOOLS])
pytestmark = pytest.mark.slow(reason="makes and reads whole file systems")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks") as store:
        yield store


def linux_disk(store: DiskStore, tools: E2fsprogs, *, uuid: str = "disk", seed: int = 1) -> None:
    store.create(uuid, SIZE_BYTES)
    fill_disk(store, uuid, SPEC, entropy=SeededEntropy(seed), tools=tools)


def integrity(store: DiskStore, uuid: str, folder: Path) -> str:
    volume = open_volume(store, uuid)
    file = volume.files[DATABASE_PATH]
    (folder / "copy.db").write_bytes(volume.read(file, 0, file.size_bytes))
    with contextlib.closing(sqlite3.connect(folder / "copy.db")) as connection:
        (rows,) = connection.execute("select count(*) from documents").fetchone()
        assert rows > 10
        return str(connection.execute("pragma integrity_check").fetchone()[0])


@needs_e2fsck
@both_ways
def test_e2fsck_finds_nothing_to_say_about_a_new_disk(store: DiskStore, tools: E2fsprogs) -> None:
    linux_disk(store, tools)
    report = check_filesystem(store, "disk")
    assert report.clean is True, report.detail


@both_ways
def test_the_files_of_a_server_are_there(store: DiskStore, tools: E2fsprogs, tmp_path: Path) -> None:
    linux_disk(store, tools)
    volume = open_volume(store, "disk")
    hostname = volume.files["etc/hostname"]
    assert volume.read(hostname, 0, 7) == b"tested\n"
    assert {DATABASE_PATH, LOG_PATH, "etc/fstab"} < set(volume.files)
    assert any(path.startswith("usr/bin/") for path in volume.files)
    assert integrity(store, "disk", tmp_path) == "ok"


@needs_e2fsck
@needs_mke2fs
def test_a_damaged_file_system_is_found(store: DiskStore) -> None:
    linux_disk(store, TOOLS)
    store.clone("disk", "bitmap")
    volume = open_volume(store, "disk")
    # The first group's structures follow the superblock; what lies there is bitmaps and inodes.
    store.write("bitmap", MIB + 4096, b"\xff" * 256 * KIB)
    report = check_filesystem(store, "bitmap")
    assert report.clean is False and report.detail
    # Contents of files are nothing that e2fsck judges.
    volume.write(volume.files[DATABASE_PATH], 0, b"\xff" * 4096)
    assert check_filesystem(store, "disk").clean is True


def test_without_e2fsck_a_readable_file_system_is_not_judged_and_a_broken_one_is(store: DiskStore) -> None:
    linux_disk(store, NO_TOOLS)
    report = check_filesystem(store, "disk", tools=NO_TOOLS)
    assert report.clean is None and "not installed" in report.detail
    store.zero("disk", MIB, 4096)
    assert check_filesystem(store, "disk", tools=NO_TOOLS).clean is False
    store.zero("disk", 0, 64 * KIB)
    store.zero("disk", SIZE_BYTES - 64 * KIB, 64 * KIB)
    assert check_filesystem(store, "disk").clean is False
    with pytest.raises(GptDamaged):
        open_volume(store, "disk")


def test_a_check_only_reads(store: DiskStore) -> None:
    linux_disk(store, NO_TOOLS)
    before = store.sha256("disk")
    check_filesystem(store, "disk")
    assert store.sha256("disk") == before


def test_the_template_gives_the_same_disk_from_the_same_seed(store: DiskStore) -> None:
    for uuid, seed in (("one", 1), ("two", 1), ("three", 2)):
        linux_disk(store, NO_TOOLS, uuid=uuid, seed=seed)
    assert store.sha256("one") == store.sha256("two") != store.sha256("three")


@needs_mke2fs
def test_mke2fs_gives_the_same_identities_from_the_same_seed(store: DiskStore) -> None:
    for uuid, seed in (("one", 1), ("two", 1), ("three", 2)):
        linux_disk(store, TOOLS, uuid=uuid, seed=seed)
    identities = [store.read(uuid, MIB + 1024 + 0x68, 16) for uuid in ("one", "two", "three")]
    assert identities[0] == identities[1] != identities[2]


def test_a_data_disk_holds_a_whole_database_media_and_a_log(store: DiskStore, tmp_path: Path) -> None:
    store.create("disk", SIZE_BYTES)
    fill_disk(store, "disk", DATA_SPEC, entropy=SeededEntropy(3))
    assert integrity(store, "disk", tmp_path) == "ok"
    assert sorted(open_volume(store, "disk").files) == ["media", DATABASE_PATH, LOG_PATH]
    assert read_boot_record(store, "disk") is None
    assert check_filesystem(store, "disk").clean is None
    store.write("disk", 20, b"?")
    assert check_filesystem(store, "disk").clean is False


def test_a_data_disk_is_repeatable(store: DiskStore) -> None:
    for uuid in ("one", "two"):
        store.create(uuid, SIZE_BYTES)
        fill_disk(store, uuid, DATA_SPEC, entropy=SeededEntropy(3))
    assert store.sha256("one") == store.sha256("two")


def test_content_that_does_not_fit_is_refused(store: DiskStore) -> None:
    store.create("small", 4 * MIB)
    with pytest.raises(DiskSizeInvalid):
        fill_disk(store, "small", DATA_SPEC, entropy=SeededEntropy(3))
    with pytest.raises(ImageTooSmall):
        fill_disk(store, "small", SPEC, entropy=SeededEntropy(3), tools=NO_TOOLS)


@needs_mke2fs
def test_mke2fs_says_why_it_failed(store: DiskStore) -> None:
    store.create("small", 8 * MIB)
    big = LinuxDiskSpec(files_bytes=20 * MIB)
    with pytest.raises(ToolFailed) as failure:
        fill_disk(store, "small", big, entropy=SeededEntropy(3), tools=TOOLS)
    assert "mke2fs" in str(failure.value)
    assert store.used_bytes("small") == 0


def test_a_file_system_whose_structures_lie_is_an_error_of_ours(store: DiskStore) -> None:
    linux_disk(store, NO_TOOLS)
    for offset in range(MIB + 1024, MIB + 1024 + 256, 32):
        store.clone("disk", f"lie-{offset}")
        store.write(f"lie-{offset}", offset, b"\xff" * 32)
        with contextlib.suppress(FilesystemDamaged):
            open_volume(store, f"lie-{offset}")


def test_every_scenario_fits_its_disks_and_the_tiny_one_is_made_quickly(store: DiskStore) -> None:
    for vms in SCENARIOS.values():
        assert all(vm.disks for vm in vms)
    for vm in SCENARIOS["tiny"]:
        for disk in vm.disks:
            store.create(disk.name, disk.size_bytes)
            fill_disk(store, disk.name, disk.content, entropy=SeededEntropy(1))
    assert read_boot_record(store, "web system") and read_boot_record(store, "db system")
