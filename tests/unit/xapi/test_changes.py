"""Where the knowledge of changes comes from, best first, each fall-back with its reason."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.core import GIB, limits
from holdfast.model import ChangeSource, Coverage, DiskUuid, Reference
from holdfast.xapi import NbdUnavailable, ReadPlan, ReadTransport
from holdfast.xapi.calls import Calls
from holdfast.xapi.changes import plan_read
from holdfast.xapi.nbd_door import NbdDoor
from holdfast.xapi.readers import open_reader
from tests.support.qcow2 import qcow2_of
from tests.support.vhd import KIB64, BlockSpec, VhdSpec, pattern
from tests.unit.xapi.fake_nbd import FakeNbd, fake_nbd
from tests.unit.xapi.fake_pool import FakePool, Refusal, Transfer, fake_pool, logged_in

SIZE = 8 * KIB64
DISK = pattern(SIZE, seed=3)
REFERENCE = Reference(snapshot=DiskUuid("base"), has_data=True)
METADATA_ONLY = Reference(snapshot=DiskUuid("base"), has_data=False)


class World:
    """A pool with one snapshot, one reference and an NBD server; each can be spoilt."""

    def __init__(self, pool: FakePool, nbd: FakeNbd, calls: Calls) -> None:
        self.pool, self.nbd, self.calls, self.door = pool, nbd, calls, NbdDoor()
        self.disks: dict[str, dict[str, Any]] = {
            "snap": {"virtual_size": str(SIZE), "cbt_enabled": True, "type": "user"},
            "base": {"virtual_size": str(SIZE), "cbt_enabled": True, "type": "user"},
        }
        self.bitmap = base64.b64encode(bytes([0b0100_0010])).decode()
        self.exports_differences = True
        self.qcow2 = b""
        self.formats: list[str] = []
        pool.methods |= {
            "VDI.get_by_uuid": self._by_uuid,
            "VDI.get_record": lambda _session, ref: self.disks[ref],
            "VDI.get_nbd_info": lambda *_: [self._info()],
            "Async.VDI.list_changed_blocks": lambda *_: "OpaqueRef:task",
        }
        pool.transfer = self._export
        self.answer_bitmap()

    def answer_bitmap(self, *error: str) -> None:
        value = f"<value>{self.bitmap}</value>"
        self.pool.task_ends(status="failure" if error else "success", result=value, error=error)

    def plan(self, reference: Reference | None, *, force_full: bool = False) -> ReadPlan:
        return plan_read(
            self.calls,
            self.door,
            live=DiskUuid("live"),
            snapshot=DiskUuid("snap"),
            reference=reference,
            force_full=force_full,
        )

    def _by_uuid(self, _session: str, uuid: str) -> str:
        if uuid not in self.disks:
            raise Refusal("UUID_INVALID", "VDI", uuid)
        return uuid

    def _info(self) -> dict[str, Any]:
        server = self.nbd.server()
        return {
            "address": server.address,
            "port": str(server.port),
            "exportname": server.export_name,
            "cert": "",
            "subject": "",
        }

    def _export(self, transfer: Transfer) -> None:
        self.formats.append(transfer.query["format"])
        transfer.begin()
        if transfer.query["format"] == "qcow2":
            transfer.wfile.write(self.qcow2)
            return
        difference = "base" in transfer.query
        if difference and not self.exports_differences:
            transfer.wfile.write(b"HTTP/1.1 500 Internal Error\r\n\r\nCannot compute differences on non-VHD images")
            return
        size = int(self.disks["snap"]["virtual_size"])
        blocks = [BlockSpec(index=2, data=DISK[2 * KIB64 : 3 * KIB64])]
        transfer.wfile.write(VhdSpec(size_bytes=size, disk_type=4 if difference else 3, blocks=blocks).pack())


@pytest.fixture
def world() -> Iterator[World]:
    with _world() as made:
        yield made


@contextmanager
def _world() -> Iterator[World]:
    with fake_pool() as pool, fake_nbd(DISK) as nbd, logged_in(pool) as calls:
        yield World(pool, nbd, calls)


def _extents(plan: ReadPlan) -> list[tuple[int, int]]:
    return [(each.offset_bytes // KIB64, each.length_bytes // KIB64) for each in plan.extents()]


def test_cbt_over_nbd_comes_first_and_reads_only_what_changed(world: World) -> None:
    plan = world.plan(METADATA_ONLY)
    assert (plan.source, plan.transport, plan.coverage) == (ChangeSource.CBT, ReadTransport.NBD, Coverage.CHANGES)
    assert _extents(plan) == [(1, 1), (6, 1)]
    assert plan.planned_bytes == 2 * KIB64
    assert plan.reason == "the pool tracked 128 KiB of changes since the reference."
    assert world.nbd.names == [], "planning must not attach the disk"


def test_without_nbd_the_difference_is_taken_and_the_reason_told(world: World) -> None:
    world.pool.methods["VDI.get_nbd_info"] = lambda *_: []
    plan = world.plan(REFERENCE)
    assert (plan.source, plan.transport) == (ChangeSource.VHD_DIFFERENCE, ReadTransport.STREAM)
    assert plan.reference == REFERENCE
    assert "purpose 'nbd'" in plan.reason


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("SR_BACKEND_FAILURE_460", "cannot tell what changed"),
        ("VDI_IN_USE", "still attached"),
        ("SOMETHING_NEW", "SOMETHING_NEW"),
    ],
)
def test_a_pool_that_cannot_tell_the_changes_falls_back_with_its_words(world: World, code: str, words: str) -> None:
    world.answer_bitmap(code, "detail")
    plan = world.plan(REFERENCE)
    assert plan.source is ChangeSource.VHD_DIFFERENCE
    assert words in plan.reason


def test_a_bitmap_that_does_not_fit_the_disk_is_not_believed(world: World) -> None:
    world.bitmap = base64.b64encode(bytes(7)).decode()
    world.answer_bitmap()
    plan = world.plan(REFERENCE)
    assert plan.source is ChangeSource.VHD_DIFFERENCE
    assert "bitmap" in plan.reason


def test_tracking_that_was_switched_off_means_that_no_bitmap_is_asked_for(world: World) -> None:
    world.disks["snap"]["cbt_enabled"] = False
    plan = world.plan(METADATA_ONLY)
    assert plan.source is ChangeSource.FULL
    assert "change tracking is off" in plan.reason
    assert "change metadata only" in plan.reason
    assert "Async.VDI.list_changed_blocks" not in world.pool.names()


def test_a_reference_that_is_gone_means_a_full_read_without_holes(world: World) -> None:
    del world.disks["base"]
    plan = world.plan(REFERENCE)
    assert (plan.source, plan.transport, plan.coverage) == (ChangeSource.FULL, ReadTransport.NBD, Coverage.WHOLE)
    assert _extents(plan) == [(2, 1)]
    assert plan.reason.count("gone from the pool") == 2
    assert plan.reference is None


def test_storage_without_vhd_ends_in_a_full_read(world: World) -> None:
    world.exports_differences = False
    world.answer_bitmap("SR_BACKEND_FAILURE_460", "unrelated")
    plan = world.plan(REFERENCE)
    assert plan.source is ChangeSource.FULL
    assert "non-VHD images" in plan.reason


def test_a_first_backup_and_a_forced_one_say_so(world: World) -> None:
    assert "no reference on the pool yet" in world.plan(None).reason
    forced = world.plan(REFERENCE, force_full=True)
    assert forced.source is ChangeSource.FULL
    assert "a full read was asked for" in forced.reason


def test_a_full_read_whose_block_table_fails_reads_the_holes_too(world: World) -> None:
    world.pool.transfer = lambda transfer: transfer.begin(500)
    plan = world.plan(None)
    assert plan.planned_bytes == SIZE
    assert _extents(plan) == [(0, 8)]
    assert "holes included" in plan.reason


def test_a_full_read_without_nbd_comes_from_the_stream(world: World) -> None:
    world.nbd.close()
    plan = world.plan(None)
    assert plan.transport is ReadTransport.STREAM
    assert plan.blocks is None
    assert plan.planned_bytes == KIB64
    assert "NBD: connecting at 127.0.0.1" in plan.reason


@pytest.mark.parametrize("reference", [None, METADATA_ONLY], ids=["first", "next"])
def test_why_nbd_is_not_used_is_said_once(world: World, reference: Reference | None) -> None:
    world.pool.methods["VDI.get_nbd_info"] = lambda *_: []
    plan = world.plan(reference)
    assert plan.source is ChangeSource.FULL
    assert plan.reason.count("purpose 'nbd'") == 1, plan.reason


LARGE = limits.VHD_DISK_BYTES_MAX + GIB
LAST = LARGE // KIB64 - 1
STREAM = qcow2_of(LARGE, {2: DISK[:KIB64], LAST: DISK[:KIB64]})


@pytest.fixture
def large(world: World) -> World:
    """A disk of 2041 GiB, kept as qcow2, with two clusters of data."""
    world.disks["snap"] |= {"virtual_size": str(LARGE), "sm_config": {"image-format": "qcow2"}}
    world.qcow2 = STREAM
    return world


def test_a_disk_beyond_vhd_is_read_without_its_holes(large: World) -> None:
    plan = large.plan(None)
    assert (plan.source, plan.transport) == (ChangeSource.FULL, ReadTransport.NBD)
    assert _extents(plan) == [(2, 1), (LAST, 1)]
    assert plan.planned_bytes == 2 * KIB64
    assert "without its holes" in plan.reason
    assert large.formats == ["qcow2"]


def test_a_disk_beyond_vhd_needs_nbd_and_says_so(large: World) -> None:
    large.pool.methods["VDI.get_nbd_info"] = lambda *_: []
    with pytest.raises(NbdUnavailable, match="2040 GiB"):
        large.plan(None)
    assert large.formats == [], "a stream that is not read is not asked for"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "ends before"),
        (b"conectix" + bytes(200), "no qcow2"),
        (STREAM[: 4 * KIB64 + 20], "ends before"),
        (STREAM[:40] + (1 << 40).to_bytes(8, "big") + STREAM[48:], "do not come first"),
        (b"HTTP/1.1 500 Internal Error\r\n\r\nVDI_IO_ERROR: Device I/O errors", "Device I/O errors"),
    ],
    ids=["empty", "another format", "cut", "data first", "given up"],
)
def test_a_qcow2_whose_tables_are_not_there_is_read_whole_and_says_why(large: World, body: bytes, words: str) -> None:
    large.qcow2 = body
    plan = large.plan(None)
    assert plan.planned_bytes == LARGE
    assert plan.reason.startswith("the disk is read in full, holes included")
    assert words in plan.reason


def test_a_pool_that_is_silent_for_too_long_is_read_whole_and_says_why(
    large: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that looks at every byte of the disk before it sends the first."""
    brief = SimpleNamespace(POOL_CONNECT_TIMEOUT_S=5.0, POOL_CALL_TIMEOUT_S=5.0, POOL_STALL_TIMEOUT_S=0.02)
    monkeypatch.setattr("holdfast.xapi.transfer.limits", brief)

    def look(transfer: Transfer) -> None:
        transfer.begin()
        transfer.connection.settimeout(5)
        transfer.connection.recv(1)

    large.pool.transfer = look
    plan = large.plan(None)
    assert plan.planned_bytes == LARGE
    assert "no answer in time" in plan.reason


def test_a_pool_without_qcow2_exports_is_read_whole_and_says_why(large: World) -> None:
    large.pool.transfer = lambda transfer: transfer.begin(404)
    plan = large.plan(None)
    assert plan.planned_bytes == LARGE
    assert "HTTP 404" in plan.reason


def test_a_large_disk_of_unknown_format_is_read_whole_and_not_asked_for(large: World) -> None:
    del large.disks["snap"]["sm_config"]
    plan = large.plan(None)
    assert plan.planned_bytes == LARGE
    assert "does not say that it is kept as qcow2" in plan.reason
    assert large.formats == []


@pytest.mark.parametrize("said", [{"image-format": "qcow2"}, {"vdi_type": "qcow2"}])
def test_the_format_of_a_snapshot_that_does_not_say_is_that_of_its_disk(large: World, said: dict[str, str]) -> None:
    large.disks["snap"]["sm_config"] = {}
    large.disks["live"] = {"sm_config": said}
    assert large.plan(None).planned_bytes == 2 * KIB64


def test_a_small_disk_kept_as_qcow2_is_asked_for_nothing_else(world: World) -> None:
    """For a VHD of it the pool would read the whole disk before the first byte."""
    world.disks["snap"]["sm_config"] = {"image-format": "qcow2"}
    world.qcow2 = qcow2_of(SIZE, {5: DISK[:KIB64]})
    world.answer_bitmap("SR_BACKEND_FAILURE_460", "unrelated")
    plan = world.plan(REFERENCE)
    assert (plan.source, _extents(plan)) == (ChangeSource.FULL, [(5, 1)])
    assert "kept as qcow2, of which there is no VHD difference" in plan.reason
    assert world.formats == ["qcow2"]
    world.pool.methods["VDI.get_nbd_info"] = lambda *_: []
    assert world.plan(None).transport is ReadTransport.STREAM
    assert world.formats == ["qcow2"], "the stream itself tells"


def test_a_grown_disk_reads_the_block_in_which_it_ended(world: World) -> None:
    world.disks["base"]["virtual_size"] = str(3 * KIB64 + 512)
    plan = world.plan(METADATA_ONLY)
    assert _extents(plan) == [(1, 1), (3, 1), (6, 1)]
    assert plan.reference_size_bytes == 3 * KIB64 + 512


def test_nbd_that_stops_working_between_plan_and_read_is_planned_anew(world: World) -> None:
    plan = world.plan(REFERENCE)
    assert plan.source is ChangeSource.CBT
    world.nbd.refuse_names = True
    reader = open_reader(world.calls, world.door, plan)
    assert reader.plan.source is ChangeSource.VHD_DIFFERENCE
    assert "refused to open the disk" in reader.plan.reason
    assert reader.coverage is Coverage.CHANGES


def test_a_planned_read_over_nbd_gives_the_disks_bytes(world: World) -> None:
    with open_reader(world.calls, world.door, world.plan(METADATA_ONLY)) as reader:
        runs = [(run.offset_bytes, bytes(getattr(run, "data", b""))) for run in reader.runs()]
    assert runs == [(KIB64, DISK[KIB64 : 2 * KIB64]), (6 * KIB64, DISK[6 * KIB64 : 7 * KIB64])]


def test_a_dead_host_is_asked_last(world: World) -> None:
    living = world._info()
    dead = living | {"address": "127.0.0.2", "port": "1"}
    world.pool.methods["VDI.get_nbd_info"] = lambda *_: [dead, living]
    assert world.plan(METADATA_ONLY).source is ChangeSource.CBT
    assert [each.address for each in world.door.servers(world.calls, DiskUuid("snap"))] == ["127.0.0.1", "127.0.0.2"]
