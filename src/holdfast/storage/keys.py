"""What a key may look like, on every store alike.

A key is one to eight segments joined by ``/``. The rules are the narrowest of all stores we want to live on, so that a
repository can be copied from any of them to any other. Names that break the rules are never ours: a listing skips
them (``lost+found``, the ``.nfs…`` files of NFS, ``.snapshot`` folders), an operation refuses them.
"""

from __future__ import annotations

import re

from holdfast.storage.errors import KeyRefused

__all__ = ["TEMPORARY_FOLDER", "check_key", "check_prefix", "is_segment"]

TEMPORARY_FOLDER = "tmp"
"""First segment that is kept free of objects everywhere, because file systems need a place for what is not ready."""

SEGMENT_LENGTH_MAX = 200
"""Below the 255 bytes of every file system, with room for what a store adds to a name."""

SEGMENTS_MAX = 8
"""Twice what the engine needs; bounds how deep a listing of a folder descends."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_PREFIX_TAIL = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*)?")


def is_segment(name: str) -> bool:
    """Return whether ``name`` may be one segment of a key."""
    return len(name) <= SEGMENT_LENGTH_MAX and _SEGMENT.fullmatch(name) is not None


def check_key(key: str) -> None:
    """Return when ``key`` may name an object; raise ``KeyRefused`` otherwise."""
    segments = key.split("/")
    if len(segments) > SEGMENTS_MAX:
        raise KeyRefused(key=key, reason=f"it has more than {SEGMENTS_MAX} segments")
    if segments[0] == TEMPORARY_FOLDER:
        raise KeyRefused(key=key, reason=f"{TEMPORARY_FOLDER}/ is kept for unfinished writes")
    if not all(is_segment(segment) for segment in segments):
        raise KeyRefused(key=key, reason="a segment is empty, too long, begins with a dot or has a foreign character")


def check_prefix(prefix: str) -> None:
    """Return when ``prefix`` may begin a key (empty: any key); raise ``KeyRefused`` otherwise."""
    *folders, tail = prefix.split("/")
    if len(folders) >= SEGMENTS_MAX or len(tail) > SEGMENT_LENGTH_MAX:
        raise KeyRefused(key=prefix, reason="the prefix is too long")
    if not all(is_segment(folder) for folder in folders) or _PREFIX_TAIL.fullmatch(tail) is None:
        raise KeyRefused(key=prefix, reason="the prefix cannot begin a key")
