"""A machine boots from what is on its disks, and from nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.core import KIB, MIB, SeededEntropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.guests import read_boot_state
from holdfast.lab.images import (
    NO_TOOLS,
    BootFileNotFound,
    E2fsprogs,
    GuestSystem,
    LinuxDiskSpec,
    fill_disk,
    has_filesystem,
    install_boot,
    install_boot_member,
    new_boot_file,
    new_generator,
    read_boot_record,
    write_minimal_boot,
)

SIZE_BYTES = 64 * MIB
SYSTEM = GuestSystem(name="Rocky Linux 9.4", distro="rocky", major="9", minor="4", kernel="5.14.0", has_tools=False)
SPEC = LinuxDiskSpec(files_bytes=2 * MIB, database_bytes=MIB, log_bytes=64 * KIB)
TOOLS = E2fsprogs.find()
needs_mke2fs = pytest.mark.skipif(TOOLS.mke2fs is None, reason="mke2fs is not installed (Debian: e2fsprogs)")
GENERATOR = new_generator(SeededEntropy(3))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks") as store:
        yield store


@pytest.fixture
def minimal(store: DiskStore) -> DiskStore:
    store.create("disk", 4 * MIB)
    write_minimal_boot(store, "disk", GENERATOR)
    return store


def boots(store: DiskStore, *uuids: str) -> bool:
    return read_boot_state(store, uuids).is_bootable


@pytest.mark.slow(reason="makes a whole file system")
@pytest.mark.parametrize("tools", [pytest.param(TOOLS, marks=needs_mke2fs, id="mke2fs"), NO_TOOLS])
def test_a_linux_disk_boots_until_anything_that_a_boot_needs_is_damaged(store: DiskStore, tools: E2fsprogs) -> None:
    store.create("disk", SIZE_BYTES)
    fill_disk(store, "disk", SPEC, entropy=SeededEntropy(1), tools=tools)
    assert boots(store, "disk")
    record = read_boot_record(store, "disk")
    assert record is not None
    kernel = record.files[0].extents[-1]
    places = {"loader": 0, "table": 512, "record": 34 * 512, "file system": MIB + 1024, "kernel": kernel.offset_bytes}
    for name, offset in places.items():
        store.clone("disk", name)
        store.write(name, offset, bytes(512))
        if name == "table":
            store.write(name, SIZE_BYTES - 512, bytes(512))
        assert not boots(store, name), name


def test_one_flipped_bit_in_the_kernel_is_enough(minimal: DiskStore) -> None:
    state = read_boot_state(minimal, ["disk"])
    assert state.system is not None and state.system.has_tools
    place = MIB + 100 * KIB
    byte = minimal.read("disk", place, 1)[0]
    minimal.write("disk", place, bytes([byte ^ 1]))
    assert "KERNEL" in read_boot_state(minimal, ["disk"]).reason


def test_a_disk_that_was_cut_short_does_not_boot(minimal: DiskStore) -> None:
    minimal.create("short", 2 * MIB)
    for offset in range(0, MIB + 128 * KIB, 64 * KIB):
        minimal.write("short", offset, minimal.read("disk", offset, 64 * KIB))
    assert not boots(minimal, "short")


def test_an_empty_disk_is_passed_over_and_a_machine_without_disks_does_not_boot(minimal: DiskStore) -> None:
    minimal.create("empty", MIB)
    minimal.create("smallest", 512)
    assert boots(minimal, "empty", "smallest", "disk", "no such disk")
    assert not boots(minimal, "empty", "smallest") and not boots(minimal)


def test_a_system_over_two_disks_needs_both_whole(minimal: DiskStore) -> None:
    kernel, volume = new_boot_file(GENERATOR), new_boot_file(GENERATOR, length_bytes=8 * KIB)
    minimal.create("data", 4 * MIB)
    minimal.write("data", MIB, volume)
    install_boot_member(minimal, "data", member_id="volume-2", files={"segment": volume})
    minimal.write("disk", 2 * MIB, kernel)
    install_boot(
        minimal,
        "disk",
        partition_bytes=MIB,
        filesystem="vfat",
        files={"kernel": kernel},
        system=SYSTEM,
        needs=("volume-2",),
    )
    assert read_boot_state(minimal, ["disk", "data"]).system == SYSTEM
    assert boots(minimal, "data", "disk")
    assert not boots(minimal, "disk")
    minimal.write("data", MIB + 4 * KIB, bytes(512))
    assert not boots(minimal, "disk", "data")


def test_a_file_in_pieces_is_found_and_one_that_is_absent_is_an_error(minimal: DiskStore) -> None:
    content = new_boot_file(GENERATOR, length_bytes=16 * KIB)
    minimal.write("disk", 3 * MIB, content[: 8 * KIB])
    minimal.write("disk", 2 * MIB + 512, content[8 * KIB :])
    install_boot(minimal, "disk", partition_bytes=MIB, filesystem="vfat", files={"kernel": content}, system=SYSTEM)
    record = read_boot_record(minimal, "disk")
    assert record is not None
    assert [extent.offset_bytes for extent in record.files[0].extents] == [3 * MIB, 2 * MIB + 512]
    with pytest.raises(BootFileNotFound):
        install_boot(
            minimal,
            "disk",
            partition_bytes=MIB,
            filesystem="vfat",
            files={"kernel": new_boot_file(GENERATOR)},
            system=SYSTEM,
        )


def test_a_partition_elsewhere_or_another_file_system_is_refused(minimal: DiskStore) -> None:
    record = read_boot_record(minimal, "disk")
    assert record is not None
    files = {file.path: file.extents for file in record.files}
    install_boot(minimal, "disk", partition_bytes=2 * MIB, filesystem="vfat", files=files, system=SYSTEM)
    assert "no partition" in read_boot_state(minimal, ["disk"]).reason
    install_boot(minimal, "disk", partition_bytes=MIB, filesystem="xfs", files=files, system=SYSTEM)
    assert "no xfs" in read_boot_state(minimal, ["disk"]).reason


def test_superblocks_without_a_true_checksum_are_not_believed() -> None:
    # Smallest true superblocks, made from the layouts; the checksums are those of the reference implementations.
    ext4 = bytearray(2048)
    struct.pack_into("<H", ext4, 1024 + 0x38, 0xEF53)
    assert has_filesystem(reader(ext4), "ext4", base_bytes=0)
    struct.pack_into("<I", ext4, 1024 + 0x64, 0x400)
    assert not has_filesystem(reader(ext4), "ext4", base_bytes=0)
    xfs = bytearray(512)
    xfs[:4] = b"XFSB"
    struct.pack_into(">HH", xfs, 100, 5, 512)
    assert not has_filesystem(reader(xfs), "xfs", base_bytes=0)
    struct.pack_into(">H", xfs, 100, 4)
    assert has_filesystem(reader(xfs), "xfs", base_bytes=0)
    btrfs = bytearray(68 * KIB)
    btrfs[64 * KIB + 0x40 : 64 * KIB + 0x48] = b"_BHRfS_M"
    assert not has_filesystem(reader(btrfs), "btrfs", base_bytes=0)
    ntfs = bytearray(512)
    ntfs[3:11], ntfs[-2:] = b"NTFS    ", b"\x55\xaa"
    assert has_filesystem(reader(ntfs), "ntfs", base_bytes=0)
    assert not has_filesystem(reader(ntfs), "vfat", base_bytes=0)


def reader(image: bytearray) -> Callable[[int, int], bytes]:
    return lambda offset, length: bytes(image[offset : offset + length])
