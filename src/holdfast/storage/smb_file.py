"""Files and folders of a share that are open: reading, writing, naming, listing.

Invariant: large requests are sent ahead of their answers, a bounded number, and every answer is received before the
next thing is asked.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from smbprotocol.file_info import (
    FileDispositionInformation,
    FileFsFullSizeInformation,
    FileInformationClass,
    FileLinkInformation,
    FileRenameInformation,
)
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest
from smbprotocol.open import (
    FileAttributes,
    QueryDirectoryFlags,
    SMB2QueryDirectoryRequest,
    SMB2QueryDirectoryResponse,
    SMB2QueryInfoRequest,
    SMB2QueryInfoResponse,
    SMB2SetInfoRequest,
)

from holdfast.storage.smb_errors import os_failure
from holdfast.storage.smb_talk import CREDIT_BYTES, NoMoreNames, SmbTalk

__all__ = ["SmbEntry", "SmbFile", "parse_entries"]

_ENTRY = struct.Struct("<IIqqqqqqII")
"""[MS-FSCC] 2.4.10 FileDirectoryInformation: next entry, index, four times, length, allocation, attributes, length of
the name that follows."""

_TICKS_PER_S = 10_000_000
_TICKS_BEFORE_1970 = 11_644_473_600 * _TICKS_PER_S
"""Windows counts from 1601."""

_ZERO_DATA = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class SmbEntry:
    """One name in a folder."""

    name: str
    is_folder: bool
    length_bytes: int
    written_s: float
    """When it was last written to, by the server's clock, in seconds since 1970."""


class SmbFile:
    """A file or folder that is open."""

    def __init__(self, talk: SmbTalk, handle: Any) -> None:
        self._talk = talk
        self._handle = handle

    @property
    def length_bytes(self) -> int:
        """Its length when it was opened."""
        return int(self._handle.end_of_file)

    @property
    def written_s(self) -> float:
        """When it was last written to, as it was opened, by the server's clock, in seconds since 1970."""
        return float(self._handle.last_write_time.timestamp())

    def read(self, *, offset_bytes: int, length_bytes: int) -> bytes:
        """Return that range, or what there is of it."""
        pieces: list[bytes] = []
        asked: deque[tuple[Any, int]] = deque()
        next_bytes, end_bytes = offset_bytes, offset_bytes + length_bytes
        while asked or next_bytes < end_bytes:
            while next_bytes < end_bytes and self._talk.may_ask(len(asked)):
                piece_bytes = min(self._talk.read_bytes_max, end_bytes - next_bytes)
                message, receive = self._handle.read(next_bytes, piece_bytes, send=False)
                asked.append((self._talk.ask(message), piece_bytes))
                next_bytes += piece_bytes
            request, wanted_bytes = asked.popleft()
            piece = self._receive(receive, request)
            pieces.append(piece)
            if len(piece) < wanted_bytes:
                next_bytes = end_bytes  # the file ends here, or the server gives less: whoever calls sees it
                self._talk.forget([request for request, _ in asked])
                asked.clear()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _receive(self, receive: Any, request: Any) -> bytes:
        """Return what was read; nothing beyond the end."""
        try:
            with self._talk.failures():
                return bytes(receive(request))
        except OSError as failure:
            if failure.errno != errno.ENODATA:
                raise
            return b""

    def write(self, views: Sequence[memoryview]) -> None:
        """Write all the pieces from the beginning of the file on, one after the other."""
        asked: deque[tuple[Any, Any, int]] = deque()
        offset_bytes = 0
        try:
            for piece in _pieces(views, self._talk.write_bytes_max):
                while not self._talk.may_ask(len(asked)):
                    self._written(*asked.popleft())
                message, receive = self._handle.write(piece, offset_bytes, send=False)
                asked.append((self._talk.ask(message), receive, len(piece)))
                offset_bytes += len(piece)
            while asked:
                self._written(*asked.popleft())
        except OSError:
            if self._talk.is_usable:
                self._talk.forget([request for request, _, _ in asked])
            raise

    def _written(self, request: Any, receive: Any, length_bytes: int) -> None:
        with self._talk.failures():
            taken_bytes = receive(request)
        if taken_bytes != length_bytes:
            raise os_failure(errno.EIO, reason=f"the server took {taken_bytes} of {length_bytes} bytes")

    def flush(self) -> None:
        """Return when the server says that what was written outlives a power failure."""
        with self._talk.failures():
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
            message["output_buffer_length"] = CREDIT_BYTES
            message["buffer"] = "*".encode("utf-16-le")
            try:
                answer = self._talk.exchange(message)
            except NoMoreNames:
                return
            response = SMB2QueryDirectoryResponse()
            response.unpack(answer)
            yield from parse_entries(response["buffer"].get_value())
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
        response.unpack(self._talk.exchange(message))
        information.unpack(response["buffer"].get_value())
        units = information["caller_available_units"].get_value()
        return int(units * information["sectors_per_unit"].get_value() * information["bytes_per_sector"].get_value())

    def close(self) -> None:
        """Give the handle back."""
        with self._talk.failures():
            self._handle.close()

    def _set(self, information: Any, **fields: object) -> None:
        for name, value in fields.items():
            information[name] = value
        message = SMB2SetInfoRequest()
        message["info_type"] = information.INFO_TYPE
        message["file_info_class"] = information.INFO_CLASS
        message["file_id"] = self._handle.file_id
        message["buffer"] = information.pack()
        self._talk.exchange(message)

    def _control(self, code: int, data: bytes) -> None:
        message = SMB2IOCTLRequest()
        message["ctl_code"] = code
        message["file_id"] = self._handle.file_id
        message["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
        message["buffer"] = data
        self._talk.exchange(message)


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


def parse_entries(buffer: bytes) -> Iterator[SmbEntry]:
    """Yield the names in one answer to a request for names ([MS-FSCC] 2.4.10); ``OSError`` when it is not one."""
    start = 0
    while True:
        if start + _ENTRY.size > len(buffer):
            raise os_failure(errno.EIO, reason="the server's listing breaks off")
        step, _, _, _, written, _, length_bytes, _, attributes, name_bytes = _ENTRY.unpack_from(buffer, start)
        if length_bytes < 0 or start + _ENTRY.size + name_bytes > len(buffer):
            raise os_failure(errno.EIO, reason="the server's listing is not one")
        raw = buffer[start + _ENTRY.size : start + _ENTRY.size + name_bytes]
        name = raw.decode("utf-16-le", errors="replace")
        if name not in (".", ".."):
            is_folder = bool(attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY)
            written_s = (written - _TICKS_BEFORE_1970) / _TICKS_PER_S
            yield SmbEntry(name=name, is_folder=is_folder, length_bytes=length_bytes, written_s=written_s)
        if not step:
            return
        start += step
