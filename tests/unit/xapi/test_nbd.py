"""Disks arrive over NBD in order and whole, from hosts that are who the pool says they are."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.core import BLOCK_BYTES, MIB, Cancellation, Cancelled, ManualClock, SystemClock, limits
from holdfast.formats import nbd as wire
from holdfast.model import ChangeSource, Coverage, DataRun, DiskUuid, ZeroRun
from holdfast.xapi import NbdConnectionLost, NbdUnavailable, ReadPlan, ReadTransport
from holdfast.xapi.nbd import NbdBroken, NbdConnection, probe_server
from holdfast.xapi.nbd_reader import NbdDiskReader, connections_for
from holdfast.xapi.pieces import all_blocks, covered_bytes
from holdfast.xapi.values import NbdServer
from tests.unit.xapi.fake_nbd import FakeNbd, fake_nbd
from tests.unit.xapi.test_tls import Identity, make_identity

DISK = random.Random(7).randbytes(4 * MIB + 512)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("nbd"))


def _open(server: NbdServer, *, allow_plain: bool = True, cancel: Cancellation | None = None) -> NbdConnection:
    return NbdConnection(server, allow_plain=allow_plain, cancel=cancel or Cancellation())


def _plan(size_bytes: int, *, blocks: np.ndarray | None = None, reference_size: int | None = None) -> ReadPlan:
    wanted = all_blocks(size_bytes) if blocks is None else blocks
    return ReadPlan(
        live=DiskUuid("live"),
        snapshot=DiskUuid("snap"),
        size_bytes=size_bytes,
        source=ChangeSource.CBT,
        transport=ReadTransport.NBD,
        coverage=Coverage.WHOLE if reference_size is None else Coverage.CHANGES,
        reason="",
        reference=None,
        wanted=None,
        force_full=False,
        blocks=wanted,
        planned_bytes=covered_bytes(wanted, size_bytes=size_bytes),
        reference_size_bytes=reference_size,
    )


def _reader(
    nbd: FakeNbd, plan: ReadPlan, *, clock: ManualClock | None = None, cancel: Cancellation | None = None
) -> NbdDiskReader:
    return NbdDiskReader(
        plan,
        _open(nbd.server()),
        open_connection=lambda stop: _open(nbd.server(), cancel=stop),
        clock=clock or ManualClock(),
        cancel=cancel or Cancellation(),
    )


def _assembled(reader: NbdDiskReader) -> bytes:
    disk = bytearray(reader.size_bytes)
    end = 0
    with reader:
        for run in reader.runs():
            assert run.offset_bytes >= end
            end = run.offset_bytes + run.length_bytes
            if isinstance(run, DataRun):
                disk[run.offset_bytes : end] = run.data
    return bytes(disk)


def test_over_tls_the_named_certificate_is_the_anchor_and_the_subject_is_checked(identity: Identity) -> None:
    with fake_nbd(DISK, identity=identity) as nbd:
        connection = _open(nbd.server(), allow_plain=False)
        assert connection.size_bytes == len(DISK)
        view = memoryview(bytearray(1024))
        connection.read_into(512, view)
        assert bytes(view) == DISK[512:1536]
        connection.close()
        with pytest.raises(NbdUnavailable, match="not the one that the pool named"):
            _open(nbd.server(subject="other.example"), allow_plain=False)
        assert nbd.names == ["/disk?session_id=OpaqueRef:session"]


def test_a_stranger_with_another_certificate_never_sees_the_session(identity: Identity, tmp_path: Path) -> None:
    stranger = make_identity(tmp_path)
    with fake_nbd(DISK, identity=stranger) as nbd:
        with pytest.raises(NbdUnavailable):
            _open(nbd.server(pem=identity.pem), allow_plain=False)
        assert nbd.names == []


def test_without_tls_the_session_is_not_sent_unless_all_is_plain_anyway() -> None:
    with fake_nbd(DISK) as nbd:
        with pytest.raises(NbdUnavailable, match="insecure_nbd"):
            _open(nbd.server(), allow_plain=False)
        assert nbd.names == []
        _open(nbd.server(), allow_plain=True).close()


def test_a_useless_certificate_is_told(identity: Identity) -> None:
    with fake_nbd(DISK, identity=identity) as nbd, pytest.raises(NbdUnavailable, match="no usable certificate"):
        _open(nbd.server(pem="nonsense"), allow_plain=False)


def test_a_server_that_hangs_up_on_the_name_is_unavailable_and_says_so() -> None:
    with fake_nbd(DISK) as nbd:
        nbd.refuse_names = True
        with pytest.raises(NbdUnavailable, match="refused to open the disk"):
            _open(nbd.server())


def test_nobody_listening_is_unavailable() -> None:
    server = NbdServer(address="127.0.0.1", port=1, export_name="", certificate_pem="", subject="")
    with pytest.raises(NbdUnavailable, match="refused"):
        probe_server(server, allow_plain=True, cancel=Cancellation())


def test_a_probe_does_not_open_the_disk(identity: Identity) -> None:
    with fake_nbd(DISK, identity=identity) as nbd:
        probe_server(nbd.server(), allow_plain=False, cancel=Cancellation())
        assert nbd.names == []


def test_an_error_reply_is_no_data_and_is_tried_again_on_a_fresh_connection() -> None:
    with fake_nbd(DISK) as nbd:
        nbd.read_errors = [wire.Errno.EIO]
        with pytest.raises(NbdBroken, match="error 5"):
            _open(nbd.server()).read_into(0, memoryview(bytearray(512)))
        nbd.read_errors = [wire.Errno.EIO]
        assert _assembled(_reader(nbd, _plan(len(DISK)))) == DISK


def test_a_connection_that_is_dropped_gives_no_bytes() -> None:
    def drop(_: int) -> None:
        raise ConnectionError

    with fake_nbd(DISK) as nbd:
        nbd.before_read = drop
        with pytest.raises(NbdBroken, match="closed"):
            _open(nbd.server()).read_into(0, memoryview(bytearray(512)))


def test_a_whole_disk_arrives_in_order_over_several_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.xapi.nbd_reader._BYTES_PER_CONNECTION", MIB)
    disk = random.Random(8).randbytes(limits.NBD_READ_BYTES * 10 + 512)
    with fake_nbd(disk) as nbd:
        several = threading.Event()

        def hold(number: int) -> None:
            several.set() if number else several.wait(2)

        # The first connection is held until a second one reads, so that there is something to put in order.
        nbd.before_read = hold
        assert _assembled(_reader(nbd, _plan(len(disk)))) == disk
        assert len(nbd.names) >= 2
        assert sum(length for _, length in nbd.reads) == len(disk)


def test_a_connection_says_goodbye_so_that_the_host_lets_go_at_once() -> None:
    with fake_nbd(DISK) as nbd:
        assert _assembled(_reader(nbd, _plan(len(DISK)))) == DISK
        assert nbd.said_goodbye.wait(2)


def test_only_the_wanted_blocks_are_read_and_the_last_is_cut_at_the_end() -> None:
    blocks = np.zeros(all_blocks(len(DISK)).size, dtype=np.bool_)
    blocks[[1, 2, 40, -1]] = True
    with fake_nbd(DISK) as nbd:
        reader = _reader(nbd, _plan(len(DISK), blocks=blocks))
        with reader:
            runs = [(run.offset_bytes, run.length_bytes) for run in reader.runs()]
    assert runs == [(BLOCK_BYTES, 2 * BLOCK_BYTES), (40 * BLOCK_BYTES, BLOCK_BYTES), (4 * MIB, 512)]
    assert nbd.reads == runs


def test_a_grown_disk_says_what_behind_its_old_end_was_never_written() -> None:
    blocks = np.zeros(all_blocks(len(DISK)).size, dtype=np.bool_)
    blocks[[0, 34]] = True
    with fake_nbd(DISK) as nbd, _reader(nbd, _plan(len(DISK), blocks=blocks, reference_size=2 * MIB)) as reader:
        runs = [(type(run), run.offset_bytes, run.length_bytes) for run in reader.runs()]
    assert runs == [
        (DataRun, 0, BLOCK_BYTES),
        (ZeroRun, 2 * MIB, 2 * BLOCK_BYTES),
        (DataRun, 34 * BLOCK_BYTES, BLOCK_BYTES),
        (ZeroRun, 35 * BLOCK_BYTES, len(DISK) - 35 * BLOCK_BYTES),
    ]


def _drop_at(*numbers: int) -> Callable[[int], None]:
    def drop(number: int) -> None:
        if number in numbers:
            raise ConnectionError

    return drop


def test_a_connection_that_breaks_in_the_middle_is_made_again_and_nothing_is_lost() -> None:
    with fake_nbd(DISK) as nbd:
        nbd.before_read = _drop_at(1, 2)
        assert _assembled(_reader(nbd, _plan(len(DISK)))) == DISK
        assert len(nbd.names) == 3


def test_a_server_that_stays_broken_ends_the_read_with_the_place_and_the_reason() -> None:
    clock = ManualClock()
    with fake_nbd(DISK) as nbd:
        nbd.before_read = _drop_at(*range(1, 100))
        with pytest.raises(NbdConnectionLost) as caught:
            _assembled(_reader(nbd, _plan(len(DISK)), clock=clock))
    assert caught.value.offset_bytes == limits.NBD_READ_BYTES
    assert caught.value.attempts == limits.NBD_RECONNECTS_MAX + 1
    assert 30 < clock.monotonic_s() < 90


def test_further_connections_that_are_refused_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.xapi.nbd_reader._BYTES_PER_CONNECTION", MIB)

    def refuse(_: Cancellation) -> NbdConnection:
        raise NbdUnavailable(why="16 connections are open already")

    with fake_nbd(DISK) as nbd:
        reader = NbdDiskReader(
            _plan(len(DISK)),
            _open(nbd.server()),
            open_connection=refuse,
            clock=ManualClock(),
            cancel=Cancellation(),
        )
        assert _assembled(reader) == DISK


def test_cancelling_ends_a_read_that_hangs_within_two_seconds() -> None:
    cancel = Cancellation()
    release = threading.Event()

    def hang(number: int) -> None:
        if number == 1:
            cancel.cancel()
            release.wait(10)

    with fake_nbd(DISK) as nbd:
        nbd.before_read = hang
        begun = time.perf_counter()
        with pytest.raises(Cancelled):
            _assembled(
                NbdDiskReader(
                    _plan(len(DISK)),
                    _open(nbd.server()),
                    open_connection=lambda stop: _open(nbd.server(), cancel=stop),
                    clock=SystemClock(),
                    cancel=cancel,
                )
            )
        assert time.perf_counter() - begun < 2
        release.set()


def test_a_consumer_that_gives_up_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with fake_nbd(DISK) as nbd:
        with pytest.raises(ZeroDivisionError), _reader(nbd, _plan(len(DISK))) as reader:
            for _ in reader.runs():
                raise ZeroDivisionError
        assert not [each for each in threading.enumerate() if each.name == "nbd-reader"]
    assert threading.active_count() <= before + 4


def test_memory_is_bounded_by_the_line_and_not_by_the_disk() -> None:
    """A consumer that stops reading stops the connections too."""
    piece, ahead = limits.NBD_READ_BYTES, limits.NBD_READ_AHEAD_MAX
    disk = bytes(piece * (ahead + 4))
    with fake_nbd(disk) as nbd, _reader(nbd, _plan(len(disk))) as reader:
        runs = reader.runs()
        next(runs)
        deadline = time.monotonic() + 2
        while len(nbd.reads) < ahead and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        assert len(nbd.reads) <= ahead


def test_small_reads_do_not_pay_for_many_connections() -> None:
    assert connections_for(0) == 1
    assert connections_for(200 * MIB) == 1
    assert connections_for(10_000 * MIB) == limits.NBD_CONNECTIONS_PER_DISK_MAX


def test_a_peer_that_speaks_something_else_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")

        threading.Thread(target=answer, daemon=True).start()
        server = NbdServer(
            address="127.0.0.1",
            port=listener.getsockname()[1],
            export_name="",
            certificate_pem="",
            subject="",
        )
        with pytest.raises(NbdUnavailable, match="NBDMAGIC"):
            probe_server(server, allow_plain=True, cancel=Cancellation())
