"""One login at one share, by way of the library smbprotocol: files, folders and free space.

The library's objects and errors stay in here. Whatever goes wrong is an ``OSError`` with the number that a local disk
would give, or an error about the login; after one that leaves the conversation in doubt the link is broken and useless.
Invariant: a link is used by one thread at a time, and no request waits longer than its limit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from smbprotocol.connection import Connection, SMB2Echo
from smbprotocol.exceptions import SMBAuthenticationError, SMBException, SMBResponseException
from smbprotocol.file_info import (
    FileDispositionInformation,
    FileFsFullSizeInformation,
    FileInformationClass,
    FileLinkInformation,
    FileRenameInformation,
)
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    DirectoryAccessMask,
    FileAttributes,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    QueryDirectoryFlags,
    ShareAccess,
    SMB2QueryDirectoryRequest,
    SMB2QueryDirectoryResponse,
    SMB2QueryInfoRequest,
    SMB2QueryInfoResponse,
    SMB2SetInfoRequest,
)
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

__all__ = ["SmbEntry", "SmbFile", "SmbLink"]

# The library tells errors to its log before it raises them, with a traceback; ours are told once.
logging.getLogger("smbprotocol").addHandler(logging.NullHandler())
logging.getLogger("smbprotocol").propagate = False

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

_SHARED = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE
"""Everybody may do everything with a file that we hold open: names decide who wins, not handles."""

_READ = FilePipePrinterAccessMask.FILE_READ_DATA | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_WRITE = _READ | FilePipePrinterAccessMask.FILE_WRITE_DATA | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES
_DELETE = FilePipePrinterAccessMask.DELETE | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_LIST = DirectoryAccessMask.FILE_LIST_DIRECTORY | DirectoryAccessMask.FILE_READ_ATTRIBUTES
_ADD_FILE = DirectoryAccessMask.FILE_ADD_FILE | DirectoryAccessMask.FILE_READ_ATTRIBUTES

_ENTRY = struct.Struct("<IIqqqqqqII")
"""[MS-FSCC] 2.4.10 FileDirectoryInformation: next entry, index, four times, length, allocation, attributes, length of
the name that follows."""

_ZERO_DATA = struct.Struct("<qq")
_LIST_BYTES = 64 * 1024
"""What every server takes in one request without more credits."""


@dataclass(frozen=True, slots=True)
class SmbEntry:
    """One name in a folder."""

    name: str
    is_folder: bool
    length_bytes: int
    written: int
    """When it was last written to, in units of 100 ns by the server's clock."""


class _BoundedConnection(Connection):  # type: ignore[misc]  # the library has no types
    """The library's connection, with an end to every wait."""

    def receive(self, request: Any, wait: bool = True, timeout: float | None = None, **more: Any) -> Any:
        """Return an answer; a silent server is an error after a while."""
        more["resolve_symlinks"] = False
        return super().receive(request, wait, timeout or limits.SMB_ANSWER_TIMEOUT_S, **more)


class SmbFile:
    """A file or folder that is open."""

    def __init__(self, link: SmbLink, handle: Any) -> None:
        self._link = link
        self._handle = handle

    @property
    def length_bytes(self) -> int:
        """Its length when it was opened."""
        return int(self._handle.end_of_file)

    @property
    def written(self) -> int:
        """When it was last written to, as it was opened."""
        return int(self._handle.last_write_time.timestamp() * 10_000_000)

    def read(self, *, offset_bytes: int, length_bytes: int) -> bytes:
        """Return that range, or what there is of it."""
        pieces: list[bytes] = []
        asked: deque[tuple[Any, int]] = deque()
        next_bytes, end_bytes = offset_bytes, offset_bytes + length_bytes
        while asked or next_bytes < end_bytes:
            while next_bytes < end_bytes and self._link.may_ask(len(asked)):
                piece_bytes = min(self._link.read_bytes_max, end_bytes - next_bytes)
                message, receive = self._handle.read(next_bytes, piece_bytes, send=False)
                asked.append((self._link.ask(message), piece_bytes))
                next_bytes += piece_bytes
            request, wanted_bytes = asked.popleft()
            piece = self._receive(receive, request)
            pieces.append(piece)
            if len(piece) < wanted_bytes:
                next_bytes = end_bytes  # the file ends here, or the server gives less: whoever calls sees it
                self._link.forget([request for request, _ in asked])
                asked.clear()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _receive(self, receive: Any, request: Any) -> bytes:
        """Return what was read; nothing beyond the end."""
        try:
            with self._link.failures():
                return bytes(receive(request))
        except OSError as failure:
            if failure.errno != errno.ENODATA:
                raise
            return b""

    def write(self, views: Sequence[memoryview]) -> None:
        """Write all the pieces from the beginning of the file on, one after the other."""
        asked: deque[tuple[Any, Any, int]] = deque()
        offset_bytes = 0
        for piece in _pieces(views, self._link.write_bytes_max):
            while not self._link.may_ask(len(asked)):
                self._written(*asked.popleft())
            message, receive = self._handle.write(piece, offset_bytes, send=False)
            asked.append((self._link.ask(message), receive, len(piece)))
            offset_bytes += len(piece)
        while asked:
            self._written(*asked.popleft())

    def _written(self, request: Any, receive: Any, length_bytes: int) -> None:
        with self._link.failures():
            taken_bytes = receive(request)
        if taken_bytes != length_bytes:
            raise os_failure(errno.EIO, reason=f"the server took {taken_bytes} of {length_bytes} bytes")

    def flush(self) -> None:
        """Return when the server says that what was written outlives a power failure."""
        with self._link.failures():
            self._handle.flush()

    def link_to(self, path: str) -> None:
        """Give the file a second name; ``FileExistsError`` when that is taken."""
        self._set(FileLinkInformation(), replace_if_exists=False, root_directory=0, file_name=path)

    def rename_to(self, path: str) -> None:
        """Give the file another name; ``FileExistsError`` when that is taken."""
        self._set(FileRenameInformation(), replace_if_exists=False, root_directory=0, file_name=path)

    def delete(self) -> None:
        """Remove the name under which it was opened as soon as it is closed."""
        self._set(FileDispositionInformation(), delete_pending=True)

    def punch(self, *, offset_bytes: int, length_bytes: int) -> None:
        """Give back the space of a range, which reads as zeros afterwards."""
        self._control(CtlCode.FSCTL_SET_SPARSE, b"\1")
        self._control(CtlCode.FSCTL_SET_ZERO_DATA, _ZERO_DATA.pack(offset_bytes, offset_bytes + length_bytes))

    def entries(self) -> Iterator[SmbEntry]:
        """Yield the names in the folder, in the server's order, without ``.`` and ``..``."""
        flags = QueryDirectoryFlags.SMB2_RESTART_SCANS
        while True:
            message = SMB2QueryDirectoryRequest()
            message["file_information_class"] = FileInformationClass.FILE_DIRECTORY_INFORMATION
            message["flags"] = flags
            message["file_id"] = self._handle.file_id
            message["output_buffer_length"] = _LIST_BYTES
            message["buffer"] = "*".encode("utf-16-le")
            try:
                answer = self._link.exchange(message)
            except _NoMore:
                return
            response = SMB2QueryDirectoryResponse()
            response.unpack(answer)
            yield from _parse_entries(response["buffer"].get_value())
            flags = 0

    def free_bytes(self) -> int:
        """Return what the file system that it lies on leaves to this user."""
        information = FileFsFullSizeInformation()
        message = SMB2QueryInfoRequest()
        message["info_type"] = information.INFO_TYPE
        message["file_info_class"] = information.INFO_CLASS
        message["output_buffer_length"] = len(information)
        message["file_id"] = self._handle.file_id
        response = SMB2QueryInfoResponse()
        response.unpack(self._link.exchange(message))
        information.unpack(response["buffer"].get_value())
        units = information["caller_available_units"].get_value()
        return int(units * information["sectors_per_unit"].get_value() * information["bytes_per_sector"].get_value())

    def close(self) -> None:
        """Give the handle back."""
        with self._link.failures():
            self._handle.close()

    def _set(self, information: Any, **fields: object) -> None:
        for name, value in fields.items():
            information[name] = value
        message = SMB2SetInfoRequest()
        message["info_type"] = information.INFO_TYPE
        message["file_info_class"] = information.INFO_CLASS
        message["file_id"] = self._handle.file_id
        message["buffer"] = information.pack()
        self._link.exchange(message)

    def _control(self, code: int, data: bytes) -> None:
        message = SMB2IOCTLRequest()
        message["ctl_code"] = code
        message["file_id"] = self._handle.file_id
        message["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
        message["buffer"] = data
        self._link.exchange(message)


class SmbLink:
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
            self._tree = self._enter(place)
        except BaseException:
            self._drop()
            raise
        # A server that knows no large requests takes 64 KiB at a time.
        large = bool(self._connection.supports_multi_credit)
        ceiling_bytes = limits.SMB_REQUEST_BYTES_MAX if large else _LIST_BYTES
        self.read_bytes_max = min(ceiling_bytes, self._connection.max_read_size)
        self.write_bytes_max = min(ceiling_bytes, self._connection.max_write_size)

    @property
    def is_usable(self) -> bool:
        """Whether the next request has a chance: nothing broke, and the server has not hung up."""
        return not self._is_broken and bool(self._connection.transport.connected)

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read what is said."""
        return bool(self._session.encrypt_data or self._tree.encrypt_data)

    @contextlib.contextmanager
    def opened(self, path: str, *, deleting: bool = False, writing: bool = False) -> Iterator[SmbFile]:
        """Open a file that exists."""
        access = _DELETE if deleting else _WRITE if writing else _READ
        with self._open(path, access, CreateDisposition.FILE_OPEN, CreateOptions.FILE_NON_DIRECTORY_FILE) as opened:
            yield opened

    @contextlib.contextmanager
    def created(self, path: str) -> Iterator[SmbFile]:
        """Make a file under a name that is free, for writing; ``FileExistsError`` when it is not."""
        with self._open(
            path, _WRITE | _DELETE, CreateDisposition.FILE_CREATE, CreateOptions.FILE_NON_DIRECTORY_FILE
        ) as opened:
            yield opened

    @contextlib.contextmanager
    def claimed(self, path: str) -> Iterator[None]:
        """Hold a name that nobody else can hold meanwhile; the server frees it should we die. ``FileExistsError``."""
        options = CreateOptions.FILE_NON_DIRECTORY_FILE | CreateOptions.FILE_DELETE_ON_CLOSE
        with self._open(path, _DELETE, CreateDisposition.FILE_CREATE, options):
            yield

    @contextlib.contextmanager
    def folder(self, path: str, *, adding: bool = False) -> Iterator[SmbFile]:
        """Open a folder that exists."""
        access = _ADD_FILE if adding else _LIST
        with self._open(path, access, CreateDisposition.FILE_OPEN, CreateOptions.FILE_DIRECTORY_FILE) as opened:
            yield opened

    def make_folder(self, path: str) -> None:
        """Make a folder; nothing happens when it is there. ``NotADirectoryError`` when a file is."""
        with self._open(path, _LIST, CreateDisposition.FILE_OPEN_IF, CreateOptions.FILE_DIRECTORY_FILE):
            pass

    def make_folder_durable(self, path: str) -> None:
        """Return when the names in the folder outlive a power failure, where the server lets us ask for it."""
        try:
            with self.folder(path, adding=True) as opened:
                opened.flush()
        except OSError as refusal:
            # Older servers flush files alone; their file systems order names on their own.
            if refusal.errno not in (errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def close(self) -> None:
        """Log out and hang up; a server that has gone is left alone. Safe to call twice."""
        if self.is_usable:
            with contextlib.suppress(OSError), self.failures():
                self._connection.disconnect(timeout=limits.SMB_GOODBYE_TIMEOUT_S)
        self._drop()

    def may_ask(self, pending: int) -> bool:
        """Whether one more large request may be sent before an answer to one of the pending ones was received."""
        if pending == 0:
            return True
        window = self._connection.sequence_window
        charge = -(-max(self.read_bytes_max, self.write_bytes_max) // _LIST_BYTES)
        return pending < limits.SMB_REQUESTS_AHEAD_MAX and int(window["high"] - window["low"]) > charge

    def ask(self, message: Any) -> Any:
        """Send a request and return what its answer is waited for with."""
        with self.failures():
            return self._connection.send(message, self._session.session_id, self._tree.tree_connect_id)

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
                raise _NoMore from None
            failure = failure_of_status(refusal.status)
            if failure.errno == errno.ENOTCONN:
                self._drop()
            raise failure from refusal
        except (SMBException, ValueError, OSError) as cause:
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
        except (ValueError, OSError) as cause:
            raise os_failure(errno.ENOTCONN, reason=_first_line(cause)) from cause
        except SMBException as cause:
            if self._connection.transport.connected:
                reason = "it took us for a guest, or does not sign what it says"
                raise SmbLoginRefused(store=place.describe(), login=place.login, reason=reason) from cause
            raise os_failure(errno.ENOTCONN, reason=_first_line(cause)) from cause
        return session

    def _enter(self, place: SmbPlace) -> Any:
        tree = TreeConnect(self._session, place.share_path)
        try:
            tree.connect()
        except SMBResponseException as refusal:
            if refusal.status == _STATUS_BAD_NETWORK_NAME:
                raise SmbShareMissing(store=place.describe(), share=place.share) from refusal
            raise failure_of_status(refusal.status) from refusal
        except (SMBException, ValueError, OSError) as cause:
            raise os_failure(errno.ENOTCONN, reason=_first_line(cause)) from cause
        # Paths are given as they are in the share; a link to another server is then refused by name.
        tree.is_dfs_share = False
        # Room for several large requests at once.
        with self.failures():
            echo = self._connection.send(SMB2Echo(), sid=self._session.session_id, credit_request=_CREDITS)
            self._connection.receive(echo)
        return tree

    @contextlib.contextmanager
    def _open(self, path: str, access: int, disposition: int, options: int) -> Iterator[SmbFile]:
        handle = Open(self._tree, path)
        is_folder = bool(options & CreateOptions.FILE_DIRECTORY_FILE)
        attributes = FileAttributes.FILE_ATTRIBUTE_DIRECTORY if is_folder else FileAttributes.FILE_ATTRIBUTE_NORMAL
        with self.failures():
            handle.create(ImpersonationLevel.Impersonation, access, attributes, _SHARED, disposition, options)
        opened = SmbFile(self, handle)
        try:
            yield opened
        except BaseException:
            if self.is_usable:
                # What went wrong first is what is told.
                with contextlib.suppress(OSError):
                    opened.close()
            raise
        opened.close()

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


class _NoMore(Exception):
    """A folder has no more names."""


_CREDITS = 256
"""64 KiB each; four requests of 1 MiB and some small ones."""


def _asked_for_names(refusal: Any) -> bool:
    return int(refusal.header["command"].get_value()) == int(SMB2QueryDirectoryRequest.COMMAND)


def _first_line(cause: BaseException) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def _pieces(views: Sequence[memoryview], length_bytes_max: int) -> Iterator[bytes]:
    """Yield all bytes in pieces of that length, the last one shorter; views are joined, never sent one by one."""
    joined: list[memoryview] = []
    room_bytes = length_bytes_max
    for view in views:
        rest = view
        while rest.nbytes:
            joined.append(rest[:room_bytes])
            room_bytes -= joined[-1].nbytes
            rest = rest[joined[-1].nbytes :]
            if not room_bytes:
                yield b"".join(joined)
                joined, room_bytes = [], length_bytes_max
    if joined:
        yield b"".join(joined)


def _parse_entries(buffer: bytes) -> Iterator[SmbEntry]:
    start = 0
    while True:
        if start + _ENTRY.size > len(buffer):
            raise os_failure(errno.EIO, reason="the server's listing breaks off")
        step, _, _, _, written, _, length_bytes, _, attributes, name_bytes = _ENTRY.unpack_from(buffer, start)
        raw = buffer[start + _ENTRY.size : start + _ENTRY.size + name_bytes]
        name = raw.decode("utf-16-le", errors="replace")
        if name not in (".", ".."):
            is_folder = bool(attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY)
            yield SmbEntry(name=name, is_folder=is_folder, length_bytes=length_bytes, written=written)
        if not step:
            return
        start += step
