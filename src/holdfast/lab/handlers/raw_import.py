"""``PUT /import_raw_vdi``: write a raw image, a VHD or single pieces onto a disk, or onto a new one.

The 200 is sent when the head was read; how it really went is told by the task, and inside the body by whoever reads on.
"""

from __future__ import annotations

import struct

import numpy as np

from holdfast.core import MIB
from holdfast.formats.vhd import VhdError, VhdStreamReader
from holdfast.lab.attachments import attached
from holdfast.lab.disks import DiskRangeInvalid
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.transfer import IO_ERROR, Refused, Transfer, find_disk
from holdfast.lab.http import Connection, Disconnected, pages
from holdfast.lab.volumes import create_vdi, disk_uuid, mark_written

__all__ = ["import_raw_vdi"]

_PIECE_BYTES = 4 * MIB
_PIECE_HEAD = struct.Struct("<QI")
_CHUNK_BYTES_MAX = 256 * MIB


def import_raw_vdi(one: Transfer) -> None:
    """Receive the disk."""
    request = one.request
    if "chunked" in request.headers.get("transfer-encoding", "").lower():
        raise Refused(pages.not_found(), ApiFailure("INTERNAL_ERROR", "Cannot handle encoding: chunked"))
    kind = (request.parameter("format") or "raw").lower()
    if kind not in ("raw", "vhd"):
        raise Refused(pages.not_found(), ApiFailure("INTERNAL_ERROR", f"Unknown format {kind}"))
    is_chunked = request.parameter("chunked") is not None
    if is_chunked and kind == "vhd":
        raise Refused(pages.not_found(), ApiFailure("INTERNAL_ERROR", "Cannot import chunked VHD"))
    vdi, size_bytes = _target(one, kind)
    one.head(f"task-id:{one.task}", "content-type: application/octet-stream")
    try:
        if vdi is None:
            vdi = _new_disk(one, size_bytes)
        with attached(one.pool, vdi, is_writable=True):
            _receive(one, vdi, kind=kind, is_chunked=is_chunked)
        if one.pool.faults.take("import-fails-late"):
            raise IO_ERROR()
    except (VhdError, DiskRangeInvalid, Disconnected) as cause:
        one.connection.send(pages.bad_request())
        raise IO_ERROR() from cause
    except ApiFailure as failure:
        if failure.code == "VDI_IO_ERROR":
            one.connection.send(pages.bad_request())
        raise
    mark_written(one.pool, vdi)
    one.result = vdi
    one.resets_at_end = one.pool.faults.take("import-resets") is not None


def _target(one: Transfer, kind: str) -> tuple[str | None, int]:
    """Return the disk to write to, or None and the size of the disk to make."""
    request, db = one.request, one.pool.db
    wanted = request.parameter("vdi")
    if wanted is not None:
        vdi = find_disk(one, wanted, "put_import_raw_vdi")
        one.assert_storage([db.text("VDI", vdi, "SR")])
        return vdi, 0
    sr = request.parameter("sr_id") or request.parameter("sr_uuid")
    if sr is None:
        raise Refused(pages.bad_request(), ApiFailure("VDI_MISSING"), keeps_open=True)
    if not (db.exists("SR", sr) or db.has_uuid("SR", sr)):
        raise Refused(pages.internal_error("NO_HOSTS_AVAILABLE: [  ]"), ApiFailure("NO_HOSTS_AVAILABLE"))
    one.assert_storage([sr if db.exists("SR", sr) else db.by_uuid("SR", sr)])
    if kind == "vhd":
        failure = ApiFailure("INTERNAL_ERROR", "Importing a VHD directly into an SR not yet supported")
        raise Refused(pages.bad_request(version="1.0"), failure)
    if not request.content_length:
        raise Refused(pages.bad_request(), IO_ERROR())
    return None, request.content_length


def _new_disk(one: Transfer, size_bytes: int) -> str:
    db = one.pool.db
    wanted = one.request.parameter("sr_id") or one.request.parameter("sr_uuid") or ""
    sr = wanted if db.exists("SR", wanted) else db.by_uuid("SR", wanted)
    record: dict[str, object] = {
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


def _receive(one: Transfer, vdi: str, *, kind: str, is_chunked: bool) -> None:
    announced_bytes = one.request.content_length
    if is_chunked:
        _receive_pieces(one, vdi)
    elif not announced_bytes:
        raise IO_ERROR()
    elif kind == "vhd":
        _receive_vhd(one, vdi, announced_bytes)
    else:
        _receive_raw(one, vdi, announced_bytes)


def _receive_raw(one: Transfer, vdi: str, announced_bytes: int) -> None:
    """Write what comes from the start of the disk; a stream that ends early is taken as it is."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    offset = 0
    while offset < announced_bytes:
        piece = buffer[: min(_PIECE_BYTES, announced_bytes - offset)]
        length_bytes = one.connection.readinto_fully(piece)
        _write(one, vdi, offset, piece[:length_bytes])
        offset += length_bytes
        one.progress(min(0.99, offset / announced_bytes))
        if length_bytes < len(piece):
            return


def _write(one: Transfer, vdi: str, offset: int, piece: memoryview) -> None:
    """Write a piece; what is all zeros stays sparse."""
    name = disk_uuid(one.pool, vdi)
    if len(piece) == 0:
        return
    if np.frombuffer(piece, dtype=np.uint8).any():
        one.pool.disks.write(name, offset, piece)
    else:
        one.pool.disks.zero(name, offset, len(piece))


def _receive_vhd(one: Transfer, vdi: str, announced_bytes: int) -> None:
    """Write the sectors that the VHD claims on top of what the disk holds. The length announced is not looked at: the
    stream ends with its footer, and until then the pool waits for more."""
    reader = VhdStreamReader(_Body(one.connection), expects_end=False)
    name = disk_uuid(one.pool, vdi)
    done_bytes = 0
    for block in reader.blocks():
        for extent in block.present_extents():
            start = extent.offset_bytes - block.offset_bytes
            one.pool.disks.write(name, extent.offset_bytes, block.data[start : start + extent.length_bytes])
        done_bytes += len(block.data)
        one.progress(min(0.99, done_bytes / announced_bytes))


class _Body:
    """The rest of the connection as a ``ByteStream``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readinto(self, buffer: memoryview, /) -> int:
        return self._connection.readinto(buffer)


def _receive_pieces(one: Transfer, vdi: str) -> None:
    """Write pieces that each bring their offset; an empty one at offset 0 is the last."""
    while True:
        offset, length_bytes = _PIECE_HEAD.unpack(one.connection.read_body(_PIECE_HEAD.size))
        if offset == 0 and length_bytes == 0:
            return
        if length_bytes > _CHUNK_BYTES_MAX:
            raise IO_ERROR()
        while length_bytes:
            part = min(length_bytes, _PIECE_BYTES)
            _write(one, vdi, offset, memoryview(one.connection.read_body(part)))
            offset, length_bytes = offset + part, length_bytes - part
