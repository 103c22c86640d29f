"""A VM leaves a pool as one archive and comes back from it: equal where it must be, new where it must be."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from backports import zstd

from holdfast.core import MIB
from holdfast.formats.xva import XvaReader, XvaWriter, xva_header
from holdfast.lab import RunningLab
from holdfast.lab.rpc import parse_value, write_value
from tests.unit.lab.talk import converse, discard, ended, fetch, refusal, vm_named, wait_until

pytestmark = pytest.mark.slow(reason="moves whole disks through sockets")


@dataclass(frozen=True)
class Archives:
    """Exports and imports of the lab at hand."""

    lab: RunningLab
    session: Any

    def get(self, vm: str, **query: str) -> bytes:
        """Export a VM."""
        pairs = "".join(f"&{key}={value}" for key, value in query.items())
        answer = fetch(self.lab, "GET", f"/export?session_id={self.session._session}&ref={vm}{pairs}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        return answer.body

    def put(self, body: bytes, *pairs: str) -> dict[str, Any]:
        """Import an archive; return the task's record."""
        task = self.session.xenapi.task.create("import", "")
        query = "&".join([f"session_id={self.session._session}", f"task_id={task}", *pairs])
        head = f"PUT /import?{query} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with contextlib.suppress(OSError):  # the pool ends a good import with a reset
            converse(self.lab, head + body, half_close=True)
        return ended(self.lab, task)

    def made(self, body: bytes, *pairs: str) -> str:
        """Import an archive that is good; return the VM."""
        record = self.put(body, *pairs)
        assert record["status"] == "success", record["error_info"]
        ref: str = record["result"].partition("<data><value>")[2].partition("</value>")[0]
        return ref


@pytest.fixture
def archives(lab: RunningLab, session: Any) -> Archives:
    """Exports and imports."""
    return Archives(lab, session)


@pytest.fixture
def source(api: Any) -> Iterator[str]:
    """A halted VM with two disks."""
    snapshot = api.VM.snapshot(vm_named(api, "beta"), "to clone")
    clone = api.VM.clone(snapshot, "to travel")
    api.VM.set_is_a_template(clone, False)
    yield clone
    discard(api, clone)
    discard(api, snapshot)


def hashes(lab: RunningLab, api: Any, vm: str) -> list[str]:
    """Return the hash of each disk of a VM, by device."""
    vbds = sorted((vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"), key=api.VBD.get_userdevice)
    return [lab.control.sha256(api.VDI.get_uuid(api.VBD.get_VDI(vbd))) for vbd in vbds]


def disks_of(body: bytes) -> dict[str, str]:
    """Return the hash of each disk of 64 MiB in an archive, by its name there."""
    reader = XvaReader(io.BytesIO(body))
    reader.read_description()
    found: dict[str, bytearray] = {}
    for block in reader.blocks():
        disk = found.setdefault(block.disk, bytearray(64 * MIB))
        disk[block.offset_bytes : block.offset_bytes + len(block.data)] = block.data
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def edited(body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the archive with another description."""
    reader = XvaReader(io.BytesIO(body))
    document: Any = parse_value(reader.read_description())
    change(document)
    writer = XvaWriter()
    pieces = writer.description(write_value(document).encode(), time_s=0)
    for block in reader.blocks():
        pieces += [bytes(piece) for piece in writer.block(block.disk, block.offset_bytes // MIB, block.data)]
    return b"".join(bytes(piece) for piece in [*pieces, *writer.end()])


def record_of(document: dict[str, Any], cls: str) -> dict[str, Any]:
    """Return the first record of a class in a description."""
    found: dict[str, Any] = next(each["snapshot"] for each in document["objects"] if each["class"] == cls)
    return found


# -- out and in again


def test_an_export_holds_every_byte_and_comes_back_equal(
    lab: RunningLab, api: Any, archives: Archives, source: str
) -> None:
    body = archives.get(source)
    assert sorted(disks_of(body).values()) == sorted(hashes(lab, api, source))
    assert len(body) < 2 * 64 * MIB
    copy = archives.made(body)
    assert hashes(lab, api, copy) == hashes(lab, api, source)
    old, new = api.VM.get_record(source), api.VM.get_record(copy)
    for name in ("name_label", "memory_static_max", "VCPUs_max", "HVM_boot_params", "tags", "NVRAM"):
        assert new[name] == old[name], name
    assert new["uuid"] != old["uuid"]
    assert new["other_config"]["mac_seed"] != old["other_config"]["mac_seed"]
    assert new["version"] == "0"
    assert new["current_operations"] == {}
    macs = [{api.VIF.get_MAC(vif) for vif in record["VIFs"]} for record in (old, new)]
    assert macs[0].isdisjoint(macs[1])
    discard(api, copy)


@pytest.mark.parametrize("word", ["gzip", "true", "zstd", "GZIP"])
def test_a_packed_export_is_the_same_archive(
    lab: RunningLab, api: Any, archives: Archives, source: str, word: str
) -> None:
    body = archives.get(source, use_compression=word)
    match word:
        case "zstd":
            plain = zstd.decompress(body)
        case "GZIP":
            plain = body  # an unknown word is none
        case _:
            plain = zlib.decompress(body, wbits=31)
    assert sorted(disks_of(plain).values()) == sorted(hashes(lab, api, source))
    copy = archives.made(body)
    assert hashes(lab, api, copy) == hashes(lab, api, source)
    discard(api, copy)


def test_a_restore_takes_the_place_of_an_older_vm(api: Any, archives: Archives, source: str) -> None:
    clone = api.VM.clone(source, "to be replaced")
    before = api.VM.get_record(clone)
    body = edited(archives.get(clone), lambda document: record_of(document, "VM").update(version="3"))
    old_disks = [api.VBD.get_VDI(vbd) for vbd in before["VBDs"] if api.VBD.get_type(vbd) == "Disk"]
    restored = archives.made(body, "restore=true")
    after = api.VM.get_record(restored)
    assert refusal(lambda: api.VM.get_uuid(clone))[0] == "HANDLE_INVALID"
    assert (after["uuid"], after["version"]) == (before["uuid"], "4")
    assert after["other_config"]["mac_seed"] == before["other_config"]["mac_seed"]
    assert archives.put(body, "restore=true")["error_info"] == [
        "VM_TO_IMPORT_IS_NOT_NEWER_VERSION",
        restored,
        "4",
        "3",
    ]
    discard(api, restored)
    for disk in old_disks:  # an import replaces VMs, not disks
        api.VDI.destroy(disk)


def test_a_seed_belongs_to_one_vm(api: Any, archives: Archives, source: str) -> None:
    def rename(document: dict[str, Any]) -> None:
        record_of(document, "VM")["uuid"] = "8a4a9a3c-0000-4000-8000-000000000000"

    seed = api.VM.get_other_config(source)["mac_seed"]
    record = archives.put(edited(archives.get(source), rename), "restore=true")
    assert record["error_info"] == ["DUPLICATE_MAC_SEED", seed]


def test_a_snapshot_of_a_replaced_vm_shares_its_seed_with_the_next_restore(
    api: Any, archives: Archives, source: str
) -> None:
    own = api.VM.copy(source, "mine", "OpaqueRef:NULL")
    body = archives.get(own)
    snapshot = api.VM.snapshot(own, "kept")
    made = archives.made(body, "restore=true", "force=true")
    again = archives.put(body, "restore=true")
    assert again["error_info"][:2] == ["VM_TO_IMPORT_IS_NOT_NEWER_VERSION", made]
    discard(api, snapshot)
    discard(api, made)


def test_a_suspended_vm_travels_with_its_memory_when_wanted(lab: RunningLab, api: Any, archives: Archives) -> None:
    vm = vm_named(api, "alpha")
    api.VM.suspend(vm)
    try:
        memory = api.VM.get_suspend_VDI(vm)
        asleep = archives.made(archives.get(vm, preserve_power_state="true"))
        halted = archives.made(archives.get(vm))
        assert api.VM.get_power_state(asleep) == "Suspended"
        image = api.VM.get_suspend_VDI(asleep)
        assert lab.control.sha256(api.VDI.get_uuid(image)) == lab.control.sha256(api.VDI.get_uuid(memory))
        assert api.VM.get_power_state(halted) == "Halted"
        for copy in (asleep, halted):
            discard(api, copy)
        with contextlib.suppress(Exception):
            api.VDI.destroy(image)
    finally:
        api.VM.resume(vm, False, False)


def test_a_trusted_platform_module_travels_with_its_contents(
    lab: RunningLab, api: Any, archives: Archives, source: str
) -> None:
    vtpm = api.VTPM.create(source, False)

    def fill(document: dict[str, Any]) -> None:
        record_of(document, "VTPM")["vTPM'_content"] = "c2VhbGVk"

    copy = archives.made(edited(archives.get(source), fill))
    again = archives.get(copy)
    document: Any = parse_value(XvaReader(io.BytesIO(again)).read_description())
    assert record_of(document, "VTPM")["vTPM'_content"] == "c2VhbGVk"
    assert api.VTPM.get_uuid(api.VM.get_VTPMs(copy)[0]) != api.VTPM.get_uuid(vtpm)
    discard(api, copy)


# -- while it runs

_STALL_S = 5
"""By the lab's clock; less than the pool takes to notice what the tests are about."""


@contextlib.contextmanager
def connection(lab: RunningLab, head: str) -> Iterator[socket.socket]:
    """Open a connection that has sent a head. An export waits in its second block until the lab's clock is moved.

    Without that a small archive might be over before anybody looks: it fits into the buffers of some machines.
    """
    parts = urlsplit(lab.plain_url)
    if head.startswith("GET"):
        lab.control.arm_fault("export-stalls", after_bytes=3 * MIB // 2, seconds=_STALL_S)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.settimeout(20)
        sock.connect((parts.hostname, parts.port))
        sock.sendall(f"{head}\r\n\r\n".encode())
        yield sock


def test_a_vm_is_busy_while_it_is_exported_but_may_be_exported_again(
    lab: RunningLab, session: Any, api: Any, archives: Archives, source: str
) -> None:
    task = api.task.create("slow", "")
    path = f"/export?session_id={session._session}&task_id={task}&ref={source}"
    with connection(lab, f"GET {path} HTTP/1.1") as sock:
        assert sock.recv(15) == b"HTTP/1.0 200 OK"
        wait_until(lab, lambda: api.task.get_progress(task) > 0)
        assert api.VM.get_current_operations(source) == {task: "export"}
        assert set(api.VM.get_allowed_operations(source)) == {"export", "clone", "copy"}
        assert api.task.get_allowed_operations(task) == ["cancel"]
        assert len(archives.get(source)) > MIB
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lab.control.advance(_STALL_S)
    record = ended(lab, task)
    assert record["error_info"][0] == "CLIENT_ERROR"
    assert record["error_info"][1].startswith("INTERNAL_ERROR: [ Unix.Unix_error(Unix.E")
    wait_until(lab, lambda: api.VM.get_current_operations(source) == {})


def test_an_export_that_shall_end_does_so_within_ten_seconds_of_the_pools_time(
    lab: RunningLab, session: Any, api: Any, source: str
) -> None:
    task = api.task.create("too long", "")
    path = f"/export?session_id={session._session}&task_id={task}&ref={source}"
    with connection(lab, f"GET {path} HTTP/1.1") as sock:
        assert sock.recv(15) == b"HTTP/1.0 200 OK"
        wait_until(lab, lambda: api.task.get_progress(task) > 0)
        api.task.cancel(task)
        lab.control.advance(11)
        received = bytearray()
        while part := sock.recv(1 << 20):
            received += part
    record = ended(lab, task)
    assert (record["status"], record["error_info"]) == ("cancelled", [])
    assert f"TASK_CANCELLED: [ {task} ]".encode() in received[-2000:]


def test_the_new_vm_is_seen_while_its_disks_come_and_gone_when_they_stop(
    lab: RunningLab, session: Any, api: Any, archives: Archives, source: str
) -> None:
    body = archives.get(source)
    before = set(api.VM.get_all()), set(api.VDI.get_all())
    task = api.task.create("cut", "")
    path = f"/import?session_id={session._session}&task_id={task}"
    with connection(lab, f"PUT {path} HTTP/1.1\r\nContent-Length: {len(body)}") as sock:
        sock.sendall(body[: 3 * MIB])
        wait_until(lab, lambda: api.task.get_other_config(task) == {"object_creation": "complete"})
        (vm,) = set(api.VM.get_all()) - before[0]
        assert api.VM.get_current_operations(vm) == {task: "import"}
        assert api.VM.get_allowed_operations(vm) == []
        assert api.VM.get_other_config(vm)["import_task"] == task
    assert ended(lab, task)["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"]
    assert (set(api.VM.get_all()), set(api.VDI.get_all())) == before


# -- refused


def test_a_failed_import_leaves_nothing_unless_it_was_forced(api: Any, archives: Archives, source: str) -> None:
    body = bytearray(archives.get(source))
    at = body.index(b"/00000000.xxhash") + 2000
    body[at] ^= 1
    before = set(api.VM.get_all()), set(api.VDI.get_all())
    told = archives.put(bytes(body))["error_info"]
    assert told[0] == "IMPORT_ERROR"
    assert "Tar.Header.Checksum_mismatch" in told[1] or "Stream_vdi.Invalid_checksum" in told[1]
    assert (set(api.VM.get_all()), set(api.VDI.get_all())) == before
    archives.put(bytes(body), "force=true")
    (left,) = set(api.VM.get_all()) - before[0]
    discard(api, left)


def test_a_block_that_does_not_fill_its_last_record_ends_an_import(api: Any, archives: Archives, source: str) -> None:
    """The pool reads the next header where the padding begins."""
    with tarfile.open(fileobj=io.BytesIO(archives.get(source))) as packed:
        opened = packed.extractfile("ova.xml")
        assert opened is not None
        document = opened.read()
        block = next(name for name in packed.getnames() if name.endswith("/00000000"))
    short = member("ova.xml", document) + member(block, b"tiny") + member(f"{block}.xxhash", bytes(16)) + bytes(1024)
    record = archives.put(short)
    assert record["error_info"] == ["IMPORT_ERROR", "INTERNAL_ERROR: [ Tar.Header.Checksum_mismatch ]"]


@pytest.mark.parametrize(
    ("head", "reason"),
    [(b"\xff" * 512, 'Failure("Int64.of_string")'), (b"Ref:1".ljust(512, b"\0"), "Tar.Header.Checksum_mismatch")],
)
def test_rubbish_instead_of_a_header_is_told_in_the_pools_words(
    api: Any, archives: Archives, source: str, head: bytes, reason: str
) -> None:
    with tarfile.open(fileobj=io.BytesIO(archives.get(source))) as packed:
        opened = packed.extractfile("ova.xml")
        assert opened is not None
        document = opened.read()
    record = archives.put(member("ova.xml", document) + head + bytes(1024))
    assert record["error_info"] == ["IMPORT_ERROR", f"INTERNAL_ERROR: [ {reason} ]"]


def test_a_version_that_cannot_be_read_is_told_before_what_is_missing(archives: Archives) -> None:
    document = b"<value><struct><member><name>version</name><value>x</value></member></struct></value>"
    record = archives.put(member("ova.xml", document) + bytes(1024))
    assert "version_of_rpc: malformed RPC S(x)" in record["error_info"][1]


def test_a_newer_pools_archive_is_refused(archives: Archives, source: str) -> None:
    body = edited(archives.get(source), lambda document: document["version"].update(xapi_major="99"))
    assert archives.put(body)["error_info"] == ["IMPORT_INCOMPATIBLE_VERSION"]


def test_a_running_vm_is_not_exported_and_a_blocked_one_neither(lab: RunningLab, session: Any, api: Any) -> None:
    vm = vm_named(api, "alpha")
    path = f"/export?session_id={session._session}&ref={vm}"
    assert f"VM_BAD_POWER_STATE: [ {vm}; halted, suspended; running ]".encode() in fetch(lab, "GET", path).body
    api.VM.add_to_blocked_operations(vm, "export", "no")
    assert f"OPERATION_BLOCKED: [ {vm}; no ]".encode() in fetch(lab, "GET", path).body
    api.VM.remove_from_blocked_operations(vm, "export")


def test_rubbish_that_claims_to_be_packed_costs_no_memory(lab: RunningLab, archives: Archives) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    header = b"ova.xml".ljust(124, b"\0") + b"77777777777\0" + bytes(376)
    packed = bomb.compress(header) + b"".join(bomb.compress(bytes(MIB)) for _ in range(64)) + bomb.flush()
    assert archives.put(packed)["error_info"][0].startswith("IMPORT_ERROR")


# -- archives of old pools


@pytest.mark.parametrize("is_right", [True, False])
def test_an_old_archive_ends_with_a_table_of_its_checksums(
    api: Any, archives: Archives, source: str, is_right: bool
) -> None:
    body = edited(archives.get(source), lambda document: document["version"].update(export_vsn="1"))
    table: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        for name in tar.getnames():
            stream = tar.extractfile(name)
            assert stream is not None
            if name.endswith(".xxhash"):
                table[name.removesuffix(".xxhash")] = stream.read().decode() if is_right else "other"
    told = write_value(table).encode()
    record = archives.put(body[:-1024] + member("checksum.xml", told) + bytes(1024))
    if not is_right:
        assert record["error_info"] == ["IMPORT_ERROR_SOME_CHECKSUMS_FAILED"]
        return
    discard(api, record["result"].partition("<data><value>")[2].partition("</value>")[0])


def test_sums_of_the_older_kind_are_compared_as_they_are_spelled(api: Any, archives: Archives, source: str) -> None:
    def resealed(spell: Callable[[str], str]) -> bytes:
        pieces = []
        with tarfile.open(fileobj=io.BytesIO(archives.get(source))) as tar:
            for name in tar.getnames():
                stream = tar.extractfile(name)
                assert stream is not None
                if name.endswith(".xxhash"):
                    continue
                data = stream.read()
                pieces.append(member(name, data))
                if name != "ova.xml":
                    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                    pieces.append(member(f"{name}.checksum", spell(digest).encode()))
        return b"".join(pieces) + bytes(1024)

    discard(api, archives.made(resealed(str.lower)))
    assert "Invalid_checksum" in archives.put(resealed(str.upper))["error_info"][1]


def member(name: str, data: bytes) -> bytes:
    """Return one member of an archive."""
    return xva_header(name, len(data)) + data + bytes(-len(data) % 512)


def test_an_export_ends_soon_after_its_session(lab: RunningLab, session: Any, api: Any, source: str) -> None:
    own = lab.pool.sessions.open(user="root", originator="", host=lab.pool.master_ref)
    task = api.task.create("orphaned", "")
    with connection(lab, f"GET /export?session_id={own}&task_id={task}&ref={source} HTTP/1.1") as sock:
        assert sock.recv(15) == b"HTTP/1.0 200 OK"
        wait_until(lab, lambda: api.task.get_progress(task) > 0)
        lab.pool.sessions.close(own)
        lab.control.advance(31)
        received = bytearray()
        while part := sock.recv(1 << 20):
            received += part
    assert ended(lab, task)["error_info"] == ["SESSION_INVALID", own]
    assert b"SESSION_INVALID" in received[-2000:]
