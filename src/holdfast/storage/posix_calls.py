"""The system calls that change a file system, one method each, so that tests can fail or crash at any of them.

Two calls that the standard library lacks are reached through the C library: an exclusive rename, and punching holes.
Where the kernel or the C library does not have them they fail with ``EOPNOTSUPP`` like any other unsupported call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["PosixCalls"]

_WRITEV_PARTS_MAX = 1024
"""IOV_MAX on Linux; more in one call is refused."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_FALLOC_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02


class PosixCalls:
    """The real file system. Every method raises ``OSError`` and nothing else."""

    def create_temporary(self, folder: Path) -> tuple[int, Path]:
        """Return an open descriptor and the path of a new, empty file that only its owner may read."""
        descriptor, path = tempfile.mkstemp(prefix="put-", dir=folder)
        return descriptor, Path(path)

    def write(self, descriptor: int, views: Sequence[memoryview]) -> None:
        """Write all the pieces, one after the other; a short write is continued."""
        start = 0
        while start < len(views):
            batch = views[start : start + _WRITEV_PARTS_MAX]
            _write_batch(descriptor, batch)
            start += len(batch)

    def make_durable(self, descriptor: int) -> None:
        """Return when the file's bytes outlive a power failure."""
        os.fsync(descriptor)

    def make_folder_durable(self, folder: Path) -> None:
        """Return when the names in the folder outlive a power failure, where the file system lets us ask for it."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as cause:
            # Some network and FUSE file systems refuse to sync a folder; their servers order names on their own.
            if cause.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(descriptor)

    def look_anew(self, folder: Path) -> None:
        """Make the system forget which names it remembers in a folder on another machine, by touching the folder."""
        os.utime(folder)

    def make_folder(self, folder: Path) -> None:
        """Make a folder for its owner alone; nothing happens when it is there, ``ENOTDIR`` when a file is."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None

    def link(self, source: Path, target: Path) -> None:
        """Give the file a second name; ``FileExistsError`` when that is taken."""
        os.link(source, target, follow_symlinks=False)

    def rename_exclusively(self, source: Path, target: Path) -> None:
        """Rename the file; ``FileExistsError`` when the new name is taken, ``EOPNOTSUPP`` or ``EINVAL`` if unknown."""
        rename = _c_function("renameat2")
        result = rename(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_RENAME_NOREPLACE)
        )
        _raise_if_failed(result, target)

    def remove(self, path: Path) -> None:
        """Remove a file; nothing happens when it is not there."""
        path.unlink(missing_ok=True)

    def punch(self, descriptor: int, *, offset_bytes: int, length_bytes: int) -> None:
        """Give back the space of a range, which reads as zeros afterwards; ``EOPNOTSUPP`` where that is unknown."""
        fallocate = _c_function("fallocate64", "fallocate")
        result = fallocate(
            descriptor, _FALLOC_KEEP_SIZE_AND_PUNCH, ctypes.c_int64(offset_bytes), ctypes.c_int64(length_bytes)
        )
        _raise_if_failed(result, None)


def _write_batch(descriptor: int, batch: Sequence[memoryview]) -> None:
    pending = list(batch)
    while pending:
        written = os.writev(descriptor, pending)
        while pending and written >= pending[0].nbytes:
            written -= pending.pop(0).nbytes
        if written:
            pending[0] = pending[0][written:]


def _c_function(*names: str) -> Callable[..., int]:
    """Return the first of these functions that the C library has."""
    library = ctypes.CDLL(None, use_errno=True)
    for name in names:
        function = getattr(library, name, None)
        if function is not None:
            return function  # type: ignore[no-any-return]  # ctypes builds it at run time
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _raise_if_failed(result: int, path: Path | None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), None if path is None else str(path))
