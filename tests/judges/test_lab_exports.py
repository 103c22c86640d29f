"""libvhdi, qemu-img and tar on what the lab exports: the same disk as the lab's own, whole and as a difference."""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pyvhdi
import xxhash

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import get_raw, new_disk

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="starts a lab and programs that read its disks")]

MIB = 1 << 20
SIZE = 20 * MIB
BEFORE = {0: MIB, 4 * MIB: 3 * MIB, 19 * MIB: MIB}
"""Where the older snapshot holds noise, and how much."""
AFTER = {5 * MIB + 100: 7, 10 * MIB: 2 * MIB}
"""What was written on top for the newer one."""


@dataclass(frozen=True)
class Disks:
    """A lab with two snapshots of one disk."""

    lab: RunningLab
    session: Any
    older: str
    newer: str

    def content(self, disk: str) -> bytes:
        name = self.session.xenapi.VDI.get_uuid(disk)
        return self.lab.pool.disks.read(name, 0, SIZE)

    def export(self, disk: str, path: Path, **query: str) -> Path:
        path.write_bytes(get_raw(self.lab, self.session, disk, **query).body)
        return path


@pytest.fixture(scope="module")
def disks() -> Iterator[Disks]:
    with tiny_lab() as lab, logged_in(lab) as session:
        api, chance = session.xenapi, random.Random(11)
        disk = new_disk(api, SIZE)
        name = api.VDI.get_uuid(disk)
        snapshots = []
        for writes in (BEFORE, AFTER):
            for offset, length in writes.items():
                lab.pool.disks.write(name, offset, chance.randbytes(length))
            snapshots.append(api.VDI.snapshot(disk))
        yield Disks(lab, session, *snapshots)


@pytest.fixture
def qemu_img() -> str:
    found = shutil.which("qemu-img")
    if found is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    return found


def convert(qemu_img: str, source: str, path: Path) -> bytes:
    raw = path.with_suffix(".raw")
    command = [qemu_img, "convert", "--image-opts", source, "-O", "raw", str(raw)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return raw.read_bytes()


def libvhdi_reads(path: Path, *, parent: Path | None = None) -> bytes:
    file = pyvhdi.file()
    file.open(str(path))
    try:
        if parent is None:
            return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
        base = pyvhdi.file()
        base.open(str(parent))
        try:
            file.set_parent(base)
            return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
        finally:
            base.close()
    finally:
        file.close()


def linked_to(child: Path, parent: Path) -> Path:
    """Return the difference with its parent's identity as that stands in the other file: a pool names the file on its
    own storage, so whoever receives a chain links it himself."""
    data = bytearray(child.read_bytes())
    data[512 + 40 : 512 + 56] = parent.read_bytes()[68:84]
    data[512 + 36 : 512 + 40] = bytes(4)
    data[512 + 36 : 512 + 40] = struct.pack(">I", ~sum(data[512:1536]) & 0xFFFFFFFF)
    linked = child.with_name("linked.vhd")
    linked.write_bytes(data)
    return linked


def length_of(blocks: int) -> int:
    entries = SIZE // (2 * MIB)
    return 2048 + -(-4 * entries // 512) * 512 + blocks * (512 + 2 * MIB) + 512


def test_libvhdi_reads_full_exports_to_the_same_disk(disks: Disks, tmp_path: Path) -> None:
    for disk, blocks in ((disks.older, 4), (disks.newer, 5)):
        path = disks.export(disk, tmp_path / "full.vhd", format="vhd")
        assert path.stat().st_size == length_of(blocks)
        assert libvhdi_reads(path) == disks.content(disk)


def test_libvhdi_reads_the_difference_over_the_full_export(disks: Disks, tmp_path: Path) -> None:
    base = disks.export(disks.older, tmp_path / "base.vhd", format="vhd")
    child = disks.export(disks.newer, tmp_path / "child.vhd", format="vhd", base=disks.older)
    assert child.stat().st_size == length_of(2)
    assert libvhdi_reads(linked_to(child, base), parent=base) == disks.content(disks.newer)


def test_qemu_reads_a_full_export_when_told_to_believe_its_size(disks: Disks, tmp_path: Path, qemu_img: str) -> None:
    path = disks.export(disks.newer, tmp_path / "full.vhd", format="vhd")
    source = f"driver=vpc,force_size_calc=current_size,file.filename={path}"
    assert convert(qemu_img, source, path) == disks.content(disks.newer)


def test_qemu_reads_the_qcow2_and_finds_no_fault(disks: Disks, tmp_path: Path, qemu_img: str) -> None:
    path = disks.export(disks.newer, tmp_path / "full.qcow2", format="qcow2")
    done = subprocess.run([qemu_img, "check", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert "No errors were found" in done.stdout, done.stderr
    assert convert(qemu_img, f"driver=qcow2,file.filename={path}", path) == disks.content(disks.newer)


def test_qemu_lays_the_qcow2_difference_over_the_older_disk(disks: Disks, tmp_path: Path, qemu_img: str) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(disks.content(disks.older))
    path = disks.export(disks.newer, tmp_path / "difference.qcow2", format="qcow2", base=disks.older)
    command = [qemu_img, "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", str(base), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert convert(qemu_img, f"driver=qcow2,file.filename={path}", path) == disks.content(disks.newer)


def test_python_reads_the_tar_and_every_checksum_is_right(disks: Disks, tmp_path: Path) -> None:
    path = disks.export(disks.newer, tmp_path / "disk.tar", format="tar")
    content = bytearray(SIZE)
    with tarfile.open(path) as archive:
        for name in archive.getnames():
            stream = archive.extractfile(name)
            assert stream is not None
            data = stream.read()
            if name.endswith(".xxhash"):
                block = archive.extractfile(name.removesuffix(".xxhash"))
                assert block is not None
                assert data.decode() == xxhash.xxh64_hexdigest(block.read()).upper()
            else:
                offset = int(name.removeprefix("vdi/")) * MIB
                content[offset : offset + len(data)] = data
    assert hashlib.sha256(content).digest() == hashlib.sha256(disks.content(disks.newer)).digest()
