"""The listening half: a thread per connection, as many connections as a host allows, and a clean end.

Invariant: when ``close`` returns every connection is over, every export was told so, and no descriptor is left.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from holdfast.core import Cancellation, Cancelled, Clock, HoldfastError, SystemClock, get_log
from holdfast.lab.nbd.conversation import Conversation
from holdfast.lab.nbd.seams import NbdExport, NbdHooks, NbdMode, NoHooks

__all__ = ["NBD_CONNECTIONS_MAX", "NbdServer"]

NBD_CONNECTIONS_MAX = 16
"""What one host serves at a time; the next one is closed as soon as it is there."""

_BACKLOG = 1024
_ACCEPT_PAUSE_S = 0.05
_DRAIN_BYTES = 64 * 1024
_JOIN_S = 10.0

log = get_log(__name__)


class NbdServer:
    """Serves disks by name on one address. A context manager: serving inside the block.

    ``mode`` is asked for each connection, ``resolve`` for each export name; a name that means nothing gives ``None``
    and the client is hung up on. Both are called from the connections' threads.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        ssl_context: ssl.SSLContext,
        mode: Callable[[], NbdMode],
        resolve: Callable[[str], NbdExport | None],
        hooks: NbdHooks | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ssl_context = ssl_context
        self._mode = mode
        self._resolve = resolve
        self._hooks = hooks or NoHooks()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._cancel = Cancellation()
        self._is_closing = False
        self._conversations: dict[threading.Thread, Conversation] = {}
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        self._acceptor = threading.Thread(target=self._accept, name="lab-nbd", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one when 0 was asked for."""
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._conversations)

    def start(self) -> None:
        """Begin to serve. Clients that connected since construction are served too."""
        self._acceptor.start()

    def hang_up(self) -> None:
        """End every connection, as a host that dies does, and go on listening."""
        with self._lock:
            conversations = list(self._conversations.values())
        for conversation in conversations:
            with contextlib.suppress(OSError):
                conversation.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and end every connection. Safe to call twice."""
        with self._lock:
            self._is_closing = True
            conversations = dict(self._conversations)
        self._cancel.cancel(reason="the lab's NBD server is closing")
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for conversation in conversations.values():
            with contextlib.suppress(OSError):
                conversation.socket.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *conversations]:
            if thread.is_alive():
                thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._is_closing:
                    return
                # Out of descriptors, or the client was gone already: the next accept decides.
                with contextlib.suppress(Cancelled):
                    self._cancel.wait(_ACCEPT_PAUSE_S)
                continue
            try:
                self._admit(connection)
            except Exception as cause:  # whatever one connection does to us, the next one is served
                log.warning("lab.nbd.not-admitted", reason=repr(cause))
                connection.close()

    def _admit(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        mode = self._mode()
        conversation = Conversation(
            connection,
            mode=mode,
            ssl_context=self._ssl_context,
            resolve=self._resolve,
            hooks=self._hooks,
            clock=self._clock,
            cancel=self._cancel,
        )
        thread = threading.Thread(target=self._serve, args=(conversation,), name="lab-nbd-client", daemon=True)
        with self._lock:
            is_welcome = not self._is_closing and len(self._conversations) < NBD_CONNECTIONS_MAX
            if is_welcome and mode is not NbdMode.CLOSED and self._hooks.admits():
                self._conversations[thread] = conversation
                try:
                    thread.start()
                except BaseException:
                    del self._conversations[thread]  # no thread will ever free its place
                    raise
                return
        connection.close()

    def _serve(self, conversation: Conversation) -> None:
        try:
            conversation.run()
        except (OSError, HoldfastError) as cause:
            log.info("lab.nbd.broken-off", reason=str(cause))
        finally:
            _hang_up(conversation.socket)
            with self._lock:
                del self._conversations[threading.current_thread()]


def _hang_up(connection: socket.socket) -> None:
    """Close so that the client can still read what was sent: bytes of it that nobody read would turn the end into a
    reset, which drops our last reply."""
    with contextlib.suppress(OSError, ValueError):
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        for _ in range(_DRAIN_BYTES // 4096):
            if not connection.recv(4096):
                break
    connection.close()
