"""The C allocator, told to keep what it is about to need again.

By default glibc gives freed memory back to the kernel at once and pays a page fault per 4 KiB to get it again. Moving
disks frees and takes pieces of 64 KiB to 4 MiB all the time: without this a first backup of 4 GiB spent 2.4 s in the
kernel instead of 0.9 s (measured 2026-11-20).
"""

from __future__ import annotations

import ctypes

from holdfast.core.units import MIB

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h; the numbers are part of its binary interface.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_KEPT_BYTES_MAX = 64 * MIB
"""How much freed memory stays with the process at most; part of the memory formula."""


def keep_freed_memory() -> bool:
    """Tune the allocator of this process; return False where it is not glibc's, and nothing was changed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
    mallopt(_M_TOP_PAD, 4 * MIB)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX)
    return True
