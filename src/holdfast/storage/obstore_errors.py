"""What can go wrong with a bucket: one class per cause, and the one place where a service's answer becomes one of them.

A service's text is never passed on: it runs over pages and can hold addresses with signatures in them. Invariant: what
is told is the status, the service's own code and the first line of its message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.core import ExitStatus
from holdfast.storage.errors import (
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreFull,
    StoreNotReadable,
    StoreNotWritable,
    StoreUnreachable,
)

__all__ = [
    "Answer",
    "BucketMissing",
    "CertificateUnknown",
    "ClockSkewed",
    "CredentialsRefused",
    "ForeignObject",
    "ServiceFailed",
    "WrongRegion",
    "error_of_answer",
    "error_of_service",
]


class BucketMissing(StoreError):
    """The service has no bucket or container of this name."""

    code = "store.bucket-missing"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was read or written."
    advice = "Check the name and the region, or make the bucket with the provider's own tools; Holdfast makes none."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: there is no such bucket or container")
        self.store = store


class CredentialsRefused(StoreError):
    """The service does not accept the credentials."""

    code = "store.credentials-refused"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written; what is stored there is untouched."
    advice = "Check the key, and whether it has expired; 'holdfast repository credentials NAME' changes it."

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(f"{store}: the credentials were refused: {reason}")
        self.store, self.reason = store, reason


class ClockSkewed(StoreError):
    """This machine's clock and the service's are too far apart for signed requests."""

    code = "store.clock-skewed"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written; existing restore points are untouched."
    advice = "Set this machine's clock (NTP); services accept a difference of 15 minutes at most."

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(f"{store}: the clocks are too far apart: {reason}")
        self.store, self.reason = store, reason


class WrongRegion(StoreError):
    """The bucket lives in another region than the one that was asked."""

    code = "store.wrong-region"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was read or written."

    def __init__(self, *, store: str, region: str) -> None:
        where = f", it is in {region}" if region else ""
        super().__init__(f"{store}: the bucket is not in the region that was asked{where}")
        self.store, self.region = store, region

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Give --region {self.region or 'NAME'}, and an --endpoint of the same region if you give one."


class CertificateUnknown(StoreError):
    """The service's certificate cannot be trusted, so nothing was sent to it."""

    code = "store.certificate-unknown"
    exit_status = ExitStatus.REFUSED
    effect = "Neither credentials nor data were sent."
    advice = "Give the certificate that signs it with --ca-file PATH; check the address and this machine's clock."

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(f"{store}: the certificate is not trusted: {reason}")
        self.store, self.reason = store, reason


class ForeignObject(StoreError):
    """Something in the bucket has a name that cannot be listed."""

    code = "store.foreign-object"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed; restore points are there but cannot be listed past that object."
    advice = "Remove the object with the provider's own tools, or give the repository a prefix of its own."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store}: there is an object of somebody else whose name is no path")
        self.store = store


class ServiceFailed(StoreError):
    """The service answered with an error that we have no better word for."""

    code = "store.service-failed"
    effect = "Existing restore points were not changed."
    advice = "Look up the code in the provider's documentation; 'holdfast repository test' tells what works there."

    def __init__(self, *, store: str, key: str | None, reason: str) -> None:
        super().__init__(f"{store}{'' if key is None else f': object {key}'}: {reason}")
        self.store, self.key, self.reason = store, key, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service said when it refused: the HTTP status, its own code, the first line of its message."""

    status: int
    code: str = ""
    message: str = ""
    region: str = ""

    @property
    def text(self) -> str:
        """The answer in one line."""
        return ": ".join(each for each in (f"{self.status} {self.code}".strip(), self.message) if each)


_STATUS = re.compile(r"status code: (\d{3})|\(code: (\d{3})\)")
_CODE = re.compile(r"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<\r\n]{1,300})")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>|expecting '([a-z0-9-]{1,40})'")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*([A-Za-z]+)")
_CERTIFICATES = {
    "UnknownIssuer": "nobody whom this machine trusts has signed it",
    "NotValidForName": "it is for another name",
    "NotValidForNameContext": "it is for another name",
    "Expired": "it has expired",
    "ExpiredContext": "it has expired",
    "NotValidYet": "it is not valid yet",
    "NotValidYetContext": "it is not valid yet",
}
_TRANSPORT = (
    # What the layers below say, and what it means to a person.
    (re.compile(r"ConnectionRefused|Connection refused"), "the connection is refused"),
    (re.compile(r"dns error|failed to lookup address"), "its name is not known"),
    (re.compile(r"TimedOut|timed out|kind: Timeout"), "it did not answer in time"),
    (re.compile(r"ConnectionReset|Connection reset|IncompleteMessage|UnexpectedEof"), "the connection broke"),
    (re.compile(r"HostUnreachable|NetworkUnreachable"), "there is no way to it"),
    (
        re.compile(r"InvalidMessage|InvalidContentType"),
        "it speaks no TLS; the address may be http",
    ),
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_BAD_CREDENTIALS = frozenset(
    """InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken TokenRefreshRequired InvalidSecurity
    AuthenticationFailed AuthorizationFailure InvalidAuthenticationInfo NoAuthenticationInformation
    MissingSecurityHeader UnrecognizedClientException""".split()
)
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_FULL = frozenset({"QuotaExceeded", "AccountQuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})
_REGIONS = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_BUSY = frozenset(
    """SlowDown ServiceUnavailable InternalError RequestTimeout ServerBusy OperationTimedOut Throttling
    RequestLimitExceeded BandwidthLimitExceeded ConditionalRequestConflict OperationAborted""".split()
)


def error_of_service(cause: BaseException, *, store: str, key: str | None, writing: bool) -> StoreError:
    """Return our error for one of obstore's. ``writing`` tells which right was missing."""
    text = str(cause)
    found = _STATUS.search(text)
    if found is not None:
        answer = Answer(
            status=int(found[1] or found[2]),
            code=_first(_CODE, text),
            message=_first(_MESSAGE, text),
            region=_first(_REGION, text),
        )
        return error_of_answer(answer, store=store, key=key, writing=writing)
    if isinstance(cause, FileNotFoundError) and key is not None:
        return ObjectMissing(store=store, key=key)
    if "invalid path" in text:
        return ForeignObject(store=store)
    if "redirect without LOCATION" in text:
        return WrongRegion(store=store, region="")
    certificate = _CERTIFICATE.search(text)
    if certificate is not None:
        return CertificateUnknown(store=store, reason=_certificate_text(certificate[1], text))
    if "Invalid Access Key" in text:
        return CredentialsRefused(store=store, reason="the key is not of the form that keys have")
    reason = next((meaning for pattern, meaning in _TRANSPORT if pattern.search(text)), "")
    if reason or "HTTP error" in text or "HttpError" in text:
        return StoreUnreachable(store=store, key=key, reason=reason or "the connection failed")
    return ServiceFailed(store=store, key=key, reason=type(cause).__name__)


def error_of_answer(answer: Answer, *, store: str, key: str | None, writing: bool) -> StoreError:
    """Return our error for a service's refusal. Its code decides; the status where it gave none."""
    code, status = answer.code, answer.status
    if code in _NO_BUCKET:
        return BucketMissing(store=store)
    if code in _SKEWED:
        return ClockSkewed(store=store, reason=answer.text)
    if code in _REGIONS or status in (301, 307):
        return WrongRegion(store=store, region=answer.region)
    if code in _FULL or status == 507:
        return StoreFull(store=store, key=key)
    if code in _BAD_CREDENTIALS or status == 401:
        return CredentialsRefused(store=store, reason=answer.text)
    if code in _BUSY or (status >= 500 and status != 501) or status in (408, 429):
        return StoreUnreachable(store=store, key=key, reason=f"it asks to come back later ({answer.text})")
    if status == 403:
        kind = StoreNotWritable if writing else StoreNotReadable
        return kind(store=store, key=key, reason=answer.text)
    if status in (409, 412) and writing and key is not None:
        return ObjectExists(store=store, key=key)
    if status == 404 and key is not None:
        return ObjectMissing(store=store, key=key)
    return ServiceFailed(store=store, key=key, reason=answer.text)


def _certificate_text(kind: str, text: str) -> str:
    if "CaUsedAsEndEntity" in text:
        return "it is an authority's own (CA:TRUE); let that authority sign one for the server"
    return _CERTIFICATES.get(kind, kind)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return "" if found is None else next((each for each in found.groups() if each), "")
