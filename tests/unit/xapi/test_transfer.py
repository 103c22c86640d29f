"""Bodies arrive where they belong, and count when their task says so."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.core import Cancellation, Cancelled, ManualClock, SystemClock
from holdfast.xapi import DiskIoError, PoolAnswerInvalid, PoolConnectionLost
from holdfast.xapi.transfer import Download, TransferRequest, upload
from tests.unit.xapi.fake_pool import Transfer, fake_pool, logged_in

GET = TransferRequest(verb="GET", path="/export_raw_vdi", query={"vdi": "u"}, operation="export")
PUT = TransferRequest(verb="PUT", path="/import_raw_vdi", query={"vdi:a-b": "c"}, operation="upload")


def _reset(transfer: Transfer) -> None:
    """Close the connection the way a process that dies does."""
    transfer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transfer.connection.close()
    transfer.close_connection = True


def test_a_body_without_length_is_read_to_its_end_and_judged_by_its_task() -> None:
    def export(transfer: Transfer) -> None:
        assert transfer.query == {"vdi": "u", "session_id": "OpaqueRef:session", "task_id": "OpaqueRef:task"}
        transfer.begin()
        transfer.wfile.write(b"x" * 100_000)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        pool.task_ends(result="<value>fine</value>")
        with Download(calls, GET, with_task=True, cancel=Cancellation()) as body:
            assert body.read_all() == b"x" * 100_000
            assert body.judge() == "fine"


def test_success_over_http_is_nothing_when_the_task_failed() -> None:
    def export(transfer: Transfer) -> None:
        transfer.begin()

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        pool.task_ends(status="failure", error=("VDI_IO_ERROR", "Device I/O errors"))
        with Download(calls, GET, with_task=True, cancel=Cancellation()) as body:
            body.read_all()
            with pytest.raises(DiskIoError):
                body.judge()


def test_a_cut_on_purpose_gives_the_pool_no_task_of_ours_to_fail() -> None:
    def export(transfer: Transfer) -> None:
        assert "task_id" not in transfer.query
        transfer.begin()
        transfer.wfile.write(b"head")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        with Download(calls, GET, with_task=False, cancel=Cancellation()) as body:
            assert body.readinto(memoryview(bytearray(4))) == 4
        assert "task.create" not in pool.names()


def test_a_redirect_is_followed_with_the_same_query_and_a_task_of_its_own() -> None:
    seen: list[dict[str, str]] = []
    tasks = iter(["OpaqueRef:t1", "OpaqueRef:t2"])

    def export(transfer: Transfer) -> None:
        seen.append(transfer.query)
        if len(seen) == 1:
            transfer.begin(302, Location="https://127.0.0.1/export_raw_vdi?vdi=u")
        else:
            transfer.begin()
            transfer.wfile.write(b"data")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        pool.methods["task.create"] = lambda *_: next(tasks)
        with Download(calls, GET, with_task=True, cancel=Cancellation()) as body:
            assert body.read_all() == b"data"
    assert [each["task_id"] for each in seen] == ["OpaqueRef:t1", "OpaqueRef:t2"]
    assert seen[0]["vdi"] == seen[1]["vdi"] == "u"


def test_redirects_without_end_are_refused() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = lambda transfer: transfer.begin(302, Location="https://127.0.0.1/")
        with (
            pytest.raises(PoolAnswerInvalid, match="redirects without end"),
            Download(calls, GET, with_task=True, cancel=Cancellation()),
        ):
            raise AssertionError("it was opened")


def test_a_refusal_is_told_in_the_tasks_words() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = lambda transfer: transfer.begin(500)
        pool.task_ends(status="failure", error=("VDI_IO_ERROR", "the task knows"))
        with (
            pytest.raises(DiskIoError, match="the task knows"),
            Download(calls, GET, with_task=True, cancel=Cancellation()),
        ):
            raise AssertionError("it was opened")


def test_after_401_the_task_that_nobody_will_end_is_not_waited_for() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = lambda transfer: transfer.begin(401)
        with pytest.raises(PoolAnswerInvalid, match="HTTP 401"):
            upload(calls, PUT, body=[b"x"], length_bytes=1, cancel=Cancellation())
        assert "event.from" not in pool.names()


def test_a_path_that_the_pool_does_not_know_is_told_without_waiting_for_its_task() -> None:
    clock = ManualClock()

    def idle(*_: object) -> dict[str, object]:
        clock.advance(3)
        return {"events": [], "token": "1,1", "valid_ref_counts": {}}

    with fake_pool() as pool, logged_in(pool, clock=clock) as calls:
        pool.transfer = lambda transfer: transfer.begin(403)
        pool.methods["event.from"] = idle
        pool.methods["task.get_record"] = lambda *_: {"status": "pending"}
        with pytest.raises(PoolAnswerInvalid, match="HTTP 403"):
            upload(calls, PUT, body=[b"x"], length_bytes=1, cancel=Cancellation())
    assert clock.monotonic_s() < 10


def test_a_reset_in_the_middle_of_a_body_is_a_lost_connection() -> None:
    def export(transfer: Transfer) -> None:
        transfer.begin()
        transfer.wfile.write(b"x")
        _reset(transfer)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        with (
            pytest.raises(PoolConnectionLost),
            Download(calls, GET, with_task=False, cancel=Cancellation()) as body,
        ):
            body.read_all()


def test_a_body_that_never_stops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.xapi.transfer._BODY_BYTES_MAX", 1000)

    def export(transfer: Transfer) -> None:
        transfer.begin()
        transfer.wfile.write(bytes(2000))

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        with (
            pytest.raises(PoolAnswerInvalid, match="longer"),
            Download(calls, GET, with_task=False, cancel=Cancellation()) as body,
        ):
            body.read_all()


def test_an_upload_announces_its_length_and_keeps_the_colon_of_a_mapping() -> None:
    got: list[object] = []

    def take(transfer: Transfer) -> None:
        got.append(transfer.path.split("&")[0])
        transfer.begin()
        got.append(transfer.body())

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = take
        pool.task_ends(result="<value>done</value>")
        pieces: list[bytes | memoryview] = [b"a" * 1000, memoryview(b"b" * 500)]
        assert upload(calls, PUT, body=pieces, length_bytes=1500, cancel=Cancellation()) == "done"
    assert got == ["/import_raw_vdi?vdi:a-b=c", b"a" * 1000 + b"b" * 500]


@pytest.mark.parametrize("with_task", [True, False])
def test_a_transfer_whose_session_ended_unseen_is_asked_for_again_with_a_new_one(with_task: bool) -> None:
    asked: list[str] = []

    def export(transfer: Transfer) -> None:
        asked.append(transfer.query["session_id"])
        if asked[-1] == "OpaqueRef:session":
            transfer.begin(401)
        else:
            transfer.begin()
            transfer.wfile.write(b"whole")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.methods["session.login_with_password"] = lambda *_: "OpaqueRef:second"
        pool.transfer = export
        with Download(calls, GET, with_task=with_task, cancel=Cancellation()) as body:
            assert body.read_all() == b"whole"
    assert asked == ["OpaqueRef:session", "OpaqueRef:second"]


def test_a_transfer_that_no_session_opens_is_refused_after_a_bounded_number_of_logins() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = lambda transfer: transfer.begin(401)
        with (
            pytest.raises(PoolAnswerInvalid, match="401"),
            Download(calls, GET, with_task=True, cancel=Cancellation()),
        ):
            pass
        assert pool.names().count("session.login_with_password") == 3


def test_no_byte_of_the_body_is_sent_to_a_host_that_redirects() -> None:
    drawn_at: list[str] = []
    asked: list[str] = []

    def take(transfer: Transfer) -> None:
        asked.append("host")
        if len(asked) == 1:
            transfer.begin(302, Location="https://127.0.0.1/import_raw_vdi")
        else:
            transfer.begin()
            assert transfer.body() == b"x" * 10

    def body() -> Iterator[bytes]:
        drawn_at.extend(asked)
        yield b"x" * 10

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = take
        pool.task_ends()
        upload(calls, PUT, body=body(), length_bytes=10, cancel=Cancellation())
    assert drawn_at == ["host", "host"], "the source was drawn from before the last host had answered"


def test_a_reset_after_the_task_succeeded_is_success() -> None:
    def take(transfer: Transfer) -> None:
        transfer.begin()
        transfer.rfile.read(100)
        _reset(transfer)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = take
        pool.task_ends(result="<value>written</value>")
        body = [bytes(1 << 20)] * 4
        assert upload(calls, PUT, body=body, length_bytes=4 << 20, cancel=Cancellation()) == "written"


def test_a_reset_and_a_failed_task_is_the_tasks_failure_with_the_reset_as_its_cause() -> None:
    def take(transfer: Transfer) -> None:
        transfer.begin()
        transfer.rfile.read(100)
        _reset(transfer)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = take
        pool.task_ends(status="failure", error=("VDI_IO_ERROR", "Device I/O errors"))
        with pytest.raises(DiskIoError) as caught:
            upload(calls, PUT, body=[bytes(1 << 20)] * 4, length_bytes=4 << 20, cancel=Cancellation())
    assert isinstance(caught.value.__cause__, PoolConnectionLost)


def test_a_body_that_is_shorter_than_announced_is_our_mistake() -> None:
    def take(transfer: Transfer) -> None:
        transfer.begin()

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = take
        with pytest.raises(AssertionError, match="announced"):
            upload(calls, PUT, body=[b"x"], length_bytes=2, cancel=Cancellation())


def test_a_stalled_body_ends_soon_after_cancelling() -> None:
    cancel = Cancellation()
    release = threading.Event()

    def export(transfer: Transfer) -> None:
        transfer.begin()
        cancel.cancel()
        release.wait(5)

    with fake_pool() as pool, logged_in(pool, clock=SystemClock()) as calls:
        pool.transfer = export
        begun = time.perf_counter()
        with pytest.raises(Cancelled), Download(calls, GET, with_task=False, cancel=cancel) as body:
            body.read_all()
        assert time.perf_counter() - begun < 2
        release.set()
