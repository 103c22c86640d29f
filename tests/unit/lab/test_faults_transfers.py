"""Faults of transfers: what arrives at the client, and what the task says of it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import xxhash

from holdfast.core import MIB
from holdfast.formats.vhd import VhdDamaged, VhdError, VhdInterrupted, VhdStreamReader, VhdTruncated
from holdfast.lab import RunningLab
from tests.support.lab import PASSWORD
from tests.unit.lab.talk import converse, discard, ended, fetch, get_raw, json_call, new_disk, put_raw, vm_named


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    lab.pool.disks.write(api.VDI.get_uuid(made), 0, b"faulty" * 100_000)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def _read_vhd(body: bytes) -> None:
    for _ in VhdStreamReader(io.BytesIO(body)).blocks():
        pass


def _received(lab: RunningLab, session: Any, disk: str, task: str) -> bytes:
    """Return what arrived, whether the connection was closed or reset."""
    try:
        return get_raw(lab, session, disk, format="vhd", task_id=task).body
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    ("name", "refused", "status"),
    [
        ("export-cut", VhdTruncated, "failure"),
        ("export-truncated", VhdTruncated, "success"),
        ("export-fails-late", VhdInterrupted, "failure"),
    ],
)
def test_an_export_can_end_early(
    lab: RunningLab, session: Any, api: Any, disk: str, name: str, refused: type[VhdError], status: str
) -> None:
    lab.control.arm_fault(name, after_bytes=100_000)
    task = api.task.create("export", "")
    body = _received(lab, session, disk, task)
    with pytest.raises(refused):
        _read_vhd(body)
    assert ended(lab, task)["status"] == status


def test_an_export_ends_at_the_very_byte(lab: RunningLab, session: Any, disk: str) -> None:
    whole = get_raw(lab, session, disk).body
    lab.control.arm_fault("export-truncated", after_bytes=12_345)
    assert get_raw(lab, session, disk).body == whole[:12_345]
    lab.control.arm_fault("export-fails-late", after_bytes=12_345)
    body = get_raw(lab, session, disk).body
    assert body[:12_345] == whole[:12_345]
    assert body[12_345:].startswith(b"HTTP/1.1 500 ")


def test_a_fault_of_an_export_waits_for_the_path_it_is_for_and_for_its_byte(
    lab: RunningLab, session: Any, disk: str
) -> None:
    lab.control.arm_fault("export-cut", path="/export", after_bytes=0)
    lab.control.arm_fault("export-truncated", path="/export_raw_vdi", after_bytes=9 * MIB)
    assert len(get_raw(lab, session, disk).body) == 8 * MIB
    assert len(lab.control.faults()) == 2


def test_an_export_can_lie(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("export-lies")
    task = api.task.create("export", "")
    body = get_raw(lab, session, disk, format="vhd", task_id=task).body
    with pytest.raises(VhdDamaged):
        _read_vhd(body)
    assert ended(lab, task)["status"] == "success"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("export-stalls", {"after_bytes": 1000, "seconds": 0.05}), ("export-slow", {"bytes_per_s": 60 * MIB})],
)
def test_an_export_can_be_slow_and_is_whole(
    lab: RunningLab, session: Any, disk: str, name: str, parameters: dict[str, float]
) -> None:
    lab.control.arm_fault_with(name, parameters)
    began_s = lab.pool.clock.monotonic_s()
    _read_vhd(get_raw(lab, session, disk, format="vhd").body)
    assert lab.pool.clock.monotonic_s() - began_s >= 0.03
    assert lab.control.faults() == []


def test_a_session_can_end_while_its_transfer_goes_on(lab: RunningLab, disk: str) -> None:
    ref = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    lab.control.arm_fault("session-ends", path="/export_raw_vdi", after_bytes=MIB)
    body = fetch(lab, "GET", f"/export_raw_vdi?session_id={ref}&vdi={disk}").body
    assert len(body) == 8 * MIB
    assert json_call(lab, "VM.get_all", ref)["error"]["message"] == "SESSION_INVALID"
    assert fetch(lab, "GET", f"/export_raw_vdi?session_id={ref}&vdi={disk}").status == 401


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_transfer_can_be_sent_to_another_host_with_its_query(
    lab: RunningLab, session: Any, disk: str, method: str
) -> None:
    path = "/export_raw_vdi" if method == "GET" else "/import_raw_vdi"
    lab.control.arm_fault("transfer-redirected", path=path)
    answer = fetch(lab, method, f"{path}?session_id={session._session}&vdi={disk}&format=raw")
    assert answer.status == 302
    assert answer.headers["location"].startswith(f"{lab.url}{path}?session_id=")
    assert answer.headers["location"].endswith(f"&vdi={disk}&format=raw")


def test_an_import_can_be_cut_in_the_middle(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("import-cut", after_bytes=MIB)
    task = api.task.create("import", "")
    with contextlib.suppress(OSError):  # depends on how much the sockets took before
        put_raw(lab, session, disk, b"x" * 4 * MIB, task_id=task)
    assert ended(lab, task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("import-stalls", {"after_bytes": 1000, "seconds": 0.05}), ("import-slow", {"bytes_per_s": 20 * MIB})],
)
def test_an_import_can_be_slow_and_is_whole(
    lab: RunningLab, session: Any, api: Any, disk: str, name: str, parameters: dict[str, float]
) -> None:
    lab.control.arm_fault_with(name, parameters)
    began_s = lab.pool.clock.monotonic_s()
    put_raw(lab, session, disk, b"z" * MIB)
    assert lab.pool.clock.monotonic_s() - began_s >= 0.03
    assert lab.pool.disks.read(api.VDI.get_uuid(disk), 0, MIB) == b"z" * MIB


def test_an_import_can_fail_at_the_end_or_be_reset_though_it_succeeded(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    lab.control.arm_fault("import-fails-late")
    task = api.task.create("import", "")
    assert b"HTTP/1.1 500" in put_raw(lab, session, disk, b"x" * 512, task_id=task)
    assert ended(lab, task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]
    lab.control.arm_fault("import-resets")
    task = api.task.create("import", "")
    put_raw(lab, session, disk, b"y" * 512, task_id=task)
    assert ended(lab, task)["status"] == "success"
    assert lab.pool.disks.read(api.VDI.get_uuid(disk), 0, 512) == b"y" * 512


@pytest.fixture
def snapshot(api: Any) -> Iterator[str]:
    """A snapshot of a VM with one disk of noise, to export."""
    made = api.VM.snapshot(vm_named(api, "alpha"), "to export")
    yield made
    discard(api, made)


def _export(lab: RunningLab, session: Any, vm: str) -> list[tuple[str, bytes]]:
    """Return the members of a VM's export behind its description."""
    body = fetch(lab, "GET", f"/export?session_id={session._session}&ref={vm}").body
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return [(each.name, archive.extractfile(each).read()) for each in archive.getmembers()[1:]]  # type: ignore[union-attr]


def _wrong_checksums(members: list[tuple[str, bytes]]) -> list[str]:
    content = dict(members)
    told = {name: data for name, data in members if name.endswith(".xxhash")}
    return [
        name
        for name, checksum in told.items()
        if xxhash.xxh64(content[name.removesuffix(".xxhash")]).hexdigest().upper().encode() != checksum
    ]


def test_the_checksum_of_one_block_of_a_vms_export_can_be_wrong(lab: RunningLab, session: Any, snapshot: str) -> None:
    assert _wrong_checksums(_export(lab, session, snapshot)) == []
    lab.control.arm_fault("xva-checksum-wrong", block=2)
    assert [name.rpartition("/")[2] for name in _wrong_checksums(_export(lab, session, snapshot))] == [
        "00000002.xxhash"
    ]


def test_a_vms_export_can_have_an_empty_member_that_shifts_the_numbers(
    lab: RunningLab, session: Any, snapshot: str
) -> None:
    whole = [(name.rpartition("/")[2], data) for name, data in _export(lab, session, snapshot)]
    lab.control.arm_fault("xva-keep-alive", block=1)
    spoiled = _export(lab, session, snapshot)
    assert _wrong_checksums(spoiled) == []
    members = [(name.rpartition("/")[2], data) for name, data in spoiled]
    assert members[:2] == whole[:2]
    assert members[2] == ("00000001", b"")
    assert [data for _, data in members[4:]] == [data for _, data in whole[2:]]
    assert [int(name[:8]) for name, _ in members[4:]] == [int(name[:8]) + 1 for name, _ in whole[2:]]


def test_an_export_of_a_vm_can_be_cut_and_its_task_says_so(
    lab: RunningLab, session: Any, api: Any, snapshot: str
) -> None:
    task = api.task.create("export", "")
    lab.control.arm_fault("export-cut", path="/export", after_bytes=100_000)
    head = f"GET /export?session_id={session._session}&ref={snapshot}&task_id={task} HTTP/1.0\r\n\r\n"
    assert len(converse(lab, head.encode())) < 200_000
    assert ended(lab, task)["error_info"] == [
        "CLIENT_ERROR",
        'INTERNAL_ERROR: [ Unix.Unix_error(Unix.ECONNRESET, "write", "") ]',
    ]


@pytest.mark.parametrize("name", ["export-truncated", "export-fails-late"])
def test_the_dump_of_the_database_can_end_early(lab: RunningLab, session: Any, name: str) -> None:
    path = f"/pool/xmldbdump?session_id={session._session}"
    assert fetch(lab, "GET", path).body.endswith(b"</database>")
    lab.control.arm_fault(name, path="/pool/xmldbdump", after_bytes=1000)
    body = fetch(lab, "GET", path).body
    assert b"</database>" not in body
    assert body.startswith(b"<?xml")
    assert (b"HTTP/1.1 500" in body) is (name == "export-fails-late")


def _import(lab: RunningLab, session: Any, archive: bytes, task: str) -> bytes:
    head = (
        f"PUT /import?session_id={session._session}&task_id={task} HTTP/1.1\r\nContent-Length: {len(archive)}\r\n\r\n"
    )
    with contextlib.suppress(OSError):  # depends on how much the sockets took before a cut
        return converse(lab, head.encode() + archive, half_close=True)
    return b""


def test_an_import_of_a_vm_can_be_cut_or_be_reset_though_it_succeeded(
    lab: RunningLab, session: Any, api: Any, snapshot: str
) -> None:
    archive = fetch(lab, "GET", f"/export?session_id={session._session}&ref={snapshot}").body
    before = set(api.VM.get_all())
    task = api.task.create("import", "")
    lab.control.arm_fault("import-cut", path="/import", after_bytes=2 * MIB)
    _import(lab, session, archive, task)
    assert ended(lab, task)["status"] == "failure"
    assert set(api.VM.get_all()) == before
    task = api.task.create("import", "")
    lab.control.arm_fault("import-resets", path="/import")
    _import(lab, session, archive, task)
    assert ended(lab, task)["status"] == "success"
    assert lab.control.faults() == []
    for made in set(api.VM.get_all()) - before:
        discard(api, made)


def test_a_wrong_checksum_inside_an_archive_fails_its_import(
    lab: RunningLab, session: Any, api: Any, snapshot: str
) -> None:
    lab.control.arm_fault("xva-checksum-wrong", block=1)
    archive = fetch(lab, "GET", f"/export?session_id={session._session}&ref={snapshot}").body
    task = api.task.create("import", "")
    _import(lab, session, archive, task)
    record = ended(lab, task)
    assert (record["status"], record["error_info"][0]) == ("failure", "IMPORT_ERROR")
