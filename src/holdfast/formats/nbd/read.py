"""Unpacking what a peer sent over NBD. No sockets here: the caller reads as many bytes as each struct has.

Invariant: magic and lengths are checked before anything is believed, and a length is within its limit before the
caller uses it for memory. Numbers that a peer may invent (options, commands, errors) stay integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from holdfast.core import ExitStatus, HoldfastError, Retry, limits
from holdfast.formats.nbd import layout
from holdfast.formats.nbd.layout import ClientFlag, Command, HandshakeFlag, Reply, TransmissionFlag

__all__ = [
    "NbdProtocolError",
    "OptionHeader",
    "OptionReply",
    "Request",
    "SimpleReply",
    "export_length_bytes",
    "unpack_client_flags",
    "unpack_export",
    "unpack_export_name",
    "unpack_go",
    "unpack_greeting",
    "unpack_info_export",
    "unpack_option",
    "unpack_option_reply",
    "unpack_request",
    "unpack_server",
    "unpack_simple_reply",
]

Buffer = bytes | bytearray | memoryview


class NbdProtocolError(HoldfastError):
    """The other side does not speak NBD, or breaks its rules."""

    code = "nbd.protocol"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "Nothing of this connection was used; existing restore points are untouched."
    advice = "Check that the address and port (10809) are those of the pool's NBD server and that no proxy is between."

    def __init__(self, what: str) -> None:
        super().__init__(f"the NBD peer breaks the protocol: {what}")
        self.what = what


@dataclass(frozen=True, slots=True)
class OptionHeader:
    """An option that a client asks for; ``length_bytes`` of data follow."""

    option: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class OptionReply:
    """A server's answer to an option; ``length_bytes`` of data follow."""

    option: int
    reply: int
    length_bytes: int

    @property
    def is_error(self) -> bool:
        """Whether the server refused."""
        return bool(self.reply & layout.REPLY_ERROR_BIT)

    @property
    def reply_name(self) -> str:
        """The answer's name in the specification, or its number."""
        try:
            return Reply(self.reply).name
        except ValueError:
            return f"reply {self.reply:#x}"


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request; for a write, ``length_bytes`` of data follow."""

    command: int
    flags: int
    handle: int
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class SimpleReply:
    """A server's reply; after a read without error the data follows."""

    error: int
    handle: int


def unpack_greeting(data: Buffer) -> HandshakeFlag:
    """Return the server's flags; raises when the server is of the old style, which has no options."""
    init, option_magic, flags = _unpack(layout.GREETING, data, "greeting")
    if init != layout.INIT_MAGIC:
        raise NbdProtocolError("it does not greet with NBDMAGIC")
    if option_magic != layout.OPTION_MAGIC:
        raise NbdProtocolError("it speaks the old style without options")
    return HandshakeFlag(flags)


def unpack_client_flags(data: Buffer) -> ClientFlag:
    """Return the client's flags; raises on one that the specification does not know, as it demands."""
    (flags,) = _unpack(layout.CLIENT_FLAGS, data, "client flags")
    if flags & ~int(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES):
        raise NbdProtocolError(f"unknown client flags {flags:#x}")
    return ClientFlag(flags)


def unpack_option(data: Buffer, *, length_bytes_max: int = limits.NBD_OPTION_BYTES_MAX) -> OptionHeader:
    """Return which option a client asks for, and how much data follows; raises when that is more than the limit."""
    magic, option, length_bytes = _unpack(layout.OPTION, data, "option")
    if magic != layout.OPTION_MAGIC:
        raise NbdProtocolError("an option does not begin with IHAVEOPT")
    _check_length(length_bytes, f"option {option}", length_bytes_max=length_bytes_max)
    return OptionHeader(option, length_bytes)


def unpack_option_reply(data: Buffer) -> OptionReply:
    """Return the server's answer to an option, and how much data follows."""
    magic, option, reply, length_bytes = _unpack(layout.OPTION_REPLY, data, "option reply")
    if magic != layout.OPTION_REPLY_MAGIC:
        raise NbdProtocolError(f"an option reply begins with {magic:#x}")
    _check_length(length_bytes, f"the reply to option {option}")
    return OptionReply(option, reply, length_bytes)


def unpack_export(data: Buffer, *, client_flags: ClientFlag) -> tuple[int, TransmissionFlag]:
    """Return size and flags of the export from the answer to EXPORT_NAME; see ``export_length_bytes``."""
    assert len(data) == export_length_bytes(client_flags)
    size_bytes, flags = layout.EXPORT.unpack_from(data)
    return _checked_export(size_bytes, flags)


def export_length_bytes(client_flags: ClientFlag) -> int:
    """Return how long the answer to EXPORT_NAME is: 134 bytes, or 10 when both sides gave up the zeros."""
    padding = 0 if ClientFlag.NO_ZEROES in client_flags else layout.EXPORT_PADDING_BYTES
    return layout.EXPORT.size + padding


def unpack_export_name(data: Buffer) -> str:
    """Return an export name from the data of EXPORT_NAME."""
    if len(data) > layout.EXPORT_NAME_BYTES_MAX:
        raise NbdProtocolError(f"an export name of {len(data)} bytes")
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as cause:
        raise NbdProtocolError("an export name is not UTF-8") from cause


def unpack_go(data: Buffer) -> tuple[str, tuple[int, ...]]:
    """Return the export name and the wanted kinds of information from the data of GO or INFO."""
    view = memoryview(data)
    name, rest = _split_name(view, "GO")
    (count,) = _unpack(layout.INFO_COUNT, rest[: layout.INFO_COUNT.size], "GO")
    kinds = rest[layout.INFO_COUNT.size :]
    if len(kinds) != count * layout.INFO_COUNT.size:
        raise NbdProtocolError(f"GO announces {count} kinds of information and carries {len(kinds)} bytes of them")
    return name, struct.unpack(f">{count}H", kinds)


def unpack_info_export(data: Buffer) -> tuple[int, TransmissionFlag] | None:
    """Return size and flags from the data of an INFO reply, or ``None`` when it is information of another kind."""
    if len(data) < layout.INFO_COUNT.size:
        raise NbdProtocolError("an INFO reply without a kind")
    (kind,) = layout.INFO_COUNT.unpack_from(data)
    if kind != layout.INFO_EXPORT_TYPE:
        return None
    _, size_bytes, flags = _unpack(layout.INFO_EXPORT, data, "INFO reply")
    return _checked_export(size_bytes, flags)


def unpack_server(data: Buffer) -> str:
    """Return the export name from the data of a SERVER reply to LIST; a description after it is dropped."""
    return _split_name(memoryview(data), "SERVER reply")[0]


def unpack_request(data: Buffer, *, length_bytes_max: int = limits.NBD_REQUEST_BYTES_MAX) -> Request:
    """Return a client's request; raises when it asks for more at once than the limit."""
    magic, flags, command, handle, offset_bytes, length_bytes = _unpack(layout.REQUEST, data, "request")
    if magic != layout.REQUEST_MAGIC:
        raise NbdProtocolError(f"a request begins with {magic:#x}")
    if command in (Command.READ, Command.WRITE) and length_bytes > length_bytes_max:
        raise NbdProtocolError(f"a request of {length_bytes} bytes at once")
    return Request(command, flags, handle, offset_bytes, length_bytes)


def unpack_simple_reply(data: Buffer) -> SimpleReply:
    """Return the server's reply to a request."""
    magic, error, handle = _unpack(layout.SIMPLE_REPLY, data, "reply")
    if magic != layout.SIMPLE_REPLY_MAGIC:
        raise NbdProtocolError(f"a reply begins with {magic:#x}")
    return SimpleReply(error, handle)


def _unpack(fields: struct.Struct, data: Buffer, what: str) -> tuple[Any, ...]:
    if len(data) != fields.size:
        raise NbdProtocolError(f"a {what} of {len(data)} bytes, where {fields.size} belong")
    return fields.unpack(data)


def _check_length(length_bytes: int, what: str, *, length_bytes_max: int = limits.NBD_OPTION_BYTES_MAX) -> None:
    if length_bytes > length_bytes_max:
        raise NbdProtocolError(f"{what} announces {length_bytes} bytes")


def _checked_export(size_bytes: int, flags: int) -> tuple[int, TransmissionFlag]:
    if not flags & TransmissionFlag.HAS_FLAGS:
        raise NbdProtocolError(f"an export without valid flags ({flags:#x})")
    if size_bytes >> 63:
        raise NbdProtocolError(f"an export of {size_bytes} bytes")
    return size_bytes, TransmissionFlag(flags)


def _split_name(view: memoryview, what: str) -> tuple[str, memoryview]:
    (length_bytes,) = _unpack(layout.NAME_LENGTH, view[: layout.NAME_LENGTH.size], what)
    name = view[layout.NAME_LENGTH.size :][:length_bytes]
    if len(name) != length_bytes:
        raise NbdProtocolError(f"{what} announces a name of {length_bytes} bytes and carries {len(name)}")
    return unpack_export_name(name), view[layout.NAME_LENGTH.size + length_bytes :]
