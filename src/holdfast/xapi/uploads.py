"""Filling a disk: as VHD, as qcow2 or raw, whichever carries least of what the disk can take.

Invariant: what is sent is judged by XAPI's task and by the disk's own record afterwards.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from holdfast.core import Cancellation, Progress, ProgressTask, limits
from holdfast.formats.qcow2 import plan_qcow2_of, stream_qcow2_of
from holdfast.formats.vhd import allocated_vhd_blocks, new_vhd_uuid, plan_vhd, stream_vhd
from holdfast.model import DiskSource, DiskUuid
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import ObjectGone
from holdfast.xapi.errors import PoolAnswerInvalid, PoolFailure, UploadIncomplete
from holdfast.xapi.image_format import is_kept_as_qcow2
from holdfast.xapi.records import integer
from holdfast.xapi.transfer import TransferRequest, upload

__all__ = ["write_disk"]

_ZEROS = memoryview(bytes(1 << 20))


def write_disk(
    calls: Calls, disk: DiskUuid, source: DiskSource, *, label: str, progress: Progress, cancel: Cancellation
) -> None:
    """Fill an empty disk: as VHD or qcow2, which carry only what holds data; raw where it can be neither."""
    ref = calls.ref("VDI", disk)
    _check_size(calls, disk, ref, source)
    image = _image_of(calls, ref, source)
    label = label or f"upload to disk {disk}"
    try:
        _send(calls, disk, image, label=label, progress=progress, cancel=cancel)
    except (PoolAnswerInvalid, PoolFailure) as refusal:
        if image.format != "qcow2" or not image.is_untouched:
            raise
        # Early releases with qcow2 disks take no qcow2; any other reason comes back when it is tried again.
        progress.note(f"{label}: sent with its holes, because the pool does not take it as qcow2 ({refusal})")
        _send(calls, disk, _raw(source), label=label, progress=progress, cancel=cancel)
    _check_size(calls, disk, ref, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """What is sent of a disk."""

    format: str
    body: Generator[bytes | memoryview, None, None]
    length_bytes: int

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of the body was taken yet."""
        return inspect.getgeneratorstate(self.body) == inspect.GEN_CREATED


def _image_of(calls: Calls, ref: str, source: DiskSource) -> _Image:
    if source.size_bytes <= limits.VHD_DISK_BYTES_MAX:
        blocks = allocated_vhd_blocks(source.data_extents(), size_bytes=source.size_bytes)
        vhd = plan_vhd(source.size_bytes, blocks, uuid=new_vhd_uuid(calls.entropy), created_at=calls.clock.now())
        return _Image(format="vhd", body=_pieces(stream_vhd(vhd, source)), length_bytes=vhd.length_bytes)
    if is_kept_as_qcow2(calls, calls.record("VDI", ref)):
        qcow2 = plan_qcow2_of(source)
        return _Image(format="qcow2", body=_pieces(stream_qcow2_of(qcow2, source)), length_bytes=qcow2.length_bytes)
    return _raw(source)


def _raw(source: DiskSource) -> _Image:
    return _Image(format="raw", body=_pieces(_raw_body(source)), length_bytes=source.size_bytes)


def _send(calls: Calls, disk: DiskUuid, image: _Image, *, label: str, progress: Progress, cancel: Cancellation) -> None:
    request = TransferRequest(
        verb="PUT",
        path="/import_raw_vdi",
        query={"vdi": str(disk), "format": image.format},
        operation=f"upload to disk {disk}",
    )
    with progress.start(label, total_bytes=image.length_bytes) as task:
        body = _counted(image.body, task, cancel)
        upload(calls, request, body=body, length_bytes=image.length_bytes, cancel=cancel)


def _check_size(calls: Calls, disk: DiskUuid, ref: str, source: DiskSource) -> None:
    try:
        size_bytes = integer(calls.record("VDI", ref), "virtual_size")
    except ObjectGone as failure:
        raise UploadIncomplete(disk=disk, why="the disk is gone from the pool") from failure
    if size_bytes < source.size_bytes:
        raise UploadIncomplete(disk=disk, why=f"it is of {size_bytes} bytes, {source.size_bytes} are needed")


def _counted(
    body: Iterator[bytes | memoryview], task: ProgressTask, cancel: Cancellation
) -> Iterator[bytes | memoryview]:
    for piece in body:
        cancel.check()
        yield piece
        task.advance(len(piece))


def _pieces(body: Iterator[bytes | memoryview]) -> Generator[bytes | memoryview, None, None]:
    """Return the body in a shape that tells whether it was begun."""
    yield from body


def _raw_body(source: DiskSource) -> Iterator[bytes | memoryview]:
    """Yield the whole disk, holes as zeros."""
    done = 0
    for run in source.runs():
        yield from _zeros(run.offset_bytes - done)
        yield memoryview(run.data)
        done = run.offset_bytes + run.length_bytes
    yield from _zeros(source.size_bytes - done)


def _zeros(length_bytes: int) -> Iterator[memoryview]:
    whole, rest = divmod(length_bytes, len(_ZEROS))
    yield from itertools.repeat(_ZEROS, whole)
    if rest:
        yield _ZEROS[:rest]
