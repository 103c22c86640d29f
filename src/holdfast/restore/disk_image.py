"""What a disk becomes in a file: raw with holes, VHD or qcow2, each written from the disk's runs in order.

Invariant: everything that the source yields is in the file; whatever it does not yield reads as zeros.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from holdfast.core import Entropy, ExitStatus, HoldfastError, ProgressTask
from holdfast.formats.qcow2 import plan_qcow2_of, stream_qcow2_of
from holdfast.formats.vhd import allocated_vhd_blocks, new_vhd_uuid, plan_vhd, stream_vhd
from holdfast.model import DiskSource
from holdfast.restore.disk_file import create_disk_file

__all__ = ["FormatUnknown", "ImageFormat", "format_of", "write_image", "write_raw"]


class FormatUnknown(HoldfastError):
    """The name of a file does not say which format it should have."""

    code = "restore.format-unknown"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was restored."
    advice = "End the file's name in .raw or .img, .vhd, or .qcow2."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the name {path} does not end as a disk's format does")
        self.path = path


class ImageFormat(enum.Enum):
    """The formats in which a disk can be written."""

    RAW = "raw"
    """The disk byte by byte, holes where it is zero."""
    VHD = "vhd"
    """Dynamic; disks of at most 2,040 GiB."""
    QCOW2 = "qcow2"


_FORMATS = {
    ".raw": ImageFormat.RAW,
    ".img": ImageFormat.RAW,
    ".vhd": ImageFormat.VHD,
    ".qcow2": ImageFormat.QCOW2,
}


def format_of(path: Path) -> ImageFormat:
    """Return the format that a file's name asks for. ``FormatUnknown``."""
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise FormatUnknown(path=str(path)) from None


def _nothing() -> None:
    """Do nothing."""


def write_image(
    path: Path,
    source: DiskSource,
    format: ImageFormat,
    *,
    task: ProgressTask,
    entropy: Entropy,
    created_at: datetime,
    before_publishing: Callable[[], None] = _nothing,
) -> None:
    """Write a disk to a new file; ``before_publishing`` is called when all is written and nothing visible yet.

    ``VhdDiskTooLarge``, ``Qcow2TooLarge``, and whatever ``create_disk_file`` and the disk raise.
    """
    match format:
        case ImageFormat.RAW:
            write_raw(path, source, task=task, before_publishing=before_publishing)
        case ImageFormat.VHD:
            blocks = allocated_vhd_blocks(source.data_extents(), size_bytes=source.size_bytes)
            vhd = plan_vhd(source.size_bytes, blocks, uuid=new_vhd_uuid(entropy), created_at=created_at)
            _write_stream(path, stream_vhd(vhd, source), vhd.length_bytes, before_publishing, task=task)
        case ImageFormat.QCOW2:
            qcow2 = plan_qcow2_of(source)
            _write_stream(path, stream_qcow2_of(qcow2, source), qcow2.length_bytes, before_publishing, task=task)


def write_raw(
    path: Path, source: DiskSource, *, task: ProgressTask, before_publishing: Callable[[], None] = _nothing
) -> None:
    """Write a disk to a new file byte by byte; what is zero stays a hole. See ``write_image``."""
    data_bytes = sum(extent.length_bytes for extent in source.data_extents())
    task.retotal(data_bytes)
    with create_disk_file(path, room_bytes=data_bytes) as file:
        file.set_size(source.size_bytes)
        for run in source.runs():
            file.write(run.offset_bytes, run.data)
            task.advance(run.length_bytes)
        before_publishing()


def _write_stream(
    path: Path,
    pieces: Iterable[bytes | memoryview],
    length_bytes: int,
    before_publishing: Callable[[], None],
    *,
    task: ProgressTask,
) -> None:
    task.retotal(length_bytes)
    offset_bytes = 0
    with create_disk_file(path, room_bytes=length_bytes) as file:
        for piece in pieces:
            file.write(offset_bytes, piece)
            offset_bytes += len(piece)
            task.advance(len(piece))
        assert offset_bytes == length_bytes
        before_publishing()
