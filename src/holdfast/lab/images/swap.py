"""Swap space as Linux expects it: one page that says so, the rest is nobody's.

Offsets are those of the Linux kernel's ``union swap_header``. Invariant: what is packed here, ``swapon`` would take.
"""

from __future__ import annotations

import struct
import uuid as uuids

__all__ = ["is_swap", "pack_swap"]

_PAGE_BYTES = 4096
_HEAD = struct.Struct("<1024xIII16s16s")
_MAGIC = b"SWAPSPACE2"
_VERSION = 1


def pack_swap(length_bytes: int, *, uuid: uuids.UUID, label: str) -> bytes:
    """Return the first page of a swap partition of that length."""
    head = _HEAD.pack(_VERSION, length_bytes // _PAGE_BYTES - 1, 0, uuid.bytes, label.encode())
    return head.ljust(_PAGE_BYTES - len(_MAGIC), b"\0") + _MAGIC


def is_swap(page: bytes) -> bool:
    """Whether the first page of a partition says that it is swap."""
    return page[_PAGE_BYTES - len(_MAGIC) : _PAGE_BYTES] == _MAGIC
