"""Listing a folder as a store: keys in order, whatever else lies about skipped.

Invariant: the walk yields keys in the order of their text. A folder is compared as its name and a slash, because that
is how its keys begin: ``a-b`` comes before ``a/b``. With ``look_anew`` it shows what was stored before it began, by
other machines too: a mount of NFS remembers the names in a folder for up to a minute, one of sshfs for 20 seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.storage.keys import SEGMENTS_MAX, TEMPORARY_FOLDER, is_segment
from holdfast.storage.store import ObjectInfo

__all__ = ["list_folder"]


LookAnew = Callable[[Path], None]
"""Makes the system ask the server again which names there are in a folder."""


def list_folder(root: Path, prefix: str, *, look_anew: LookAnew | None = None) -> Iterator[ObjectInfo]:
    """Yield the objects below ``root`` whose key starts with the (checked) ``prefix``, sorted by key."""
    folder, _, tail = prefix.rpartition("/")
    if folder.split("/")[0] == TEMPORARY_FOLDER:
        return
    if look_anew is not None and folder:
        # That a folder is not there is remembered too.
        for parent in reversed(Path(folder).parents):
            _try_to_look_anew(root / parent, look_anew)
    yield from _walk(root, folder, tail=tail, look_anew=look_anew)


def _walk(root: Path, folder: str, *, tail: str, look_anew: LookAnew | None) -> Iterator[ObjectInfo]:
    """Yield what is below one folder, of the names that start with ``tail``."""
    if look_anew is not None:
        _try_to_look_anew(root / folder, look_anew)
    for order, entry in _entries(root / folder, tail=tail):
        key = f"{folder}/{order}" if folder else order
        if order.endswith("/"):
            if key != f"{TEMPORARY_FOLDER}/" and key.count("/") < SEGMENTS_MAX:
                yield from _walk(root, key[:-1], tail="", look_anew=look_anew)
            continue
        try:
            length_bytes = entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue  # deleted meanwhile
        yield ObjectInfo(key, length_bytes)


def _try_to_look_anew(folder: Path, look_anew: LookAnew) -> None:
    """Look anew where that is allowed: whoever may only read deletes nothing by what is listed."""
    with contextlib.suppress(OSError):
        look_anew(folder)


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
