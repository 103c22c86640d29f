"""From the text that a person wrote to a store.

One table says which scheme is opened by which function. Invariant: opening changes nothing but what dead writers left
behind; only ``create=True`` makes anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from holdfast.core import get_log
from holdfast.storage.azure import open_azure
from holdfast.storage.errors import LocationRefused, StoreNotWritable
from holdfast.storage.place import StorePlace, refuse_options
from holdfast.storage.posix import PosixStore
from holdfast.storage.s3 import open_s3
from holdfast.storage.smb_place import SMB_SCHEME, is_smb_location
from holdfast.storage.store import ObjectStore

if TYPE_CHECKING:
    from holdfast.storage.smb import SmbStore

__all__ = ["FOLDER", "SCHEMES", "Scheme", "folder_of", "holds_files", "open_store", "scheme_of"]

_log = get_log(__name__)

FOLDER = "file"
"""The scheme of a plain path."""

Scheme = Callable[[StorePlace, bool], ObjectStore]
"""Opens a place; the flag tells whether to make it. Raises ``LocationRefused`` for a text or an option of no use."""


def open_store(place: StorePlace | str, *, create: bool = False) -> ObjectStore:
    """Return the store at a place, or at a path or URL that needs nothing else.

    With ``create`` a folder is made where there is none (its parents are not), and a service proves that it can keep a
    repository. ``LocationRefused`` when the text names nothing that we support.
    """
    the_place = StorePlace(location=place) if isinstance(place, str) else place
    return SCHEMES[scheme_of(the_place.location)](the_place, create)


def scheme_of(location: str) -> str:
    """Return the scheme of a location, ``file`` for a path; ``LocationRefused`` when we have none of that name."""
    if not location.strip() or "\0" in location:
        raise LocationRefused(location=location, reason="it is empty or holds a character that no path can hold")
    if is_smb_location(location):
        return SMB_SCHEME
    if "://" not in location:
        return FOLDER
    scheme = location.partition("://")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in sorted(SCHEMES))
        raise LocationRefused(location=location, reason=f"{scheme}:// is not supported; folders are, and {known}")
    return scheme


def holds_files(location: str) -> bool:
    """Return whether objects are files in folders there, on a disk or a share, and not a service's."""
    return scheme_of(location) in (FOLDER, SMB_SCHEME)


def _open_folder(place: StorePlace, create: bool) -> ObjectStore:
    refuse_options(place)
    store = PosixStore(folder_of(place.location), create=create)
    _sweep(store)
    return store


def _open_share(place: StorePlace, create: bool) -> ObjectStore:
    # The library behind it takes a third of a second to load, so it is loaded where there is a share.
    from holdfast.storage.smb import open_smb_store

    refuse_options(place)
    store = open_smb_store(place, create=create)
    _sweep(store)
    return store


def _sweep(store: PosixStore | SmbStore) -> None:
    # Who may only read cannot sweep, and need not.
    with contextlib.suppress(StoreNotWritable):
        swept_bytes = store.sweep_temporaries()
        if swept_bytes:
            _log.info("store.swept", store=store.describe(), length_bytes=swept_bytes)


def folder_of(location: str) -> Path:
    """Return the path that a path or ``file://`` URL means; ``LocationRefused`` when it means none."""
    if location.startswith("~"):
        # A folder that is really called "~" would surprise its owner in the home directory of root.
        raise LocationRefused(location=location, reason="the shell has not replaced '~'; write the whole path")
    if "://" not in location:
        return Path(location)
    url = urlsplit(location)
    if url.netloc not in ("", "localhost"):
        raise LocationRefused(location=location, reason=f"file:// cannot reach the machine {url.netloc!r}")
    if not url.path.startswith("/") or url.query or url.fragment:
        raise LocationRefused(location=location, reason="write it as file:///srv/backup/holdfast, the path encoded")
    return Path(unquote(url.path))


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        FOLDER: _open_folder,
        SMB_SCHEME: _open_share,
        "s3": open_s3,
        "azure": open_azure,
    }
)
