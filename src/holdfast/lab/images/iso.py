"""A CD image: ISO 9660 with one text file, so that what is mounted or looked into is a disc and not zeros.

Offsets are those of ECMA-119, chapters 8 and 9. Invariant: numbers that the standard stores both ways agree.
"""

from __future__ import annotations

import struct

from holdfast.core import KIB

__all__ = ["pack_iso"]

_SECTOR_BYTES = 2 * KIB
_SYSTEM_SECTORS = 16
_ROOT_AT, _LITTLE_PATHS_AT, _BIG_PATHS_AT, _FILE_AT = 20, 18, 19, 21
_MADE = bytes((126, 1, 1, 0, 0, 0, 0))
_MADE_TEXT = b"2026010100000000\0"
_NEVER_TEXT = b"0" * 16 + b"\0"
_FOLDER = 2


def pack_iso(label: str, *, name: str, content: bytes) -> bytes:
    """Return a whole image with one file; ``label`` is the volume's, at most 32 characters."""
    assert len(label) <= 32 and len(content) <= _SECTOR_BYTES
    root = _entry(b"\0", _ROOT_AT, _SECTOR_BYTES, flags=_FOLDER)
    parent = _entry(b"\1", _ROOT_AT, _SECTOR_BYTES, flags=_FOLDER)
    file = _entry(f"{name.upper()};1".encode(), _FILE_AT, len(content), flags=0)
    paths = {order: struct.pack(f"{order}BBIH", 1, 0, _ROOT_AT, 1) + b"\0\0" for order in "<>"}
    sectors = [
        _volume(label, root, path_bytes=len(paths["<"])),
        b"\xffCD001\x01",
        paths["<"],
        paths[">"],
        root + parent + file,
        content,
    ]
    return bytes(_SYSTEM_SECTORS * _SECTOR_BYTES) + b"".join(each.ljust(_SECTOR_BYTES, b"\0") for each in sectors)


def _volume(label: str, root: bytes, *, path_bytes: int) -> bytes:
    text = label.upper().encode().ljust(32)
    head = b"\x01CD001\x01\0" + b" " * 32 + text + bytes(8) + _both("I", _FILE_AT + 1) + bytes(32)
    head += _both("H", 1) + _both("H", 1) + _both("H", _SECTOR_BYTES) + _both("I", path_bytes)
    head += struct.pack("<II", _LITTLE_PATHS_AT, 0) + struct.pack(">II", _BIG_PATHS_AT, 0) + root
    names = b" " * (4 * 128 + 3 * 37)  # volume set, publisher, preparer, application; copyright, abstract, bibliography
    return head + names + _MADE_TEXT * 2 + _NEVER_TEXT * 2 + b"\x01\0"


def _entry(name: bytes, sector: int, length_bytes: int, *, flags: int) -> bytes:
    body = _both("I", sector) + _both("I", length_bytes) + _MADE + bytes((flags, 0, 0)) + _both("H", 1)
    body += bytes((len(name),)) + name
    body += b"\0" * (len(body) % 2)
    return bytes((len(body) + 2, 0)) + body


def _both(kind: str, number: int) -> bytes:
    return struct.pack(f"<{kind}", number) + struct.pack(f">{kind}", number)
