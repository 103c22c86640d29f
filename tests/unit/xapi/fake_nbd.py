"""An NBD server that serves one disk from memory, and misbehaves where a test says so.

It speaks as pools do: fixed newstyle, EXPORT_NAME only, TLS when it has a certificate, one request at a time.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from holdfast.formats import nbd as wire
from holdfast.xapi.values import NbdServer
from tests.unit.xapi.test_tls import Identity


class FakeNbd:
    """The server, what it serves and what it saw."""

    def __init__(self, disk: bytes, *, identity: Identity | None = None) -> None:
        self.disk, self.identity = disk, identity
        self.names: list[str] = []
        self.reads: list[tuple[int, int]] = []
        self.said_goodbye = threading.Event()
        self.refuse_names = False
        self.read_errors: list[wire.Errno] = []
        """What the next reads are answered with instead of data."""
        self.before_read: Callable[[int], None] = lambda _: None
        """Called with the number of the read (from 0 on); raising ``ConnectionError`` drops the connection."""
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def server(self, *, subject: str = "pool.example", pem: str | None = None) -> NbdServer:
        known = self.identity.pem if self.identity is not None else ""
        return NbdServer(
            address="127.0.0.1",
            port=self._port,
            export_name="/disk?session_id=OpaqueRef:session",
            certificate_pem=pem if pem is not None else known,
            subject=subject,
        )

    def close(self) -> None:
        for sock in [self._listener, *self._clients]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ConnectionError), contextlib.closing(client):
            talk = self._negotiate(client)
            while True:
                request = wire.unpack_request(_take(talk, wire.REQUEST_BYTES))
                if request.command == wire.Command.DISC:
                    self.said_goodbye.set()
                    return
                with self._lock:
                    number = len(self.reads)
                    self.reads.append((request.offset_bytes, request.length_bytes))
                self.before_read(number)
                if self.read_errors:
                    talk.sendall(wire.pack_simple_reply(self.read_errors.pop(0), handle=request.handle))
                    continue
                data = self.disk[request.offset_bytes : request.offset_bytes + request.length_bytes]
                talk.sendall(wire.pack_simple_reply(wire.Errno.OK, handle=request.handle) + data)

    def _negotiate(self, client: socket.socket) -> socket.socket:
        talk = client
        talk.sendall(wire.pack_greeting(wire.HandshakeFlag.FIXED_NEWSTYLE))
        flags = wire.unpack_client_flags(_take(talk, wire.CLIENT_FLAGS_BYTES))
        while True:
            option = wire.unpack_option(_take(talk, wire.OPTION_BYTES))
            data = _take(talk, option.length_bytes)
            if option.option == wire.Option.STARTTLS:
                if self.identity is None:
                    talk.sendall(wire.pack_option_reply(option.option, wire.Reply.ERR_POLICY))
                    continue
                talk.sendall(wire.pack_option_reply(option.option, wire.Reply.ACK))
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.identity.file)
                talk = context.wrap_socket(talk, server_side=True)
                self._clients.append(talk)
            elif option.option == wire.Option.EXPORT_NAME:
                self.names.append(wire.unpack_export_name(data))
                if self.refuse_names:
                    raise ConnectionError
                talk.sendall(
                    wire.pack_export(
                        len(self.disk),
                        wire.TransmissionFlag.HAS_FLAGS | wire.TransmissionFlag.READ_ONLY,
                        client_flags=flags,
                    )
                )
                return talk
            else:
                raise ConnectionError


def _take(sock: socket.socket, length_bytes: int) -> bytes:
    data = b""
    while len(data) < length_bytes:
        piece = sock.recv(length_bytes - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


@contextlib.contextmanager
def fake_nbd(disk: bytes, *, identity: Identity | None = None) -> Iterator[FakeNbd]:
    """Run a server for a test."""
    server = FakeNbd(disk, identity=identity)
    try:
        yield server
    finally:
        server.close()
