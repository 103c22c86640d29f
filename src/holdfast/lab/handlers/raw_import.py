"""``PUT /import_raw_vdi``: write a raw image, VHD, qcow2, tar or single pieces onto a disk, or an image onto a new one.

The 200 is sent when the head was read; how it really went is told by the task, and inside the body by whoever reads on.
Every failure but a refused format is told there twice: as a 400 and as a 500.
"""

from __future__ import annotations

import struct

from holdfast.core import MIB, SECTOR_BYTES, HoldfastError, get_log
from holdfast.formats.qcow2 import Qcow2Error
from holdfast.lab.attachments import attached
from holdfast.lab.database import Fields
from holdfast.lab.disks import DiskRangeInvalid
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.disk_query import DiskFormat, assert_reachable, find_disk, find_repository, wanted_format
from holdfast.lab.handlers.disk_write import DiskWriter
from holdfast.lab.handlers.qcow2 import receive_qcow2
from holdfast.lab.handlers.tar import receive_tar
from holdfast.lab.handlers.transfer import IO_ERROR, Refused, Transfer, refused_early
from holdfast.lab.handlers.vhd_import import VhdRefused, receive_vhd
from holdfast.lab.http import Disconnected, pages
from holdfast.lab.volumes import create_vdi, mark_written

__all__ = ["import_raw_vdi"]

_PIECE_BYTES = 2 * MIB
"""The copying tool's unit: a body that ends inside of one passes as if it were whole."""

_PIECE_HEAD = struct.Struct("<QI")
_PIECE_LENGTH_BYTES_MAX = (1 << 31) - 1

log = get_log(__name__)


def import_raw_vdi(one: Transfer) -> None:
    """Receive the disk."""
    try:
        vdi = find_disk(one, "vdi")
    except ApiFailure as failure:
        if failure.code == "HANDLE_INVALID":
            raise _told_twice(one, failure) from failure
        raise refused_early(one, failure) from failure
    try:
        _import(one, vdi)
    except Disconnected as cause:
        raise _told_twice(one, IO_ERROR()) from cause
    except ApiFailure as failure:
        raise _told_twice(one, failure) from failure
    except HoldfastError as cause:
        log.warning("lab.import-failed", reason=str(cause))
        raise _told_twice(one, IO_ERROR()) from cause


def _told_twice(one: Transfer, failure: ApiFailure) -> ApiFailure:
    one.connection.send(pages.bad_request())
    return failure


def _import(one: Transfer, vdi: str | None) -> None:
    sr = find_repository(one) if vdi is None else one.pool.db.text("VDI", vdi, "SR")
    if sr is None:
        raise Refused(pages.bad_request(), ApiFailure("VDI_MISSING"), keeps_open=one.request.is_keep_alive)
    assert_reachable(one, sr)
    kind, is_in_pieces = _checked_kind(one)
    target = vdi or _new_disk(one, sr, kind)
    one.head(f"task-id:{one.task}", "content-type: application/octet-stream")
    with attached(one.pool, target, is_writable=True):
        _receive(one, target, kind, is_in_pieces=is_in_pieces)
    if one.pool.faults.take("import-fails-late"):
        raise IO_ERROR()
    mark_written(one.pool, target)
    one.result = target


def _checked_kind(one: Transfer) -> tuple[DiskFormat, bool]:
    """Return the format, and whether the body brings pieces with an offset each."""
    request = one.request
    kind = wanted_format(one)
    if isinstance(kind, str):
        raise _refused(404, f"Unknown format {kind}")
    is_in_pieces = "chunked" in request.query or "chunked" in request.cookies
    if is_in_pieces and kind is not DiskFormat.RAW:
        raise _refused(404, "Cannot handle chunked VHD")
    encoding = request.headers.get("transfer-encoding")
    if encoding is not None:
        raise _refused(404, f"Cannot handle encoding: {encoding}")
    return kind, is_in_pieces


def _refused(status: int, reason: str) -> Refused:
    page = pages.not_found() if status == 404 else pages.bad_request(version="1.0")
    return Refused(page, ApiFailure("INTERNAL_ERROR", reason))


def _new_disk(one: Transfer, sr: str, kind: DiskFormat) -> str:
    """Make the disk for an image that comes without one; only a raw one says how large it must be."""
    size_bytes = one.request.content_length
    if kind is DiskFormat.VHD:
        raise _refused(400, "Importing a VHD directly into an SR not yet supported")
    if kind is DiskFormat.QCOW2:
        raise _refused(400, "Importing a QCOW2 directly into an SR not yet supported")
    if kind is DiskFormat.TAR or size_bytes is None:
        raise _refused(400, "Not enough info supplied to import")
    record: Fields = {
        "name_label": "Imported VDI",
        "name_description": "",
        "SR": sr,
        "virtual_size": size_bytes,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }
    return create_vdi(one.pool, record)


def _receive(one: Transfer, vdi: str, kind: DiskFormat, *, is_in_pieces: bool) -> None:
    writer = DiskWriter(one.pool, vdi)
    announced_bytes = one.request.content_length
    length_bytes = writer.size_bytes if announced_bytes is None else announced_bytes
    try:
        match kind:
            case DiskFormat.TAR:
                receive_tar(one, vdi)
            case DiskFormat.QCOW2:
                receive_qcow2(one, writer)
            case DiskFormat.RAW if is_in_pieces:
                _receive_pieces(one, writer)
            case _ if length_bytes <= 0:
                raise IO_ERROR()
            case DiskFormat.VHD:
                receive_vhd(one.connection, writer, announced_bytes=length_bytes, progress=one.progress)
            case _:
                _receive_raw(one, writer, length_bytes)
    except (VhdRefused, Qcow2Error, DiskRangeInvalid) as cause:
        raise IO_ERROR() from cause


def _receive_raw(one: Transfer, writer: DiskWriter, announced_bytes: int) -> None:
    """Write what comes from the start of the disk."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    offset = 0
    while offset < announced_bytes:
        piece = buffer[: min(_PIECE_BYTES, announced_bytes - offset)]
        _fill(one, piece)
        writer.write(offset, piece)
        offset += len(piece)
        one.progress(offset / announced_bytes)


def _fill(one: Transfer, piece: memoryview) -> None:
    """Read a piece; one that ends too early keeps what stood behind its end, and only the next one fails."""
    if one.connection.readinto_fully(piece) == 0 or one.connection.is_broken:
        raise IO_ERROR()


def _receive_pieces(one: Transfer, writer: DiskWriter) -> None:
    """Write pieces of whole sectors that each bring their offset; an empty one at offset 0 is the last."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    head = memoryview(bytearray(_PIECE_HEAD.size))
    while True:
        _fill(one, head)
        offset, length_bytes = _PIECE_HEAD.unpack(head)
        if offset == 0 and length_bytes == 0:
            return
        if length_bytes > _PIECE_LENGTH_BYTES_MAX:
            raise IO_ERROR()
        while True:
            piece = buffer[: min(length_bytes, _PIECE_BYTES)]
            if length_bytes:
                _fill(one, piece)
            if offset % SECTOR_BYTES or len(piece) % SECTOR_BYTES:
                raise IO_ERROR()
            writer.write(offset, piece)
            offset, length_bytes = offset + len(piece), length_bytes - len(piece)
            if not length_bytes:
                break
