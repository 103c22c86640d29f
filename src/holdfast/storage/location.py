"""From the text that a person wrote to a store.

Invariant: opening changes nothing but what dead writers left behind; only ``create=True`` makes a folder.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from holdfast.core import get_log
from holdfast.storage.errors import LocationRefused, StoreNotWritable
from holdfast.storage.posix import PosixStore
from holdfast.storage.store import ObjectStore

__all__ = ["open_store"]

_log = get_log(__name__)


def open_store(location: str, *, create: bool = False) -> ObjectStore:
    """Return the store at a path or ``file://`` URL; with ``create`` its folder is made (its parents are not).

    ``LocationRefused`` when the text names nothing that we support; otherwise what ``PosixStore`` raises.
    """
    store = PosixStore(_folder_of(location), create=create)
    # Who may only read cannot sweep, and need not.
    with contextlib.suppress(StoreNotWritable):
        swept_bytes = store.sweep_temporaries()
        if swept_bytes:
            _log.info("store.swept", store=store.describe(), length_bytes=swept_bytes)
    return store


def _folder_of(location: str) -> Path:
    if not location.strip() or "\0" in location:
        raise LocationRefused(location=location, reason="it is empty or holds a character that no path can hold")
    if location.startswith("~"):
        # A folder that is really called "~" would surprise its owner in the home directory of root.
        raise LocationRefused(location=location, reason="the shell has not replaced '~'; write the whole path")
    if "://" not in location:
        return Path(location)
    url = urlsplit(location)
    if url.scheme != "file":
        raise LocationRefused(location=location, reason=f"{url.scheme}:// is not supported, folders and file:// are")
    if url.netloc not in ("", "localhost"):
        raise LocationRefused(location=location, reason=f"file:// cannot reach the machine {url.netloc!r}")
    if not url.path.startswith("/") or url.query or url.fragment:
        raise LocationRefused(location=location, reason="write it as file:///srv/backup/holdfast, the path encoded")
    return Path(unquote(url.path))
