"""Hostile and broken clients: whatever they send, the lab answers others meanwhile and keeps nothing of them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast.lab import RunningLab
from holdfast.lab.http import connection as connection_module
from tests.support.lab import tiny_lab
from tests.unit.lab.talk import converse, fetch, json_call, wait_until

CROWD = 1000

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def target() -> Iterator[RunningLab]:
    """A lab for the attacks of this module alone."""
    with tiny_lab() as running:
        yield running


def _descriptors() -> int:
    """Count what is open but the files of disks, of which the lab keeps a bounded number at hand."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += "/disks/" not in str(entry.readlink())
    return count


def _serving() -> int:
    return sum(thread.name in ("lab-http", "lab-nbd-client") for thread in threading.enumerate())


@contextlib.contextmanager
def _nothing_stays(lab: RunningLab) -> Iterator[None]:
    """After the block, the lab has no more descriptors, threads and connections than before, and answers."""
    fetch(lab, "OPTIONS", "/")
    wait_until(lab, lambda: lab.connection_count == 0 and _serving() == 0)
    before = _descriptors()
    yield
    _answers(lab)
    wait_until(lab, lambda: lab.connection_count == 0 and _serving() == 0)
    wait_until(lab, lambda: _descriptors() <= before)


def _answers(lab: RunningLab) -> None:
    login = json_call(lab, "session.login_with_password", lab.user, lab.password.reveal())
    assert json_call(lab, "VM.get_all", login["result"])["result"]
    json_call(lab, "session.logout", login["result"])


def _port(lab: RunningLab, door: str) -> tuple[str, int]:
    parts = urlsplit({"plain": lab.plain_url, "tls": lab.url}.get(door, lab.plain_url))
    return str(parts.hostname), lab.pool.nbd_port if door == "nbd" else int(parts.port or 0)


def _connect(lab: RunningLab, door: str) -> socket.socket:
    return socket.create_connection(_port(lab, door), timeout=20)


def _reset(sock: socket.socket) -> None:
    """Close so that the other side gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- crowds


@pytest.mark.slow(reason="A thousand connections come and go on each port")
@pytest.mark.parametrize("door", ["plain", "tls", "nbd"])
def test_a_thousand_silent_connections_keep_nobody_out(target: RunningLab, door: str) -> None:
    with _nothing_stays(target), contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(_connect(target, door))
        _answers(target)


@pytest.mark.slow(reason="A thousand connections come and go")
def test_a_thousand_idle_clients_keep_nobody_out(target: RunningLab) -> None:
    call = b"OPTIONS / HTTP/1.1\r\nHost: lab\r\n\r\n"
    with _nothing_stays(target), contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            sock = stack.enter_context(_connect(target, "plain"))
            sock.sendall(call)
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        _answers(target)


@pytest.mark.slow(reason="Handshakes cost time")
def test_idle_clients_of_tls_leave_nothing(target: RunningLab) -> None:
    trusting = ssl.create_default_context(cadata=target.certificate_pem)
    with _nothing_stays(target), contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(trusting.wrap_socket(_connect(target, "tls"), server_hostname="127.0.0.1"))
        _answers(target)


# -- slowness


@pytest.mark.slow(reason="Patience runs out in real time")
def test_who_dribbles_his_head_is_cut_off(target: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_S_MAX", 0.4)
    with _nothing_stays(target), _connect(target, "plain") as sock:
        sent = threading.Event()

        def dribble() -> None:
            with contextlib.suppress(OSError):
                for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 900:
                    sock.sendall(bytes([byte]))
                    sent.wait(0.02)

        thread = threading.Thread(target=dribble)
        thread.start()
        assert sock.recv(100).startswith(b"HTTP/1.1 408")
        _answers(target)
        sent.set()
        thread.join()


@pytest.mark.slow(reason="Patience runs out in real time")
def test_who_says_nothing_is_let_go(target: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "FIRST_WORD_S_MAX", 0.2)
    with _nothing_stays(target), _connect(target, "plain") as sock:
        assert sock.recv(100)[:12] in (b"", b"HTTP/1.1 408")


# -- sizes and nesting


def _post(body: bytes, *, length: int | None = None, path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


_BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{n} "&a{n - 1 if n else ""};&a{n - 1 if n else ""};">' for n in range(30))
    + "]><methodCall><methodName>&a29;</methodName></methodCall>"
).encode()

_DEEP_XML = b"<methodCall><methodName>x</methodName><params>" + b"<param><value><array><data>" * 8000
_DEEP_JSON = b'{"method":"x","id":1,"params":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        pytest.param(_post(b"x" * 400 * KIB), b"500", id="a body beyond the limit"),
        pytest.param(_post(b"", length=10**15), b"500", id="a petabyte announced"),
        pytest.param(_post(b"", length=-5), b"500", id="a negative length"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"500", id="no number"),
        pytest.param(b"GET /" + b"a" * 100 * KIB + b" HTTP/1.1\r\n\r\n", b"431", id="an endless path"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"431", id="endless headers"),
        pytest.param(_post(_BOMB), b"HTTP", id="a billion laughs"),
        pytest.param(_post(_DEEP_XML), b"HTTP", id="deep XML"),
        pytest.param(_post(_DEEP_JSON, path="/jsonrpc"), b"500", id="deep JSON"),
        pytest.param(_post(b'{"method":"' + b"x" * 200 * KIB + b'"}', path="/jsonrpc"), b"HTTP", id="a long name"),
        pytest.param(_post(b"\0" * 1000), b"HTTP", id="zeros"),
        pytest.param(_post(bytes(range(128, 256)) * 10, path="/jsonrpc"), b"HTTP", id="no text"),
    ],
)
def test_what_is_too_much_is_refused_and_forgotten(target: RunningLab, sent: bytes, wanted: bytes) -> None:
    with _nothing_stays(target):
        assert wanted in converse(target, sent, half_close=True)[:40]


# -- garbage and breaking off


@pytest.mark.slow(reason="Much noise on every port")
@pytest.mark.parametrize("door", ["plain", "tls", "nbd"])
def test_noise_on_any_port_harms_nobody(target: RunningLab, door: str) -> None:
    noise = Random(7)
    with _nothing_stays(target):
        for _ in range(30):
            with _connect(target, door) as sock, contextlib.suppress(OSError):
                sock.sendall(noise.randbytes(noise.randrange(1, 4000)))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass


def _handshake_bytes() -> bytes:
    """The first flight of a client's TLS handshake."""
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="lab")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.slow(reason="Every port at every stage")
@pytest.mark.parametrize("ends", [_reset, socket.socket.close], ids=["reset", "close"])
def test_breaking_off_anywhere_leaves_nothing(
    target: RunningLab, ends: Callable[[socket.socket], None], session: Any
) -> None:
    call = _post(b'{"jsonrpc":"2.0","method":"VM.get_all","params":["x"],"id":1}', path="/jsonrpc")
    hello = _handshake_bytes()
    option = b"\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0"
    stages = [("plain", call[:cut]) for cut in (0, 4, 20, 60, len(call) - 1, len(call))]
    stages += [("tls", hello[:cut]) for cut in (0, 3, 5, 100, len(hello) - 1, len(hello))]
    stages += [("nbd", option[:cut]) for cut in (0, 2, 4, 9, 19, len(option))]
    with _nothing_stays(target):
        for door, sent in stages * 2:
            sock = _connect(target, door)
            sock.sendall(sent)
            ends(sock)


@pytest.fixture
def session(target: RunningLab) -> Iterator[str]:
    """A session's reference."""
    ref = json_call(target, "session.login_with_password", target.user, target.password.reveal())["result"]
    yield ref
    json_call(target, "session.logout", ref)


def _disk(lab: RunningLab, session: str) -> str:
    db = lab.pool.db
    sr = db.text("pool", lab.pool.pool_ref, "default_SR")
    record: dict[str, object] = {"name_label": "cut", "name_description": "", "SR": sr, "virtual_size": 8 * MIB}
    record |= {"type": "user", "sharable": False, "read_only": False, "other_config": {}}
    vdi: str = json_call(lab, "VDI.create", session, record)["result"]
    return vdi


def _reading(lab: RunningLab, session: str) -> tuple[bytes, int]:
    query = f"session_id={session}&vdi={_disk(lab, session)}&format=raw"
    return f"GET /export_raw_vdi?{query} HTTP/1.1\r\n\r\n".encode(), 1 * MIB


def _writing(lab: RunningLab, session: str) -> tuple[bytes, int]:
    head = f"PUT /import_raw_vdi?session_id={session}&vdi={_disk(lab, session)}&format=raw HTTP/1.1\r\n"
    return f"{head}Content-Length: {8 * MIB}\r\n\r\n".encode() + b"z" * MIB, 0


@pytest.mark.slow(reason="Transfers of megabytes")
@pytest.mark.parametrize("begins", [_reading, _writing], ids=["export", "import"])
@pytest.mark.parametrize("ends", [_reset, socket.socket.close], ids=["reset", "close"])
def test_a_transfer_that_is_cut_frees_disk_and_descriptor(
    target: RunningLab,
    session: str,
    begins: Callable[[RunningLab, str], tuple[bytes, int]],
    ends: Callable[[socket.socket], None],
) -> None:
    sent, wanted_bytes = begins(target, session)
    with _nothing_stays(target):
        sock = _connect(target, "plain")
        sock.sendall(sent)
        with sock.makefile("rb") as answer:
            assert len(answer.read(wanted_bytes)) == wanted_bytes
        ends(sock)
        db = target.pool.db
        dom0 = {row.ref for row in db.rows("VM") if row.fields["is_control_domain"]}
        wait_until(target, lambda: not any(row.fields["VM"] in dom0 for row in db.rows("VBD")))


def test_an_upload_shorter_than_announced_fails_its_task_alone(target: RunningLab, session: str) -> None:
    sent, _ = _writing(target, session)
    with _nothing_stays(target):
        converse(target, sent, half_close=True)
