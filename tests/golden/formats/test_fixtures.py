"""Bytes that we once wrote are written the same today, are still read, and stand in the pages as they are."""

from __future__ import annotations

import base64
import datetime
import io
import uuid
from pathlib import Path

import numpy as np
import pytest

from holdfast.core import BLOCK_BYTES
from holdfast.formats import nbd
from holdfast.formats.cbt import decode_blocks, encode_bitmap
from holdfast.formats.nbd import ClientFlag, Command, Errno, HandshakeFlag, Option, TransmissionFlag
from holdfast.formats.qcow2 import Qcow2Reader, plan_qcow2, stream_qcow2
from holdfast.formats.vhd import VhdParent, VhdStreamReader, plan_vhd
from holdfast.formats.xva import XvaReader, XvaWriter
from tests.golden.formats.pages import FIXTURES, PAGES
from tests.support.hexdump import annotated_dump

PROJECT = Path(__file__).parents[3]
NOW = datetime.datetime(2026, 11, 20, 9, 8, 20, tzinfo=datetime.UTC)
CBT_SIZE_BYTES = 11 * BLOCK_BYTES
CBT_CHANGED = [0, 6, 7, 8, 10]
EXPORT_NAME = "/1b4e28ba-2fa1-11d2-883f-b9a761bde3fb?session_id=Opaque"


def written_vhd() -> bytes:
    parent = VhdParent(uuid=uuid.UUID(int=0xBA5E), name="base.vhd", created_at=NOW - datetime.timedelta(days=1))
    identity = uuid.UUID("00112233-4455-4677-8899-aabbccddeeff")
    plan = plan_vhd(8 << 20, np.array([], dtype=np.int64), uuid=identity, created_at=NOW, parent=parent)
    return plan.head + plan.footer


def written_bitmap() -> bytes:
    return base64.b64decode(encode_bitmap(np.array(CBT_CHANGED, dtype=np.int64), size_bytes=CBT_SIZE_BYTES))


def written_conversation() -> bytes:
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY
    return b"".join(
        [
            nbd.pack_greeting(HandshakeFlag.FIXED_NEWSTYLE),
            nbd.pack_client_flags(ClientFlag.FIXED_NEWSTYLE),
            nbd.pack_option(Option.EXPORT_NAME, data=EXPORT_NAME.encode()),
            nbd.pack_export(8 << 20, flags, client_flags=ClientFlag.FIXED_NEWSTYLE),
            nbd.pack_request(Command.READ, handle=1, offset_bytes=BLOCK_BYTES, length_bytes=512),
            nbd.pack_simple_reply(Errno.OK, handle=1),
            b"\xda" * 512,
            nbd.pack_request(Command.DISC, handle=2),
        ]
    )


def written_qcow2() -> bytes:
    def fill(offset_bytes: int, view: memoryview) -> None:
        view[:] = b"\xda" * len(view)

    plan = plan_qcow2(1 << 20, np.array([3], dtype=np.int64))
    return b"".join(bytes(piece) for piece in stream_qcow2(plan, fill))


def written_xva() -> bytes:
    writer = XvaWriter()
    pieces = writer.description(b"<value>1</value>\n", time_s=int(NOW.timestamp()))
    pieces += writer.block("Ref:4", 0, b"\xda" * 512)
    pieces += writer.block("Ref:4", 2, b"\xdb" * 512)
    return b"".join(bytes(piece) for piece in [*pieces, *writer.end()])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("xva-short.xva", written_xva()),
        ("qcow2-cluster.qcow2", written_qcow2()),
        ("vhd-difference.vhd", written_vhd()),
        ("cbt-bitmap.bin", written_bitmap()),
        ("nbd-conversation.bin", written_conversation()),
    ],
)
def test_what_was_once_written_is_written_the_same(name: str, written: bytes) -> None:
    assert (FIXTURES / name).read_bytes() == written


def test_the_frozen_vhd_is_still_read() -> None:
    reader = VhdStreamReader(io.BytesIO((FIXTURES / "vhd-difference.vhd").read_bytes()))
    assert list(reader.blocks()) == []
    assert reader.head.header.parent_name == "base.vhd"
    assert reader.parent_uuid == uuid.UUID(int=0xBA5E)
    assert reader.head.footer.created_at == NOW


def test_the_frozen_qcow2_is_still_read() -> None:
    reader = Qcow2Reader(io.BytesIO((FIXTURES / "qcow2-cluster.qcow2").read_bytes()))
    assert [(cluster.offset_bytes, reader.read(cluster)) for cluster in reader.clusters()] == [
        (3 << 16, b"\xda" * (1 << 16))
    ]


def test_the_frozen_xva_is_still_read() -> None:
    reader = XvaReader(io.BytesIO((FIXTURES / "xva-short.xva").read_bytes()))
    assert reader.read_description() == b"<value>1</value>\n"
    assert [(block.offset_bytes, bytes(block.data)) for block in reader.blocks()] == [
        (0, b"\xda" * 512),
        (1024, b"\xdb" * 512),
    ]


def test_the_frozen_bitmap_is_still_read() -> None:
    text = base64.b64encode((FIXTURES / "cbt-bitmap.bin").read_bytes()).decode()
    assert np.flatnonzero(decode_blocks(text, size_bytes=CBT_SIZE_BYTES)).tolist() == CBT_CHANGED


@pytest.mark.parametrize("page", PAGES)
def test_the_dumps_in_a_page_are_those_of_the_fixtures(page: str) -> None:
    text = PAGES[page]()
    assert "<!-- dump: " in text, f"{page} has no dump"
    assert (PROJECT / page).read_text(encoding="utf-8") == text, "run python -m tests.golden.formats.pages"


def test_a_dump_that_leaves_bytes_out_is_refused() -> None:
    assert annotated_dump(b"ab" + bytes(20), [(2, "letters"), (20, "rest")]).splitlines() == [
        f"000000  {'61 62':<47}  letters",
        f"000002  {'00 × 20':<47}  rest",
    ]
    with pytest.raises(AssertionError, match="cover 2 of 3"):
        annotated_dump(b"abc", [(2, "letters")])
