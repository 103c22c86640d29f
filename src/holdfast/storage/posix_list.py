"""Listing a folder as a store: keys in order, whatever else lies about skipped.

Invariant: the walk yields keys in the order of their text. A folder is compared as its name and a slash, because that
is how its keys begin: ``a-b`` comes before ``a/b``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from holdfast.storage.keys import SEGMENTS_MAX, TEMPORARY_FOLDER, is_segment
from holdfast.storage.store import ObjectInfo

__all__ = ["list_folder"]


def list_folder(root: Path, prefix: str) -> Iterator[ObjectInfo]:
    """Yield the objects below ``root`` whose key starts with the (checked) ``prefix``, sorted by key."""
    folder, _, tail = prefix.rpartition("/")
    if folder.split("/")[0] == TEMPORARY_FOLDER:
        return
    yield from _walk(root, folder, tail=tail)


def _walk(root: Path, folder: str, *, tail: str) -> Iterator[ObjectInfo]:
    """Yield what is below one folder, of the names that start with ``tail``."""
    for order, entry in _entries(root / folder, tail=tail):
        key = f"{folder}/{order}" if folder else order
        if order.endswith("/"):
            if key != f"{TEMPORARY_FOLDER}/" and key.count("/") < SEGMENTS_MAX:
                yield from _walk(root, key[:-1], tail="")
            continue
        try:
            length_bytes = entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue  # deleted meanwhile
        yield ObjectInfo(key, length_bytes)


def _entries(folder: Path, *, tail: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Return the files and folders with a proper name, sorted; folders carry a slash at the end of their name."""
    found: list[tuple[str, os.DirEntry[str]]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(tail) or not is_segment(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.name + "/", entry))
                elif entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry))
    except (FileNotFoundError, NotADirectoryError):
        return []  # no such folder: nothing starts with that prefix
    found.sort(key=lambda item: item[0])
    return found
