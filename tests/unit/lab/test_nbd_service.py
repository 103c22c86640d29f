"""Reading the pool's disks over NBD: whose session, which network, and the attachment that comes and goes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import LabDelays, RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import new_disk, refusal, wait_until


def _take(sock: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        part = sock.recv(length - len(received))
        if not part:
            raise ConnectionResetError
        received += part
    return bytes(received)


class _Client:
    """A stranger's NBD client: TLS verified with the pool's certificate, old-style export."""

    def __init__(self, lab: RunningLab, name: str) -> None:
        self.sock: socket.socket = socket.create_connection(lab.nbd_address, timeout=10)
        assert _take(self.sock, 18).startswith(b"NBDMAGICIHAVEOPT")
        self.sock.sendall(struct.pack(">I", 1) + b"IHAVEOPT" + struct.pack(">II", 5, 0))
        assert _take(self.sock, 20)[12:16] == struct.pack(">I", 1)
        context = ssl.create_default_context(cadata=lab.certificate_pem)
        self.sock = context.wrap_socket(self.sock, server_hostname="lab-host-1")
        self.sock.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name.encode())
        self.size_bytes = struct.unpack(">Q", _take(self.sock, 134)[:8])[0]

    def read(self, offset: int, length: int) -> bytes:
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, offset, length))
        magic, error, _ = struct.unpack(">IIQ", _take(self.sock, 16))
        assert (magic, error) == (0x67446698, 0)
        return _take(self.sock, length)

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def _reading(lab: RunningLab, session: Any, disk: str) -> Iterator[_Client]:
    client = _Client(lab, f"/{session.xenapi.VDI.get_uuid(disk)}?session_id={session._session}")
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    lab.pool.disks.write(api.VDI.get_uuid(made), MIB, b"over the wire")
    yield made
    wait_until(lab, lambda: lab.control.attachments() == [])
    api.VDI.destroy(made)


def test_a_disk_is_read_and_attached_to_the_control_domain_meanwhile(
    lab: RunningLab, session: Any, api: Any, disk: str
) -> None:
    with _reading(lab, session, disk) as client:
        assert client.size_bytes == 8 * MIB
        assert client.read(MIB, 512).startswith(b"over the wire")
        (vbd,) = api.VDI.get_VBDs(disk)
        record = api.VBD.get_record(vbd)
        assert (record["currently_attached"], record["mode"]) == (True, "RO")
        assert api.VM.get_is_control_domain(record["VM"])
        assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
    wait_until(lab, lambda: lab.pool.db.texts("VDI", disk, "VBDs") == [])


@pytest.mark.parametrize("name", ["/{uuid}?session_id=OpaqueRef:bad", "/nope?session_id={session}", "{uuid}", ""])
def test_a_wrong_session_or_disk_is_hung_up_on(lab: RunningLab, session: Any, api: Any, disk: str, name: str) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError, OSError)):
        _Client(lab, name.format(uuid=api.VDI.get_uuid(disk), session=session._session))
    assert lab.control.attachments() == []


def test_a_disk_that_a_vm_writes_is_hung_up_on(lab: RunningLab, session: Any, api: Any) -> None:
    live = api.VDI.get_by_name_label("alpha 0")[0]
    with pytest.raises((ConnectionError, ssl.SSLError, OSError)):
        _Client(lab, f"/{api.VDI.get_uuid(live)}?session_id={session._session}")


def test_without_a_purpose_nobody_is_greeted(lab: RunningLab, api: Any) -> None:
    network = next(ref for ref in api.network.get_all() if api.network.get_purpose(ref))
    api.network.remove_purpose(network, "nbd")
    with socket.create_connection(lab.nbd_address, timeout=10) as sock:
        assert sock.recv(10) == b""
    api.network.add_purpose(network, "nbd")


def test_a_client_may_force_the_control_domain_to_let_go(lab: RunningLab, session: Any, api: Any) -> None:
    disk = new_disk(api, 8 * MIB)
    lab.control.arm_fault("vbd-leaks")
    with _reading(lab, session, disk) as client:
        client.read(0, 512)
    wait_until(lab, lambda: lab.pool.faults.armed() == [])
    (vbd,) = api.VDI.get_VBDs(disk)
    assert refusal(lambda: api.VBD.destroy(vbd))[0] == "OPERATION_NOT_ALLOWED"
    api.VBD.unplug(vbd)
    assert api.VDI.get_VBDs(disk) == [vbd]
    api.VBD.destroy(vbd)
    api.VDI.destroy(disk)


@pytest.mark.slow(reason="a disk is detached slowly on purpose")
def test_detaching_takes_its_time() -> None:
    delays = LabDelays(unplug_s=0.2, linger_s=0.0)
    with tiny_lab(scenario="empty", delays=delays) as lab, logged_in(lab) as session:
        api = session.xenapi
        disk = new_disk(api, 8 * MIB)
        with _reading(lab, session, disk) as client:
            client.read(0, 512)
        assert refusal(lambda: api.VDI.destroy(disk)) == ["VDI_IN_USE", disk, "destroy"]
        wait_until(lab, lambda: lab.pool.db.texts("VDI", disk, "VBDs") == [])
        api.VDI.destroy(disk)
