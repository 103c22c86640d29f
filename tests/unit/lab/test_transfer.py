"""Disks over HTTP: whole, as differences, and with everything that goes wrong told where a pool tells it."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from holdfast.core import MIB
from holdfast.formats.vhd import VHD_EPOCH, VhdParent, VhdStreamReader, plan_vhd, stream_vhd
from holdfast.lab import RunningLab
from holdfast.lab.attachments import attached
from holdfast.model import DataRun
from tests.unit.lab.talk import converse, ended, first_disk, get_raw, new_disk, put_raw, refusal, vm_named

_SIZE = 8 * MIB


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    """A disk with data in blocks 0 and 3, gone afterwards with its snapshots."""
    made = new_disk(api, _SIZE)
    lab.pool.disks.write(api.VDI.get_uuid(made), 0, random.Random(1).randbytes(MIB))
    lab.pool.disks.write(api.VDI.get_uuid(made), 7 * MIB, b"end" * 1000)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def _content(lab: RunningLab, api: Any, disk: str) -> bytes:
    name = api.VDI.get_uuid(disk)
    return lab.pool.disks.read(name, 0, lab.pool.disks.size_bytes(name))


def _vhd_of(content: bytes, blocks: list[int], *, is_difference: bool = False) -> bytes:
    """Return a VHD of those blocks of a content, as our own writer makes it."""
    parent = VhdParent(uuid=uuid.UUID(int=1), name="p.vhd", created_at=VHD_EPOCH) if is_difference else None
    plan = plan_vhd(
        len(content), np.array(blocks, dtype=np.int64), uuid=uuid.UUID(int=2), created_at=VHD_EPOCH, parent=parent
    )
    return b"".join(bytes(piece) for piece in stream_vhd(plan, _Bytes(content, blocks)))


class _Bytes:
    """Some blocks of a content as a ``DiskSource``."""

    def __init__(self, content: bytes, blocks: list[int]) -> None:
        self._content = content
        self._blocks = blocks

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    def data_extents(self) -> Iterator[Any]:
        raise NotImplementedError

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return self._content[offset_bytes : offset_bytes + length_bytes]

    def runs(self) -> Iterator[DataRun]:
        for block in self._blocks:
            yield DataRun(block * 2 * MIB, self._content[block * 2 * MIB : (block + 1) * 2 * MIB])


def _blocks(body: bytes) -> dict[int, bytes]:
    return {block.index: bytes(block.data) for block in VhdStreamReader(io.BytesIO(body)).blocks()}


def test_a_raw_export_is_the_disk_and_ends_with_the_connection(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    task = api.task.create("export", "")
    answer = get_raw(lab, session, disk, format="raw", task_id=task)
    assert answer.status == 200
    assert "content-length" not in answer.headers
    assert answer.headers["task-id"] == task
    assert answer.body == _content(lab, api, disk)
    assert ended(lab, task)["status"] == "success"


def test_a_vhd_export_carries_exactly_the_allocated_blocks(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    content = _content(lab, api, disk)
    answer = get_raw(lab, session, disk, format="VHD")
    reader = VhdStreamReader(io.BytesIO(answer.body))
    assert (reader.size_bytes, len(answer.body)) == (_SIZE, reader.length_bytes)
    assert _blocks(answer.body) == {0: content[: 2 * MIB], 3: content[6 * MIB :]}
    assert answer.headers["content-type"] == "application/vhd"
    assert api.VDI.get_uuid(disk) in answer.headers["content-disposition"]


def test_a_difference_carries_the_blocks_written_since(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    base = api.VDI.snapshot(disk)
    lab.pool.disks.write(api.VDI.get_uuid(disk), 5 * MIB, b"changed")
    target = api.VDI.snapshot(disk)
    answer = get_raw(lab, session, target, format="vhd", base=base)
    reader = VhdStreamReader(io.BytesIO(answer.body))
    assert reader.is_difference
    assert reader.parent_uuid not in (None, uuid.UUID(api.VDI.get_uuid(base)))
    assert _blocks(answer.body) == {2: _content(lab, api, target)[4 * MIB : 6 * MIB]}


def test_two_exports_of_one_disk_run_together_and_leave_no_attachment(lab: RunningLab, session: Any, disk: str) -> None:
    for _ in range(2):
        assert get_raw(lab, session, disk, format="raw").status == 200
    assert lab.control.attachments() == []


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ({"format": "vmdk"}, 404, ["INTERNAL_ERROR", "Unknown format vmdk"]),
        ({"vdi": "nope"}, 500, ["RBAC_PERMISSION_DENIED", "http/get_export_raw_vdi", "UUID_INVALID: [ VDI; nope ]"]),
        ({"format": "vhd", "base": "nope"}, 200, ["UUID_INVALID", "VDI", "nope"]),
    ],
)
def test_an_export_that_cannot_be_made_tells_its_task(
    lab: RunningLab, session: Any, api: Any, disk: str, query: dict[str, str], status: int, error: list[str]
) -> None:
    task = api.task.create("export", "")
    answer = (
        get_raw(lab, session, **{"disk": disk, "task_id": task, **query})
        if "vdi" not in query
        else (get_raw(lab, session, query["vdi"], task_id=task))
    )
    assert answer.status == status
    assert ended(lab, task)["error_info"] == error
    if status == 200:
        assert answer.body.startswith(b"HTTP/1.1 500 Internal Error\r\n")


def test_a_disk_that_a_running_vm_writes_cannot_be_exported(lab: RunningLab, session: Any, api: Any) -> None:
    live = first_disk(api, vm_named(api, "alpha"))
    task = api.task.create("export", "")
    assert b"VDI_IN_USE" in get_raw(lab, session, live, task_id=task).body
    assert ended(lab, task)["error_info"] == ["VDI_IN_USE", live, "attach"]


def test_a_disk_whose_data_was_destroyed_cannot_be_exported(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    snapshot = api.VDI.snapshot(disk)
    api.VDI.data_destroy(snapshot)
    assert b"VDI_INCOMPATIBLE_TYPE" in get_raw(lab, session, snapshot).body


def test_a_task_that_the_handler_made_is_gone_at_the_end(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    own = get_raw(lab, session, disk).headers["task-id"]
    assert refusal(lambda: api.task.get_record(own)) == ["HANDLE_INVALID", "task", own]


def test_a_raw_import_writes_from_the_start_and_tells_its_task(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    before = _content(lab, api, disk)
    sent = random.Random(2).randbytes(3 * MIB) + bytes(MIB)
    task = api.task.create("import", "")
    said = put_raw(lab, session, disk, sent, format="raw", task_id=task)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    record = ended(lab, task)
    assert (record["status"], record["result"]) == ("success", f"<value>{disk}</value>")
    assert _content(lab, api, disk) == sent + before[len(sent) :]


def test_a_vhd_import_writes_only_what_the_vhd_claims(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    before = _content(lab, api, disk)
    new = random.Random(3).randbytes(_SIZE)
    only = bytearray(_SIZE)
    only[2 * MIB : 4 * MIB] = new[2 * MIB : 4 * MIB]
    task = api.task.create("import", "")
    put_raw(lab, session, disk, _vhd_of(bytes(only), [1]), format="vhd", task_id=task)
    assert ended(lab, task)["status"] == "success"
    assert _content(lab, api, disk) == before[: 2 * MIB] + new[2 * MIB : 4 * MIB] + before[4 * MIB :]


def test_a_differencing_vhd_changes_only_the_sectors_it_claims(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    before = _content(lab, api, disk)
    body = bytearray(_vhd_of(b"\x11" * _SIZE, [0], is_difference=True))
    bitmap_at = body.index(b"\xff" * 512 + b"\x11" * 512)
    body[bitmap_at : bitmap_at + 512] = b"\x40" + bytes(511)  # only sector 1
    task = api.task.create("import", "")
    put_raw(lab, session, disk, bytes(body), format="vhd", task_id=task)
    assert ended(lab, task)["status"] == "success"
    assert _content(lab, api, disk) == before[:512] + b"\x11" * 512 + before[1024:]


def test_an_export_imported_again_is_the_same_disk(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    copy = new_disk(api, _SIZE)
    task = api.task.create("import", "")
    put_raw(lab, session, copy, get_raw(lab, session, disk, format="vhd").body, format="vhd", task_id=task)
    assert ended(lab, task)["status"] == "success"
    names = api.VDI.get_uuid(disk), api.VDI.get_uuid(copy)
    assert lab.control.sha256(names[0]) == lab.control.sha256(names[1])
    assert lab.pool.disks.used_bytes(names[1]) == lab.pool.disks.used_bytes(names[0])
    assert api.VDI.checksum(copy) == hashlib.md5(_content(lab, api, disk), usedforsecurity=False).hexdigest()
    api.VDI.destroy(copy)


@pytest.mark.parametrize(
    "body", [b"\0" * 4096, b"", _vhd_of(b"\x22" * _SIZE, [0])[: MIB - 7], _vhd_of(b"\x22" * (2 * _SIZE), [7])]
)
def test_a_vhd_that_is_none_or_too_short_or_too_large_fails_inside_the_body(
    lab: RunningLab, session: Any, api: Any, disk: str, body: bytes
) -> None:
    task = api.task.create("import", "")
    said = put_raw(lab, session, disk, body, format="vhd", task_id=task)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 400 Bad Request\r\n" in said
    assert b"HTTP/1.1 500 Internal Error\r\n" in said
    assert ended(lab, task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]
    assert lab.control.attachments() == []


def test_an_upload_in_chunks_of_http_is_refused(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    task = api.task.create("import", "")
    path = f"/import_raw_vdi?session_id={session._session}&vdi={disk}&task_id={task}"
    head = f"PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
    assert converse(lab, head, half_close=True).startswith(b"HTTP/1.0 404 Not Found\r\n")
    assert ended(lab, task)["error_info"] == ["INTERNAL_ERROR", "Cannot handle encoding: chunked"]


_LAST_PIECE = struct.pack("<QI", 0, 0)


def _piece(offset_bytes: int, data: bytes) -> bytes:
    return struct.pack("<QI", offset_bytes, len(data)) + data


def test_pieces_with_offsets_land_where_they_say(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    before = _content(lab, api, disk)
    hello, end = b"hello".ljust(512), b"end".ljust(1024)
    task = api.task.create("import", "")
    pieces = _piece(4096, hello) + _piece(6 * MIB, end) + _LAST_PIECE
    put_raw(lab, session, disk, pieces, format="raw", chunked="true", task_id=task)
    assert ended(lab, task)["status"] == "success"
    after = bytearray(before)
    after[4096:4608], after[6 * MIB : 6 * MIB + 1024] = hello, end
    assert _content(lab, api, disk) == bytes(after)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        (_LAST_PIECE[:5], "success"),
        (_piece(512, b"") + b"\0", "failure"),
        (b"", "failure"),
        (_piece(512, b"x" * 512), "failure"),
        (_piece(512, b"x" * 511) + _LAST_PIECE, "failure"),
        (_piece(511, b"x" * 512) + _LAST_PIECE, "failure"),
        (_piece(511, b"") + _LAST_PIECE, "failure"),
    ],
)
def test_pieces_are_whole_sectors_and_a_head_cut_short_keeps_what_stood_behind_its_end(
    lab: RunningLab, session: Any, api: Any, disk: str, pieces: bytes, status: str
) -> None:
    task = api.task.create("import", "")
    put_raw(lab, session, disk, pieces, chunked="", task_id=task)
    assert ended(lab, task)["status"] == status


def test_of_a_vhd_that_ends_inside_a_block_the_disk_gets_what_came_of_it(
    lab: RunningLab, session: Any, api: Any
) -> None:
    disk = new_disk(api, _SIZE)
    vhd = _vhd_of(b"\x22" * _SIZE, [0, 1])
    task = api.task.create("import", "")
    put_raw(lab, session, disk, vhd[: vhd.index(b"\x22") + 700], format="vhd", task_id=task)
    assert ended(lab, task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]
    assert _content(lab, api, disk) == (b"\x22" * 700).ljust(_SIZE, b"\0")
    api.VDI.destroy(disk)


def test_a_disk_that_an_export_reads_cannot_be_written_until_it_is_over(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    with attached(lab.pool, disk, is_writable=False):
        assert get_raw(lab, session, disk, format="raw").status == 200
        task = api.task.create("import", "")
        said = put_raw(lab, session, disk, b"x" * 512, task_id=task)
        code, text = ended(lab, task)["error_info"]
        assert code == "INTERNAL_ERROR" and "Illegal_transition" in text
        assert f"INTERNAL_ERROR: [ {text} ]".encode() in said
    task = api.task.create("import", "")
    put_raw(lab, session, disk, b"x" * 512, task_id=task)
    assert ended(lab, task)["status"] == "success"


def test_a_raw_image_makes_a_new_disk_on_a_repository(lab: RunningLab, session: Any, api: Any) -> None:
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    task = api.task.create("import", "")
    path = f"/import_raw_vdi?session_id={session._session}&sr_id={sr}&task_id={task}&format=raw"
    body = random.Random(4).randbytes(4 * MIB)
    converse(lab, f"PUT {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body, half_close=True)
    made = ended(lab, task)["result"].removeprefix("<value>").removesuffix("</value>")
    assert api.VDI.get_name_label(made) == "Imported VDI"
    assert _content(lab, api, made) == body
    api.VDI.destroy(made)


def test_an_import_is_seen_by_change_tracking(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    api.VDI.enable_cbt(disk)
    one = api.VDI.snapshot(disk)
    task = api.task.create("import", "")
    put_raw(lab, session, disk, b"x" * 512, format="raw", task_id=task)
    assert ended(lab, task)["status"] == "success"
    two = api.VDI.snapshot(disk)
    assert api.VDI.list_changed_blocks(one, two).startswith("gA")


def test_a_failure_with_text_that_no_task_can_hold_still_ends_the_task(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    task = api.task.create("export", "")
    get_raw(lab, session, disk, format="a%01b", task_id=task)
    assert ended(lab, task)["error_info"] == ["INTERNAL_ERROR", "Unknown format a"]
