"""A conversation with an SMB server, by way of the library smbprotocol: login, share, requests and answers.

Whatever goes wrong is an ``OSError`` with the number that a local disk would give, or an error about the login; after
one that leaves the conversation in doubt it is broken and useless. Invariant: one thread at a time talks, and no
request waits longer than its limit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from smbprotocol.connection import Connection, SMB2Echo
from smbprotocol.exceptions import SMBAuthenticationError, SMBException, SMBResponseException
from smbprotocol.open import SMB2QueryDirectoryRequest
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from holdfast.core import Secret, limits
from holdfast.storage.smb_errors import (
    SmbEncryptionMissing,
    SmbLoginRefused,
    SmbShareMissing,
    failure_of_status,
    os_failure,
)
from holdfast.storage.smb_place import SmbPlace

__all__ = ["CREDIT_BYTES", "NoMoreNames", "SmbTalk"]

# The library tells errors to its log before it raises them, with a traceback; ours are told once.
logging.getLogger("smbprotocol").addHandler(logging.NullHandler())
logging.getLogger("smbprotocol").propagate = False

CREDIT_BYTES = 64 * 1024
"""What one credit of the server allows to send or to ask for, and what every server takes in one request."""

_CREDITS = 256
"""Four requests of 1 MiB and some small ones."""

_STATUS_BAD_NETWORK_NAME = 0xC00000CC
_STATUS_NO_MORE_FILES = 0x80000006
_STATUS_NO_SUCH_FILE = 0xC000000F
_LOGIN_REASONS = {
    0xC000006A: "wrong password",
    0xC000006D: "wrong user or password",
    0xC000006E: "the account is restricted",
    0xC000006F: "not at this hour",
    0xC0000070: "not from this machine",
    0xC0000071: "the password has expired",
    0xC0000072: "the account is disabled",
    0xC0000193: "the account has expired",
    0xC0000224: "the password must be changed first",
    0xC0000234: "the account is locked",
    0xC000005E: "no domain controller can check the password",
    0xC000015B: "this kind of login is not allowed",
    0xC0000022: "access denied",
}


class NoMoreNames(Exception):
    """A folder has no more names."""


class _BoundedConnection(Connection):  # type: ignore[misc]  # the library has no types
    """The library's connection, with an end to every wait."""

    is_leaving = False
    """Whether only goodbyes are said, which nobody needs to wait for."""

    def receive(self, request: Any, *rest: Any, **more: Any) -> Any:
        """Return an answer; a silent server is an error after a while."""
        more["resolve_symlinks"] = False
        longest_s = limits.SMB_GOODBYE_TIMEOUT_S if self.is_leaving else limits.SMB_ANSWER_TIMEOUT_S
        more["timeout"] = more.get("timeout") or longest_s
        return super().receive(request, *rest, **more)


class SmbTalk:
    """A connection with a login and a share."""

    def __init__(self, place: SmbPlace, *, password: Secret, client_guid: bytes) -> None:
        """Connect and log in. ``OSError`` when the server is away; what the server refuses has errors of its own."""
        self._is_broken = False
        self._connection = _BoundedConnection(
            uuid.UUID(bytes=client_guid), place.server, port=place.port, require_signing=True
        )
        try:
            with self.failures():
                self._connection.connect(timeout=limits.SMB_CONNECT_TIMEOUT_S)
                self._bound_sending()
            if place.encrypted and not self._connection.supports_encryption:
                raise SmbEncryptionMissing(store=place.describe())
            self._session = self._log_in(place, password)
            self.tree = self._enter(place)
        except BaseException:
            self._drop()
            raise
        # A server that knows no large requests takes 64 KiB at a time.
        large = bool(self._connection.supports_multi_credit)
        ceiling_bytes = limits.SMB_REQUEST_BYTES_MAX if large else CREDIT_BYTES
        self.read_bytes_max = min(ceiling_bytes, self._connection.max_read_size)
        self.write_bytes_max = min(ceiling_bytes, self._connection.max_write_size)

    @property
    def is_usable(self) -> bool:
        """Whether the next request has a chance: nothing broke, and the server has not hung up."""
        return not self._is_broken and bool(self._connection.transport.connected)

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read what is said."""
        return bool(self._session.encrypt_data or self.tree.encrypt_data)

    def close(self) -> None:
        """Log out and hang up; a server that has gone is left alone. Safe to call twice."""
        if self.is_usable:
            self._connection.is_leaving = True
            with contextlib.suppress(OSError), self.failures():
                self._connection.disconnect()
        self._drop()

    def may_ask(self, pending: int) -> bool:
        """Whether one more large request may be sent before an answer to one of the pending ones was received."""
        if pending == 0:
            return True
        window = self._connection.sequence_window
        charge = -(-max(self.read_bytes_max, self.write_bytes_max) // CREDIT_BYTES)
        return pending < limits.SMB_REQUESTS_AHEAD_MAX and int(window["high"] - window["low"]) > charge

    def ask(self, message: Any) -> Any:
        """Send a request and return what its answer is waited for with."""
        with self.failures():
            return self._connection.send(message, self._session.session_id, self.tree.tree_connect_id)

    def forget(self, requests: Sequence[Any]) -> None:
        """Wait for answers that nobody needs any more."""
        for request in requests:
            with self.failures(), contextlib.suppress(SMBResponseException):
                self._connection.receive(request)

    def exchange(self, message: Any) -> bytes:
        """Send a request and return the body of its answer."""
        request = self.ask(message)
        with self.failures():
            return bytes(self._connection.receive(request)["data"].get_value())

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn the library's errors into ``OSError``; all but clear answers break the link."""
        try:
            yield
        except SMBResponseException as refusal:
            if refusal.status in (_STATUS_NO_MORE_FILES, _STATUS_NO_SUCH_FILE) and _asked_for_names(refusal):
                raise NoMoreNames from None
            failure = failure_of_status(refusal.status)
            if failure.errno == errno.ENOTCONN:
                self._drop()
            raise failure from refusal
        except Exception as cause:
            # Lost, silent, or speaking something else: the library then stumbles in many ways of its own.
            self._drop()
            raise os_failure(errno.ENOTCONN, reason=_first_line(cause)) from cause
        except BaseException:
            # Interrupted in the middle: an answer may be under way that the next request would take for its own.
            self._drop()
            raise

    def _log_in(self, place: SmbPlace, password: Secret) -> Any:
        # Sealing a message costs no more than signing it (measured on 2026-11-20: 1.2 and 3.0 s of CPU for a GiB
        # written, 2 s for one read), so it is done wherever the server can.
        encrypted = bool(self._connection.supports_encryption)
        session = Session(self._connection, place.login, password.reveal(), require_encryption=encrypted)
        try:
            session.connect()
        except SMBResponseException as refusal:
            reason = _LOGIN_REASONS.get(refusal.status)
            if reason is None:
                raise failure_of_status(refusal.status) from refusal
            raise SmbLoginRefused(store=place.describe(), login=place.login, reason=reason) from None
        except SMBAuthenticationError:
            # The library's text is not repeated: it may quote what was typed.
            reason = "user or password cannot be used for a login"
            raise SmbLoginRefused(store=place.describe(), login=place.login, reason=reason) from None
        except Exception as cause:
            # How the library leaves a session that it takes for a guest's.
            if isinstance(cause, SMBException) and session.session_id is None:
                reason = "it took us for a guest"
                raise SmbLoginRefused(store=place.describe(), login=place.login, reason=reason) from cause
            raise os_failure(errno.ENOTCONN, reason=_first_line(cause)) from cause
        return session

    def _enter(self, place: SmbPlace) -> Any:
        tree = TreeConnect(self._session, place.share_path)
        try:
            with self.failures():
                tree.connect()
        except OSError as failure:
            refusal = failure.__cause__
            if isinstance(refusal, SMBResponseException) and refusal.status == _STATUS_BAD_NETWORK_NAME:
                raise SmbShareMissing(store=place.describe(), share=place.share) from refusal
            raise
        # Paths are given as they are in the share; a link to another server is then refused by name.
        tree.is_dfs_share = False
        # Room for several large requests at once.
        with self.failures():
            echo = self._connection.send(SMB2Echo(), sid=self._session.session_id, credit_request=_CREDITS)
            self._connection.receive(echo)
        return tree

    def _bound_sending(self) -> None:
        """Let the system give up a peer that takes nothing any more: the library itself would wait for ever."""
        connected: socket.socket = self._connection.transport._sock
        wait = struct.pack("ll", int(limits.SMB_ANSWER_TIMEOUT_S), 0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _drop(self) -> None:
        """Hang up without a word."""
        self._is_broken = True
        if self._connection.transport is not None:
            with contextlib.suppress(OSError, SMBException):
                self._connection.disconnect(close=False)


def _asked_for_names(refusal: Any) -> bool:
    return int(refusal.header["command"].get_value()) == int(SMB2QueryDirectoryRequest.COMMAND)


def _first_line(cause: BaseException) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0]
