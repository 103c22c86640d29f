"""The versions of objects in a bucket with Object Lock: finding, locking and removing them.

Holdfast writes an object once, so the *first* version under a key is the object; whatever lies on top of it, a version
or a delete marker, is somebody else's doing. Built on boto3 (the extra ``s3lock``): locks and versions are
administration that the data path knows nothing of. Invariant: a version under lock is never written to.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from holdfast.core import ExitStatus, limits
from holdfast.storage.errors import ObjectLocked, StoreError, StoreUnreachable
from holdfast.storage.obstore_errors import Answer, CertificateUnknown, error_of_answer
from holdfast.storage.place import LockMode
from holdfast.storage.s3_access import S3Access
from holdfast.storage.version import ObjectVersions, Version

__all__ = ["LockUnavailable", "S3Versions"]


class LockUnavailable(StoreError):
    """The bucket was not made with Object Lock, so nothing in it can be locked."""

    code = "store.lock-unavailable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was written: a repository that seems protected and is not would be worse than none."
    advice = "Make the bucket anew with Object Lock (most services cannot switch it on later), or drop --object-lock."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: the bucket was made without Object Lock, so nothing in it can be locked")
        self.store = store


class S3Versions:
    """The versions in one bucket. Every method may be called from several threads.

    A ``name`` is the whole key in the bucket, ``key`` what errors call it.
    """

    def __init__(self, access: S3Access) -> None:
        self._bucket = access.bucket
        self._description = access.description
        self._client = _client(access)

    def check_lockable(self) -> None:
        """Return when objects of the bucket can be locked; ``LockUnavailable`` otherwise."""
        try:
            told = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as cause:
            if _code(cause) == "ObjectLockConfigurationNotFoundError":
                raise LockUnavailable(store=self._description) from cause
            raise self._error(cause, None, writing=False) from cause
        except BotoCoreError as cause:
            raise self._error(cause, None, writing=False) from cause
        if told.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise LockUnavailable(store=self._description)

    def list(self, prefix: str) -> Iterator[ObjectVersions]:
        """Yield what lies under every name that begins with ``prefix``, sorted by name."""
        open_group: list[Version] = []
        with self._mapped(None):
            for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
                entries = [*open_group, *_entries(page)]
                entries.sort(key=lambda each: each.name)  # stable: versions of one name stay newest first
                # The last name of a page may go on in the next one.
                last = entries[-1].name if entries else ""
                open_group = [each for each in entries if each.name == last]
                yield from _grouped([each for each in entries if each.name != last])
        yield from _grouped(open_group)

    def is_covered(self, prefix: str) -> bool:
        """Whether something lies on top of the first thousand objects below a prefix: one request."""
        with self._mapped(None):
            page = self._client.list_object_versions(Bucket=self._bucket, Prefix=prefix, MaxKeys=1000)
        entries = sorted(_entries(page), key=lambda each: each.name)
        return any(each.first is not None and each.above for each in _grouped(entries))

    def find(self, name: str) -> ObjectVersions:
        """Return what lies under one name."""
        # Names are sorted, so the wanted one comes before all that merely begin with it.
        for each in self.list(name):
            if each.name == name:
                return each
            break
        return ObjectVersions(name=name, first=None, above=())

    def locked_until(self, name: str, *, key: str, version: str | None) -> datetime | None:
        """Return until when a version is held, None when it is not. By the service's clock. ``ObjectMissing``."""
        head = self._head(name, key=key, version=version)
        until = _retained_until(head)
        return until if until is not None and until > _service_time(head) else None

    def lock(self, name: str, until: datetime, *, key: str, mode: LockMode, version: str | None) -> datetime:
        """Hold a version at least until then; return until when it is held now. ``ObjectMissing``."""
        head = self._head(name, key=key, version=version)
        held = _retained_until(head)
        if held is not None and held >= until:
            return held
        # A lock is never weakened, whatever mode was chosen since it was set.
        compliance = held is not None and held > _service_time(head) and head["ObjectLockMode"] == "COMPLIANCE"
        with self._mapped(key, writing=True):
            self._client.put_object_retention(
                Bucket=self._bucket,
                Key=name,
                VersionId=head["VersionId"],
                Retention={"Mode": "COMPLIANCE" if compliance else mode.value.upper(), "RetainUntilDate": until},
            )
        return until

    def remove(self, version: Version, *, key: str) -> None:
        """Remove one version or marker for good. ``ObjectLocked``."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=version.name, VersionId=version.version)
        except ClientError as cause:
            if _code(cause) == "NoSuchVersion":
                return
            if _status(cause) == 403 and not version.is_marker:
                self._raise_if_locked(version, key=key, cause=cause)
            raise self._error(cause, key, writing=True) from cause
        except BotoCoreError as cause:
            raise self._error(cause, key, writing=True) from cause

    def _raise_if_locked(self, version: Version, *, key: str, cause: Exception) -> None:
        """Tell a lock from a missing right: services answer both with the same word."""
        head = self._head(version.name, key=key, version=version.version)
        until = _retained_until(head)
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            raise ObjectLocked(store=self._description, key=key, until=None) from cause
        if until is not None and until > _service_time(head):
            raise ObjectLocked(store=self._description, key=key, until=until) from cause

    def _head(self, name: str, *, key: str, version: str | None) -> dict[str, Any]:
        wanted = {} if version is None else {"VersionId": version}
        with self._mapped(key):
            found: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=name, **wanted)
        return found

    @contextlib.contextmanager
    def _mapped(self, key: str | None, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as cause:
            raise self._error(cause, key, writing=writing) from cause

    def _error(self, cause: Exception, key: str | None, *, writing: bool) -> StoreError:
        if isinstance(cause, ClientError):
            told = cause.response.get("Error", {})
            answer = Answer(
                status=_status(cause),
                # A refusal without a body has the status for a code.
                code=str(told.get("Code", "")) if not str(told.get("Code", "")).isdigit() else "",
                message=str(told.get("Message", "")).partition("\n")[0][:300],
                region=str(told.get("Region", "")),
            )
            return error_of_answer(answer, store=self._description, key=key, writing=writing)
        if isinstance(cause, SSLError):
            return CertificateUnknown(store=self._description, reason="the TLS library refuses it")
        return StoreUnreachable(store=self._description, key=key, reason=type(cause).__name__)


def _client(access: S3Access) -> Any:
    """Return a client that signs as the data path does and repeats nothing by itself."""
    # No profile and no file of another program decides anything.
    nothing: dict[str, tuple[None, None, str | None, None]] = {}
    nothing |= dict.fromkeys(("profile", "ca_bundle"), (None, None, None, None))
    nothing |= dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    return botocore.session.Session(session_vars=nothing).create_client(
        "s3",
        endpoint_url=access.endpoint.url,
        region_name=access.region,
        aws_access_key_id=access.key_id.reveal(),
        aws_secret_access_key=access.key.reveal(),
        aws_session_token=access.session_token.reveal() if access.session_token else None,
        verify=access.ca_file or True,
        config=Config(
            connect_timeout=limits.STORE_CONNECT_TIMEOUT_S,
            read_timeout=limits.STORE_STALL_TIMEOUT_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "path" if access.path_style else "virtual"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=limits.LOCK_REQUESTS_AT_ONCE_MAX,
        ),
    )


def _entries(page: dict[str, Any]) -> Iterator[Version]:
    for each in page.get("Versions", ()):
        yield Version(name=each["Key"], version=each["VersionId"], length_bytes=each["Size"])
    for each in page.get("DeleteMarkers", ()):
        yield Version(name=each["Key"], version=each["VersionId"], is_marker=True)


def _grouped(entries: list[Version]) -> Iterator[ObjectVersions]:
    """Yield the entries, sorted by name, as one value for each name."""
    names = dict.fromkeys(each.name for each in entries)
    groups: dict[str, list[Version]] = {name: [] for name in names}
    for each in entries:
        groups[each.name].append(each)
    for name, group in groups.items():
        contents = [each for each in group if not each.is_marker]
        first = contents[-1] if contents else None
        yield ObjectVersions(name=name, first=first, above=tuple(each for each in group if each is not first))


def _code(cause: ClientError) -> str:
    return str(cause.response.get("Error", {}).get("Code", ""))


def _status(cause: ClientError) -> int:
    return int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retained_until(head: dict[str, Any]) -> datetime | None:
    found = head.get("ObjectLockRetainUntilDate")
    return found.astimezone(UTC) if isinstance(found, datetime) else None


def _service_time(head: dict[str, Any]) -> datetime:
    """Return the time of the service that answered: its clock, not ours, ends a lock."""
    return email.utils.parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
