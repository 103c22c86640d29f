"""One NBD connection to a host of the pool: negotiated over TLS, then one read at a time.

Invariant: the export's name carries the session, so it is sent only on a connection whose certificate was verified, or
on one where the whole pool is spoken to without TLS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from holdfast.core import Cancellation, limits
from holdfast.formats import nbd as wire
from holdfast.xapi.errors import NbdUnavailable
from holdfast.xapi.tls import connect_plain, describe_os_error, interrupt
from holdfast.xapi.values import NbdServer

__all__ = ["NbdBroken", "NbdConnection", "probe_server"]

_Opened = Callable[[socket.socket], None]


class NbdBroken(Exception):
    """A connection that worked has stopped working; the reader connects again. Never leaves the package."""


class NbdConnection:
    """An open export. Used by one thread at a time; ``interrupt`` from any. A context manager."""

    def __init__(self, server: NbdServer, *, allow_plain: bool, cancel: Cancellation) -> None:
        """Connect, negotiate and open the export; ``NbdUnavailable`` says why that was not possible."""
        self.server = server
        self._sockets: list[socket.socket] = []
        self._handle = 0
        with cancel.on_cancel(self.interrupt):
            try:
                self._socket, self._flags = _negotiate(server, allow_plain=allow_plain, opened=self._sockets.append)
                self._sockets.append(self._socket)
                self.size_bytes = self._open_export()
            except BaseException:
                self._drop()
                cancel.check()
                raise

    def _open_export(self) -> int:
        with _explained(self.server, "opening the disk"):
            self._socket.sendall(
                wire.pack_option(wire.Option.EXPORT_NAME, data=self.server.export_name.encode("utf-8"))
            )
            try:
                answer = _receive(self._socket, wire.export_length_bytes(self._flags))
            except EOFError:
                # All that the server does for a bad session, a disk it cannot attach, or no room for a connection.
                raise NbdUnavailable(why=f"{self.server.address} refused to open the disk") from None
            size_bytes, _ = wire.unpack_export(answer, client_flags=self._flags)
        return size_bytes

    def read_into(self, offset_bytes: int, view: memoryview) -> None:
        """Fill the view with the disk's bytes from ``offset_bytes`` on, a multiple of 512. ``NbdBroken`` otherwise."""
        self._handle += 1
        try:
            self._socket.sendall(
                wire.pack_request(
                    wire.Command.READ, handle=self._handle, offset_bytes=offset_bytes, length_bytes=len(view)
                )
            )
            reply = wire.unpack_simple_reply(_receive(self._socket, wire.SIMPLE_REPLY_BYTES))
            if reply.handle != self._handle:
                raise NbdBroken("it answered another request than the one it was asked")
            if reply.error:
                raise NbdBroken(f"it answered the read with error {reply.error}")
            _fill(self._socket, view)
        except (OSError, wire.NbdProtocolError) as cause:
            raise NbdBroken(describe_os_error(cause)) from cause
        except EOFError as cause:
            raise NbdBroken("it closed the connection") from cause

    def close(self) -> None:
        """Say goodbye, so that the host detaches the disk at once, and disconnect. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._socket.sendall(wire.pack_request(wire.Command.DISC, handle=0))
        self._drop()

    def interrupt(self) -> None:
        """Make the thread that uses the connection return with an error. Safe from any thread."""
        for sock in list(self._sockets):
            interrupt(sock)

    def _drop(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.close()


def probe_server(server: NbdServer, *, allow_plain: bool, cancel: Cancellation) -> None:
    """Return when the host speaks NBD as it should, without opening the disk; ``NbdUnavailable`` otherwise."""
    sockets: list[socket.socket] = []

    def stop() -> None:
        for sock in list(sockets):
            interrupt(sock)

    with cancel.on_cancel(stop):
        try:
            negotiated, _ = _negotiate(server, allow_plain=allow_plain, opened=sockets.append)
            sockets.append(negotiated)
            with contextlib.suppress(OSError):
                negotiated.sendall(wire.pack_option(wire.Option.ABORT))
        finally:
            for sock in sockets:
                sock.close()
            cancel.check()


def _negotiate(server: NbdServer, *, allow_plain: bool, opened: _Opened) -> tuple[socket.socket, wire.ClientFlag]:
    """Return a connection ready for options that name the disk."""
    with _explained(server, "connecting"):
        sock = connect_plain(server.address, server.port, timeout_s=limits.POOL_CONNECT_TIMEOUT_S, opened=opened)
        sock.settimeout(limits.NBD_TIMEOUT_S)
        offered = wire.unpack_greeting(_receive(sock, wire.GREETING_BYTES))
        if wire.HandshakeFlag.FIXED_NEWSTYLE not in offered:
            raise wire.NbdProtocolError("it does not speak the fixed newstyle")
        flags = wire.ClientFlag.FIXED_NEWSTYLE
        if wire.HandshakeFlag.NO_ZEROES in offered:
            flags |= wire.ClientFlag.NO_ZEROES
        sock.sendall(wire.pack_client_flags(flags) + wire.pack_option(wire.Option.STARTTLS))
        reply = wire.unpack_option_reply(_receive(sock, wire.OPTION_REPLY_BYTES))
        _receive(sock, reply.length_bytes)
    if reply.reply == wire.Reply.ACK:
        return _encrypted(sock, server), flags
    if allow_plain:
        return sock, flags
    sock.close()
    raise NbdUnavailable(
        why=f"{server.address} refuses TLS ({reply.reply_name}); its network has the purpose 'insecure_nbd', and the "
        "session would travel readable"
    )


def _encrypted(sock: socket.socket, server: NbdServer) -> ssl.SSLSocket:
    """Return the connection over TLS; the certificate that the pool named is the only anchor of trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A host's certificate may be signed by an authority; the pool names the leaf, and that leaf is what we trust.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    with _explained(server, "setting up TLS"):
        try:
            context.load_verify_locations(cadata=server.certificate_pem)
        except ssl.SSLError as cause:
            raise NbdUnavailable(why=f"the pool named no usable certificate for {server.address}") from cause
        # A wildcard subject is a pattern, not a name; any name it covers will do.
        name = server.subject.replace("*", "host", 1)
        try:
            return context.wrap_socket(sock, server_hostname=name)
        except ssl.SSLCertVerificationError as cause:
            raise NbdUnavailable(
                why=f"the certificate of {server.address} is not the one that the pool named: {cause.verify_message}"
            ) from cause


@contextlib.contextmanager
def _explained(server: NbdServer, what: str) -> Iterator[None]:
    def unavailable(cause: BaseException) -> NbdUnavailable:
        return NbdUnavailable(why=f"{what} at {server.address}:{server.port} failed: {_reason(cause)}")

    try:
        yield
    except wire.NbdProtocolError as cause:
        raise unavailable(cause) from cause
    except (OSError, EOFError) as cause:
        raise unavailable(cause) from cause


def _reason(cause: BaseException) -> str:
    if isinstance(cause, wire.NbdProtocolError):
        return cause.what
    if isinstance(cause, EOFError):
        return "the server closed the connection; it is busy, or no network is marked for NBD"
    return describe_os_error(cause)


def _receive(sock: socket.socket, length_bytes: int) -> bytes:
    data = bytearray(length_bytes)
    _fill(sock, memoryview(data))
    return bytes(data)


def _fill(sock: socket.socket, view: memoryview) -> None:
    """Fill the view; ``EOFError`` when the other side ends before."""
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
