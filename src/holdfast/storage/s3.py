"""S3 and what is compatible with it: ``s3://bucket/prefix``, with or without Object Lock.

Invariant of a bucket with locks: the object under a key is the first version that was put there, so neither a delete
marker nor another version on top of it hides it from us; deleting removes versions, so that the space comes back.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from obstore.store import S3Store as ObstoreS3

from holdfast.core import ExitStatus
from holdfast.storage.bucket_place import prove_create_only
from holdfast.storage.errors import ObjectExists, ObjectLocked, ObjectMissing, StoreError
from holdfast.storage.keys import check_key
from holdfast.storage.obstore_store import Bucket, BucketStore, is_key
from holdfast.storage.place import LockMode, StorePlace
from holdfast.storage.s3_access import S3Access, s3_access
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts
from holdfast.storage.version import CoveredObject, Version

if TYPE_CHECKING:
    from obstore import GetOptions

    from holdfast.storage.s3_versions import S3Versions

__all__ = ["BucketKeepsVersions", "LockExtraMissing", "LockedS3Store", "S3Store", "open_s3"]

_LOCK_STEP_S = 60
"""Locks that come with a put end on a full minute: the date is a header of the connection pool, which a run shall not
build anew for each pack."""

_FIRST_VERSIONS_MAX = 4096
"""Versions remembered while something lies on top of objects: some packs' worth of reads, a megabyte."""

_T = TypeVar("_T")


class LockExtraMissing(StoreError):
    """Locks on S3 need a package that is not installed."""

    code = "store.lock-extra-missing"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was read or written."
    advice = "Install it: pip install 'holdfast[s3lock]'"

    def __init__(self) -> None:
        super().__init__("a bucket with Object Lock needs boto3, which is not installed here")


def open_s3(place: StorePlace, create: bool) -> ObjectStore:
    """Return the store of an S3 location; the service is asked nothing unless ``create`` is set.

    ``LocationRefused``, ``CredentialsMissing``, ``LockExtraMissing``; with ``create`` also what the service answers,
    ``StoreOverwrites`` and ``LockUnavailable``.
    """
    access = s3_access(place)
    store: S3Store
    if place.options.object_lock is None:
        store = S3Store(access)
    else:
        store = LockedS3Store(access, mode=place.options.object_lock)
        if create:
            store.check_lockable()
    if create:
        prove_create_only(store)
    return store


class BucketKeepsVersions(StoreError):
    """The bucket keeps what is deleted, and the repository was not told so."""

    code = "store.bucket-keeps-versions"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was deleted; existing restore points are untouched."
    advice = (
        "Give --object-lock governance or compliance (none, if nothing shall be locked), on every machine alike; or "
        "use a bucket without versions."
    )

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: the bucket keeps versions, where deleting hides objects and frees nothing")
        self.store = store


class S3Store(BucketStore):
    """Objects in an S3 bucket without versions. In one that keeps them, deleting would neither free space nor last."""

    def __init__(self, access: S3Access) -> None:
        super().__init__(
            reader=access.open(reading=True),
            writer=access.open(reading=False),
            prefix=access.prefix,
            description=access.description,
        )

    def _check_version(self, version: str | None) -> None:
        if version not in (None, "null"):
            raise BucketKeepsVersions(store=self.describe())


class LockedS3Store(S3Store):
    """Objects in an S3 bucket that keeps versions, locked where that is asked for."""

    def __init__(self, access: S3Access, *, mode: LockMode) -> None:
        super().__init__(access)
        self._access = access
        self._versions = _open_versions(access)
        self._mode = mode
        self._exclusive = access.is_amazon
        """Whether the service itself refuses a second version, told to make new objects only."""
        self._lock = threading.Lock()
        self._locking_writer: tuple[datetime, ObstoreS3] | None = None
        self._covered = False
        """Whether something was seen on top of an object: from then on reads ask for the first version."""
        self._first_versions: dict[str, str] = {}
        self._looked_at: set[str] = set()

    def check_lockable(self) -> None:
        """Return when objects of the bucket can be locked as the mode wants it; ``LockUnavailable`` otherwise."""
        if self._mode is not LockMode.NONE:
            self._versions.check_lockable()

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``; the lock ends on the full minute that follows ``locked_until``."""
        check_key(key)
        # A service sees only what lies on top: below a delete marker it would take a second object. And some (Ceph)
        # take one at any time in a bucket that keeps versions; there the order of versions tells who was first.
        if (self._covered or not self._exclusive) and self._versions.find(self._name(key)).first is not None:
            raise ObjectExists(store=self.describe(), key=key)
        version = self._put(self._writer_until(locked_until), key, parts)
        if not self._exclusive and version is not None:
            self._check_first(key, version)

    def _check_first(self, key: str, version: str) -> None:
        """Return when what was just put is the object; take it back and raise ``ObjectExists`` when it came second."""
        first = self._versions.find(self._name(key)).first
        if first is None or first.version == version:
            return
        self._covered = True
        with contextlib.suppress(ObjectLocked):  # it stays on top until then, and hides nothing from us
            self._versions.remove(Version(name=self._name(key), version=version), key=key)
        raise ObjectExists(store=self.describe(), key=key)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        return self._past_markers(key, lambda: BucketStore.get(self, key))

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        return self._past_markers(
            key, lambda: BucketStore.get_range(self, key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        )

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._past_markers(key, lambda: BucketStore.size(self, key))

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._past_markers(key, lambda: BucketStore.stored_at(self, key))

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``: every version goes, the object last, so that an interruption leaves it whole."""
        check_key(key)
        found = self._versions.find(self._name(key))
        if found.above and found.first is not None and self.locked_until(key) is not None:
            # Asked first: removing what lies on top of a locked object is for ``uncover``. An object by itself is
            # tried: only the service's refusal proves that it holds what it says it holds.
            raise ObjectLocked(store=self.describe(), key=key, until=self.locked_until(key))
        for each in (*found.above, *([found.first] if found.first else ())):
            self._versions.remove(each, key=key)
        with self._lock:
            self._first_versions.pop(key, None)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        check_key(key)
        if self._mode is LockMode.NONE:
            self.size(key)
            return None
        whole_seconds = until.replace(microsecond=0) + timedelta(seconds=1 if until.microsecond else 0)
        return self._past_markers(
            key,
            lambda: self._versions.lock(
                self._name(key), whole_seconds, key=key, mode=self._mode, version=self._first_version(key)
            ),
        )

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        check_key(key)
        return self._past_markers(
            key, lambda: self._versions.locked_until(self._name(key), key=key, version=self._first_version(key))
        )

    def covered(self) -> Iterator[CoveredObject]:
        """See ``KeepsVersions.covered``."""
        for each in self._versions.list(self._prefix):
            key = each.name[len(self._prefix) :]
            if each.first is not None and each.above and is_key(key):
                yield CoveredObject(key=key, versions=each)

    def uncover(self, covered: CoveredObject) -> None:
        """See ``KeepsVersions.uncover``."""
        for each in covered.versions.above:
            self._versions.remove(each, key=covered.key)

    def _check_version(self, version: str | None) -> None:
        """Versions are what such a bucket has."""

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        for each in self._versions.list(self._prefix + prefix):
            key = each.name[len(self._prefix) :]
            if each.first is not None and is_key(key):
                self._covered = self._covered or bool(each.above)
                yield ObjectInfo(key, each.first.length_bytes)

    def _past_markers(self, key: str, read: Callable[[], _T]) -> _T:
        """Return what a read gives; when it finds nothing, look for a version below and read again."""
        try:
            return read()
        except ObjectMissing:
            if self._covered or self._versions.find(self._name(key)).first is None:
                raise
            self._covered = True
            return read()

    def _read_options(self, key: str) -> GetOptions:
        version = self._first_version(key)
        return {} if version is None else {"version": version}

    def _first_version(self, key: str) -> str | None:
        """Return the version that is the object, None as long as nothing was seen on top of any. ``ObjectMissing``."""
        self._look_once(key)
        if not self._covered:
            return None
        with self._lock:
            known = self._first_versions.get(key)
        if known is not None:
            return known
        found = self._versions.find(self._name(key)).first
        if found is None:
            raise ObjectMissing(store=self.describe(), key=key)
        with self._lock:
            if len(self._first_versions) >= _FIRST_VERSIONS_MAX:
                self._first_versions.clear()
            self._first_versions[key] = found.version
        return found.version

    def _look_once(self, key: str) -> None:
        """Look at the beginning of each folder, once, before the first read in it.

        Whoever replaces objects to do harm replaces many; one read by its name alone would be taken for damaged.
        """
        folder, slash, _ = key.partition("/")
        with self._lock:
            if self._covered or folder in self._looked_at:
                return
            self._looked_at.add(folder)
        if self._versions.is_covered(self._prefix + folder + slash):
            self._covered = True

    def _writer_until(self, until: datetime | None) -> Bucket:
        """Return a way to the bucket whose puts are locked at least until then."""
        if until is None or self._mode is LockMode.NONE:
            return self._writer
        step = _LOCK_STEP_S
        end = datetime.fromtimestamp(math.ceil(until.timestamp() / step) * step, UTC)
        with self._lock:
            if self._locking_writer is None or self._locking_writer[0] != end:
                headers = {
                    "x-amz-object-lock-mode": self._mode.value.upper(),
                    "x-amz-object-lock-retain-until-date": f"{end:%Y-%m-%dT%H:%M:%SZ}",
                    "x-amz-sdk-checksum-algorithm": "SHA256",
                }
                self._locking_writer = (end, self._access.open(reading=False, headers=headers))
            return self._locking_writer[1]


def _open_versions(access: S3Access) -> S3Versions:
    try:
        # Here, because boto3 is an extra.
        from holdfast.storage.s3_versions import S3Versions
    except ImportError as cause:
        raise LockExtraMissing from cause
    return S3Versions(access)
