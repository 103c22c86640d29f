"""The pool's listeners: a thread per connection, a bound on connections, and nothing left behind at the end.

What a request means is the caller's business; this module only brings requests to it one after the other.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection

from holdfast.core import get_log
from holdfast.lab.http import pages
from holdfast.lab.http.connection import Connection, Disconnected
from holdfast.lab.http.request import BadRequest, Request

__all__ = ["HttpServer", "Listener"]

CONNECTIONS_MAX = 800
"""The pool's own limit. At the limit the connection that has been idle longest makes room."""

HANDSHAKE_S_MAX = 15.0
"""How long a client may take to agree on TLS."""

Serve = Callable[[Request, Connection], bool]
"""Answers one request; True keeps the connection."""

log = get_log(__name__)


class Listener:
    """One listening port."""

    def __init__(self, server: HttpServer, sock: socket.socket, tls: ssl.SSLContext | None, serve: Serve) -> None:
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self._server = server
        self._sock = sock
        self._tls = tls
        self._serve = serve
        self._thread = threading.Thread(target=self._accept, name=f"lab-listen-{self.address[1]}", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._sock.accept()
            except OSError:
                return
            self._server.admit(sock, str(peer[0]), self._tls, self._serve)

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(timeout=5)


class HttpServer:
    """All listeners of one pool and the connections they brought."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._listeners: list[Listener] = []
        self._closing = False

    def listen(self, host: str, port: int, *, serve: Serve, tls: ssl.SSLContext | None = None) -> Listener:
        """Start serving on a port (0: any free one) and return the listener, which knows the port."""
        sock = socket.create_server((host, port), backlog=1024)
        listener = Listener(self, sock, tls, serve)
        self._listeners.append(listener)
        return listener

    @property
    def connection_count(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._connections)

    def admit(self, sock: socket.socket, peer: str, tls: ssl.SSLContext | None, serve: Serve) -> None:
        """Give a fresh connection its thread; make room first when there are too many."""
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, peer=peer)
        thread = threading.Thread(target=self._run, args=(connection, tls, serve), name="lab-http", daemon=True)
        with self._lock:
            if self._closing:
                connection.close()
                return
            if len(self._connections) >= CONNECTIONS_MAX:
                self._evict_idle()
            self._connections[connection] = thread
        thread.start()

    def _evict_idle(self) -> None:
        idle = [(since, c) for c in self._connections if (since := c.idle_since) is not None]
        if idle:
            min(idle, key=lambda pair: pair[0])[1].abort()

    def abort_connections(self, addresses: Collection[tuple[str, int]]) -> None:
        """End every connection that came to one of these addresses, whatever it is doing."""
        with self._lock:
            for connection in self._connections:
                if connection.local_address in addresses:
                    connection.abort()

    def _run(self, connection: Connection, tls: ssl.SSLContext | None, serve: Serve) -> None:
        try:
            if tls is not None:
                connection.sock.settimeout(HANDSHAKE_S_MAX)
                connection.sock = tls.wrap_socket(connection.sock, server_side=True)
            self._converse(connection, serve)
        except (OSError, ValueError, Disconnected):
            pass  # a peer that vanishes or speaks no TLS is everyday life on a listening port
        except Exception:
            log.exception("lab.request-failed", peer=connection.peer)
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)

    @staticmethod
    def _converse(connection: Connection, serve: Serve) -> None:
        while True:
            try:
                request = connection.read_request()
            except BadRequest:
                connection.send(pages.bad_request())
                return
            if request is None or not serve(request, connection):
                return

    def close(self) -> None:
        """Stop listening, end every connection, wait for their threads."""
        with self._lock:
            self._closing = True
        for listener in self._listeners:
            listener.close()
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now:
            connection.abort()
        end = time.monotonic() + 5
        for thread in open_now.values():
            thread.join(timeout=max(0.0, end - time.monotonic()))
