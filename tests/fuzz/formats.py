"""Decoders of others' formats: VHD, changed-block bitmaps, the NBD wire, XVA, qcow2."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np

from holdfast.core import MIB, limits
from holdfast.formats import cbt, nbd
from holdfast.formats.qcow2 import Qcow2Reader, read_qcow2_head
from holdfast.formats.vhd import VhdFile, VhdStreamReader, plan_vhd, stream_vhd
from holdfast.formats.xva import XvaReader
from tests.fuzz.target import Target, once
from tests.support.vhd import MemoryDisk

__all__ = ["FORMAT_TARGETS"]

_SIZE_BYTES = 3 * MIB + 512
_BLOCKS_MAX = 64
_GOLDEN = Path(__file__).parents[1] / "golden" / "formats"


def _vhd_stream(data: bytes) -> None:
    reader = VhdStreamReader(io.BytesIO(data))
    for _, block in zip(range(_BLOCKS_MAX), reader.blocks(), strict=False):
        block.present_extents()


def _vhd_file(data: bytes) -> None:
    disk = VhdFile(io.BytesIO(data))
    for _, extent in zip(range(_BLOCKS_MAX), disk.data_extents(), strict=False):
        disk.read(extent.offset_bytes, min(extent.length_bytes, 4096))


def _xva(data: bytes) -> None:
    reader = XvaReader(io.BytesIO(data))
    reader.read_description()
    for _, block in zip(range(_BLOCKS_MAX), reader.blocks(), strict=False):
        assert len(block.data) <= MIB


def _qcow2(data: bytes) -> None:
    reader = Qcow2Reader(io.BytesIO(data))
    for _, cluster in zip(range(_BLOCKS_MAX), reader.clusters(), strict=False):
        reader.read(cluster)


def _qcow2_head(data: bytes) -> None:
    read_qcow2_head(io.BytesIO(data), size_bytes_max=limits.VHD_DISK_BYTES_MAX)


def _cbt(data: bytes) -> None:
    cbt.decode_bitmap(data.decode("latin-1"), size_bytes=_SIZE_BYTES)


def _nbd_export(body: bytes) -> object:
    """Whoever reads this message off a socket takes exactly its length."""
    flags = nbd.ClientFlag(0)
    length_bytes = nbd.export_length_bytes(flags)
    return nbd.unpack_export(body[:length_bytes].ljust(length_bytes, b"\0"), client_flags=flags)


def _nbd(data: bytes) -> None:
    """Feed one message to the parser that the first byte names."""
    if not data:
        return
    parsers: list[Callable[[bytes], object]] = [
        nbd.unpack_greeting,
        nbd.unpack_client_flags,
        nbd.unpack_option,
        nbd.unpack_option_reply,
        _nbd_export,
        nbd.unpack_export_name,
        nbd.unpack_go,
        nbd.unpack_info_export,
        nbd.unpack_server,
        nbd.unpack_request,
        nbd.unpack_simple_reply,
    ]
    parsers[data[0] % len(parsers)](data[1:])


def _vhd_samples() -> Iterator[bytes]:
    yield (_GOLDEN / "vhd-difference.vhd").read_bytes()
    disk = MemoryDisk(b"a" * 512 + bytes(_SIZE_BYTES - 512))
    plan = plan_vhd(disk.size_bytes, np.array([0]), uuid=UUID(int=1), created_at=datetime(2026, 1, 1, tzinfo=UTC))
    # The head and one sector: a whole block is too long for a mutation to hit anything that matters.
    yield b"".join(bytes(piece) for piece in stream_vhd(plan, disk))[:4096]


def _xva_samples() -> Iterator[bytes]:
    yield (_GOLDEN / "xva-short.xva").read_bytes()


def _qcow2_samples() -> Iterator[bytes]:
    yield (_GOLDEN / "qcow2-cluster.qcow2").read_bytes()


def _cbt_samples() -> Iterator[bytes]:
    yield base64.b64encode(bytes([0b1010_0000] * 7))
    yield b"AA=="


def _nbd_samples() -> Iterator[bytes]:
    yield b"\0" + nbd.pack_greeting(nbd.HandshakeFlag(1))
    yield b"\2" + nbd.pack_option(nbd.Option.GO, data=nbd.pack_go("disk"))
    yield b"\3" + nbd.pack_option_reply(nbd.Option.GO, nbd.Reply.ACK)
    yield b"\6" + nbd.pack_go("disk", kinds=[0])
    yield b"\7" + nbd.pack_info_export(4096, nbd.TransmissionFlag(1))
    yield b"\x09" + nbd.pack_request(nbd.Command.READ, handle=1, length_bytes=512)
    yield b"\x0a" + nbd.pack_simple_reply(nbd.Errno.OK, handle=1)


FORMAT_TARGETS = {
    "vhd-stream": Target(_vhd_stream, once(_vhd_samples)),
    "vhd-file": Target(_vhd_file, once(_vhd_samples)),
    "xva": Target(_xva, once(_xva_samples)),
    "qcow2": Target(_qcow2, once(_qcow2_samples)),
    "qcow2-head": Target(_qcow2_head, once(_qcow2_samples)),
    "cbt": Target(_cbt, once(_cbt_samples)),
    "nbd": Target(_nbd, once(_nbd_samples)),
}
