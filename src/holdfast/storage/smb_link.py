"""One login at one share: what is done with names of files and folders.

Invariant: every handle that was opened is closed, on the same link.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    DirectoryAccessMask,
    FileAttributes,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
)

from holdfast.storage.smb_file import SmbFile
from holdfast.storage.smb_talk import SmbTalk

__all__ = ["SmbLink"]

_SHARED = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE
"""Everybody may do everything with a file that we hold open: names decide who wins, not handles."""

_READ = FilePipePrinterAccessMask.FILE_READ_DATA | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_WRITE = _READ | FilePipePrinterAccessMask.FILE_WRITE_DATA | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES
_DELETE = FilePipePrinterAccessMask.DELETE | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_LIST = DirectoryAccessMask.FILE_LIST_DIRECTORY | DirectoryAccessMask.FILE_READ_ATTRIBUTES
_ADD_FILE = DirectoryAccessMask.FILE_ADD_FILE | DirectoryAccessMask.FILE_READ_ATTRIBUTES


class SmbLink(SmbTalk):
    """A conversation in terms of paths in the share, their parts joined by backslashes."""

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

    @contextlib.contextmanager
    def _open(self, path: str, access: int, disposition: int, options: int) -> Iterator[SmbFile]:
        handle = Open(self.tree, path)
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
