"""What an SMB server can refuse before any object is concerned, and its status codes as the system's error numbers.

Invariant: no error holds a password or a library's text about one.
"""

from __future__ import annotations

import errno
import os

from holdfast.core import ExitStatus
from holdfast.storage.errors import StoreError

__all__ = [
    "SmbEncryptionMissing",
    "SmbLoginRefused",
    "SmbShareMissing",
    "SmbUserMissing",
    "failure_of_status",
    "os_failure",
]


class SmbLoginRefused(StoreError):
    """The server does not let this user in."""

    code = "store.smb-login-refused"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written."
    advice = "Check user, domain and password, and that the account is neither locked nor a guest on that server."

    def __init__(self, *, store: str, login: str, reason: str) -> None:
        super().__init__(f"{store}: the server does not let user {login!r} in: {reason}")
        self.store, self.login, self.reason = store, login, reason


class SmbUserMissing(StoreError):
    """A share was named, but not the user who may use it."""

    code = "store.smb-user-missing"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was read or written."
    advice = "Name the user in the location: smb://user@server/share/folder, or smb://DOMAIN;user@server/share/folder."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: a user is needed, guests are not trusted with backups")
        self.store = store


class SmbShareMissing(StoreError):
    """The server is there, the share is not."""

    code = "store.smb-share-missing"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was read or written."
    advice = "Check the name of the share; 'smbclient -L SERVER -U USER' lists what a server offers."

    def __init__(self, *, store: str, share: str) -> None:
        super().__init__(f"{store}: the server has no share {share!r}, or hides it from this user")
        self.store, self.share = store, share


class SmbEncryptionMissing(StoreError):
    """Encryption of the connection was asked for, and the server cannot."""

    code = "store.smb-encryption-missing"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written, and no login was tried."
    advice = (
        "Let the server speak SMB 3 with encryption, or leave ?encryption=required out: contents are sealed anyway."
    )

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: the server cannot encrypt the connection")
        self.store = store


def os_failure(number: int, *, reason: str = "") -> OSError:
    """Return the failure that a local disk would have raised, such as ``FileExistsError``, with its own reason."""
    return OSError(number, reason or os.strerror(number))


_NUMBERS = {
    0xC000000F: errno.ENOENT,  # NO_SUCH_FILE
    0xC0000034: errno.ENOENT,  # OBJECT_NAME_NOT_FOUND
    0xC000003A: errno.ENOENT,  # OBJECT_PATH_NOT_FOUND
    0xC0000056: errno.ENOENT,  # DELETE_PENDING: the name is as good as gone
    0xC0000225: errno.ENOENT,  # NOT_FOUND
    0xC0000011: errno.ENODATA,  # END_OF_FILE
    0xC0000035: errno.EEXIST,  # OBJECT_NAME_COLLISION
    0xC00000BA: errno.EISDIR,  # FILE_IS_A_DIRECTORY
    0xC0000103: errno.ENOTDIR,  # NOT_A_DIRECTORY
    0xC0000022: errno.EACCES,  # ACCESS_DENIED
    0xC0000061: errno.EACCES,  # PRIVILEGE_NOT_HELD
    0xC0000121: errno.EACCES,  # CANNOT_DELETE
    0xC00000A2: errno.EROFS,  # MEDIA_WRITE_PROTECTED
    0xC000007F: errno.ENOSPC,  # DISK_FULL
    0xC0000044: errno.EDQUOT,  # QUOTA_EXCEEDED
    0xC0000003: errno.EOPNOTSUPP,  # INVALID_INFO_CLASS
    0xC000000D: errno.EINVAL,  # INVALID_PARAMETER
    0xC0000010: errno.EOPNOTSUPP,  # INVALID_DEVICE_REQUEST
    0xC00000BB: errno.EOPNOTSUPP,  # NOT_SUPPORTED
    0xC0000002: errno.EOPNOTSUPP,  # NOT_IMPLEMENTED
    0xC0000033: errno.EINVAL,  # OBJECT_NAME_INVALID
    0xC0000185: errno.EIO,  # IO_DEVICE_ERROR
    0xC000009C: errno.EIO,  # DEVICE_DATA_ERROR
    0xC0000043: errno.ETIMEDOUT,  # SHARING_VIOLATION: a virus scanner or a backup of the server holds the file for now
    0xC000009A: errno.ETIMEDOUT,  # INSUFFICIENT_RESOURCES
    0xC0000205: errno.ETIMEDOUT,  # INSUFF_SERVER_RESOURCES
    0xC00000B5: errno.ETIMEDOUT,  # IO_TIMEOUT
    0xC0000203: errno.ENOTCONN,  # USER_SESSION_DELETED
    0xC000035C: errno.ENOTCONN,  # NETWORK_SESSION_EXPIRED
    0xC00000C9: errno.ENOTCONN,  # NETWORK_NAME_DELETED
    0xC0000128: errno.ENOTCONN,  # FILE_CLOSED: the server has lost our handles
    0xC00000D0: errno.ENOTCONN,  # REQUEST_NOT_ACCEPTED
    0xC0000466: errno.ENOTCONN,  # SERVER_UNAVAILABLE
}
_PATH_NOT_COVERED = 0xC0000257


def failure_of_status(status: int) -> OSError:
    """Return the failure for a status that the server answered with ([MS-ERREF] 2.3)."""
    if status == _PATH_NOT_COVERED:
        return os_failure(errno.EREMOTE, reason="this folder is a DFS link; name the server that holds it")
    number = _NUMBERS.get(status)
    if number is not None:
        return os_failure(number)
    return os_failure(errno.EIO, reason=f"the server answered with status 0x{status:08X}")
