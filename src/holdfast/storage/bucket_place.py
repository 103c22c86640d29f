"""From ``s3://bucket/prefix`` and its like to their parts; what both kinds of bucket ask of a text and of a service."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.core import ExitStatus, Secret
from holdfast.storage.credentials import CredentialsMissing
from holdfast.storage.errors import LocationRefused, ObjectExists, ObjectMissing, StoreError
from holdfast.storage.keys import is_segment
from holdfast.storage.place import StorePlace
from holdfast.storage.store import ObjectStore

__all__ = [
    "BucketPlace",
    "Endpoint",
    "StoreOverwrites",
    "needed_credentials",
    "parse_bucket_place",
    "parse_endpoint",
    "prove_create_only",
    "read_ca_file",
]

_PREFIX_SEGMENTS_MAX = 8
"""As deep as keys go; no service's limit of a thousand bytes for a name comes near."""
_PROBE_KEY = "probe/create-only"


class StoreOverwrites(StoreError):
    """The service lets a second writer replace an object that was to be made only if it did not exist."""

    code = "store.overwrites"
    exit_status = ExitStatus.REFUSED
    effect = "No repository was made; two machines could have overwritten each other's restore points here."
    advice = "Use a service that honours 'If-None-Match: *' on uploads, or a newer version of this one."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: the service replaces objects although it was told to make new ones only")
        self.store = store


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPlace:
    """The parts of a location: the host part, and the path below it, without slashes at its ends."""

    host: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service's address."""

    url: str
    https: bool


def parse_bucket_place(location: str) -> BucketPlace:
    """Return the parts of a location such as ``s3://bucket/prefix``; ``LocationRefused`` when it is not one."""
    url = urlsplit(location)
    if "@" in url.netloc or url.query or url.fragment:
        # Not repeated: a key may stand in it.
        raise LocationRefused(
            location=f"{url.scheme}://…",
            reason="it holds a user, a question mark or a '#'; credentials and options are given beside it",
        )
    segments = tuple(each for each in url.path.split("/") if each)
    if not url.netloc:
        raise LocationRefused(location=location, reason="it does not name a bucket or an account")
    if len(segments) > _PREFIX_SEGMENTS_MAX or not all(is_segment(each) for each in segments):
        raise LocationRefused(
            location=location, reason="below the bucket, write names of letters, digits, '.', '_' and '-' only"
        )
    return BucketPlace(host=url.netloc, path=segments)


def parse_endpoint(location: str, text: str) -> Endpoint:
    """Return the address that ``--endpoint`` gives; ``LocationRefused`` when it is not the address of a service."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
        raise LocationRefused(
            location=location, reason="--endpoint is written as https://s3.example.org or http://192.0.2.1:9000"
        )
    return Endpoint(url=text.rstrip("/"), https=url.scheme == "https")


def read_ca_file(place: StorePlace) -> bytes | None:
    """Return the certificates that ``--ca-file`` names, None without it. ``LocationRefused``."""
    if not place.options.ca_file:
        return None
    try:
        pem = Path(place.options.ca_file).read_bytes()
    except OSError as cause:
        raise LocationRefused(location=place.location, reason=f"--ca-file: {cause.strerror}") from cause
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise LocationRefused(location=place.location, reason="--ca-file holds no certificate in PEM form")
    return pem


def needed_credentials(place: StorePlace, *names: str) -> list[Secret]:
    """Return these credentials of the place; ``CredentialsMissing`` unless all are there."""
    found = [place.credentials.get(name) for name in names]
    missing = [name for name, secret in zip(names, found, strict=True) if secret is None]
    if missing:
        raise CredentialsMissing(location=place.location, names=missing)
    return [secret for secret in found if secret is not None]


def prove_create_only(store: ObjectStore) -> None:
    """Return when the service refuses to replace an object, is readable, and lists what was just written.

    Leaves nothing behind; what an earlier attempt left is as good. ``StoreOverwrites``.
    """
    with contextlib.suppress(ObjectExists):
        store.put(_PROBE_KEY, b"first")
    try:
        store.put(_PROBE_KEY, b"second")
    except ObjectExists:
        pass
    else:
        store.delete(_PROBE_KEY)
        raise StoreOverwrites(store=store.describe())
    if store.get(_PROBE_KEY) != b"first" or _PROBE_KEY not in [each.key for each in store.list(_PROBE_KEY)]:
        raise ObjectMissing(store=store.describe(), key=_PROBE_KEY)
    store.delete(_PROBE_KEY)
