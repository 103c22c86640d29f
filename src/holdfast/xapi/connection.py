"""HTTP connections to a pool's hosts: trusted before use, interruptible from another thread, never sending twice.

Invariant: a request that may have reached the pool is not repeated here; whoever knows that repeating is harmless does.
"""

from __future__ import annotations

import http.client
import select
import socket

from holdfast.xapi.address import PoolAddress
from holdfast.xapi.tls import TlsTrust, connect_trusted, interrupt

__all__ = ["PoolHttpConnection"]


class PoolHttpConnection(http.client.HTTPConnection):
    """One HTTP/1.1 connection to one host of a pool. Used by one thread at a time; ``interrupt`` from any."""

    def __init__(self, address: PoolAddress, trust: TlsTrust, *, timeout_s: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s)
        self._address, self._trust, self._timeout_s = address, trust, timeout_s
        self._interrupted = False
        self._bare: socket.socket | None = None

    def connect(self) -> None:
        """Connect and check the server's identity."""
        self.sock = connect_trusted(self._address, self._trust, timeout_s=self._timeout_s, opened=self._opened)
        self._bare = None
        if self._interrupted:
            interrupt(self.sock)

    def _opened(self, bare: socket.socket) -> None:
        self._bare = bare
        if self._interrupted:
            raise InterruptedError("interrupted before the connection was made")

    def prepare(self, *, timeout_s: float) -> None:
        """Get ready for one exchange: bound its waits, and drop a kept-alive connection that the server gave up."""
        self._interrupted = False
        self._timeout_s = timeout_s
        self.timeout = timeout_s
        if self.sock is None:
            return
        readable, _, _ = select.select([self.sock], [], [], 0)
        if readable:
            # Between two answers nothing may arrive: it is the end of the connection or nonsense.
            self.close()
        else:
            self.sock.settimeout(timeout_s)

    def interrupt(self) -> None:
        """Make the thread that uses the connection return with an error, now. Safe from any thread."""
        self._interrupted = True
        for sock in (self._bare, self.sock):
            if sock is not None:
                interrupt(sock)
