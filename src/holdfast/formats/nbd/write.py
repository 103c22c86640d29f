"""Packing what we send over NBD, as a client and as the lab's server. No sockets here.

Invariant: every function returns one whole message, or one header whose data the caller sends right after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core import limits
from holdfast.formats.nbd import layout
from holdfast.formats.nbd.layout import ClientFlag, Command, Errno, HandshakeFlag, Option, Reply, TransmissionFlag

__all__ = [
    "pack_client_flags",
    "pack_export",
    "pack_go",
    "pack_greeting",
    "pack_info_export",
    "pack_option",
    "pack_option_reply",
    "pack_request",
    "pack_server",
    "pack_simple_reply",
]


def pack_greeting(flags: HandshakeFlag) -> bytes:
    """Return the server's first 18 bytes."""
    return layout.GREETING.pack(layout.INIT_MAGIC, layout.OPTION_MAGIC, flags)


def pack_client_flags(flags: ClientFlag) -> bytes:
    """Return the client's answer to the greeting."""
    return layout.CLIENT_FLAGS.pack(flags)


def pack_option(option: Option, *, data: bytes = b"") -> bytes:
    """Return an option with its data; for EXPORT_NAME the data is the name in UTF-8."""
    assert len(data) <= limits.NBD_OPTION_BYTES_MAX
    return layout.OPTION.pack(layout.OPTION_MAGIC, option, len(data)) + data


def pack_option_reply(option: int, reply: Reply, *, data: bytes = b"") -> bytes:
    """Return the server's answer to an option, which may be one that we do not know."""
    assert len(data) <= limits.NBD_OPTION_BYTES_MAX
    return layout.OPTION_REPLY.pack(layout.OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def pack_export(size_bytes: int, flags: TransmissionFlag, *, client_flags: ClientFlag) -> bytes:
    """Return the answer to EXPORT_NAME: 134 bytes, or 10 when the client gave up the zeros."""
    padding = 0 if ClientFlag.NO_ZEROES in client_flags else layout.EXPORT_PADDING_BYTES
    return layout.EXPORT.pack(size_bytes, flags) + bytes(padding)


def pack_go(name: str, *, kinds: Sequence[int] = ()) -> bytes:
    """Return the data of GO or INFO."""
    return _with_length(name) + b"".join(layout.INFO_COUNT.pack(number) for number in (len(kinds), *kinds))


def pack_info_export(size_bytes: int, flags: TransmissionFlag) -> bytes:
    """Return the data of an INFO reply that says how large the export is and what it can do."""
    return layout.INFO_EXPORT.pack(layout.INFO_EXPORT_TYPE, size_bytes, flags)


def pack_server(name: str) -> bytes:
    """Return the data of one SERVER reply to LIST."""
    return _with_length(name)


def pack_request(command: Command, *, handle: int, offset_bytes: int = 0, length_bytes: int = 0) -> bytes:
    """Return a request; DISC has neither offset nor length."""
    assert length_bytes <= limits.NBD_REQUEST_BYTES_MAX
    return layout.REQUEST.pack(layout.REQUEST_MAGIC, 0, command, handle, offset_bytes, length_bytes)


def pack_simple_reply(error: Errno, *, handle: int) -> bytes:
    """Return a reply; after a read without error the caller sends the data."""
    return layout.SIMPLE_REPLY.pack(layout.SIMPLE_REPLY_MAGIC, error, handle)


def _with_length(name: str) -> bytes:
    encoded = name.encode("utf-8")
    assert len(encoded) <= layout.EXPORT_NAME_BYTES_MAX
    return layout.NAME_LENGTH.pack(len(encoded)) + encoded
