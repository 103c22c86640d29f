"""What every bucket has in common: the store's verbs over obstore, one request each wherever that is possible.

Its own retries are off, since a put repeated down there would meet what it had itself stored and look like a clash;
``RetryStore`` is the one place that repeats. Invariant: an answer is exact or an error; a short one is never returned.
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore as ObstoreAzure
from obstore.store import S3Store as ObstoreS3

from holdfast.core import limits
from holdfast.model import Extent
from holdfast.storage.errors import KeyRefused, ObjectMissing, RangeNotSatisfiable, StoreError, StoreUnreachable
from holdfast.storage.keys import check_key, check_prefix
from holdfast.storage.obstore_errors import error_of_service
from holdfast.storage.store import ObjectInfo, Parts, as_views

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

__all__ = ["NO_RETRIES", "Bucket", "BucketStore", "client_options", "is_key"]

Bucket = ObstoreS3 | ObstoreAzure

NO_RETRIES: RetryConfig = {"max_retries": 0}

_LIST_CHUNK = 1000
"""As many as one answer of a service holds."""


def client_options(*, https: bool, ca_pem: bytes | None, reading: bool) -> ClientConfig:
    """Return how connections are made. A reader gives up on a stream that stands still; an upload gets its time."""
    options: ClientConfig = {
        "allow_http": not https,
        "connect_timeout": timedelta(seconds=limits.STORE_CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=limits.STORE_TRANSFER_TIMEOUT_S),
        "pool_idle_timeout": timedelta(seconds=limits.STORE_IDLE_CONNECTION_S),
        "user_agent": "holdfast",
    }
    if reading:
        options["read_timeout"] = timedelta(seconds=limits.STORE_STALL_TIMEOUT_S)
    if ca_pem is not None:
        options["root_certificate"] = ca_pem
    return options


class BucketStore:
    """Objects in a bucket or container, below a prefix. Subclasses say how one gets there, and lock."""

    def __init__(self, *, reader: Bucket, writer: Bucket, prefix: str, description: str) -> None:
        self._reader = reader
        self._writer = writer
        self._prefix = prefix + "/" if prefix else ""
        self._description = description

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``. One request, whatever the size: an object is there whole or not at all."""
        check_key(key)
        self._put(self._writer, key, parts)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        with self._mapped(key):
            answer = obstore.get(self._reader, self._name(key), options=self._read_options(key))
            content = answer.bytes().to_bytes()
        self._check_version(answer.meta["version"])
        if len(content) != answer.meta["size"]:
            raise StoreUnreachable(store=self.describe(), key=key, reason="the answer ended early")
        return content

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        assert offset_bytes >= 0
        assert length_bytes >= 0
        check_key(key)
        end_bytes = offset_bytes + length_bytes
        size_bytes = None if length_bytes else self.size(key)
        content = b""
        if length_bytes:
            content, size_bytes = self._get_range(key, offset_bytes, end_bytes)
        if size_bytes is None or end_bytes > size_bytes:
            raise RangeNotSatisfiable(
                store=self.describe(),
                key=key,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
                size_bytes=self.size(key) if size_bytes is None else size_bytes,
            )
        if len(content) != length_bytes:
            raise StoreUnreachable(store=self.describe(), key=key, reason="the answer ended early")
        return content

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._head(key)["size"]

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._head(key)["last_modified"]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        return self._list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        check_key(key)
        with contextlib.suppress(ObjectMissing), self._mapped(key, writing=True):
            obstore.delete(self._writer, self._name(key))

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``: a bucket cannot, and is not asked."""
        check_key(key)
        return None

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        self.size(key)
        return None

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        self.size(key)
        return None

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``: a service does not say."""
        return None

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return self._description

    def _head(self, key: str) -> ObjectMeta:
        check_key(key)
        with self._mapped(key):
            options: GetOptions = {**self._read_options(key), "head": True}
            return obstore.get(self._reader, self._name(key), options=options).meta

    def _put(self, writer: Bucket, key: str, parts: Parts) -> str | None:
        """Make the object with one request; return its version, None where there are none."""
        with self._mapped(key, writing=True):
            views = as_views(parts) or b""
            version = obstore.put(writer, self._name(key), views, mode="create", use_multipart=False)["version"]
        self._check_version(version)
        return version

    def _check_version(self, version: str | None) -> None:
        """Return when an answer that names this version is what the store expects of its bucket."""

    def _read_options(self, key: str) -> GetOptions:
        """Return what a read of this object needs beside its name."""
        return {}

    def _get_range(self, key: str, start_bytes: int, end_bytes: int) -> tuple[bytes, int | None]:
        """Return what the object has of a range, and its length; None for that when it ends before the range begins."""
        options: GetOptions = {**self._read_options(key), "range": (start_bytes, end_bytes)}
        try:
            answer = obstore.get(self._reader, self._name(key), options=options)
            return answer.bytes().to_bytes(), answer.meta["size"]
        except (BaseError, FileNotFoundError) as cause:
            if any(sign in str(cause) for sign in _BEYOND_THE_END):
                return b"", None
            raise self._error(cause, key, writing=False) from cause

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        wanted = self._prefix + prefix
        folder = wanted.rpartition("/")[0]
        with self._mapped(None):
            chunks = obstore.list(
                self._reader, folder or None, offset=_just_before(wanted, folder), chunk_size=_LIST_CHUNK
            )
            for chunk in chunks:
                for each in chunk:
                    name = each["path"]
                    if name.startswith(wanted):
                        key = name[len(self._prefix) :]
                        if is_key(key):
                            yield ObjectInfo(key, each["size"])
                    elif name > wanted:
                        return

    @contextlib.contextmanager
    def _mapped(self, key: str | None, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as cause:
            raise self._error(cause, key, writing=writing) from cause

    def _error(self, cause: Exception, key: str | None, *, writing: bool) -> StoreError:
        return error_of_service(cause, store=self.describe(), key=key, writing=writing)

    def _name(self, key: str) -> str:
        return self._prefix + key


_BEYOND_THE_END = ("status code: 416", "Wanted range starting at")

_ALPHABET = ",-." + string.digits + string.ascii_uppercase + "_" + string.ascii_lowercase
"""The characters of a key in the order of listings, and one that comes before all of them. "/" never ends a prefix
here."""


def _just_before(wanted: str, folder: str) -> str | None:
    """Return a name after which a listing of ``folder`` finds everything that begins with ``wanted``, and little else.

    Services list below whole folders; without it, ``packs/f`` would mean reading the names of all packs before it.
    """
    if wanted in ("", folder + "/"):
        return None
    before = _ALPHABET[max(_ALPHABET.index(wanted[-1]) - 1, 0)]
    # "~" sorts after every character that a key can hold.
    return wanted[:-1] + before + "~"


def is_key(name: str) -> bool:
    """Whether a name that was found may be one of ours."""
    try:
        check_key(name)
    except KeyRefused:
        return False
    return True
