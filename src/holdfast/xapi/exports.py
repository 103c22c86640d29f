"""A disk's export: the tables of a VHD or qcow2 alone, or a whole VHD stream as a ``DiskReader``.

Invariant: a stream counts as read only when its own end was seen and XAPI's task succeeded. Either alone is not enough:
XAPI may report success for a stream that was cut on the way, and a whole stream may belong to a task that failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from holdfast.core import Cancellation, HoldfastError
from holdfast.formats.qcow2 import Qcow2Error, Qcow2Head, read_qcow2_head
from holdfast.formats.vhd import (
    ERROR_PAGE_BYTES_MAX,
    ErrorPage,
    VhdError,
    VhdHead,
    VhdStreamReader,
    find_error_page,
    read_vhd_head,
)
from holdfast.model import Coverage, DataRun, DiskUuid, Run, ZeroRun
from holdfast.xapi.calls import Calls
from holdfast.xapi.errors import ExportDamaged, PoolConnectionLost, PoolFailure
from holdfast.xapi.transfer import Download, TransferRequest
from holdfast.xapi.values import ReadPlan

__all__ = ["VhdDiskReader", "read_export_head", "read_qcow2_export_head"]

_BITMAP_BYTES = 512
"""What stands in front of each block of 2 MiB or less in the streams that pools make."""
_QCOW2_ROUNDING_BYTES = 2 << 20
"""A qcow2 may be larger than its disk by less than a cluster, of which this is the largest."""


def _request(disk: DiskUuid, base: DiskUuid | None, *, kind: str = "vhd") -> TransferRequest:
    query = {"vdi": str(disk), "format": kind}
    if base is not None:
        query["base"] = str(base)
    return TransferRequest(verb="GET", path="/export_raw_vdi", query=query, operation=f"export of disk {disk}")


def read_export_head(calls: Calls, disk: DiskUuid, *, base: DiskUuid | None, size_bytes: int) -> VhdHead:
    """Return what the disk's export would carry, and cut the connection there.

    Raises ``ExportDamaged`` with the pool's own words when it cannot make that export.
    """
    with Download(calls, _request(disk, base), with_task=False, cancel=calls.cancel) as body:
        try:
            head = read_vhd_head(body)
        except VhdError as cause:
            raise ExportDamaged(disk=disk, why=str(cause)) from cause
    _check_head(head, disk=disk, size_bytes=size_bytes, expects_difference=base is not None)
    if (np.diff(head.block_offsets) != head.block_bytes + _BITMAP_BYTES).any():
        # The blocks themselves are not read here, so the table has nothing else that would show that it lies.
        raise ExportDamaged(disk=disk, why="its block table points where a pool puts no blocks")
    return head


def read_qcow2_export_head(calls: Calls, disk: DiskUuid, *, size_bytes: int) -> Qcow2Head:
    """Return which clusters the whole disk's export as qcow2 would carry, and cut the connection there.

    ``ExportDamaged`` with the pool's own words when it cannot make that export, or when its tables do not come first.
    Memory as ``read_qcow2_head``.
    """
    with Download(calls, _request(disk, None, kind="qcow2"), with_task=False, cancel=calls.cancel) as body:
        stream = _RememberedStream(body)
        try:
            head = read_qcow2_head(stream, size_bytes_max=size_bytes + _QCOW2_ROUNDING_BYTES)
        except Qcow2Error as cause:
            page = stream.error_page()
            why = str(cause) if page is None else f"the pool stopped it: {page.status}: {page.message}"
            raise ExportDamaged(disk=disk, why=why) from cause
    if not size_bytes <= head.size_bytes < size_bytes + head.cluster_bytes:
        raise ExportDamaged(disk=disk, why=f"it is of {head.size_bytes} bytes, the disk of {size_bytes}")
    return head


class _RememberedStream:
    """A body whose last bytes are kept, because only they tell an export that the pool stopped from a wrong one."""

    def __init__(self, body: Download) -> None:
        self._body = body
        self._recent = b""

    def readinto(self, buffer: memoryview, /) -> int:
        """See ``ByteStream``."""
        got = self._body.readinto(buffer)
        self._recent = (self._recent + buffer[max(0, got - ERROR_PAGE_BYTES_MAX) : got])[-ERROR_PAGE_BYTES_MAX:]
        return got

    def error_page(self) -> ErrorPage | None:
        """Return the pool's words when the body ends in them; what was refused may have been their beginning."""
        if b"HTTP/1." in self._recent:
            left = memoryview(bytearray(ERROR_PAGE_BYTES_MAX))
            while left and (got := self.readinto(left)):
                left = left[got:]
        return find_error_page(self._recent)


def _check_head(head: VhdHead, *, disk: DiskUuid, size_bytes: int, expects_difference: bool) -> None:
    # From a raw disk the pool exports whole blocks, so the VHD may be larger by less than one.
    if not size_bytes <= head.size_bytes < size_bytes + head.block_bytes:
        raise ExportDamaged(disk=disk, why=f"it is of {head.size_bytes} bytes, the disk of {size_bytes}")
    if head.is_difference != expects_difference:
        got = "a difference" if head.is_difference else "the whole disk"
        raise ExportDamaged(disk=disk, why=f"it is {got}, which was not asked for")


class VhdDiskReader:
    """A ``DiskReader`` over one export stream."""

    def __init__(self, calls: Calls, plan: ReadPlan, *, cancel: Cancellation) -> None:
        self.plan = plan
        base = plan.reference.snapshot if plan.reference is not None else None
        self._body = Download(calls, _request(plan.snapshot, base), with_task=True, cancel=cancel)
        self._started = False

    @property
    def size_bytes(self) -> int:
        """See ``DiskReader``."""
        return self.plan.size_bytes

    @property
    def coverage(self) -> Coverage:
        """See ``DiskReader``."""
        return self.plan.coverage

    @property
    def planned_bytes(self) -> int:
        """See ``DiskReader``."""
        return self.plan.planned_bytes

    def runs(self) -> Iterator[Run]:
        """See ``DiskReader``. Raises ``ExportDamaged``, or what XAPI's task says went wrong."""
        assert not self._started, "a disk is read once"
        self._started = True
        disk, size_bytes = self.plan.snapshot, self.plan.size_bytes
        is_difference = self.coverage is Coverage.CHANGES
        try:
            reader = VhdStreamReader(self._body)
            _check_head(reader.head, disk=disk, size_bytes=size_bytes, expects_difference=is_difference)
            yield from _runs_of(reader, self.plan)
        except (VhdError, PoolConnectionLost) as cause:
            raise self._verdict(cause) from cause
        self._body.judge()

    def _verdict(self, cause: HoldfastError) -> HoldfastError:
        """Return why the stream is bad: what the pool says about its task, or else what the bytes say."""
        try:
            self._body.judge()
        except PoolFailure as failure:
            return failure
        except HoldfastError as unknown:
            return ExportDamaged(disk=self.plan.snapshot, why=f"{cause}; {unknown}")
        return ExportDamaged(disk=self.plan.snapshot, why=str(cause))

    def __enter__(self) -> Self:
        self._body.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._body.__exit__(kind, value, trace)


def _runs_of(reader: VhdStreamReader, plan: ReadPlan) -> Iterator[Run]:
    """Yield the stream's blocks as runs, cut at the disk's end; what a grown disk never wrote, as zeros."""
    grown_from = plan.reference_size_bytes if plan.coverage is Coverage.CHANGES else None
    done = _first_border(grown_from, reader.block_bytes) if grown_from is not None else plan.size_bytes
    last_end = 0
    for block in reader.blocks():
        if block.offset_bytes < last_end:
            raise ExportDamaged(disk=plan.snapshot, why=f"block {block.index} comes out of order")
        last_end = block.offset_bytes + len(block.data)
        if reader.is_difference and not block.is_whole:
            # Pools export whole blocks; a hole in one would have to be read from a parent that we do not have.
            raise ExportDamaged(disk=plan.snapshot, why=f"block {block.index} has only some of its sectors")
        if block.offset_bytes >= plan.size_bytes:
            continue
        if done < block.offset_bytes:
            yield ZeroRun(done, block.offset_bytes - done)
        done = max(done, last_end)
        yield DataRun(block.offset_bytes, block.data[: plan.size_bytes - block.offset_bytes])
    if done < plan.size_bytes:
        yield ZeroRun(done, plan.size_bytes - done)


def _first_border(reference_size_bytes: int, block_bytes: int) -> int:
    """Return the start of the first block that lies wholly behind the reference's end."""
    return -(-reference_size_bytes // block_bytes) * block_bytes
