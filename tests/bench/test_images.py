"""The inputs of the benchmarks are what their description says, and can be made again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from bench.database import PAGE_BYTES, plan_page_writes, spoil_page, write_database
from bench.gpt import PARTITION_OFFSET_BYTES, partition_bytes, write_table
from bench.images import Recipe, ToolMissing, prepare_images
from bench.memory import prepare_wide_image

from holdfast.core import BLOCK_BYTES, MIB

TINY = Recipe(
    disk_bytes=48 * MIB, files_bytes=6 * MIB, database_bytes=12 * MIB, random_bytes=4 * MIB, upgraded_bytes=MIB
)


@pytest.mark.slow(reason="writes a database of 12 MiB")
def test_the_database_is_one_and_has_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    live_bytes = write_database(path, size_bytes=12 * MIB)
    assert path.stat().st_size == 12 * MIB
    assert 0.85 * 12 * MIB <= live_bytes <= 12 * MIB
    content = path.read_bytes()
    assert content.startswith(b"SQLite format 3\0")
    assert struct.unpack(">H", content[16:18])[0] == PAGE_BYTES
    path.write_bytes(content[:live_bytes])
    if live_bytes < 12 * MIB:
        assert content[live_bytes:].count(0) == 12 * MIB - live_bytes
        connection = sqlite3.connect(path)
        assert connection.execute("pragma quick_check").fetchone() == ("ok",)
        connection.close()


def test_page_writes_are_the_share_asked_for_and_lie_inside() -> None:
    writes = plan_page_writes(live_bytes=100 * MIB, share=0.005)
    assert len(writes) == 64
    assert {write.length_bytes for write in writes} == {4096, 8192, 16384}
    for write in writes:
        assert write.offset_bytes % write.length_bytes == 0
        assert write.offset_bytes + write.length_bytes <= 100 * MIB
        assert write.other_offset_bytes + write.length_bytes <= 100 * MIB
    assert writes == plan_page_writes(live_bytes=100 * MIB, share=0.005)


def test_an_updated_page_keeps_about_half_of_its_sectors() -> None:
    page, other = b"a" * 16384, b"b" * 16384
    changed = spoil_page(page, other, seed=5)
    kept = sum(changed[n : n + 512] == page[:512] for n in range(0, 16384, 512))
    assert 8 <= kept <= 24
    assert changed == spoil_page(page, other, seed=5)


def test_both_copies_of_the_partition_table_check_out(tmp_path: Path) -> None:
    disk_bytes = 8 * MIB
    path = tmp_path / "disk.raw"
    with path.open("w+b") as file:
        file.truncate(disk_bytes)
        write_table(file, disk_bytes=disk_bytes)
    content = path.read_bytes()
    assert len(content) == disk_bytes
    assert content[510:512] == b"\x55\xaa"
    for sector, other in [(1, disk_bytes // 512 - 1), (disk_bytes // 512 - 1, 1)]:
        header = content[sector * 512 : sector * 512 + 92]
        assert header[:8] == b"EFI PART"
        assert struct.unpack_from("<QQ", header, 24) == (sector, other)
        checksum = struct.unpack_from("<I", header, 16)[0]
        assert checksum == zlib.crc32(header[:16] + bytes(4) + header[20:])
        entries_at, count, entry_bytes, entries_checksum = struct.unpack_from("<QIII", header, 72)
        entries = content[entries_at * 512 : entries_at * 512 + count * entry_bytes]
        assert zlib.crc32(entries) == entries_checksum
        first, last = struct.unpack_from("<QQ", entries, 32)
        assert first * 512 == PARTITION_OFFSET_BYTES
        assert (last - first + 1) * 512 == partition_bytes(disk_bytes)


@pytest.mark.slow(reason="makes a file system")
def test_the_change_list_names_every_changed_block_and_no_other(tmp_path: Path) -> None:
    try:
        images = prepare_images(tmp_path, recipe=TINY)
    except ToolMissing as missing:
        pytest.skip(f"NOT PROVEN HERE: {missing}")
    pairs = [(images.base, images.upgrade), (images.upgrade.disk, images.database), (images.base, images.clone)]
    blocks = range(0, TINY.disk_bytes, BLOCK_BYTES)
    for before, mutation in pairs:
        base, changed = before.read_bytes(), mutation.disk.read_bytes()
        assert len(base) == len(changed) == TINY.disk_bytes
        differing = {n for n in blocks if base[n : n + BLOCK_BYTES] != changed[n : n + BLOCK_BYTES]}
        named = [
            n
            for offset, length in json.loads(mutation.changes.read_text())
            for n in range(offset, offset + length, BLOCK_BYTES)
        ]
        assert differing
        assert named == sorted(differing)
        assert mutation.changed_bytes == len(named) * BLOCK_BYTES
    base = images.base.read_bytes()
    assert images.nonzero_bytes == sum(any(base[n : n + BLOCK_BYTES]) for n in blocks) * BLOCK_BYTES
    assert "zero" in images.explain()


@pytest.mark.slow(reason="makes a file system")
def test_every_image_holds_a_sound_file_system(tmp_path: Path) -> None:
    if shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("NOT PROVEN HERE: e2fsck is not installed")
    images = prepare_images(tmp_path, recipe=TINY)
    partition = tmp_path / "partition"
    contents = set()
    for disk in (images.base, images.upgrade.disk, images.database.disk, images.clone.disk, images.reinstalled):
        partition.write_bytes(disk.read_bytes()[PARTITION_OFFSET_BYTES:][: partition_bytes(TINY.disk_bytes)])
        subprocess.run(
            ["e2fsck", "-fn", str(partition)], check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin"}
        )
        contents.add(partition.read_bytes())
    assert len(contents) == 5


@pytest.mark.slow(reason="makes a file system")
def test_images_are_made_once_per_recipe(tmp_path: Path) -> None:
    if shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("NOT PROVEN HERE: mke2fs is not installed")
    first = prepare_images(tmp_path, recipe=TINY)
    made_at = first.base.stat().st_mtime_ns
    assert prepare_images(tmp_path, recipe=TINY) == first
    assert first.base.stat().st_mtime_ns == made_at
    (tmp_path / "images.json").write_text(json.dumps({"recipe": {}}))
    prepare_images(tmp_path, recipe=TINY)
    assert first.base.stat().st_mtime_ns != made_at


def test_the_wide_image_holds_the_same_data_and_takes_the_same_space(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"a" * MIB + bytes(2 * MIB) + b"b" * MIB)
    wide = prepare_wide_image(base, tmp_path)
    assert wide.stat().st_size == 16 * 4 * MIB
    assert wide.stat().st_blocks * 512 < 3 * MIB
    with wide.open("rb") as file:
        assert file.read(MIB + 1) == b"a" * MIB + b"\0"
        file.seek(3 * 16 * MIB)
        assert file.read(MIB + 1) == b"b" * MIB + b"\0"
    assert prepare_wide_image(base, tmp_path) == wide
