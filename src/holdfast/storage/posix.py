"""A store in a folder of a POSIX file system: a local disk, an NFS or SMB mount.

An object is written to a temporary file in ``tmp/`` of the same folder, made durable, and then gets its name with a
hard link, which fails if the name is taken. So a name appears with the whole object behind it or does not appear, and
never replaces another.

Invariant: nothing is stored in a folder whose ``tmp/`` has gone, because that is an unmounted file system.
What a crash leaves: a file in ``tmp/``, perhaps a second name of an object that was published; removing it is harmless.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from holdfast.core import limits
from holdfast.keeper import FileFlags
from holdfast.model import Extent
from holdfast.storage.errors import (
    KeyRefused,
    ObjectExists,
    ObjectMissing,
    RangeNotSatisfiable,
    StoreEmpty,
    StoreMissing,
    StoreNotAFolder,
    StoreUnreachable,
    StoreUnsuitable,
    error_of_os,
)
from holdfast.storage.keys import TEMPORARY_FOLDER, check_key, check_prefix
from holdfast.storage.mounts import find_mount
from holdfast.storage.posix_calls import PosixCalls
from holdfast.storage.posix_list import list_folder
from holdfast.storage.posix_locks import PosixLocks
from holdfast.storage.store import ObjectInfo, Parts, as_views

__all__ = ["PosixStore"]

_READ_BYTES_MAX = 1 << 30
"""Linux moves at most 2 GiB less a page in one call."""

_UNSUPPORTED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class PosixStore:
    """Objects as files below one folder, for their owner alone (folders 0700, files 0600)."""

    def __init__(
        self,
        root: Path | str,
        *,
        create: bool = False,
        calls: PosixCalls | None = None,
        flags: FileFlags | None = None,
    ) -> None:
        """Open the store in an existing folder; with ``create`` make the folder (not its parents) where it is missing.

        Raises ``StoreMissing``, ``StoreNotAFolder``, ``StoreEmpty``, ``StoreNotReadable``, ``StoreNotWritable``.
        """
        self._root = Path(root).absolute()
        self._temporary = self._root / TEMPORARY_FOLDER
        self._calls = calls or PosixCalls()
        self._lock = threading.Lock()
        self._durable_folders: set[Path] = set()
        self._locks = PosixLocks(self._root, calls=self._calls, flags=flags)
        if create:
            self._create()
        self._has_temporary = self._open()
        mount = find_mount(self._root)
        self._is_shared = mount is not None and mount.is_shared

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        check_key(key)
        target = self._root / key
        with self._os_errors(key, writing=True):
            if locked_until is not None:
                # Asked before the object is there: a request waits for its object, an object not for its request.
                self._locks.try_ask(key, locked_until)
            self._make_temporary_folder()
            temporary = self._write_temporary(key, as_views(parts))
            try:
                self._make_folders(target.parent)
                self._publish(key, temporary, target)
                self._calls.make_folder_durable(target.parent)
            except NotADirectoryError:
                raise KeyRefused(key=key, reason="one object would be the folder of another") from None
            finally:
                self._calls.remove(temporary)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        with self._opened(key) as (descriptor, size_bytes):
            return self._read(key, descriptor, offset_bytes=0, length_bytes=size_bytes)

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        assert offset_bytes >= 0
        assert length_bytes >= 0
        with self._opened(key) as (descriptor, size_bytes):
            self._check_range(key, size_bytes, offset_bytes=offset_bytes, length_bytes=length_bytes)
            return self._read(key, descriptor, offset_bytes=offset_bytes, length_bytes=length_bytes)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        with self._opened(key) as (_, size_bytes):
            return size_bytes

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``: when the file was last written to, by the clock of the machine it lies on."""
        with self._opened(key) as (descriptor, _):
            return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, tz=UTC)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        self._check_reachable(None)
        return self._list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``. The folder stays: another writer may be about to use it."""
        check_key(key)
        with self._os_errors(key, writing=True):
            try:
                (self._root / key).unlink()
            except (FileNotFoundError, NotADirectoryError):
                self._check_reachable(key)
                return
            except (IsADirectoryError, PermissionError):
                if (self._root / key).is_dir():
                    return
                self._check_unlocked(key)
                raise
            self._calls.make_folder_durable((self._root / key).parent)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        check_key(key)
        self._check_unlocked(key)
        with self._opened(key, writing=True) as (descriptor, size_bytes):
            for extent in extents:
                self._check_range(key, size_bytes, offset_bytes=extent.offset_bytes, length_bytes=extent.length_bytes)
            try:
                for extent in extents:
                    self._calls.punch(descriptor, offset_bytes=extent.offset_bytes, length_bytes=extent.length_bytes)
            except OSError as cause:
                if cause.errno in _UNSUPPORTED:
                    return None
                raise
            self._calls.make_durable(descriptor)
        return sum(extent.length_bytes for extent in extents)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``: a folder cannot lock; a keeper on its file server does, at its next look.

        What is returned is what was asked of the keeper; ``locked_until`` tells what it has done.
        """
        self.size(key)
        with self._os_errors(key, writing=True):
            return self._locks.try_ask(key, until)

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``: what the keeper says, and the flag where it can be seen."""
        self.size(key)
        with self._os_errors(key, writing=False):
            return self._locks.until(key)

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``: what the file system leaves to ordinary users."""
        self._check_reachable(None)
        with self._os_errors(None, writing=False):
            facts = os.statvfs(self._root)
        return facts.f_bavail * facts.f_frsize

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return f"folder {self._root}"

    def sweep_temporaries(self, *, older_than_s: float = limits.TEMPORARY_AGE_S_MIN) -> int:
        """Remove what dead writers left in ``tmp/``; return how many bytes that were.

        A file that was written to less than ``older_than_s`` ago belongs to a live writer and stays. Both times are
        the file system's own, so a server's clock that runs ahead costs nothing. Should a writer really have slept
        through the margin, its put fails with ``StoreUnreachable`` and stores nothing wrong.
        """
        assert older_than_s >= limits.TEMPORARY_AGE_S_MIN
        swept_bytes = 0
        with self._os_errors(None, writing=True):
            if not self._temporary.is_dir():
                return 0
            os.utime(self._temporary)
            now_s = self._temporary.stat().st_mtime
            for path in self._temporary.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    facts = path.lstat()
                    if stat.S_ISREG(facts.st_mode) and now_s - facts.st_mtime > older_than_s:
                        self._calls.remove(path)
                        swept_bytes += facts.st_size
        return swept_bytes

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._os_errors(None, writing=False):
            yield from list_folder(self._root, prefix, look_anew=self._calls.look_anew if self._is_shared else None)
        self._check_reachable(None)

    def _create(self) -> None:
        with self._os_errors(None, writing=True):
            if self._root.exists():
                if not self._root.is_dir():
                    raise StoreNotAFolder(path=str(self._root))
            elif not self._root.parent.is_dir():
                # Making parents would hide a missing mount: the backup would land on the wrong disk.
                raise StoreMissing(path=str(self._root.parent))
            else:
                self._calls.make_folder(self._root)
                self._calls.make_folder_durable(self._root.parent)
            self._calls.make_folder(self._temporary)
            self._calls.make_folder_durable(self._root)

    def _open(self) -> bool:
        """Return whether ``tmp/`` is there; without it the store can be read, and the first put makes it."""
        try:
            names = {path.name for path in self._root.iterdir()}
        except FileNotFoundError:
            raise StoreMissing(path=str(self._root)) from None
        except NotADirectoryError:
            raise StoreNotAFolder(path=str(self._root)) from None
        except OSError as cause:
            raise error_of_os(cause, store=self.describe(), key=None, writing=False) from cause
        if not names:
            raise StoreEmpty(path=str(self._root))
        return TEMPORARY_FOLDER in names

    def _make_temporary_folder(self) -> None:
        if not self._has_temporary:
            self._calls.make_folder(self._temporary)
            self._calls.make_folder_durable(self._root)
            self._has_temporary = True

    def _write_temporary(self, key: str, views: Sequence[memoryview]) -> Path:
        """Return the path of a file with these bytes, durable. Nothing is left behind when that fails."""
        try:
            descriptor, path = self._calls.create_temporary(self._temporary)
        except FileNotFoundError:
            self._check_reachable(key)
            raise
        try:
            try:
                self._calls.write(descriptor, views)
                self._calls.make_durable(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            self._calls.remove(path)
            raise
        return path

    def _make_folders(self, folder: Path) -> None:
        """Make the folder and its parents below the root, each durable before anything is named in it.

        A folder that another process has just made is synced too, once per process: its maker may die before it does.
        """
        if folder == self._root or folder in self._durable_folders:
            return
        self._make_folders(folder.parent)
        self._calls.make_folder(folder)
        self._calls.make_folder_durable(folder.parent)
        with self._lock:
            self._durable_folders.add(folder)

    def _publish(self, key: str, temporary: Path, target: Path) -> None:
        """Give the finished file its name, only if that is free."""
        try:
            self._link_or_rename(key, temporary, target)
        except FileExistsError:
            if _is_one_file(temporary, target):
                return  # NFS sends a request again when the answer got lost; the second one finds the first one's name
            if target.is_dir():
                raise KeyRefused(key=key, reason="one object would be the folder of another") from None
            raise ObjectExists(store=self.describe(), key=key) from None
        except FileNotFoundError as cause:
            # Somebody removed the folder or our file: forget what we knew, so that a repeated put starts afresh.
            with self._lock:
                self._durable_folders.clear()
            raise StoreUnreachable(store=self.describe(), key=key, reason="its folder has just vanished") from cause

    def _link_or_rename(self, key: str, temporary: Path, target: Path) -> None:
        try:
            self._calls.link(temporary, target)
        except OSError as refusal:
            if refusal.errno not in _UNSUPPORTED:
                raise
        else:
            return
        try:
            self._calls.rename_exclusively(temporary, target)
        except OSError as refusal:
            if refusal.errno not in _UNSUPPORTED or refusal.errno == errno.EPERM:
                raise
            raise StoreUnsuitable(store=self.describe(), key=key) from refusal

    @contextlib.contextmanager
    def _opened(self, key: str, *, writing: bool = False) -> Iterator[tuple[int, int]]:
        """Yield a descriptor of the object and its size; ``ObjectMissing`` when there is none."""
        check_key(key)
        with self._os_errors(key, writing=writing):
            flags = os.O_RDWR if writing else os.O_RDONLY
            try:
                descriptor = os.open(self._root / key, flags | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._check_reachable(key)
                raise ObjectMissing(store=self.describe(), key=key) from None
            try:
                facts = os.fstat(descriptor)
                if not stat.S_ISREG(facts.st_mode):
                    raise ObjectMissing(store=self.describe(), key=key)
                yield descriptor, facts.st_size
            finally:
                os.close(descriptor)

    def _read(self, key: str, descriptor: int, *, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range, which was there a moment ago."""
        pieces = []
        missing_bytes = length_bytes
        while missing_bytes:
            done_bytes = length_bytes - missing_bytes
            piece = os.pread(descriptor, min(missing_bytes, _READ_BYTES_MAX), offset_bytes + done_bytes)
            if not piece:
                self._check_range(key, offset_bytes + done_bytes, offset_bytes=offset_bytes, length_bytes=length_bytes)
            pieces.append(piece)
            missing_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_range(self, key: str, size_bytes: int, *, offset_bytes: int, length_bytes: int) -> None:
        if offset_bytes + length_bytes > size_bytes:
            raise RangeNotSatisfiable(
                store=self.describe(),
                key=key,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
                size_bytes=size_bytes,
            )

    def _check_unlocked(self, key: str) -> None:
        """Raise when the keeper holds the object."""
        with self._os_errors(key, writing=True):
            refusal = self._locks.refusal(key, self.describe())
        if refusal is not None:
            raise refusal

    def _check_reachable(self, key: str | None) -> None:
        """Raise when the file system has gone: then a missing name proves nothing."""
        mark = self._temporary if self._has_temporary else self._root
        if not mark.is_dir():
            reason = f"{mark} has vanished; was the file system unmounted?"
            raise StoreUnreachable(store=self.describe(), key=key, reason=reason)

    @contextlib.contextmanager
    def _os_errors(self, key: str | None, *, writing: bool) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise error_of_os(cause, store=self.describe(), key=key, writing=writing) from cause


def _is_one_file(path: Path, other: Path) -> bool:
    """Return whether both names are there and lead to one file."""
    try:
        return path.samefile(other)
    except FileNotFoundError:
        return False
