"""An export stream is believed when its bytes and its task agree that it is whole, and not before."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from holdfast.core import Cancellation
from holdfast.model import ChangeSource, Coverage, DataRun, DiskUuid, Reference, ZeroRun
from holdfast.xapi import DiskIoError, ExportDamaged, ReadPlan, ReadTransport
from holdfast.xapi.exports import VhdDiskReader, read_export_head, read_qcow2_export_head
from tests.support.qcow2 import qcow2_of
from tests.support.vhd import KIB64, BlockSpec, VhdSpec, pattern
from tests.unit.xapi.fake_pool import Refusal, Transfer, fake_pool, logged_in

SIZE = 8 * KIB64
A, B = pattern(KIB64, seed=1), pattern(KIB64, seed=2)
ERROR_PAGE = (
    b"HTTP/1.1 500 Internal Error\r\ncontent-type: text/html\r\n\r\n<html><body>SR_BACKEND_FAILURE_46</body></html>"
)


def _plan(*, size_bytes: int = SIZE, reference_size: int | None = None) -> ReadPlan:
    reference = Reference(snapshot=DiskUuid("base"), has_data=True) if reference_size is not None else None
    return ReadPlan(
        live=DiskUuid("live"),
        snapshot=DiskUuid("snap"),
        size_bytes=size_bytes,
        source=ChangeSource.VHD_DIFFERENCE if reference else ChangeSource.FULL,
        transport=ReadTransport.STREAM,
        coverage=Coverage.CHANGES if reference else Coverage.WHOLE,
        reason="",
        reference=reference,
        wanted=reference,
        force_full=False,
        blocks=None,
        planned_bytes=size_bytes,
        reference_size_bytes=reference_size,
    )


def _vhd(*, size_bytes: int = SIZE, difference: bool = False) -> bytes:
    return VhdSpec(
        size_bytes=size_bytes,
        disk_type=4 if difference else 3,
        blocks=[BlockSpec(index=1, data=A), BlockSpec(index=6, data=B)],
    ).pack()


def _sending(body: bytes) -> Callable[[Transfer], None]:
    def export(transfer: Transfer) -> None:
        transfer.begin()
        transfer.wfile.write(body)

    return export


Kind = tuple[type, int, bytes | int]


def _read(body: bytes, plan: ReadPlan, *, status: str = "success", error: tuple[str, ...] = ()) -> list[Kind]:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(body)
        pool.task_ends(status=status, error=error)
        seen: list[Kind] = []
        with VhdDiskReader(calls, plan, cancel=Cancellation()) as reader:
            for run in reader.runs():
                content = bytes(run.data) if isinstance(run, DataRun) else run.length_bytes
                seen.append((type(run), run.offset_bytes, content))
        return seen


def test_a_whole_disk_comes_as_its_blocks_and_the_rest_is_zero_by_coverage() -> None:
    assert _read(_vhd(), _plan()) == [(DataRun, KIB64, A), (DataRun, 6 * KIB64, B)]


def test_a_stream_rounded_up_by_the_pool_is_cut_at_the_end_of_the_disk() -> None:
    size_bytes = 6 * KIB64 + 512
    vhd = _vhd(size_bytes=7 * KIB64)
    assert _read(vhd, _plan(size_bytes=size_bytes))[-1] == (DataRun, 6 * KIB64, B[:512])


def test_a_difference_of_a_grown_disk_says_what_was_never_written() -> None:
    assert _read(_vhd(difference=True), _plan(reference_size=4 * KIB64)) == [
        (DataRun, KIB64, A),
        (ZeroRun, 4 * KIB64, 2 * KIB64),
        (DataRun, 6 * KIB64, B),
        (ZeroRun, 7 * KIB64, KIB64),
    ]


def test_a_stream_that_ends_early_is_not_believed_although_the_task_succeeded() -> None:
    with pytest.raises(ExportDamaged, match="ends at byte"):
        _read(_vhd()[:-600], _plan())


def test_a_whole_stream_is_not_believed_when_the_task_failed() -> None:
    with pytest.raises(DiskIoError):
        _read(_vhd(), _plan(), status="failure", error=("VDI_IO_ERROR", "Device I/O errors"))


def test_an_error_page_inside_the_body_is_told_with_the_tasks_reason() -> None:
    with pytest.raises(DiskIoError, match="Device I/O errors"):
        _read(_vhd()[:100_000] + ERROR_PAGE, _plan(), status="failure", error=("VDI_IO_ERROR", "Device I/O errors"))


def test_a_cut_stream_whose_task_nobody_knows_any_more_is_damaged() -> None:
    def gone(*_: object) -> None:
        raise Refusal("HANDLE_INVALID", "task", "OpaqueRef:task")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(_vhd()[:5000])
        pool.methods["event.from"] = pool.methods["task.get_record"] = gone
        reader = VhdDiskReader(calls, _plan(), cancel=Cancellation())
        with pytest.raises(ExportDamaged, match="destroyed the task"), reader:
            list(reader.runs())


def test_an_error_page_without_a_failed_task_is_told_in_its_own_words() -> None:
    with pytest.raises(ExportDamaged, match="SR_BACKEND_FAILURE_46"):
        _read(ERROR_PAGE, _plan())


def test_another_kind_of_stream_than_the_one_asked_for_is_refused() -> None:
    with pytest.raises(ExportDamaged, match="a difference, which was not asked for"):
        _read(_vhd(difference=True), _plan())
    with pytest.raises(ExportDamaged, match="the whole disk, which was not asked for"):
        _read(_vhd(), _plan(reference_size=SIZE))


def test_a_stream_of_another_disks_size_is_refused() -> None:
    with pytest.raises(ExportDamaged, match="bytes"):
        _read(_vhd(), _plan(size_bytes=2 * SIZE))


def test_blocks_out_of_order_are_refused() -> None:
    vhd = VhdSpec(size_bytes=SIZE, blocks=[BlockSpec(index=6, data=B), BlockSpec(index=1, data=A)]).pack()
    with pytest.raises(ExportDamaged, match="out of order"):
        _read(vhd, _plan())


def test_a_difference_with_holes_in_a_block_is_refused_because_nobody_could_fill_them() -> None:
    claims = [True] * 64 + [False] * 64
    vhd = VhdSpec(size_bytes=SIZE, disk_type=4, blocks=[BlockSpec(index=1, data=A, claims=claims)]).pack()
    with pytest.raises(ExportDamaged, match="only some of its sectors"):
        _read(vhd, _plan(reference_size=SIZE))


def test_the_head_alone_tells_the_blocks_and_names_the_base() -> None:
    queries: list[dict[str, str]] = []

    def export(transfer: Transfer) -> None:
        queries.append(transfer.query)
        _sending(_vhd(difference=True))(transfer)

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        head = read_export_head(calls, DiskUuid("snap"), base=DiskUuid("base"), size_bytes=SIZE)
    assert head.allocated_blocks.tolist() == [1, 6]
    assert queries == [{"vdi": "snap", "format": "vhd", "base": "base", "session_id": "OpaqueRef:session"}]


def test_a_head_that_is_an_error_page_gives_the_pools_words() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(ERROR_PAGE)
        with pytest.raises(ExportDamaged, match="SR_BACKEND_FAILURE_46"):
            read_export_head(calls, DiskUuid("snap"), base=None, size_bytes=SIZE)


def test_the_tables_of_a_qcow2_tell_the_clusters_and_the_data_is_cut_off() -> None:
    queries: list[dict[str, str]] = []
    was_cut = threading.Event()

    def export(transfer: Transfer) -> None:
        queries.append(transfer.query)
        transfer.begin()
        tables_bytes = 5 * KIB64
        transfer.wfile.write(qcow2_of(SIZE, {1: A, 6: B})[:tables_bytes])
        transfer.connection.settimeout(5)
        if transfer.connection.recv(1) == b"":
            was_cut.set()

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        head = read_qcow2_export_head(calls, DiskUuid("snap"), size_bytes=SIZE)
        assert was_cut.wait(5), "the pool is told by the cut that no more is wanted"
    assert head.held.nonzero()[0].tolist() == [1, 6]
    assert queries == [{"vdi": "snap", "format": "qcow2", "session_id": "OpaqueRef:session"}]


@pytest.mark.parametrize("before", [b"", qcow2_of(SIZE, {1: A})[: 4 * KIB64 + 100]], ids=["at once", "in the tables"])
def test_a_qcow2_that_the_pool_gives_up_gives_its_words(before: bytes) -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(before + ERROR_PAGE)
        with pytest.raises(ExportDamaged, match="SR_BACKEND_FAILURE_46"):
            read_qcow2_export_head(calls, DiskUuid("snap"), size_bytes=SIZE)


def test_a_qcow2_may_be_larger_than_its_disk_by_what_a_pool_rounds_up() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(qcow2_of(SIZE, {1: A}))
        assert read_qcow2_export_head(calls, DiskUuid("snap"), size_bytes=SIZE - 512).size_bytes == SIZE


@pytest.mark.parametrize("size_bytes", [SIZE + 512, SIZE - KIB64])
def test_a_qcow2_of_another_disks_size_is_refused(size_bytes: int) -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = _sending(qcow2_of(SIZE, {1: A}))
        with pytest.raises(ExportDamaged, match="bytes, the disk of"):
            read_qcow2_export_head(calls, DiskUuid("snap"), size_bytes=size_bytes)
