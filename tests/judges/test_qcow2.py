"""qemu-img reads our qcow2 to the same disk, and we read every kind of its own."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from holdfast.formats.qcow2 import QCOW2_CLUSTER_BYTES, Qcow2Reader, plan_qcow2, stream_qcow2

pytestmark = pytest.mark.judge

SIZE = 10 * (1 << 20) + 512
CLUSTERS = [0, 5, 6, 7, 40, 160]


@pytest.fixture
def qemu_img() -> str:
    found = shutil.which("qemu-img")
    if found is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    return found


@pytest.fixture
def disk() -> bytes:
    chance, content = random.Random(3), bytearray(SIZE)
    for cluster in CLUSTERS:
        start = cluster * QCOW2_CLUSTER_BYTES
        length_bytes = min(QCOW2_CLUSTER_BYTES, SIZE - start)
        content[start : start + length_bytes] = chance.randbytes(length_bytes)
    return bytes(content)


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_qemu_finds_no_fault_in_our_stream_and_reads_the_same_disk(qemu_img: str, disk: bytes, tmp_path: Path) -> None:
    def fill(offset_bytes: int, view: memoryview) -> None:
        view[:] = disk[offset_bytes : offset_bytes + len(view)]

    plan = plan_qcow2(SIZE, np.array(CLUSTERS, dtype=np.int64))
    (tmp_path / "ours.qcow2").write_bytes(b"".join(bytes(piece) for piece in stream_qcow2(plan, fill)))
    assert "No errors were found" in run(qemu_img, "check", str(tmp_path / "ours.qcow2"))
    run(qemu_img, "convert", "-O", "raw", str(tmp_path / "ours.qcow2"), str(tmp_path / "read.raw"))
    assert (tmp_path / "read.raw").read_bytes() == disk


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-c"],
        ["-c", "-o", "compression_type=zstd"],
        ["-o", "compat=0.10"],
        ["-o", "cluster_size=512"],
        ["-c", "-o", "cluster_size=4096"],
        ["-c", "-o", "cluster_size=2M"],
        ["-o", "lazy_refcounts=on"],
        ["-S", "0"],
    ],
    ids=" ".join,
)
def test_we_read_what_qemu_writes(qemu_img: str, disk: bytes, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "disk.raw").write_bytes(disk)
    theirs = tmp_path / "theirs.qcow2"
    run(qemu_img, "convert", "-f", "raw", "-O", "qcow2", *options, str(tmp_path / "disk.raw"), str(theirs))
    with theirs.open("rb") as file:
        reader = Qcow2Reader(file)
        assert reader.header.size_bytes == SIZE
        assert reader.length_bytes() <= theirs.stat().st_size
        content = bytearray(SIZE)
        for cluster in reader.clusters():
            content[cluster.offset_bytes : cluster.offset_bytes + cluster.length_bytes] = reader.read(cluster)
    assert bytes(content) == disk
