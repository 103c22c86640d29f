"""A disk that is being written to a file: under a temporary name until it is complete and durable.

Large pieces go to the disk past the page cache where the file system lets them: the copy and the memory that the cache
would take cost more time than all decoding, and the file has to be durable at the end anyway. Ranges that are never
written stay holes.

Invariant: the file's own name appears with the whole content behind it, or not at all, and never replaces another. A
crash leaves the temporary file, which the next attempt takes over; while a process writes it no other one does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from holdfast.core import MIB, ExitStatus, HoldfastError, Retry, format_bytes

__all__ = ["DiskFile", "FileBusy", "FileExists", "FileNotWritten", "FileSystemFull", "check_free", "create_disk_file"]

_PAGE_BYTES = 4096
"""What every direct write is a multiple of: no storage has larger sectors."""

_DIRECT_BYTES_MIN = 1 * MIB
"""Below it the page cache is better: it gathers small pieces, direct writes wait for each."""

_NO_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
_NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})


class FileExists(HoldfastError):
    """There is a file already where the disk should go."""

    code = "restore.file-exists"
    exit_status = ExitStatus.REFUSED
    effect = "The file that is there was not touched; nothing was restored."
    advice = "Choose another name, or move that file away."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"{path} is there already")
        self.path = path


class FileBusy(HoldfastError):
    """Another process is restoring to the same file."""

    code = "restore.file-busy"
    exit_status = ExitStatus.BUSY
    retry = Retry.LATER
    effect = "The other restore goes on undisturbed; this one wrote nothing."
    advice = "Wait until it is finished, or choose another file name."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"another process is writing {path}")
        self.path = path


class FileSystemFull(HoldfastError):
    """The file system has less room than the disk needs."""

    code = "restore.file-system-full"
    exit_status = ExitStatus.NO_SPACE
    effect = "The restore point is untouched; nothing was left behind under the name that was asked for."
    advice = "Make room there, or choose a file on another file system."

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"there is no room for {path}: {reason}")
        self.path, self.reason = path, reason


class FileNotWritten(HoldfastError):
    """The file system refused what had to be written."""

    code = "restore.file-not-written"
    effect = "The restore point is untouched; nothing was left behind under the name that was asked for."
    advice = "Check that the folder is there and that you may write to it, or choose another one."

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path} cannot be written: {reason}")
        self.path, self.reason = path, reason


class DiskFile:
    """The temporary file, open for writing at any offset."""

    def __init__(self, descriptor: int, direct: int | None) -> None:
        self._descriptor = descriptor
        self._direct = direct

    def set_size(self, size_bytes: int) -> None:
        """Make the file as long as this; what is not written reads as zeros."""
        os.ftruncate(self._descriptor, size_bytes)

    def write(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Write these bytes there."""
        view = memoryview(data)
        while view:
            written = self._write_direct(offset_bytes, view) or os.pwrite(self._descriptor, view, offset_bytes)
            view = view[written:]
            offset_bytes += written

    def make_durable(self) -> None:
        """Return when everything that was written outlives a power failure."""
        os.fsync(self._descriptor)

    def _write_direct(self, offset_bytes: int, view: memoryview) -> int:
        """Return how much was written past the page cache: perhaps nothing."""
        if self._direct is None or len(view) < _DIRECT_BYTES_MIN or offset_bytes % _PAGE_BYTES:
            return 0
        try:
            return os.pwrite(self._direct, view[: len(view) // _PAGE_BYTES * _PAGE_BYTES], offset_bytes)
        except OSError as refused:
            if refused.errno not in _NO_DIRECT:
                raise
            # The memory is not aligned, or the file system asks for more than pages: then never.
            self._direct = None
            return 0


@contextlib.contextmanager
def create_disk_file(path: Path, *, room_bytes: int) -> Iterator[DiskFile]:
    """Yield a file to write; after the block it is durable under ``path``. An error in the block leaves nothing.

    ``room_bytes`` is how much will be written. ``FileExists``, ``FileBusy``, ``FileSystemFull``, ``FileNotWritten``.
    """
    part = path.with_name(path.name + ".part")
    with _os_errors(path):
        check_free(path)
        descriptor = _open_part(part, path)
    try:
        with _os_errors(path):
            os.ftruncate(descriptor, 0)
            _check_room(descriptor, path, room_bytes)
            direct = _try_open_direct(part)
        try:
            with _os_errors(path):
                file = DiskFile(descriptor, direct)
                yield file
                file.make_durable()
                _publish(part, path)
        finally:
            if direct is not None:
                os.close(direct)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def check_free(path: Path) -> None:
    """Raise ``FileExists`` when the name is taken."""
    if os.path.lexists(path):
        raise FileExists(path=str(path))


def _open_part(part: Path, path: Path) -> int:
    """Return the temporary file, new or left by a crash, locked for us."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileBusy(path=str(path)) from None
            if _is_at(descriptor, part):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever held the lock has just published or removed the file; ours is another one.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _check_room(descriptor: int, path: Path, room_bytes: int) -> None:
    facts = os.fstatvfs(descriptor)
    free_bytes = facts.f_bavail * facts.f_frsize
    if free_bytes < room_bytes:
        reason = f"{format_bytes(room_bytes)} are needed and {format_bytes(free_bytes)} are free"
        raise FileSystemFull(path=str(path), reason=reason)


def _try_open_direct(part: Path) -> int | None:
    """Return a descriptor that writes past the page cache; None where the file system has none."""
    try:
        return os.open(part, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)
    except OSError as refused:
        if refused.errno not in _NO_DIRECT:
            raise
        return None


def _publish(part: Path, path: Path) -> None:
    """Give the finished file its name, only if that is free."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        raise FileExists(path=str(path)) from None
    except OSError as refused:
        if refused.errno not in _NO_LINK:
            raise
        # No hard links here, as on FAT and some shares. The name was free a moment ago, and we hold the lock.
        check_free(path)
        part.rename(path)
    else:
        part.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems refuse to sync a folder; their servers order names on their own.
        with contextlib.suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        reason = os.strerror(cause.errno) if cause.errno else str(cause)
        if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FileSystemFull(path=str(path), reason=reason) from cause
        raise FileNotWritten(path=str(path), reason=reason) from cause
