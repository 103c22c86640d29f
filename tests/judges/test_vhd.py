"""Programs that are not ours read our VHDs to the same disk, and we read theirs."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvhdi

from holdfast.core import SeededEntropy
from holdfast.formats.vhd import (
    VhdFile,
    VhdParent,
    VhdStreamReader,
    VhdStyle,
    allocated_vhd_blocks,
    new_vhd_uuid,
    open_chain,
    plan_vhd,
    stream_vhd,
    write_vhd_file,
)
from tests.support.vhd import MemoryDisk, pattern

pytestmark = pytest.mark.judge

MIB = 1 << 20
NOW = datetime.datetime(2026, 11, 20, 9, 8, 20, tzinfo=datetime.UTC)
SIZES = [8 * MIB, 5 * MIB + 512, 200 * 1024 + 512]


@pytest.fixture
def qemu_img() -> str:
    found = shutil.which("qemu-img")
    if found is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    return found


def disk_of(size_bytes: int, *, seed: int = 1) -> MemoryDisk:
    """Return a disk whose second 2 MiB block is a hole, where it has one, and whose last bytes are data."""
    content = bytearray(pattern(size_bytes, seed=seed))
    hole = slice(2 * MIB, min(4 * MIB, max(size_bytes - 512, 2 * MIB)))
    content[hole] = bytes(hole.stop - hole.start)
    return MemoryDisk(bytes(content))


def libvhdi_reads(path: Path, *, parent: Path | None = None) -> bytes:
    """Return the disk that libvhdi sees."""
    file = pyvhdi.file()
    file.open(str(path))
    try:
        if parent is None:
            return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
        base = pyvhdi.file()
        base.open(str(parent))
        try:
            assert file.get_parent_identifier() == base.get_identifier()
            assert file.get_parent_filename() == parent.name
            file.set_parent(base)
            return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
        finally:
            base.close()
    finally:
        file.close()


def convert(qemu_img: str, path: Path, *, options: str = "") -> bytes:
    """Return the disk that qemu sees."""
    raw = path.with_suffix(".raw")
    source = f"driver=vpc,{options}file.filename={path}"
    subprocess.run([qemu_img, "convert", "--image-opts", source, "-O", "raw", str(raw)], check=True, timeout=60)
    return raw.read_bytes()


def pools_stream(disk: MemoryDisk) -> Iterator[bytes | memoryview]:
    """Return the disk as a pool would export it."""
    blocks = allocated_vhd_blocks(disk.data_extents(), size_bytes=disk.size_bytes)
    identity = new_vhd_uuid(SeededEntropy(2))
    return stream_vhd(plan_vhd(disk.size_bytes, blocks, uuid=identity, created_at=NOW, style=VhdStyle.POOL), disk)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_libvhdi_reads_our_file_to_the_same_disk(size_bytes: int, tmp_path: Path) -> None:
    disk = disk_of(size_bytes)
    path = tmp_path / "disk.vhd"
    write_vhd_file(path, disk, entropy=SeededEntropy(1), created_at=NOW)
    assert libvhdi_reads(path) == disk.content


@pytest.mark.parametrize("size_bytes", SIZES)
def test_libvhdi_reads_our_difference_over_our_base(size_bytes: int, tmp_path: Path) -> None:
    before, after = disk_of(size_bytes), bytearray(disk_of(size_bytes).content)
    after[-512:] = pattern(512, seed=9)
    base, child = tmp_path / "base.vhd", tmp_path / "child.vhd"
    plan = write_vhd_file(base, before, entropy=SeededEntropy(1), created_at=NOW)
    changed = np.array([(size_bytes - 1) // (2 * MIB)], dtype=np.int64)
    parent = VhdParent(uuid=plan.uuid, name=base.name, created_at=NOW)
    difference = plan_vhd(size_bytes, changed, uuid=uuid.UUID(int=7), created_at=NOW, parent=parent)
    child.write_bytes(b"".join(bytes(piece) for piece in stream_vhd(difference, MemoryDisk(bytes(after)))))
    assert libvhdi_reads(child, parent=base) == bytes(after)
    with open_chain([child, base]) as chain:
        assert chain.read(0, size_bytes) == bytes(after)


def test_libvhdi_reads_what_the_lab_streams_as_a_pool(tmp_path: Path) -> None:
    disk = disk_of(8 * MIB)
    path = tmp_path / "export.vhd"
    path.write_bytes(b"".join(bytes(piece) for piece in pools_stream(disk)))
    assert libvhdi_reads(path) == disk.content


@pytest.mark.slow(reason="starts qemu-img twice")
@pytest.mark.parametrize("size_bytes", SIZES)
def test_qemu_reads_our_file_to_the_same_disk_without_being_told_how(
    size_bytes: int, tmp_path: Path, qemu_img: str
) -> None:
    disk = disk_of(size_bytes)
    path = tmp_path / "disk.vhd"
    write_vhd_file(path, disk, entropy=SeededEntropy(1), created_at=NOW)
    info = subprocess.run(
        [qemu_img, "info", "--output=json", "-f", "vpc", str(path)], check=True, capture_output=True, timeout=60
    )
    assert json.loads(info.stdout)["virtual-size"] == size_bytes
    assert convert(qemu_img, path) == disk.content


@pytest.mark.slow(reason="starts qemu-img")
def test_qemu_reads_what_the_lab_streams_as_a_pool(tmp_path: Path, qemu_img: str) -> None:
    disk = disk_of(8 * MIB)
    path = tmp_path / "export.vhd"
    path.write_bytes(b"".join(bytes(piece) for piece in pools_stream(disk)))
    # A pool's geometry denotes less than its disk; qemu has to be told to believe the size.
    assert convert(qemu_img, path, options="force_size_calc=current_size,") == disk.content


@pytest.mark.slow(reason="starts qemu-img")
@pytest.mark.parametrize("size_bytes", SIZES)
def test_we_read_qemus_file_to_the_same_disk(size_bytes: int, tmp_path: Path, qemu_img: str) -> None:
    disk = disk_of(size_bytes)
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.vhd"
    raw.write_bytes(disk.content)
    options = "subformat=dynamic,force_size=on"
    subprocess.run(
        [qemu_img, "convert", "-f", "raw", "-O", "vpc", "-o", options, str(raw), str(path)], check=True, timeout=60
    )
    with VhdFile(path) as opened:
        assert opened.read(0, opened.size_bytes) == disk.content
        assert all(extent.length_bytes for extent in opened.data_extents())
    with path.open("rb") as file:
        found = bytearray(size_bytes)
        for block in VhdStreamReader(file).blocks():
            found[block.offset_bytes : block.offset_bytes + len(block.data)] = block.data
    assert bytes(found) == disk.content
