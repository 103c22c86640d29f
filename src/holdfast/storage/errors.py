"""What can go wrong with a store: one class per cause, and the one place where an ``OSError`` becomes one of them.

Every error names the store and, where one is concerned, the object. None of them leaves half an object behind: that is
the contract of ``ObjectStore``.
"""

from __future__ import annotations

import errno
from datetime import datetime

from holdfast.core import ExitStatus, HoldfastError, Retry, format_bytes, format_minute

__all__ = [
    "KeyRefused",
    "LocationRefused",
    "ObjectExists",
    "ObjectLocked",
    "ObjectMissing",
    "RangeNotSatisfiable",
    "StoreEmpty",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreMissing",
    "StoreNotAFolder",
    "StoreNotReadable",
    "StoreNotWritable",
    "StoreUnreachable",
    "StoreUnsuitable",
    "error_of_os",
]


class StoreError(HoldfastError):
    """Any failure of the place where a repository lives; raised only as one of its subclasses."""

    code = "store.error"


class KeyRefused(StoreError):
    """A name that no store may hold. A damaged or hostile repository can lead to it; our own code does not."""

    code = "store.key-refused"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was read or written under that name."
    advice = "Verify the repository ('holdfast point verify'); report it if that finds nothing."

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"object name {key!r} is refused: {reason}")
        self.key, self.reason = key, reason


class LocationRefused(StoreError):
    """The text does not name a place that this version can use."""

    code = "store.location-refused"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was read or written."
    advice = "Give the path of a folder, for example /srv/backup/holdfast, or the same as a file:// URL."

    def __init__(self, *, location: str, reason: str) -> None:
        super().__init__(f"{location!r} is not a place for a repository: {reason}")
        self.location, self.reason = location, reason


class StoreMissing(StoreError):
    """There is no folder at this path."""

    code = "store.missing"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was read or written; a repository that is on an unmounted file system is untouched."
    advice = "Check the path, and that its file system is mounted; 'holdfast repository create' makes a new one."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"there is no folder {path}")
        self.path = path


class StoreEmpty(StoreError):
    """The folder is there, but nothing was ever stored in it: most often a mount point without its file system."""

    code = "store.empty"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was written, so that a backup cannot fill the wrong disk."
    advice = "Mount its file system, or check the path; 'holdfast repository create' makes a new repository in it."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the folder {path} is empty, no repository was ever made in it")
        self.path = path


class StoreNotAFolder(StoreError):
    """Something else than a folder is in the way."""

    code = "store.not-a-folder"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written; what is there was left alone."
    advice = "Choose another path, or move that file away."

    def __init__(self, *, path: str) -> None:
        super().__init__(f"{path} is not a folder")
        self.path = path


class ObjectExists(StoreError):
    """An object of this name is already there; a put never replaces one."""

    code = "store.object-exists"
    exit_status = ExitStatus.REFUSED
    effect = "The object that was there is unchanged."
    advice = "Two writers chose the same name, or a write is being repeated; run the command again."

    def __init__(self, *, store: str, key: str) -> None:
        super().__init__(f"{store}: object {key} exists already")
        self.store, self.key = store, key


class ObjectLocked(StoreError):
    """The object is held against deletion, as its owner asked."""

    code = "store.object-locked"
    exit_status = ExitStatus.REFUSED
    effect = "The object that was there is unchanged; its space comes back after the lock has ended."
    advice = "Wait until then; a lock that protects against ransomware cannot be lifted for anybody else either."

    def __init__(self, *, store: str, key: str, until: datetime | None) -> None:
        when = "" if until is None else f" until {format_minute(until)}"
        super().__init__(f"{store}: object {key} is locked{when}")
        self.store, self.key, self.until = store, key, until


class ObjectMissing(StoreError):
    """There is no object of this name."""

    code = "store.object-missing"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Restore points that need this object cannot be restored whole; others are not concerned."
    advice = "Run 'holdfast point verify' to learn which restore points need it."

    def __init__(self, *, store: str, key: str) -> None:
        super().__init__(f"{store}: object {key} is missing")
        self.store, self.key = store, key


class RangeNotSatisfiable(StoreError):
    """The object ends before the range that was asked for: it is not what was written."""

    code = "store.range-not-satisfiable"
    exit_status = ExitStatus.DAMAGED
    effect = "Restore points that need this object cannot be restored whole; others are not concerned."
    advice = "Run 'holdfast point verify' to learn which restore points need it."

    def __init__(self, *, store: str, key: str, offset_bytes: int, length_bytes: int, size_bytes: int) -> None:
        end_bytes = offset_bytes + length_bytes
        super().__init__(f"{store}: object {key} has {size_bytes} bytes, {offset_bytes} to {end_bytes} were asked for")
        self.store, self.key = store, key
        self.offset_bytes, self.length_bytes, self.size_bytes = offset_bytes, length_bytes, size_bytes


class StoreUnreachable(StoreError):
    """The store does not answer, or its file system has gone away. Whether a write arrived is not known."""

    code = "store.unreachable"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "Existing restore points are untouched; what was stored before is re-used when the run resumes."
    advice = "Check that the server runs and that the file system is mounted, then run it again."

    def __init__(self, *, store: str, key: str | None, reason: str) -> None:
        super().__init__(f"{store}{_object_text(key)}: the store cannot be reached: {reason}")
        self.store, self.key, self.reason = store, key, reason


class StoreFull(StoreError):
    """No space or quota is left."""

    code = "store.full"
    exit_status = ExitStatus.NO_SPACE
    effect = "Existing restore points are untouched; what was stored before is re-used when the run resumes."
    advice = "Free space or raise the quota (deleting restore points and collecting garbage helps), then run it again."

    def __init__(self, *, store: str, key: str | None, free_bytes: int | None = None) -> None:
        left = "" if free_bytes is None else f" ({format_bytes(free_bytes)} free)"
        super().__init__(f"{store}{_object_text(key)}: no space or quota is left{left}")
        self.store, self.key, self.free_bytes = store, key, free_bytes


class StoreNotWritable(StoreError):
    """We are not allowed to write here."""

    code = "store.not-writable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was written; existing restore points are untouched."
    advice = "Give the user who runs Holdfast the right to write there, or mount the file system for writing."

    def __init__(self, *, store: str, key: str | None, reason: str) -> None:
        super().__init__(f"{store}{_object_text(key)}: writing is not allowed: {reason}")
        self.store, self.key, self.reason = store, key, reason


class StoreNotReadable(StoreError):
    """We are not allowed to read here."""

    code = "store.not-readable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed; what is stored there cannot be used from here."
    advice = "Run as the user who owns the repository, or give this user the right to read it."

    def __init__(self, *, store: str, key: str | None, reason: str) -> None:
        super().__init__(f"{store}{_object_text(key)}: reading is not allowed: {reason}")
        self.store, self.key, self.reason = store, key, reason


class StoreUnsuitable(StoreError):
    """The file system lacks what safety needs: a way to make a name only if it does not exist yet."""

    code = "store.unsuitable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was stored; two writers could have overwritten each other here."
    advice = "Use a file system with hard links (ext4, XFS, btrfs, ZFS, NFS) or with exclusive renames (SMB, exFAT)."

    def __init__(self, *, store: str, key: str | None) -> None:
        super().__init__(f"{store}{_object_text(key)}: the file system has neither hard links nor exclusive renames")
        self.store, self.key = store, key


class StoreFailed(StoreError):
    """The store answered with an error that we have no better word for, such as an I/O error of the disk."""

    code = "store.failed"
    effect = "Existing restore points were not changed, but the medium may be failing."
    advice = "Look into the system's log (dmesg) for the disk or mount, then run 'holdfast point verify'."

    def __init__(self, *, store: str, key: str | None, error_number: int, reason: str) -> None:
        name = errno.errorcode.get(error_number, str(error_number))
        super().__init__(f"{store}{_object_text(key)}: {reason} ({name})")
        self.store, self.key, self.error_number, self.reason = store, key, error_number, reason


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_GONE = frozenset(
    {
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ENODEV,
        errno.ENXIO,
    }
)


def error_of_os(cause: OSError, *, store: str, key: str | None, writing: bool) -> StoreError:
    """Return our error for what the operating system said. ``writing`` tells which right was missing."""
    number = cause.errno or 0
    reason = cause.strerror or str(cause)
    if number in _FULL:
        return StoreFull(store=store, key=key)
    if number in _GONE:
        return StoreUnreachable(store=store, key=key, reason=reason)
    if number in _DENIED and (writing or number == errno.EROFS):
        return StoreNotWritable(store=store, key=key, reason=reason)
    if number in _DENIED:
        return StoreNotReadable(store=store, key=key, reason=reason)
    return StoreFailed(store=store, key=key, error_number=number, reason=reason)


def _object_text(key: str | None) -> str:
    return "" if key is None else f": object {key}"
