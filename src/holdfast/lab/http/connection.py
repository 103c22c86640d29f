"""One client's connection: reading heads and bodies, sending answers, always bounded in time.

Invariant: after ``close`` the descriptor is gone, whatever state the peer left it in.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from holdfast.lab.http import pages
from holdfast.lab.http.request import HEAD_BYTES_MAX, HEAD_BYTES_MIN, BadRequest, Request, parse_head

__all__ = ["Connection", "Disconnected"]

IDLE_S_MAX = 600.0
"""How long a kept connection may say nothing; clients hold theirs for minutes between calls."""

STALL_S_MAX = 300.0
"""How long a transfer may stand still; the pool's own inactivity limit."""

FIRST_WORD_S_MAX = 10.0
"""How long a fresh connection may pause before its first request is complete; the pool's own limit."""

HEAD_S_MAX = 60.0
"""How long a started head may take; half-open and drip-feeding clients end here."""


class Disconnected(Exception):
    """The peer went away, or said nothing for too long."""


class Connection:
    """A socket with the bytes that were read too early. Used by one thread; ``abort`` may come from another."""

    def __init__(self, sock: socket.socket, *, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.idle_since: float | None = time.monotonic()
        self.is_broken = False
        """Whether the client was lost while it was being read from, rather than having said all."""
        self._early = bytearray()
        self._is_fresh = True

    def read_request(self) -> Request | None:
        """Return the next request, or None when the client is done.

        ``BadRequest`` when what came is none, or did not come in time.
        """
        self.idle_since = time.monotonic()
        started_s = self.idle_since if self._is_fresh else None
        while True:
            head = self._take_head()
            if head is not None:
                self.idle_since, self._is_fresh = None, False
                return parse_head(head)
            if self._early and started_s is None:
                started_s = time.monotonic()
            wait_s = IDLE_S_MAX if started_s is None else HEAD_S_MAX - (time.monotonic() - started_s)
            wait_s = min(wait_s, FIRST_WORD_S_MAX) if self._is_fresh else wait_s
            part = self._receive(65536, timeout_s=wait_s) if wait_s > 0 else None
            if part is None and started_s is not None:
                raise BadRequest(pages.request_timeout())
            if not part:
                return None
            self._early += part

    def _take_head(self) -> bytes | None:
        """Return the head that is there already, the empty line left out."""
        if len(self._early) < HEAD_BYTES_MIN:
            return None
        end = self._early.find(b"\r\n\r\n")
        length_bytes = end + 4 if end >= 0 else len(self._early)
        if length_bytes > HEAD_BYTES_MAX:
            raise BadRequest(pages.head_too_large())
        if end < 0:
            return None
        head = bytes(self._early[:end])
        del self._early[: max(length_bytes, HEAD_BYTES_MIN)]
        return head

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return isinstance(self.sock, ssl.SSLSocket)

    def _receive(self, length_bytes: int, *, timeout_s: float) -> bytes | None:
        """Return what comes, nothing at the end, None when the time is over."""
        try:
            self.sock.settimeout(timeout_s)
            return self.sock.recv(length_bytes)
        except TimeoutError:
            return None
        except (OSError, ValueError):
            return b""

    def read_body(self, length_bytes: int) -> bytes:
        """Return exactly so many bytes; ``Disconnected`` when the client stops before."""
        body = bytearray(length_bytes)
        if self.readinto_fully(memoryview(body)) < length_bytes:
            raise Disconnected
        return bytes(body)

    def readinto(self, view: memoryview) -> int:
        """Fill the front of ``view`` with what comes next; 0 means that nothing comes any more."""
        if self._early:
            count = min(len(view), len(self._early))
            view[:count] = self._early[:count]
            del self._early[:count]
            return count
        try:
            self.sock.settimeout(STALL_S_MAX)
            return self.sock.recv_into(view)
        except (OSError, ValueError):
            self.is_broken = True
            return 0

    def readinto_fully(self, view: memoryview) -> int:
        """Fill all of ``view`` unless the stream ends first; return how much was filled."""
        filled = 0
        while filled < len(view):
            count = self.readinto(view[filled:])
            if count == 0:
                break
            filled += count
        return filled

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; ``Disconnected`` when the client is gone or does not read for too long."""
        try:
            self.sock.settimeout(STALL_S_MAX)
            self.sock.sendall(data)
        except (OSError, ValueError) as cause:
            raise Disconnected from cause

    def linger(self, duration_s: float) -> None:
        """Wait a moment so that the client, not we, ends the connection. What it still sends is thrown away."""
        with contextlib.suppress(OSError, ValueError):
            end = time.monotonic() + duration_s
            while (left := end - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(65536):
                    break

    @property
    def local_address(self) -> tuple[str, int] | None:
        """Where the peer connected to; None when the connection is over."""
        try:
            name = self.sock.getsockname()
        except OSError:
            return None
        return str(name[0]), int(name[1])

    def abort(self) -> None:
        """End the connection from any thread: whoever is reading or sending returns at once."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection without the usual goodbye, so that the client sees it reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.close()

    def close(self) -> None:
        """Release the descriptor. Safe to call twice."""
        with contextlib.suppress(OSError):
            self.sock.close()
