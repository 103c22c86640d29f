"""How one gets to a bucket: address, region, signature, certificates.

Everything that decides where requests go and how they are signed is set here, so that a variable of the environment
cannot lead a backup elsewhere. Invariant: credentials reach the signing libraries and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store as ObstoreS3

from holdfast.core import Secret
from holdfast.storage.bucket_place import (
    Endpoint,
    needed_credentials,
    parse_bucket_place,
    parse_endpoint,
    read_ca_file,
)
from holdfast.storage.errors import LocationRefused
from holdfast.storage.obstore_store import NO_RETRIES, client_options
from holdfast.storage.place import StorePlace

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

__all__ = ["S3Access", "s3_access"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{2,40}")
_REGION_DEFAULT = "us-east-1"
"""Also what services without regions expect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """A bucket and how one gets to it."""

    bucket: str
    prefix: str
    region: str
    endpoint: Endpoint
    """Of the service, the bucket not in it."""
    path_style: bool
    key_id: Secret
    key: Secret
    session_token: Secret | None
    ca_file: str
    ca_pem: bytes | None = field(repr=False)

    @property
    def is_amazon(self) -> bool:
        """Whether the service is Amazon's own."""
        return self.endpoint.https and urlsplit(self.endpoint.url).netloc.endswith(".amazonaws.com")

    @property
    def description(self) -> str:
        """Where this is, for people."""
        where = f"S3 bucket {self.bucket}" + (f", prefix {self.prefix}" if self.prefix else "")
        return f"{where} at {self.endpoint.url}"

    def open(self, *, reading: bool, headers: Mapping[str, str] | None = None) -> ObstoreS3:
        """Return a way to the bucket with connections of its own; ``headers`` go with every request, signed."""
        options = client_options(https=self.endpoint.https, ca_pem=self.ca_pem, reading=reading)
        config: S3Config = {
            "region": self.region,
            "endpoint": self._address(),
            "aws_endpoint_url_s3": self._address(),
            "virtual_hosted_style_request": not self.path_style,
            # TLS protects what travels; without it the signature covers every byte.
            "unsigned_payload": self.endpoint.https,
            "skip_signature": False,
            "conditional_put": "etag",
            # One request per object is what every compatible service can do.
            "disable_bulk_delete": True,
        }
        if headers is not None:
            options["default_headers"] = dict(headers)
            # S3 wants a checksum with every upload that is locked.
            config["checksum_algorithm"] = "SHA256"
        return ObstoreS3(
            self.bucket,
            config=config,
            client_options=options,
            retry_config=NO_RETRIES,
            credential_provider=self._credential,
        )

    def _credential(self) -> S3Credential:
        return {
            "access_key_id": self.key_id.reveal(),
            "secret_access_key": self.key.reveal(),
            "token": self.session_token.reveal() if self.session_token else None,
            "expires_at": None,
        }

    def _address(self) -> str:
        if self.path_style:
            return self.endpoint.url
        scheme, _, rest = self.endpoint.url.partition("://")
        return f"{scheme}://{self.bucket}.{rest}"


def s3_access(place: StorePlace) -> S3Access:
    """Return how one gets to the bucket of an S3 location. ``LocationRefused``, ``CredentialsMissing``."""
    where = parse_bucket_place(place.location)
    if not _BUCKET.fullmatch(where.host):
        raise LocationRefused(location=place.location, reason=f"{where.host!r} cannot be the name of a bucket")
    region = place.options.region or _REGION_DEFAULT
    if not _REGION.fullmatch(region):
        raise LocationRefused(location=place.location, reason=f"--region {region!r} cannot be the name of a region")
    own = place.options.endpoint
    endpoint = parse_endpoint(place.location, own or f"https://s3.{region}.amazonaws.com")
    # Amazon wants the bucket in the host name; others mostly have no name in the DNS for each bucket. A dot in the
    # bucket's name would not fit the service's certificate.
    path_style = bool(own) or "." in where.host
    key_id, key = needed_credentials(place, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return S3Access(
        bucket=where.host,
        prefix="/".join(where.path),
        region=region,
        endpoint=endpoint,
        path_style=path_style if place.options.path_style is None else place.options.path_style,
        key_id=key_id,
        key=key,
        session_token=place.credentials.get("AWS_SESSION_TOKEN"),
        ca_file=place.options.ca_file,
        ca_pem=read_ca_file(place),
    )
