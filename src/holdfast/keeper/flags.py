"""The flags of a file that hold it against deletion, as Linux knows them: a seam, so that tests need no root.

``chattr +i`` makes a file immutable: nobody can write, rename, link or remove it until root takes the flag away.
``chattr +a`` on a folder lets files be added, and none of its names be renamed or removed.
"""

from __future__ import annotations

import array
import errno
import fcntl
import struct
from typing import Protocol

__all__ = ["APPEND_ONLY", "IMMUTABLE", "FileFlags", "LinuxFlags"]

IMMUTABLE = 0x10
APPEND_ONLY = 0x20

_LONG_BYTES = struct.calcsize("l")
# The kernel's headers say ``long`` and the kernel moves an ``int``: the number carries the size of the former.
_GET_FLAGS = 0x80006601 | _LONG_BYTES << 16
_SET_FLAGS = 0x40006602 | _LONG_BYTES << 16

_UNKNOWN = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class FileFlags(Protocol):
    """Reads and changes flags of open files and folders. Errors are ``OSError``."""

    def read(self, descriptor: int) -> int | None:
        """Return the flags; None where the file system has none, or does not show them."""
        ...

    def change(self, descriptor: int, *, on: int = 0, off: int = 0) -> None:
        """Set and clear flags; ``EPERM`` for whoever may not, ``EOPNOTSUPP`` where the file system has none."""
        ...


class LinuxFlags:
    """The flags as the kernel keeps them."""

    def read(self, descriptor: int) -> int | None:
        """See ``FileFlags.read``."""
        flags = array.array("i", [0, 0])
        try:
            fcntl.ioctl(descriptor, _GET_FLAGS, flags, True)
        except OSError as cause:
            if cause.errno in _UNKNOWN:
                return None
            raise
        return flags[0]

    def change(self, descriptor: int, *, on: int = 0, off: int = 0) -> None:
        """See ``FileFlags.change``."""
        before = self.read(descriptor)
        if before is None:
            raise OSError(errno.EOPNOTSUPP, "the file system has no such flags")
        after = (before | on) & ~off
        if after != before:
            fcntl.ioctl(descriptor, _SET_FLAGS, array.array("i", [after, 0]), False)
