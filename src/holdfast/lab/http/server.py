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
from holdfast.lab.http.connection import Connection, Disconnected
from holdfast.lab.http.request import BadRequest, Request

__all__ = ["HttpServer", "Listener"]

CONNECTIONS_MAX = 800
"""The pool's own limit. At the limit the connection that has been idle longest makes room."""

HANDSHAKE_S_MAX = 15.0
"""How long a client may take to agree on TLS."""

CONNECTIONS_BUSY_MAX = 1200
"""Beyond this many, when none is idle, a new connection is closed at once: threads are not endless."""

_ACCEPT_PAUSE_S = 0.05

_EVICTION_S = 0.5
"""How long a connection that was ended may take to give its thread back, before another one is ended."""

_EVICTIONS_MAX = 8
"""For one new connection; the next one is waiting to be accepted meanwhile."""

_TOLD_EVERY_S = 10.0

_LINGER_S = 0.2
"""After a page for what was no request: unread bytes would otherwise turn the end into a reset that drops the page."""

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
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, name=f"lab-listen-{self.address[1]}", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._sock.accept()
            except OSError:
                if self._is_closed.is_set():
                    return
                # Out of descriptors, or the client was gone already: the next accept decides.
                self._is_closed.wait(_ACCEPT_PAUSE_S)
                continue
            self._server.admit(sock, str(peer[0]), self._tls, self._serve)

    def close(self) -> None:
        """Stop listening."""
        self._is_closed.set()
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
        self._refused = 0
        self._told_at_s = -_TOLD_EVERY_S

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
            if len(self._connections) >= CONNECTIONS_MAX:
                self._evict_idle()
            is_welcome = not self._closing and len(self._connections) < CONNECTIONS_BUSY_MAX
            if is_welcome:
                self._connections[connection] = thread
        if not is_welcome or not self._begin(connection, thread):
            self._forget(connection)
            connection.close()

    def _begin(self, connection: Connection, thread: threading.Thread) -> bool:
        """Start the connection's thread; where the machine gives no more, idle connections end to free theirs."""
        for _ in range(_EVICTIONS_MAX):
            try:
                thread.start()
            except RuntimeError:
                with self._lock:
                    freed = self._evict_idle()
                if freed is None:
                    break
                freed.join(_EVICTION_S)
            else:
                return True
        self._tell_refused(connection)
        return False

    def _tell_refused(self, connection: Connection) -> None:
        """Say so in the log, once in a while: where one is refused, hundreds are."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s >= self._told_at_s + _TOLD_EVERY_S:
            log.warning("lab.no-thread", peer=connection.peer, closed=self._refused, why="the machine gives no more")
            self._told_at_s, self._refused = now_s, 0

    def _evict_idle(self) -> threading.Thread | None:
        """End the connection that has been idle longest; return its thread, None when none is idle."""
        idle = [
            (since, each)
            for each, thread in self._connections.items()
            if (since := each.idle_since) is not None and thread.is_alive()
        ]
        if not idle:
            return None
        longest = min(idle, key=lambda pair: pair[0])[1]
        longest.idle_since = None
        longest.abort()
        return self._connections[longest]

    def abort_connections(self, addresses: Collection[tuple[str, int]]) -> None:
        """End every connection that came to one of these addresses, whatever it is doing."""
        with self._lock:
            for connection in self._connections:
                if connection.local_address in addresses:
                    connection.abort()

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection, None)

    def _run(self, connection: Connection, tls: ssl.SSLContext | None, serve: Serve) -> None:
        try:
            if tls is not None:
                connection.sock.settimeout(HANDSHAKE_S_MAX)
                connection.sock = tls.wrap_socket(connection.sock, server_side=True)
            self._converse(connection, serve)
        except (OSError, ValueError, Disconnected) as cause:
            # A peer that vanishes or speaks no TLS is everyday life on a listening port.
            log.info("lab.connection-broken", peer=connection.peer, reason=str(cause) or type(cause).__name__)
        except Exception:
            log.exception("lab.request-failed", peer=connection.peer)
        finally:
            connection.close()
            self._forget(connection)

    @staticmethod
    def _converse(connection: Connection, serve: Serve) -> None:
        while True:
            try:
                request = connection.read_request()
            except BadRequest as refusal:
                log.info("lab.bad-request", peer=connection.peer, reason=str(refusal) or "no HTTP")
                connection.send(refusal.page)
                connection.linger(_LINGER_S)
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
