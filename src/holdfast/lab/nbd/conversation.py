"""One NBD connection as a real host holds it: greeting, options, then reads one at a time.

Invariants: only reads of whole sectors inside the disk are answered with data; anything else ends the connection at the
point where a real host ends it; one piece of an answer is in memory at a time, however much was asked for.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from holdfast.core import KIB, MIB, SECTOR_BYTES, Cancellation, Clock
from holdfast.formats.nbd import (
    CLIENT_FLAGS_BYTES,
    OPTION_BYTES,
    REQUEST_BYTES,
    SIMPLE_REPLY_BYTES,
    ClientFlag,
    Command,
    Errno,
    HandshakeFlag,
    NbdProtocolError,
    Option,
    Reply,
    Request,
    TransmissionFlag,
    pack_export,
    pack_greeting,
    pack_option_reply,
    pack_simple_reply,
    unpack_export_name,
    unpack_option,
    unpack_request,
)
from holdfast.lab.nbd.seams import NbdExport, NbdHooks, NbdMode

__all__ = ["Conversation", "ConversationOver"]

_PIECE_BYTES = 2 * MIB
_HANDSHAKE_TIMEOUT_S = 60.0
"""A peer that connects and says nothing must not hold one of the few connections for ever."""

_NO_CLIENT_FLAGS = ClientFlag(0)
"""A real host pads its answer whatever the client said."""

_OPTION_BYTES_MAX = 64 * MIB
_OPTION_BYTES_KEPT = 64 * 1024
"""A real host takes any amount of data with an option; of ours only a name can ever be of use, and none is longer."""

_ANY_LENGTH = (1 << 32) - 1
_SIGN_BIT = 1 << 31
"""A longer read is a negative one to the host, which breaks down over it."""

_HOST_PIECE_BYTES = 512 * KIB
"""What a real host reads at once: as much of a request that runs over the end still comes."""


class ConversationOver(Exception):
    """The connection ends here, by agreement or as a real host would end it."""


class Conversation:
    """Speaks with one client until it is over. For one thread; shutting ``socket`` down from outside ends it."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        mode: NbdMode,
        ssl_context: ssl.SSLContext,
        resolve: Callable[[str], NbdExport | None],
        hooks: NbdHooks,
        clock: Clock,
        cancel: Cancellation,
    ) -> None:
        self._socket = connection
        self._mode = mode
        self._ssl_context = ssl_context
        self._resolve = resolve
        self._hooks = hooks
        self._clock = clock
        self._cancel = cancel
        self._sent_bytes = 0

    @property
    def socket(self) -> socket.socket:
        """The socket to close at the end; another one after STARTTLS."""
        return self._socket

    def run(self) -> None:
        """Hold the conversation to its end. OSError and ``NbdProtocolError`` when the client broke it off."""
        try:
            self._socket.settimeout(_HANDSHAKE_TIMEOUT_S)
            self._socket.sendall(pack_greeting(HandshakeFlag.FIXED_NEWSTYLE))
            client_flags = int.from_bytes(self._receive(CLIENT_FLAGS_BYTES), "big")
            if self._mode is NbdMode.TLS:
                if not client_flags & ClientFlag.FIXED_NEWSTYLE:
                    raise ConversationOver
                self._wait_for_starttls()
            export = self._negotiate()
            try:
                self._socket.settimeout(None)
                self._transmit(export)
            finally:
                export.close()
        except ConversationOver:
            return

    def _wait_for_starttls(self) -> None:
        """Refuse everything until the client asks for encryption, then encrypt."""
        while True:
            option, _ = self._receive_option()
            match option:
                case Option.STARTTLS:
                    self._reply(option, Reply.ACK)
                    self._socket = self._ssl_context.wrap_socket(
                        self._socket, server_side=True, do_handshake_on_connect=False
                    )
                    self._socket.do_handshake()
                    return
                case Option.EXPORT_NAME | Option.ABORT:
                    raise ConversationOver
                case _:
                    self._reply(option, Reply.ERR_TLS_REQD)

    def _negotiate(self) -> NbdExport:
        """Answer options until the client names an export that there is."""
        while True:
            option, data = self._receive_option()
            match option:
                case Option.EXPORT_NAME:
                    return self._open(unpack_export_name(data))
                case Option.ABORT:
                    self._reply(option, Reply.ACK)
                    raise ConversationOver
                case Option.STARTTLS if self._mode is NbdMode.TLS:
                    self._reply(option, Reply.ERR_INVALID)
                case Option.LIST | Option.STARTTLS:
                    self._reply(option, Reply.ERR_POLICY)
                case _:
                    self._reply(option, Reply.ERR_UNSUP)

    def _open(self, name: str) -> NbdExport:
        export = self._resolve(name)
        if export is None:
            raise ConversationOver
        flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY
        try:
            self._socket.sendall(pack_export(export.size_bytes, flags, client_flags=_NO_CLIENT_FLAGS))
        except BaseException:
            export.close()
            raise
        return export

    def _transmit(self, export: NbdExport) -> None:
        buffer = memoryview(bytearray(SIMPLE_REPLY_BYTES + _PIECE_BYTES))
        while True:
            request = unpack_request(self._receive(REQUEST_BYTES), length_bytes_max=_ANY_LENGTH)
            match request.flags << 16 | request.command:  # a real host knows no flags: they make another command
                case Command.READ:
                    self._answer_read(export, request, buffer)
                case Command.DISC:
                    raise ConversationOver
                case Command.WRITE:
                    self._refuse(request, Errno.EPERM)
                case _:
                    self._refuse(request, Errno.EINVAL)

    def _answer_read(self, export: NbdExport, request: Request, buffer: memoryview) -> None:
        if request.offset_bytes % SECTOR_BYTES or request.length_bytes % SECTOR_BYTES:
            self._refuse(request, Errno.EINVAL)
        buffer[:SIMPLE_REPLY_BYTES] = pack_simple_reply(Errno.OK, handle=request.handle)
        position, end = request.offset_bytes, request.offset_bytes + request.length_bytes
        is_possible = end <= export.size_bytes and request.length_bytes < _SIGN_BIT
        if not is_possible:
            # A real host has already promised the data when it notices.
            inside_bytes = max(0, export.size_bytes - position) if request.length_bytes < _SIGN_BIT else 0
            end = position + inside_bytes // _HOST_PIECE_BYTES * _HOST_PIECE_BYTES
        head_bytes = SIMPLE_REPLY_BYTES
        while head_bytes or position < end:
            length_bytes = min(_PIECE_BYTES, end - position)
            piece = buffer[SIMPLE_REPLY_BYTES - head_bytes : SIMPLE_REPLY_BYTES + length_bytes]
            if length_bytes:
                export.read_into(position, piece[head_bytes:])
            self._send_piece(piece, data_bytes=length_bytes)
            position += length_bytes
            head_bytes = 0
        if not is_possible:
            raise ConversationOver

    def _send_piece(self, piece: memoryview, *, data_bytes: int) -> None:
        """Send a piece of a reply, with the trouble that was asked for."""
        fault = self._hooks.fault(sent_bytes=self._sent_bytes, length_bytes=data_bytes)
        self._sent_bytes += data_bytes
        if fault is None:
            self._socket.sendall(piece)
            return
        good_bytes = len(piece) - data_bytes + min(fault.sent_first_bytes, data_bytes)
        self._socket.sendall(piece[:good_bytes])
        if fault.stall_s:
            self._clock.sleep(fault.stall_s, cancel=self._cancel)
        if fault.disconnects:
            raise ConversationOver
        self._socket.sendall(piece[good_bytes:])

    def _refuse(self, request: Request, error: Errno) -> None:
        """Answer a request with an error; a real host then hangs up."""
        self._socket.sendall(pack_simple_reply(error, handle=request.handle))
        raise ConversationOver

    def _receive_option(self) -> tuple[int, bytes]:
        header = unpack_option(self._receive(OPTION_BYTES), length_bytes_max=_OPTION_BYTES_MAX)
        data = self._receive(min(header.length_bytes, _OPTION_BYTES_KEPT))
        for done_bytes in range(len(data), header.length_bytes, _OPTION_BYTES_KEPT):
            self._receive(min(_OPTION_BYTES_KEPT, header.length_bytes - done_bytes))
        return header.option, data

    def _reply(self, option: int, reply: Reply) -> None:
        self._socket.sendall(pack_option_reply(option, reply))

    def _receive(self, length_bytes: int) -> bytes:
        buffer = bytearray(length_bytes)
        view = memoryview(buffer)
        done = 0
        while done < length_bytes:
            count = self._socket.recv_into(view[done:])
            if count == 0:
                if done == 0:
                    raise ConversationOver
                raise NbdProtocolError(f"the client hung up after {done} of {length_bytes} bytes")
            done += count
        return bytes(buffer)
