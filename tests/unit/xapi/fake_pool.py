"""A pool that answers what a test tells it to: XML-RPC calls by a table of functions, transfers by one function.

It speaks on a real socket. Invariant: every call is written down in ``calls``, in the order in which it came.
"""

from __future__ import annotations

import contextlib
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from holdfast.core import Cancellation, Clock, ManualClock, Secret, SeededEntropy
from holdfast.xapi.address import Credentials, PoolAddress
from holdfast.xapi.calls import Calls
from holdfast.xapi.session import PoolSession
from holdfast.xapi.tls import NoTls

CREDENTIALS = Credentials(user="root", password=Secret("secret"))


class Refusal(Exception):
    """What a function raises to answer with an ``ErrorDescription``."""


class FakePool:
    """The server and what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.methods: dict[str, Callable[..., Any]] = {
            "session.login_with_password": lambda *_: "OpaqueRef:session",
            "session.logout": lambda *_: "",
            "task.destroy": lambda *_: "",
            "task.create": lambda *_: "OpaqueRef:task",
        }
        self.transfer: Callable[[Transfer], None] = lambda transfer: transfer.send_error(403)
        self.drops: list[str] = []
        """Methods whose connection is closed without an answer, once each."""
        self.hang_up_after: list[str] = []
        """Methods after whose answer the connection is closed without a word, once each."""
        self.hung_up = threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, daemon=True).start()

    @property
    def address(self) -> PoolAddress:
        return PoolAddress(scheme="http", host="127.0.0.1", port=self._server.server_address[1])

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def task_ends(self, *, status: str = "success", result: str = "", error: tuple[str, ...] = ()) -> None:
        """Let every task be over at the first look."""
        record = {"status": status, "result": result, "error_info": list(error)}
        self.methods["event.from"] = lambda _session, classes, _token, _wait: {
            "events": [{"ref": classes[0].removeprefix("task/"), "operation": "add", "snapshot": record}],
            "token": "1,1",
            "valid_ref_counts": {},
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Transfer(BaseHTTPRequestHandler):
    """One request to a transfer handler."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pool: FakePool

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query))

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send what XAPI sends before it works: status, no length, connection to be closed."""
        self.send_response_only(status)
        for name, value in ({"Connection": "close"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def do_POST(self) -> None:
        params, method = xmlrpc.client.loads(self.body())
        assert method is not None
        self.pool.calls.append((method, params))
        if method in self.pool.drops:
            self.pool.drops.remove(method)
            self.close_connection = True
            return
        try:
            function = self.pool.methods.get(method)
            if function is None:
                raise Refusal("MESSAGE_METHOD_UNKNOWN", method)
            answer: dict[str, Any] = {"Status": "Success", "Value": function(*params)}
        except Refusal as refusal:
            answer = {"Status": "Failure", "ErrorDescription": list(refusal.args)}
        data = xmlrpc.client.dumps((answer,), methodresponse=True).encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if method in self.pool.hang_up_after:
            self.pool.hang_up_after.remove(method)
            self.close_connection = True

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        self.pool.hung_up.set()

    def do_GET(self) -> None:
        self.pool.transfer(self)

    def do_PUT(self) -> None:
        self.pool.transfer(self)

    def log_message(self, *_: object) -> None:
        pass


def _handler_for(pool: FakePool) -> type[Transfer]:
    return type("BoundTransfer", (Transfer,), {"pool": pool})


@contextlib.contextmanager
def fake_pool() -> Iterator[FakePool]:
    """Run a pool for a test."""
    pool = FakePool()
    try:
        yield pool
    finally:
        pool.close()


@contextlib.contextmanager
def logged_in(pool: FakePool, *, clock: Clock | None = None, cancel: Cancellation | None = None) -> Iterator[Calls]:
    """Give calls that are logged in at the fake."""
    cancel = cancel or Cancellation()
    session = PoolSession(pool.address, CREDENTIALS, NoTls())
    session.login(cancel=cancel)
    try:
        yield Calls(session, clock=clock or ManualClock(), entropy=SeededEntropy(1), cancel=cancel)
    finally:
        session.close()
