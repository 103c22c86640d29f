"""A VHD is planned to the byte, streamed as planned, and appears as a file whole or not at all."""

from __future__ import annotations

import datetime
import io
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from holdfast.core import SeededEntropy, limits
from holdfast.formats.vhd import (
    VHD_BLOCK_BYTES,
    VHD_EPOCH,
    DiskType,
    VhdDiskTooLarge,
    VhdFile,
    VhdParent,
    VhdPlan,
    VhdStreamReader,
    VhdStyle,
    new_vhd_uuid,
    plan_vhd,
    read_vhd_head,
    stream_vhd,
    write_vhd_file,
)
from holdfast.model import DataRun
from tests.support.vhd import KIB64, MemoryDisk, pattern

NOW = datetime.datetime(2026, 11, 20, 9, 8, 20, tzinfo=datetime.UTC)
IDENTITY = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
PARENT = VhdParent(uuid=uuid.UUID(int=5), name="base disk.vhd", created_at=VHD_EPOCH + datetime.timedelta(seconds=9))


def planned(size_bytes: int, blocks: list[int], *, parent: VhdParent | None = None) -> VhdPlan:
    return plan_vhd(size_bytes, np.array(blocks, dtype=np.int64), uuid=IDENTITY, created_at=NOW, parent=parent)


def streamed(plan: VhdPlan, disk: MemoryDisk) -> bytes:
    return b"".join(bytes(piece) for piece in stream_vhd(plan, disk))


@pytest.mark.parametrize(
    ("size_bytes", "blocks", "length_bytes"),
    [
        (8 << 20, [1, 3], 4_198_400),
        (8 << 20, [], 3072),
        (1 << 40, [0], 2048 + 4 * 524_288 + 512 + VHD_BLOCK_BYTES + 512),
        (limits.VHD_DISK_BYTES_MAX, [], 2048 + 4 * 1_044_480 + 512),
        (512, [0], 2048 + 512 + 512 + VHD_BLOCK_BYTES + 512),
    ],
)
def test_the_length_is_known_beforehand(size_bytes: int, blocks: list[int], length_bytes: int) -> None:
    assert planned(size_bytes, blocks).length_bytes == length_bytes


def test_the_head_says_who_made_it_when_and_for_which_disk() -> None:
    footer = read_vhd_head(io.BytesIO(planned((10 << 20) + 512, [5]).head)).footer
    assert footer.creator == b"hldf"
    assert footer.created_at == NOW
    assert footer.uuid == IDENTITY
    assert footer.size_bytes == footer.original_size_bytes == (10 << 20) + 512
    assert footer.disk_type is DiskType.DYNAMIC


def test_a_time_before_the_formats_epoch_becomes_its_first_second() -> None:
    early = datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)
    plan = plan_vhd(512, np.array([], dtype=np.int64), uuid=IDENTITY, created_at=early)
    assert read_vhd_head(io.BytesIO(plan.head)).footer.created_at == VHD_EPOCH


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        # 8 MiB as a real pool exports it; the others follow the specification's appendix by hand.
        (16_384, (0xF0, 4, 0x11)),
        (1, (0, 4, 17)),
        (17 * 4 * 1024, (140, 16, 31)),
        (17 * 16 * 1023, (1023, 16, 17)),
        (31 * 16 * 1023, (1023, 16, 31)),
        (31 * 16 * 1024, (503, 16, 63)),
        (65535 * 16 * 63 - 1, (65534, 16, 63)),
        (65535 * 16 * 63, (16191, 16, 255)),
        (limits.VHD_DISK_BYTES_MAX // 512, (65535, 16, 255)),
    ],
)
def test_a_pools_geometry_follows_the_specification(sectors: int, geometry: tuple[int, int, int]) -> None:
    blocks = np.array([], dtype=np.int64)
    plan = plan_vhd(sectors * 512, blocks, uuid=IDENTITY, created_at=NOW, style=VhdStyle.POOL)
    assert struct.unpack_from(">HBB", plan.footer, 56) == geometry


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [(16_384, (65535, 16, 255)), (17 * 4 * 100, (100, 4, 17)), (17 * 4 * 100 + 1, (65535, 16, 255))],
)
def test_our_geometry_denotes_the_whole_disk_or_points_at_the_size(
    sectors: int, geometry: tuple[int, int, int]
) -> None:
    assert struct.unpack_from(">HBB", planned(sectors * 512, []).footer, 56) == geometry


def test_a_disk_that_a_pool_cannot_hold_as_vhd_is_refused() -> None:
    with pytest.raises(VhdDiskTooLarge, match="2190433321472 bytes") as caught:
        planned(limits.VHD_DISK_BYTES_MAX + 512, [])
    assert "NBD" in caught.value.next_step()


@pytest.mark.parametrize("blocks", [[-1], [4], [1, 1], [2, 1]])
def test_blocks_that_are_no_plan_are_our_own_mistake(blocks: list[int]) -> None:
    with pytest.raises(AssertionError):
        planned(8 << 20, blocks)


def test_the_parents_name_is_stored_where_readers_look() -> None:
    plan = planned(8 << 20, [], parent=PARENT)
    header = read_vhd_head(io.BytesIO(plan.head)).header
    assert (header.parent_uuid, header.parent_name) == (PARENT.uuid, "base disk.vhd")
    assert header.parent_created_at == PARENT.created_at
    code, space, length, reserved, offset = struct.unpack_from(">4sIIIQ", plan.head, 512 + 576)
    assert (code, space, reserved) == (b"MacX", 512, 0)
    assert plan.head[offset : offset + length] == b"file://./base%20disk.vhd"
    assert plan.is_difference


@pytest.mark.parametrize(
    ("name", "url"),
    [("/srv/a.vhd", b"file:///srv/a.vhd"), ("./a.vhd", b"file://./a.vhd"), ("../ä.vhd", b"file://../%C3%A4.vhd")],
)
def test_a_path_keeps_its_form_in_the_locator(name: str, url: bytes) -> None:
    assert VhdParent(uuid=IDENTITY, name=name, created_at=NOW).url == url


def test_a_parents_name_too_long_for_its_fields_is_refused() -> None:
    for name in ("a" * 256, "/" + "ä" * 100):
        with pytest.raises(AssertionError):
            VhdParent(uuid=IDENTITY, name=name, created_at=NOW)


def test_a_pools_difference_has_a_locator_without_data() -> None:
    blocks = np.array([], dtype=np.int64)
    plan = plan_vhd(8 << 20, blocks, uuid=IDENTITY, created_at=NOW, parent=PARENT, style=VhdStyle.POOL)
    assert plan.head[1536:2048] == bytes(512)
    assert struct.unpack_from(">4sIIIQ", plan.head, 512 + 576) == (b"MacX", 1, len(PARENT.url), 0, 1536)


def test_a_difference_carries_the_planned_blocks_and_nothing_else() -> None:
    disk = MemoryDisk(pattern(5 << 20, seed=3))
    data = streamed(planned(5 << 20, [0, 2], parent=PARENT), disk)
    blocks = {block.index: bytes(block.data) for block in VhdStreamReader(io.BytesIO(data)).blocks()}
    assert blocks == {0: disk.content[: 2 << 20], 2: disk.content[4 << 20 :]}


def test_the_rest_of_the_last_block_is_zeros() -> None:
    disk = MemoryDisk(pattern(KIB64 + 512, seed=3))
    for parent in (None, PARENT):
        data = streamed(planned(disk.size_bytes, [0], parent=parent), disk)
        assert data[2560 + 512 + disk.size_bytes : -512] == bytes(VHD_BLOCK_BYTES - disk.size_bytes)


def test_data_outside_the_plan_is_never_dropped_silently() -> None:
    disk = MemoryDisk(bytes(2 << 20) + pattern(KIB64, seed=1).ljust(4 << 20, b"\0"))
    for blocks in ([], [0], [2]):
        with pytest.raises(AssertionError, match="no block"):
            streamed(planned(disk.size_bytes, blocks), disk)


def test_runs_that_cross_blocks_are_cut_where_blocks_end() -> None:
    class Crossing(MemoryDisk):
        def runs(self) -> Iterator[DataRun]:
            yield DataRun(KIB64, self.content[KIB64 : 3 << 20])
            yield DataRun(3 << 20, self.content[3 << 20 :])

    disk = Crossing(bytes(KIB64) + pattern((5 << 20) - KIB64, seed=8))
    data = streamed(planned(disk.size_bytes, [0, 1, 2]), disk)
    assert VhdFile(io.BytesIO(data)).read(0, disk.size_bytes) == disk.content


@pytest.mark.parametrize("size_bytes", [512, 6 << 20, (8 << 20) + 512])
def test_a_plan_of_another_disk_is_our_own_mistake(size_bytes: int) -> None:
    with pytest.raises(AssertionError, match="another disk"):
        streamed(planned(8 << 20, []), MemoryDisk(bytes(size_bytes)))


@pytest.mark.parametrize("parent", [None, PARENT])
def test_a_plan_may_round_the_disk_up_as_pools_do(parent: VhdParent | None) -> None:
    disk = MemoryDisk(pattern((3 << 20) + 512, seed=4))
    data = streamed(planned(4 << 20, [0, 1], parent=parent), disk)
    found = b"".join(bytes(block.data) for block in VhdStreamReader(io.BytesIO(data)).blocks())
    assert found == disk.content.ljust(4 << 20, b"\0")


def test_a_new_identity_is_a_random_uuid() -> None:
    entropy = SeededEntropy(1)
    first, second = new_vhd_uuid(entropy), new_vhd_uuid(entropy)
    assert first != second
    assert first.version == second.version == 4


def test_an_exported_file_holds_the_disk(tmp_path: Path) -> None:
    disk = MemoryDisk(bytes(4 << 20) + pattern(KIB64, seed=1) + bytes(3 * 512))
    path = tmp_path / "disk.vhd"
    path.write_bytes(b"an older export")
    (tmp_path / "disk.vhd.part").write_bytes(b"left by a crash")
    plan = write_vhd_file(path, disk, entropy=SeededEntropy(1), created_at=NOW)
    assert path.stat().st_size == plan.length_bytes
    assert path.stat().st_mode & 0o777 == 0o600, "a disk in the clear is nobody else's business"
    with VhdFile(path) as written:
        assert written.read(0, disk.size_bytes) == disk.content
        assert written.head.allocated_blocks.tolist() == [2]
    assert [each.name for each in tmp_path.iterdir()] == ["disk.vhd"]


def test_a_failed_export_leaves_what_was_there(tmp_path: Path) -> None:
    class Failing(MemoryDisk):
        def runs(self) -> Iterator[DataRun]:
            yield DataRun(0, self.content[:KIB64])
            raise OSError("the source is gone")

    path = tmp_path / "disk.vhd"
    path.write_bytes(b"an older export")
    with pytest.raises(OSError, match="source is gone"):
        write_vhd_file(path, Failing(pattern(4 << 20, seed=1)), entropy=SeededEntropy(1), created_at=NOW)
    assert [each.name for each in tmp_path.iterdir()] == ["disk.vhd"]
    assert path.read_bytes() == b"an older export"
