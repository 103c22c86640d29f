"""The lab's listeners against everyday and hostile clients."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast.lab import RunningLab
from holdfast.lab.http import BadRequest, Connection, HttpServer, Request, parse_head
from holdfast.lab.http import server as server_module
from tests.unit.lab.talk import converse, fetch, wait_until


def _open(lab: RunningLab) -> socket.socket:
    parts = urlsplit(lab.plain_url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _call(method: str) -> bytes:
    body = f'{{"jsonrpc":"2.0","method":"{method}","params":[],"id":1}}'.encode()
    return f"POST /jsonrpc HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_calls_follow_each_other_on_one_connection(lab: RunningLab) -> None:
    with _open(lab) as sock:
        sock.sendall(_call("x.y") * 3)
        received = b""
        while received.count(b"MESSAGE_METHOD_UNKNOWN") < 3:
            received += sock.recv(65536)
        assert received.count(b"connection: keep-alive") == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing_here?x", 403),
        ("HEAD", "/export_raw_vdi", 501),
        ("DELETE", "/", 501),
        ("OPTIONS", "/jsonrpc", 200),
        ("GET", "/services/x", 401),
        ("PUT", "/export_raw_vdi", 403),
    ],
)
def test_a_path_or_method_that_nobody_serves_gets_its_page(
    lab: RunningLab, method: str, path: str, status: int
) -> None:
    assert fetch(lab, method, path).status == status


@pytest.mark.parametrize(
    ("sent", "beginning", "text"),
    [
        (b"GET /only-two-words\r\n\r\n", b"HTTP/1.1 500 ", b"The HTTP headers could not be parsed."),
        (b"GET /a b HTTP/1.1\r\nx: y\r\n\r\n", b"HTTP/1.1 500 ", b"The HTTP headers could not be parsed."),
        (b"GET /xxxxxxxxxxx x\r\n\r\n", b"HTTP/1.1 500 ", b"Invalid_argument(&quot;String.sub / Bytes.sub&quot;)"),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"HTTP/1.1 500 ", b"Int64.of_string"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"HTTP/1.1 500 ", b"Bytes.create"),
        (b"POST / HTTP/1.1\r\nHost: lab\r\n\r\n", b"HTTP/1.1 500 ", b"We require a content-length: HTTP header"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 500 ", b"size_over_limit"),
        (b"GET /" + b"x" * 2000, b"HTTP/1.1 431 ", b"Exceeded the maximum header size."),
        (b"BREW /export HTTP/1.0\r\n\r\n", b"HTTP/1.0 501 ", b"Unknown BREW not supported."),
        (b"\r\n\r\n", b"", b""),
        (b"GET", b"", b""),
    ],
)
def test_what_is_no_request_gets_the_pools_page_and_is_closed(
    lab: RunningLab, sent: bytes, beginning: bytes, text: bytes
) -> None:
    answer = converse(lab, sent, half_close=True)
    assert answer.startswith(beginning)
    assert text in answer
    assert bool(answer) == bool(beginning)
    assert fetch(lab, "OPTIONS", "/").status == 200


def test_a_client_of_http_1_0_is_answered_so_and_let_go(lab: RunningLab) -> None:
    answer = converse(lab, _call("x.y").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_preflight_may_send_the_headers_it_asks_for(lab: RunningLab) -> None:
    asked = {"Access-Control-Request-Headers": "X-Mine"}
    answer = fetch(lab, "OPTIONS", "/jsonrpc", None, **asked)
    assert answer.headers["access-control-allow-headers"] == "X-Mine, X-Requested-With"


def test_clients_that_vanish_anywhere_leave_no_descriptor(lab: RunningLab, session: Any) -> None:
    before = _descriptors()
    beginnings = (b"", b"POST /", b"POST / HTTP/1.1\r\nContent-Length: 500\r\n\r\nabc", _call("x.y")[:-3])
    for beginning in beginnings * 5:
        with _open(lab) as sock:
            sock.sendall(beginning)
    wait_until(lab, lambda: lab.connection_count <= 1)
    wait_until(lab, lambda: _descriptors() <= before)


def test_nonsense_on_the_tls_port_harms_nobody(lab: RunningLab) -> None:
    parts = urlsplit(lab.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100)[:4] != b"HTTP"
    assert fetch(lab, "OPTIONS", "/").status == 200


def test_at_the_limit_the_idlest_connection_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 3)
    server = HttpServer()
    served = threading.Semaphore(0)

    def serve(request: Any, connection: Any) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        served.release()
        return True

    listener = server.listen("127.0.0.1", 0, serve=serve)
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        clients = [stack.enter_context(socket.create_connection(listener.address, timeout=10)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert served.acquire(timeout=10)
            assert client.recv(100)
        late = stack.enter_context(socket.create_connection(listener.address, timeout=10))
        late.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert late.recv(100).startswith(b"HTTP/1.1 200")
        assert clients[0].recv(100) == b""


def test_closing_ends_every_connection() -> None:
    server = HttpServer()
    listener = server.listen("127.0.0.1", 0, serve=lambda request, connection: True)
    with socket.create_connection(listener.address, timeout=10) as client:
        client.sendall(b"GET / HTT")
        server.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert server.connection_count == 0


def test_a_query_keeps_the_first_value_and_a_cookie_keeps_its_space() -> None:
    request = parse_head(b"GET /a%2Fb?x=1&x=2&y&z=%20a+b#f HTTP/1.1\r\nCookie: one=1; two=2")
    assert request.path == "/a/b"
    assert request.query == {"x": "1", "y": "", "z": " a b"}
    assert request.parameter("one") == "1"
    assert request.parameter("two") is None


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://x/export?a=b", "/export"),
        (b"//x/export", "/export"),
        (b"///export", "/export"),
        (b"http:/export", "/export"),
        (b"//export?a=b", ""),
        (b"http://x?a", ""),
        (b"export", "export"),
    ],
)
def test_a_head_may_name_scheme_and_host_in_its_first_line(target: bytes, path: str) -> None:
    assert parse_head(b"GET " + target + b" HTTP/1.0").path == path
    with pytest.raises(BadRequest):
        parse_head(b"GET " + target)


def test_where_the_machine_has_no_more_threads_idle_connections_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    serving: list[threading.Thread] = []

    class Scarce(threading.Thread):
        def start(self) -> None:
            if self.name == "lab-http":
                if sum(each.is_alive() for each in serving) >= 2:
                    raise RuntimeError("can't start new thread")
                serving.append(self)
            super().start()

    def answer(request: Request, connection: Connection) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return True

    monkeypatch.setattr(threading, "Thread", Scarce)
    server = HttpServer()
    address = server.listen("127.0.0.1", 0, serve=answer).address
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                sock = stack.enter_context(socket.create_connection(address, timeout=10))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                assert sock.recv(65536).endswith(b"ok")
            assert server.connection_count <= 3
    finally:
        server.close()
