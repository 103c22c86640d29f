"""Disks with committed file systems: repeatable, bootable, readable, and changed by guests without moving a block."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import GIB, KIB, MIB, SeededEntropy
from holdfast.lab.disks import DiskSizeInvalid, DiskStore
from holdfast.lab.guests import Guest, read_boot_state
from holdfast.lab.images import (
    NO_TOOLS,
    PREPARED,
    FilesystemDamaged,
    GptDamaged,
    GuestSystem,
    PreparedDiskSpec,
    VolumeGroupSpec,
    check_filesystem,
    fill_disk,
    fill_volume_group,
    open_volume,
    partition_places,
)
from holdfast.lab.images.lvm import VolumeGroup, pack_physical_volume, read_label
from holdfast.lab.images.prepared import load_prepared, pack_prepared, unpack_prepared
from holdfast.lab.images.superblock import find_filesystem
from holdfast.lab.images.text import new_generator

SYSTEM = GuestSystem(name="Tested 1", distro="tested", major="1")
SERVERS = ("btrfs-server", "ext4-server", "ntfs-windows", "xfs-server")
pytestmark = pytest.mark.slow(reason="fills whole file systems")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks", entropy=SeededEntropy(1)) as store:
        yield store


def make(store: DiskStore, uuid: str, filesystem: str, *, seed: int = 1, **changes: object) -> None:
    fields = {"hostname": "tested", "system": SYSTEM, "content_bytes": MIB, **changes}
    store.create(uuid, 10 * GIB)
    spec = PreparedDiskSpec(filesystem=filesystem, **fields)  # type: ignore[arg-type]
    fill_disk(store, uuid, spec, entropy=SeededEntropy(seed))


@pytest.mark.parametrize("name", PREPARED)
def test_a_committed_file_system_is_small_and_packs_to_itself(name: str) -> None:
    filesystem = load_prepared(name)
    packed = pack_prepared(filesystem)
    assert len(packed) < 100 * KIB
    assert unpack_prepared(packed) == filesystem
    assert filesystem.size_bytes % 4096 == 0
    assert all(sum(part.length_bytes for part in file.extents) == file.size_bytes for file in filesystem.files)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(("table", "has_esp"), [("mbr", False), ("gpt", True)])
def test_a_machine_boots_from_its_disk_and_not_from_one_that_lost_its_loader(
    store: DiskStore, name: str, table: str, has_esp: bool
) -> None:
    make(store, "disk", name, table=table, has_esp=has_esp, swap_bytes=64 * MIB)
    assert read_boot_state(store, ["disk"]).system == SYSTEM
    volume = open_volume(store, "disk")
    assert volume.filesystem == name.partition("-")[0]
    boot = next(file for path, file in volume.files.items() if path in ("boot/vmlinuz", "Windows/System32/winload.efi"))
    store.write("disk", boot.extents[0].offset_bytes, b"damaged")
    assert not read_boot_state(store, ["disk"]).is_bootable


@pytest.mark.parametrize("name", SERVERS)
def test_the_same_seed_gives_the_same_disk(store: DiskStore, name: str) -> None:
    for uuid, seed in (("one", 1), ("two", 1), ("three", 2)):
        make(store, uuid, name, seed=seed, has_esp=True)
    bytes_of = [
        b"".join(store.read(uuid, each.offset_bytes, each.length_bytes) for each in store.data_extents(uuid))
        for uuid in ("one", "two", "three")
    ]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


@pytest.mark.parametrize("name", SERVERS)
def test_a_guest_changes_files_pages_and_log_and_still_boots(store: DiskStore, name: str) -> None:
    make(store, "disk", name)
    places = {path: file.extents for path, file in open_volume(store, "disk").files.items()}
    store.enable_cbt("disk")
    store.snapshot("disk", "before")
    guest = Guest(store, "disk", entropy=SeededEntropy(2), tools=NO_TOOLS)
    assert guest.change_files(4, 256 * KIB).replaced == 4
    assert guest.write_database_pages(0.01).pages > 0
    assert guest.append_log(8 * KIB).written_bytes > 8 * KIB
    assert {path: file.extents for path, file in open_volume(store, "disk").files.items()} == places
    assert store.changed_blocks("before", "disk").any()
    assert read_boot_state(store, ["disk"]).is_bootable


@pytest.mark.parametrize("name", [*SERVERS, "ntfs-data", "xfs-data"])
def test_the_database_is_a_real_one(store: DiskStore, name: str, tmp_path: Path) -> None:
    make(store, "disk", name, system=None)
    volume = open_volume(store, "disk")
    assert volume.database is not None and volume.log is not None
    (tmp_path / "copy.db").write_bytes(volume.read(volume.database, 0, volume.database.size_bytes))
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"


def test_partitions_are_where_both_kinds_of_table_say(store: DiskStore) -> None:
    kinds = []
    for table in ("gpt", "mbr"):
        make(store, table, "xfs-server", table=table, swap_bytes=128 * MIB)
        read = lambda offset, length: store.read(table, offset, length)  # noqa: E731, B023
        places = partition_places(read, size_bytes=10 * GIB)
        assert [place.length_bytes // MIB for place in places] == [8184, 128]
        kinds.append([find_filesystem(read, base_bytes=place.offset_bytes) for place in places])
    assert kinds == [["xfs", None], ["xfs", None]]


def test_an_old_table_that_points_beyond_the_disk_is_not_believed(store: DiskStore) -> None:
    make(store, "disk", "ext4-server", table="mbr")
    first = bytearray(store.read("disk", 0, 512))
    first[446 + 12 : 446 + 16] = b"\xff\xff\xff\xff"
    with pytest.raises(GptDamaged):
        partition_places(lambda offset, length: bytes(first[offset : offset + length]), size_bytes=10 * GIB)


def test_a_partition_that_lost_its_file_system_is_found(store: DiskStore) -> None:
    make(store, "disk", "ntfs-windows", has_esp=True)
    base_bytes = open_volume(store, "disk").base_bytes
    assert base_bytes is not None
    store.zero("disk", base_bytes, 64 * KIB)
    assert check_filesystem(store, "disk").clean is False


def test_a_damaged_table_of_files_is_not_believed(store: DiskStore) -> None:
    make(store, "disk", "xfs-server")
    store.write("disk", 640 * KIB + 100, b"\xff")
    with pytest.raises(FilesystemDamaged):
        open_volume(store, "disk")


def test_partitions_that_do_not_fit_are_refused(store: DiskStore) -> None:
    store.create("small", 8 * GIB - 8 * MIB)
    with pytest.raises(DiskSizeInvalid):
        fill_disk(store, "small", PreparedDiskSpec(filesystem="xfs-server"), entropy=SeededEntropy(1))
    assert store.used_bytes("small") == 0


def test_a_volume_group_lies_on_all_its_disks_and_a_machine_can_need_them(store: DiskStore) -> None:
    for uuid in ("one", "two"):
        store.create(uuid, 4 * GIB)
    spec = VolumeGroupSpec(name="vg_data", volume="data", filesystem="xfs-data", member_ids=("first", "second"))
    fill_volume_group(store, ["one", "two"], spec, entropy=SeededEntropy(1))
    make(store, "system", "xfs-server", needs=("first", "second"))
    labels = {read_label(store.read(uuid, MIB + 512, 512)) for uuid in ("one", "two")}
    assert None not in labels and len(labels) == 2
    assert all(open_volume(store, uuid).files for uuid in ("one", "two"))
    assert check_filesystem(store, "one").clean is None
    for uuid in ("one", "two"):
        Guest(store, uuid, entropy=SeededEntropy(2)).change_files(4, MIB)
    assert read_boot_state(store, ["system", "one", "two"]).is_bootable
    assert not read_boot_state(store, ["system", "one"]).is_bootable
    with pytest.raises(DiskSizeInvalid):
        fill_volume_group(store, ["one"], spec, entropy=SeededEntropy(1))


def test_a_volume_group_names_every_extent_once() -> None:
    group = VolumeGroup.new(
        "vg", volume="data", disks=2, disk_bytes=100 * MIB, generator=new_generator(SeededEntropy(1))
    )
    assert group.volume_bytes == 2 * 24 * 4 * MIB
    found = group.locate(90 * MIB, 20 * MIB)
    assert found == [(0, 91 * MIB, 6 * MIB), (1, MIB, 14 * MIB)]
    assert b"segment_count = 2" in pack_physical_volume(group, 1)
    damaged = bytearray(pack_physical_volume(group, 0)[512:1024])
    damaged[40] ^= 1
    assert read_label(bytes(damaged)) is None and read_label(bytes(512)) is None
