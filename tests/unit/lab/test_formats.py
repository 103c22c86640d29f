"""Disks in all formats of the raw handlers, and every way in which a transfer is refused."""

from __future__ import annotations

import io
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from holdfast.core import MIB
from holdfast.formats.qcow2 import Qcow2Reader, plan_qcow2, stream_qcow2
from holdfast.lab import RunningLab
from tests.unit.lab.talk import Answer, converse, ended, fetch, get_raw, new_disk, put_raw

_SIZE = 8 * MIB
_CLUSTER = 64 * 1024
_TWICE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\nHTTP/1.1 500 "
_IO_ERROR = ["VDI_IO_ERROR", "Device I/O errors"]


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    """A disk with a MiB of noise at the start, a few words further on, and a hole between."""
    made = new_disk(api, _SIZE)
    name = api.VDI.get_uuid(made)
    lab.pool.disks.write(name, 0, random.Random(7).randbytes(MIB))
    lab.pool.disks.write(name, 5 * MIB + 100, b"far out")
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def content(lab: RunningLab, api: Any, disk: str) -> bytes:
    return lab.pool.disks.read(api.VDI.get_uuid(disk), 0, _SIZE)


def outcome(lab: RunningLab, api: Any, session: Any, disk: str, body: bytes, **query: str) -> tuple[bytes, list[str]]:
    """Import and return what was said after the head, and the task's error."""
    task = api.task.create("import", "")
    answer = put_raw(lab, session, disk, body, task_id=task, **query)
    return answer.partition(b"\r\n\r\n")[2], ended(lab, task)["error_info"]


def ask(lab: RunningLab, session: Any, query: str, head: str = "", body: bytes = b"") -> tuple[bytes, dict[str, Any]]:
    """Send a PUT of any kind; return all of the answer and the task's record."""
    task = session.xenapi.task.create("import", "")
    path = f"/import_raw_vdi?session_id={session._session}&task_id={task}&{query}"
    sent = f"PUT {path} HTTP/1.1\r\nConnection: close\r\n{head}\r\n".encode() + body
    return converse(lab, sent, half_close=True), ended(lab, task)


@pytest.mark.slow(reason="moves a whole disk out and in")
@pytest.mark.parametrize("kind", ["raw", "vhd", "tar", "qcow2"])
def test_what_is_exported_can_be_imported_in_every_format(
    lab: RunningLab, session: Any, api: Any, disk: str, kind: str
) -> None:
    before = content(lab, api, disk)
    answer = get_raw(lab, session, disk, format=kind.upper())
    assert answer.headers["content-disposition"].endswith(f'.{kind}"')
    lab.pool.disks.zero(api.VDI.get_uuid(disk), 0, _SIZE)
    assert outcome(lab, api, session, disk, answer.body, format=kind) == (b"", [])
    assert content(lab, api, disk) == before


def test_a_tar_names_blocks_by_number_and_leaves_out_what_holds_nothing(
    lab: RunningLab, session: Any, disk: str
) -> None:
    answer = get_raw(lab, session, disk, format="tar")
    body, names = answer.body, []
    while body[:512].strip(b"\0"):
        names.append(body[:100].rstrip(b"\0").decode())
        length_bytes = int(body[124:135], 8)
        body = body[512 + -(-length_bytes // 512) * 512 :]
    numbers = [0, 1, 4, 5, 7]  # 2 MiB blocks that are allocated, and always the first and the last
    assert names == [f"vdi/{number:08d}{end}" for number in numbers for end in ("", ".xxhash")]
    assert body == bytes(1024)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tar: b"", "End_of_file"),
        (lambda tar: bytes(1024), "Tar.Header.End_of_stream"),
        (lambda tar: tar[: 300 * 1024], "End_of_file"),
        (lambda tar: tar[:600] + bytes([tar[600] ^ 1]) + tar[601:], "Stream_vdi.Invalid_checksum("),
        (lambda tar: b"x" + tar[1:], "Tar.Header.Checksum_mismatch"),
        (lambda tar: tar[MIB + 512 : 2 * MIB], 'Failure("int_of_string")'),
    ],
)
def test_a_tar_that_is_wrong_fails_with_the_pools_own_exception(
    lab: RunningLab, session: Any, api: Any, disk: str, change: Any, error: str
) -> None:
    tar = get_raw(lab, session, disk, format="tar").body
    said, failure = outcome(lab, api, session, disk, change(tar), format="tar")
    assert failure[0] == "INTERNAL_ERROR"
    assert failure[1].startswith(error)
    assert said.startswith(_TWICE) == (error != "End_of_file"), "nothing is said about a body that just ends"


def test_a_qcow2_difference_holds_the_clusters_that_differ(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    base = api.VDI.snapshot(disk)
    lab.pool.disks.write(api.VDI.get_uuid(disk), 3 * MIB + 5, b"changed")
    lab.pool.disks.zero(api.VDI.get_uuid(disk), 0, _CLUSTER)
    reader = Qcow2Reader(io.BytesIO(get_raw(lab, session, disk, format="qcow2", base=base).body))
    now = content(lab, api, disk)
    found = {cluster.offset_bytes: reader.read(cluster) for cluster in reader.clusters()}
    assert found == {offset: now[offset : offset + _CLUSTER] for offset in (0, 3 * MIB)}


@pytest.mark.slow(reason="moves a whole disk")
def test_a_raw_difference_is_the_changed_blocks_between_zeros(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    base = api.VDI.snapshot(disk)
    lab.pool.disks.write(api.VDI.get_uuid(disk), 5 * MIB, b"changed")
    now = content(lab, api, disk)
    answer = get_raw(lab, session, disk, format="raw", base=base)
    assert answer.body == bytes(4 * MIB) + now[4 * MIB : 6 * MIB] + bytes(2 * MIB)


def qcow2_of(size_bytes: int, clusters: list[int]) -> bytes:
    def fill(offset_bytes: int, view: memoryview) -> None:
        view[:] = b"q" * len(view)

    plan = plan_qcow2(size_bytes, np.array(clusters, dtype=np.int64))
    return b"".join(bytes(piece) for piece in stream_qcow2(plan, fill))


@pytest.mark.slow(reason="moves a whole disk")
def test_a_qcow2_changes_only_what_it_holds_however_much_was_announced(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    before = content(lab, api, disk)
    body = qcow2_of(_SIZE, [3])
    answer, record = ask(lab, session, f"vdi={disk}&format=qcow2", "Content-Length: 1125899906842624\r\n", body)
    assert record["status"] == "success", answer
    assert content(lab, api, disk) == before[: 3 * _CLUSTER] + b"q" * _CLUSTER + before[4 * _CLUSTER :]


@pytest.mark.parametrize("body", [b"", b"garbage", qcow2_of(_SIZE, [3])[:-5000], qcow2_of(2 * _SIZE, [200])])
def test_a_qcow2_that_is_none_or_cut_or_too_large_fails(
    lab: RunningLab, session: Any, api: Any, disk: str, body: bytes
) -> None:
    said, failure = outcome(lab, api, session, disk, body, format="qcow2")
    assert failure == _IO_ERROR
    assert said.startswith(_TWICE)


def vhd(
    *, table_at: int = 1536, block_bits: int = 21, kind: int = 3, locator: bytes = b"", extra: bytes = b""
) -> bytes:
    """Return a VHD with one block, at index 1, of ``v``; ``extra`` stands in front of the last footer."""
    block_bytes = 1 << block_bits
    entries = _SIZE // block_bytes
    footer = bytearray(struct.pack(">8sIIQ16xQQIII", b"conectix", 2, 0x10000, 512, _SIZE, _SIZE, 0, kind, 0))
    footer = footer.ljust(512, b"\0")
    header = bytearray(struct.pack(">8sQQIII", b"cxsparse", (1 << 64) - 1, table_at, 0x10000, entries, block_bytes))
    header = header.ljust(1024, b"\0")
    header[576 : 576 + len(locator)] = locator
    for record, at in ((footer, 64), (header, 36)):
        record[at : at + 4] = struct.pack(">I", ~sum(record) & 0xFFFFFFFF)
    table = bytearray(b"\xff" * (-(-entries * 4 // 512) * 512))
    place = (table_at + len(table)) // 512
    table[4:8] = struct.pack(">I", place)
    bitmap = b"\xff" * (block_bytes // 512 // 8)
    body = bytes(footer + header).ljust(table_at, b"\0") + table + bitmap + b"v" * block_bytes
    return body + bytes(-len(body) % 512) + extra + footer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"table_at": 65536},
        {"block_bits": 16},
        {"kind": 4, "locator": b"W2ku"},
        {"kind": 4, "locator": b"Mac "},
        {"extra": bytes(4096)},
    ],
)
def test_a_vhd_may_be_built_in_many_ways(
    lab: RunningLab, session: Any, api: Any, disk: str, options: dict[str, Any]
) -> None:
    block_bytes = 1 << options.get("block_bits", 21)
    assert outcome(lab, api, session, disk, vhd(**options), format="vhd") == (b"", [])
    assert content(lab, api, disk)[block_bytes : 2 * block_bytes] == b"v" * block_bytes


@pytest.mark.parametrize(
    "body",
    [
        vhd(locator=b"what"),
        vhd(kind=5),
        vhd() + b"junk behind the footer, and the length says so",
        vhd(block_bits=9),
        vhd(table_at=512),
        vhd()[:-700],
    ],
)
def test_a_vhd_that_the_pools_tool_does_not_take_fails_twice(
    lab: RunningLab, session: Any, api: Any, disk: str, body: bytes
) -> None:
    said, failure = outcome(lab, api, session, disk, body, format="vhd")
    assert failure == _IO_ERROR
    assert said.startswith(_TWICE)


@pytest.mark.parametrize(
    ("sent_bytes", "announced_bytes", "is_taken"),
    [
        (MIB, 2 * MIB, True),
        (3 * MIB, 4 * MIB, True),
        (2 * MIB, 4 * MIB, False),
        (MIB, 4 * MIB, False),
        (100, 100, True),
    ],
)
def test_a_raw_body_may_end_inside_its_last_piece_but_not_between_pieces(
    lab: RunningLab, session: Any, api: Any, disk: str, sent_bytes: int, announced_bytes: int, is_taken: bool
) -> None:
    query, head = f"vdi={disk}&format=raw", f"Content-Length: {announced_bytes}\r\n"
    _, record = ask(lab, session, query, head, b"r" * sent_bytes)
    assert (record["status"] == "success") == is_taken
    assert content(lab, api, disk).startswith(b"r" * sent_bytes)


@pytest.mark.slow(reason="moves a whole disk")
def test_a_raw_body_without_a_length_must_fill_the_disk(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    _, record = ask(lab, session, f"vdi={disk}&format=raw", "", b"r" * _SIZE)
    assert record["status"] == "success"
    assert content(lab, api, disk) == b"r" * _SIZE
    _, record = ask(lab, session, f"vdi={disk}&format=raw", "", b"s" * MIB)
    assert record["error_info"] == _IO_ERROR


def test_pieces_without_an_end_fail_but_stay_written(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    piece = b"piece".ljust(512, b".")
    body = struct.pack("<QI", 3 * MIB, len(piece)) + piece
    said, failure = outcome(lab, api, session, disk, body, chunked="no", format="raw")
    assert failure == _IO_ERROR
    assert said.startswith(_TWICE)
    assert content(lab, api, disk)[3 * MIB :].startswith(piece)


@pytest.mark.parametrize(
    ("query", "head", "start", "error"),
    [
        ("vdi={vdi}&format=VMDK", "", b"HTTP/1.0 404 ", ["INTERNAL_ERROR", "Unknown format VMDK"]),
        ("vdi={vdi}&format", "", b"HTTP/1.0 404 ", ["INTERNAL_ERROR", "Unknown format "]),
        ("vdi={vdi}&format=tar&chunked", "", b"HTTP/1.0 404 ", ["INTERNAL_ERROR", "Cannot handle chunked VHD"]),
        (
            "vdi={vdi}",
            "Transfer-Encoding: identity\r\n",
            b"HTTP/1.0 404 ",
            ["INTERNAL_ERROR", "Cannot handle encoding: identity"],
        ),
        ("format=raw", "", b"HTTP/1.1 400 ", ["VDI_MISSING"]),
        ("sr_id=nope", "Content-Length: 512\r\n", _TWICE, ["NO_HOSTS_AVAILABLE"]),
        ("sr_uuid=nope", "Content-Length: 512\r\n", _TWICE, ["UUID_INVALID", "SR", "nope"]),
        ("sr_id={sr}", "", b"HTTP/1.0 400 ", ["INTERNAL_ERROR", "Not enough info supplied to import"]),
        ("sr_id={sr}&format=tar", "", b"HTTP/1.0 400 ", ["INTERNAL_ERROR", "Not enough info supplied to import"]),
        (
            "sr_id={sr}&format=vhd",
            "",
            b"HTTP/1.0 400 ",
            ["INTERNAL_ERROR", "Importing a VHD directly into an SR not yet supported"],
        ),
        (
            "sr_id={sr}&format=qcow2",
            "",
            b"HTTP/1.0 400 ",
            ["INTERNAL_ERROR", "Importing a QCOW2 directly into an SR not yet supported"],
        ),
        (
            "vdi={sr}",
            "",
            _TWICE,
            ["HANDLE_INVALID", "VDI", "{sr}"],
        ),
    ],
)
def test_an_import_that_cannot_begin_tells_its_task(
    lab: RunningLab, session: Any, api: Any, disk: str, query: str, head: str, start: bytes, error: list[str]
) -> None:
    names = {"vdi": disk, "sr": api.VDI.get_SR(disk)}
    answer, record = ask(lab, session, query.format(**names), head)
    assert answer.startswith(start)
    assert record["error_info"] == [each.format(**names) for each in error]


@pytest.mark.slow(reason="moves a whole disk")
def test_a_finished_task_keeps_its_end_and_is_told_the_progress(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    task = api.task.create("done", "")
    api.task.set_status(task, "success")
    get_raw(lab, session, disk, format="vhd", task_id=task)
    assert (api.task.get_progress(task), api.task.get_result(task)) == (1.0, "")
    assert outcome_of_failure(lab, session, disk, task).status == 200
    assert (api.task.get_status(task), api.task.get_error_info(task)) == ("success", [])


def outcome_of_failure(lab: RunningLab, session: Any, disk: str, task: str) -> Answer:
    return get_raw(lab, session, disk, format="vhd", base="nope", task_id=task)


@pytest.mark.parametrize("header", ["Bearer x", "Basic !!!", "Digest username=root"])
def test_credentials_of_an_unknown_kind_break_the_handler(lab: RunningLab, disk: str, header: str) -> None:
    answer = fetch(lab, "GET", f"/export_raw_vdi?vdi={disk}", Authorization=header)
    assert answer.status == 500
    assert f"Unknown authorization header: {header}".encode() in answer.body


def test_a_tar_export_can_be_cancelled_and_says_so(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    task = api.task.create("export", "")
    api.task.cancel(task)
    answer = get_raw(lab, session, disk, format="tar", task_id=task)
    record = ended(lab, task)
    assert (record["status"], record["error_info"]) == ("cancelled", ["TASK_CANCELLED", task])
    assert b"HTTP/1.1 500" in answer.body


def test_a_client_that_is_lost_in_the_middle_fails_its_import(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    task = api.task.create("import", "")
    path = f"/import_raw_vdi?session_id={session._session}&task_id={task}&vdi={disk}&format=raw"
    host, _, port = lab.plain_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(f"PUT {path} HTTP/1.1\r\nContent-Length: {2 * MIB}\r\n\r\n".encode() + b"r" * MIB)
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ended(lab, task)["error_info"] == _IO_ERROR


def test_a_read_only_disk_takes_no_import(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.pool.db.set("VDI", disk, "read_only", True)
    said, failure = outcome(lab, api, session, disk, b"r" * 512, format="raw")
    assert failure == ["VDI_READONLY", disk]
    assert said.startswith(_TWICE)
    assert get_raw(lab, session, disk, format="vhd").body.startswith(b"conectix")


def test_a_hidden_base_copy_cannot_be_exported(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    api.VDI.snapshot(disk)
    base = api.VDI.get_by_uuid(api.VDI.get_sm_config(disk)["vhd-parent"])
    task = api.task.create("export", "")
    get_raw(lab, session, base, format="raw", task_id=task)
    assert ended(lab, task)["error_info"][0] == "VDI_NOT_MANAGED"
    assert lab.control.attachments() == []


def test_an_export_waits_while_something_else_is_done_with_the_disk(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    db = lab.pool.db
    db.put_key("VDI", disk, "current_operations", key="somebody", value="resize")
    threading.Timer(0.02, lambda: db.drop_key("VDI", disk, "current_operations", key="somebody")).start()
    task = api.task.create("export", "")
    assert get_raw(lab, session, disk, format="vhd", task_id=task).body.startswith(b"conectix")
    assert ended(lab, task)["status"] == "success"
    assert db.mapping("VDI", disk, "current_operations") == {}


def test_a_disk_that_is_too_large_for_a_vhd_travels_as_qcow2(lab: RunningLab, session: Any, api: Any) -> None:
    size = 3 << 40
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    record = {"name_label": "large", "name_description": "", "SR": sr, "virtual_size": str(size), "type": "user"}
    record |= {"sharable": False, "read_only": False, "other_config": {}, "sm_config": {"image-format": "qcow2"}}
    large = api.VDI.create(record)
    name = api.VDI.get_uuid(large)
    lab.pool.disks.write(name, size - 5, b"tail!")
    exported = get_raw(lab, session, large, format="qcow2").body
    lab.pool.disks.zero(name, size - 65536, 65536)
    assert outcome(lab, api, session, large, exported, format="qcow2") == (b"", [])
    assert lab.pool.disks.read(name, size - 5, 5) == b"tail!"
    task = api.task.create("export", "")
    get_raw(lab, session, large, format="vhd", task_id=task)
    assert ended(lab, task)["error_info"] == ["VDI_TOO_LARGE", large, str(2040 << 30)]
    api.VDI.destroy(large)


def test_of_a_disk_that_is_kept_as_qcow2_there_is_no_vhd_difference(lab: RunningLab, session: Any, api: Any) -> None:
    made = new_disk(api, _SIZE)
    lab.pool.db.put_key("VDI", made, "sm_config", key="image-format", value="qcow2")
    lab.pool.disks.write(api.VDI.get_uuid(made), 5 * MIB, bytes(MIB))
    snapshot = api.VDI.snapshot(made)
    for disk, base in ((made, snapshot), (snapshot, made)):
        task = api.task.create("export", "")
        get_raw(lab, session, disk, format="vhd", base=base, task_id=task)
        assert ended(lab, task)["error_info"][1] == 'Failure("Cannot compute differences on non-VHD images")'
    assert len(get_raw(lab, session, made, format="vhd").body) == 3072, "zeros are looked for in what is not a VHD"
    for each in (snapshot, made):
        api.VDI.destroy(each)
