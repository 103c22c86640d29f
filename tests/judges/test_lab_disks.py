"""Each file system's own tools on the disks of the lab's worlds: fresh, after guests worked, and as a volume group."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import GIB, MIB, SeededEntropy
from holdfast.lab import RunningLab
from holdfast.lab.disks import DiskStore
from holdfast.lab.guests import Guest
from holdfast.lab.images import (
    GuestSystem,
    PreparedDiskSpec,
    VolumeGroupSpec,
    check_filesystem,
    fill_disk,
    fill_volume_group,
    materialise,
    open_volume,
)
from holdfast.lab.images.lvm import EXTENT_BYTES, PHYSICAL_DATA_BYTES
from holdfast.model import Extent
from tests.support.lab import tiny_lab

pytestmark = pytest.mark.judge

PACKAGES = {
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "btrfs": "btrfs-progs",
    "ntfsfix": "ntfs-3g",
    "ntfscat": "ntfs-3g",
    "fsck.vfat": "dosfstools",
    "pvck": "lvm2",
    "swaplabel": "util-linux",
}
FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
SYSTEM = GuestSystem(name="Judged 1", distro="judged", major="1")


def tool(name: str) -> str:
    found = shutil.which(name, path=FOLDERS)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: {PACKAGES[name]}): disks of the lab are not judged by it here")
    return found


def run(*arguments: str, cwd: Path | None = None) -> str:
    told = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def office() -> Iterator[RunningLab]:
    with tiny_lab(scenario="office") as lab:
        yield lab


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    with DiskStore(tmp_path / "disks", entropy=SeededEntropy(1)) as store:
        yield store


def make(store: DiskStore, filesystem: str, **changes: object) -> None:
    store.create("disk", 10 * GIB)
    fields = {"hostname": "judged", "system": SYSTEM, **changes}
    spec = PreparedDiskSpec(filesystem=filesystem, **fields)  # type: ignore[arg-type]
    fill_disk(store, "disk", spec, entropy=SeededEntropy(1))


def partition(store: DiskStore, folder: Path) -> Path:
    """Return a file with nothing but the disk's file system."""
    base_bytes = open_volume(store, "disk").base_bytes
    assert base_bytes is not None
    part = Extent(offset_bytes=base_bytes, length_bytes=8 * GIB - 8 * MIB)
    materialise(store, "disk", folder / "partition", part=part)
    return folder / "partition"


def content(store: DiskStore, path: str) -> bytes:
    volume = open_volume(store, "disk")
    return volume.read(volume.files[path], 0, volume.files[path].size_bytes)


def test_every_disk_of_the_office_is_clean_to_its_file_systems_own_checker(office: RunningLab) -> None:
    for name in ("e2fsck", "xfs_repair", "btrfs", "ntfsfix", "fsck.vfat"):
        tool(name)
    judged = []
    for row in office.pool.db.rows("VDI"):
        name, disk = str(row.fields["name_label"]), str(row.fields["uuid"])
        if not row.fields["managed"] or not name.endswith((" system", " shares", " documents")):
            continue
        report = check_filesystem(office.pool.disks, disk)
        assert report.clean is True, (name, report.detail)
        judged.append(report.detail)
    assert len(judged) >= 22
    assert all(any(word in detail for detail in judged) for word in ("e2fsck", "xfs_repair", "btrfs", "ntfsfix"))


@pytest.mark.parametrize("filesystem", ["btrfs-server", "ext4-server", "ntfs-windows", "xfs-server"])
def test_a_disk_is_clean_after_its_guest_worked(store: DiskStore, filesystem: str) -> None:
    for name in ("e2fsck", "xfs_repair", "btrfs", "ntfsfix", "fsck.vfat"):
        tool(name)
    make(store, filesystem, has_esp=True)
    guest = Guest(store, "disk", entropy=SeededEntropy(2))
    for _ in range(3):
        guest.change_files(8, MIB)
        guest.write_database_pages(0.05)
        guest.append_log(100_000)
    report = check_filesystem(store, "disk")
    assert report.clean is True, report.detail


def test_ntfs_tools_read_the_files_from_where_the_lab_says_they_are(store: DiskStore, tmp_path: Path) -> None:
    cat = tool("ntfscat")
    make(store, "ntfs-windows", table="mbr")
    image = partition(store, tmp_path)
    for path in ("Windows/System32/winload.efi", "Users/Public/Documents/media-0003.bin"):
        told = subprocess.run([cat, "-f", str(image), path], capture_output=True, timeout=60, check=True)
        assert told.stdout == content(store, path)


def test_btrfs_tools_read_the_files_from_where_the_lab_says_they_are(store: DiskStore, tmp_path: Path) -> None:
    make(store, "btrfs-server")
    image = partition(store, tmp_path)
    (tmp_path / "out").mkdir()
    run(tool("btrfs"), "restore", str(image), str(tmp_path / "out"))
    for path in ("boot/vmlinuz", "etc/hostname", "srv/data/media-0002.bin"):
        assert (tmp_path / "out" / path).read_bytes() == content(store, path)


def test_e2fsprogs_read_the_files_from_where_the_lab_says_they_are(store: DiskStore, tmp_path: Path) -> None:
    make(store, "ext4-server", table="mbr")
    image = partition(store, tmp_path)
    run(tool("debugfs"), "-R", f"dump /boot/vmlinuz {tmp_path / 'out'}", str(image))
    assert (tmp_path / "out").read_bytes() == content(store, "boot/vmlinuz")


def test_swap_space_is_recognised(store: DiskStore, tmp_path: Path) -> None:
    make(store, "xfs-server", swap_bytes=256 * MIB)
    materialise(store, "disk", tmp_path / "swap", part=Extent(offset_bytes=8185 * MIB, length_bytes=256 * MIB))
    assert "swap" in run(tool("swaplabel"), str(tmp_path / "swap"))


def test_a_volume_group_is_accepted_and_its_file_system_is_clean(store: DiskStore, tmp_path: Path) -> None:
    pvck, repair = tool("pvck"), tool("xfs_repair")
    disks = ["one", "two"]
    for disk in disks:
        store.create(disk, 4 * GIB)
    spec = VolumeGroupSpec(name="vg_judged", volume="data", filesystem="xfs-data")
    fill_volume_group(store, disks, spec, entropy=SeededEntropy(1))
    for disk in disks:
        Guest(store, disk, entropy=SeededEntropy(2)).change_files(6, MIB)
        part = Extent(offset_bytes=MIB, length_bytes=4 * GIB - 2 * MIB)
        materialise(store, disk, tmp_path / disk, part=part)
        assert "CHECK" not in run(pvck, "--dump", "headers", str(tmp_path / disk))
        assert "vgname vg_judged" in run(pvck, "--dump", "metadata", str(tmp_path / disk))
    run(repair, "-n", "-f", str(assembled(store, disks, tmp_path / "volume")))


def assembled(store: DiskStore, disks: list[str], path: Path) -> Path:
    """Return a file with the logical volume, put together as its description says."""
    each_bytes = 1023 * EXTENT_BYTES
    with path.open("wb") as file:
        file.truncate(len(disks) * each_bytes)
        for number, disk in enumerate(disks):
            start_bytes = MIB + PHYSICAL_DATA_BYTES
            for extent in store.data_extents(disk, offset_bytes=start_bytes, length_bytes=each_bytes):
                file.seek(number * each_bytes + extent.offset_bytes - start_bytes)
                file.write(store.read(disk, extent.offset_bytes, extent.length_bytes))
    return path
