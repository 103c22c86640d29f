"""A disk is sent as what carries least of it; what the pool refuses before it took a byte is sent another way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from holdfast.core import Cancellation, NoProgress
from holdfast.model import DiskUuid
from holdfast.xapi import DiskIoError, PoolFailure
from holdfast.xapi.calls import Calls
from holdfast.xapi.uploads import write_disk
from tests.support.qcow2 import SparseDisk, qcow2_of
from tests.support.vhd import KIB64, pattern
from tests.unit.xapi.fake_pool import FakePool, Transfer, fake_pool, logged_in

SIZE = 40 * KIB64
DATA = {2 * KIB64: pattern(5 * KIB64, seed=1), 39 * KIB64: pattern(100, seed=2)}
SOURCE = SparseDisk(SIZE, DATA)
AS_QCOW2 = qcow2_of(SIZE, {n: SOURCE.read(n * KIB64, KIB64) for n in (2, 3, 4, 5, 6, 39)})


class Notes(NoProgress):
    """Keeps what stays on the screen."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)


class World:
    """A pool with one empty qcow2 disk, for a client that thinks every disk too large for VHD."""

    def __init__(self, pool: FakePool, calls: Calls) -> None:
        self.pool, self.calls, self.notes = pool, calls, Notes()
        self.received: list[tuple[str, bytes]] = []
        self.refused_formats: set[str] = set()
        self.record = {"virtual_size": str(SIZE), "sm_config": {"image-format": "qcow2"}}
        pool.methods["VDI.get_by_uuid"] = lambda _session, uuid: uuid
        pool.methods["VDI.get_record"] = lambda _session, _ref: self.record
        self.failure: tuple[str, ...] = ()
        self._is_over = threading.Event()
        pool.transfer = self._receive

    def _receive(self, transfer: Transfer) -> None:
        kind = transfer.query["format"]
        self._is_over.clear()
        refused = kind in self.refused_formats
        self._task_ends_after_body(*(("INTERNAL_ERROR", f"Unknown format {kind}") if refused else self.failure))
        if refused:
            self._is_over.set()
        transfer.begin(404 if refused else 200)
        self.received.append((kind, b"" if refused else transfer.body()))
        self._is_over.set()

    def _task_ends_after_body(self, *error: str) -> None:
        self.pool.task_ends(status="failure" if error else "success", error=error)
        answer = self.pool.methods["event.from"]

        def answer_late(*params: object) -> object:
            assert self._is_over.wait(5)
            return answer(*params)

        self.pool.methods["event.from"] = answer_late

    def write(self) -> None:
        write_disk(self.calls, DiskUuid("disk"), SOURCE, label="web disk 0", progress=self.notes, cancel=Cancellation())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("holdfast.xapi.uploads.limits", SimpleNamespace(VHD_DISK_BYTES_MAX=0))
    with fake_pool() as pool, logged_in(pool) as calls:
        yield World(pool, calls)


def test_a_disk_kept_as_qcow2_gets_only_its_data(world: World) -> None:
    world.write()
    assert world.received == [("qcow2", AS_QCOW2)]
    assert world.notes.told == []


def test_a_large_disk_kept_otherwise_gets_every_byte(world: World) -> None:
    world.record["sm_config"] = {}
    world.write()
    assert world.received == [("raw", SOURCE.read(0, SIZE))]


def test_a_pool_that_takes_no_qcow2_gets_every_byte_and_it_is_told(world: World) -> None:
    world.refused_formats = {"qcow2"}
    world.write()
    assert world.received == [("qcow2", b""), ("raw", SOURCE.read(0, SIZE))]
    assert len(world.notes.told) == 1
    assert "web disk 0: sent with its holes" in world.notes.told[0]
    assert "Unknown format qcow2" in world.notes.told[0]


def test_a_disk_that_can_be_sent_no_way_ends_with_the_pools_words(world: World) -> None:
    world.refused_formats = {"qcow2", "raw"}
    with pytest.raises(PoolFailure, match="Unknown format raw"):
        world.write()


def test_an_upload_that_fails_after_it_was_begun_is_not_sent_another_way(world: World) -> None:
    world.failure = ("VDI_IO_ERROR", "Device I/O errors")
    with pytest.raises(DiskIoError):
        world.write()
    assert [kind for kind, _ in world.received] == ["qcow2"]
