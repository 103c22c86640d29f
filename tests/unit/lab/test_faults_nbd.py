"""Faults of NBD: what a client is told of the server, and how a connection can fail it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.unit.lab.talk import new_disk, wait_until
from tests.unit.lab.test_nbd_service import _Client, _reading


@pytest.fixture
def disk(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 8 * MIB)
    lab.pool.disks.write(api.VDI.get_uuid(made), 0, b"faulty" * 100_000)
    yield made
    wait_until(lab, lambda: lab.control.attachments() == [])
    api.VDI.destroy(made)


def test_nbd_can_be_missing(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-info-empty")
    assert [len(api.VDI.get_nbd_info(disk)) for _ in range(2)] == [0, 1]


def test_nbd_can_be_told_at_a_port_where_nobody_listens(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-unreachable")
    (info,) = api.VDI.get_nbd_info(disk)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((info["address"], int(info["port"])), timeout=5)


def test_the_certificate_told_can_be_another_than_the_one_shown(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-certificate-wrong")
    (info,) = api.VDI.get_nbd_info(disk)
    assert info["cert"] != lab.certificate_pem
    context = ssl.create_default_context(cadata=info["cert"])
    host, port = lab.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(sock, server_hostname=info["subject"])


def test_the_name_told_can_be_missing_in_the_certificate(lab: RunningLab, api: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-subject-wrong")
    (info,) = api.VDI.get_nbd_info(disk)
    context = ssl.create_default_context(cadata=info["cert"])
    host, port = lab.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as sock,
        pytest.raises(ssl.SSLCertVerificationError, match="other-host"),
    ):
        context.wrap_socket(sock, server_hostname=info["subject"])


def test_nbd_can_have_all_places_taken(lab: RunningLab, session: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-busy")
    with pytest.raises(OSError), _reading(lab, session, disk):
        raise AssertionError("it was taken")
    with _reading(lab, session, disk) as client:
        assert client.read(0, 512).startswith(b"faulty")


def test_an_nbd_connection_can_end_after_so_many_bytes(lab: RunningLab, session: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-disconnects", after_bytes=MIB + 100)
    with _reading(lab, session, disk) as client:
        assert client.read(0, MIB)
        with pytest.raises(OSError):
            client.read(MIB, MIB)


def test_an_nbd_connection_can_pause(lab: RunningLab, session: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-stalls", after_bytes=100, seconds=0.05)
    with _reading(lab, session, disk) as client:
        began_s = lab.pool.clock.monotonic_s()
        assert client.read(0, MIB)[:6] == b"faulty"
        assert lab.pool.clock.monotonic_s() - began_s >= 0.05


def test_nbd_can_be_slow_until_cleared(lab: RunningLab, session: Any, disk: str) -> None:
    lab.control.arm_fault("nbd-slow", bytes_per_s=20 * MIB)
    with _reading(lab, session, disk) as client:
        began_s = lab.pool.clock.monotonic_s()
        assert client.read(0, MIB)[:6] == b"faulty"
        assert lab.pool.clock.monotonic_s() - began_s >= 0.05
    assert [fault["name"] for fault in lab.control.faults()] == ["nbd-slow"]


def test_a_session_that_is_gone_opens_no_nbd_connection(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    lab.control.arm_fault("toolstack-restarts")
    with pytest.raises(OSError):
        _Client(lab, f"/{lab.pool.db.text('VDI', disk, 'uuid')}?session_id={session._session}")
    session.xenapi.login_with_password(lab.user, lab.password.reveal(), "1.0", "test")
