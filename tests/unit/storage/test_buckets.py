"""Buckets: how they are written, what their services answer, and that nothing secret is ever told."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from holdfast.core import ExitStatus, HoldfastError, Retry, Secret, limits
from holdfast.storage import (
    CredentialsMissing,
    LocationRefused,
    LockMode,
    MemoryStore,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    Parts,
    RangeNotSatisfiable,
    StoreCredentials,
    StoreError,
    StoreFull,
    StoreNotReadable,
    StoreNotWritable,
    StoreOptions,
    StorePlace,
    StoreUnreachable,
    open_store,
)
from holdfast.storage.bucket_place import StoreOverwrites, prove_create_only
from holdfast.storage.obstore_errors import (
    BucketMissing,
    CertificateUnknown,
    ClockSkewed,
    CredentialsRefused,
    ForeignObject,
    ServiceFailed,
    WrongRegion,
)
from holdfast.storage.s3 import BucketKeepsVersions, LockExtraMissing
from holdfast.storage.s3_access import s3_access
from holdfast.storage.s3_versions import LockUnavailable
from tests.support.scripted_http import ScriptedAnswer, make_certificate, scripted_service

KEY_ID, KEY = "AKIDOFTHETEST", "the+secret/key=of+the+test"


def s3_at(endpoint: str, **options: object) -> StorePlace:
    return StorePlace(
        location="s3://bucket/some/prefix",
        options=StoreOptions(endpoint=endpoint, **options),  # type: ignore[arg-type]
        credentials=_credentials(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=KEY),
    )


def _credentials(**values: str) -> StoreCredentials:
    return StoreCredentials(MappingProxyType({name: Secret(text) for name, text in values.items()}))


def refusal(status: int, code: str, message: str = "", more: str = "") -> ScriptedAnswer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return ScriptedAnswer(status, body.encode(), {"Content-Type": "application/xml"})


# -- what a service answers

READS: Callable[[ObjectStore], object] = lambda store: store.get("a")  # noqa: E731
WRITES: Callable[[ObjectStore], object] = lambda store: store.put("a", b"x")  # noqa: E731

ANSWERS = [
    (READS, refusal(404, "NoSuchKey"), ObjectMissing, "a"),
    (READS, refusal(404, "NoSuchBucket"), BucketMissing, "bucket"),
    (WRITES, refusal(404, "NoSuchBucket"), BucketMissing, "bucket"),
    (READS, refusal(403, "AccessDenied", "Access Denied"), StoreNotReadable, "Access Denied"),
    (WRITES, refusal(403, "AccessDenied", "Access Denied"), StoreNotWritable, "Access Denied"),
    (READS, refusal(403, "SignatureDoesNotMatch", "no match"), CredentialsRefused, "no match"),
    (READS, refusal(403, "InvalidAccessKeyId"), CredentialsRefused, "InvalidAccessKeyId"),
    (READS, refusal(400, "ExpiredToken", "has expired"), CredentialsRefused, "has expired"),
    (READS, refusal(403, "RequestTimeTooSkewed", "too large"), ClockSkewed, "too large"),
    (READS, refusal(503, "SlowDown", "Reduce your rate"), StoreUnreachable, "Reduce your rate"),
    (WRITES, refusal(503, "SlowDown"), StoreUnreachable, "SlowDown"),
    (READS, refusal(500, "InternalError"), StoreUnreachable, "InternalError"),
    (READS, ScriptedAnswer(502, b"<html>Bad Gateway</html>"), StoreUnreachable, "502"),
    (READS, refusal(429, "Throttled"), StoreUnreachable, "429"),
    (WRITES, refusal(412, "PreconditionFailed"), ObjectExists, "exists"),
    (WRITES, refusal(409, "ConditionalRequestConflict"), StoreUnreachable, "ConditionalRequestConflict"),
    (WRITES, refusal(403, "QuotaExceeded"), StoreFull, "quota"),
    (WRITES, refusal(507, "XMinioStorageFull"), StoreFull, "quota"),
    (WRITES, refusal(501, "NotImplemented", "If-None-Match"), ServiceFailed, "If-None-Match"),
    (READS, refusal(400, "InvalidRequest", "Something else"), ServiceFailed, "Something else"),
    (
        READS,
        refusal(400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-central-1'"),
        WrongRegion,
        "it is in eu-central-1",
    ),
    (READS, refusal(301, "PermanentRedirect", "The bucket you are"), WrongRegion, "not in the region"),
]


@pytest.mark.parametrize(("ask", "answer", "kind", "told"), ANSWERS, ids=lambda each: getattr(each, "status", None))
def test_every_answer_of_a_service_has_a_name_and_tells_no_secret(
    ask: Callable[[ObjectStore], object], answer: ScriptedAnswer, kind: type[StoreError], told: str
) -> None:
    with scripted_service(answer) as service:
        store = open_store(s3_at(service.url))
        with pytest.raises(StoreError) as refused:
            ask(store)
    assert type(refused.value) is kind
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value) + repr(refused.value.__cause__)
    assert len(service.asked) == 1, "the service is asked again by our own retries only"


def test_what_may_pass_is_tried_again_and_what_may_not_is_not() -> None:
    for answer, retry in ((refusal(503, "SlowDown"), Retry.LATER), (refusal(403, "AccessDenied"), Retry.NEVER)):
        with scripted_service(answer) as service, pytest.raises(StoreError) as refused:
            open_store(s3_at(service.url)).get("a")
        assert refused.value.retry is retry


def test_a_service_that_is_not_there_is_unreachable() -> None:
    with scripted_service(ScriptedAnswer(200)) as service:
        gone = service.url
    with pytest.raises(StoreUnreachable, match="refused"):
        open_store(s3_at(gone)).get("a")
    with pytest.raises(StoreUnreachable, match="name is not known"):
        open_store(s3_at("http://nowhere.invalid")).get("a")


def test_a_service_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_STALL_TIMEOUT_S", 0.02)
    monkeypatch.setattr(limits, "STORE_TRANSFER_TIMEOUT_S", 0.03)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(s3_at(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        for ask in (READS, WRITES):
            with pytest.raises(StoreUnreachable, match="in time"):
                ask(store)


@pytest.mark.parametrize("body", [b"", b"shor"])
def test_an_answer_that_ends_early_is_never_taken_for_the_object(body: bytes) -> None:
    headers = {"ETag": '"1"', "Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    with scripted_service(ScriptedAnswer(200, body, headers, length=10)) as service:
        store = open_store(s3_at(service.url))
        with pytest.raises(StoreUnreachable):
            store.get("a")


def test_a_range_of_an_object_that_ends_before_it_names_both_lengths() -> None:
    whole = {"ETag": '"1"', "Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    part = ScriptedAnswer(206, b"6789", {**whole, "Content-Range": "bytes 6-9/10"})
    with scripted_service(part) as service, pytest.raises(RangeNotSatisfiable) as refused:
        open_store(s3_at(service.url)).get_range("a", offset_bytes=6, length_bytes=10)
    assert refused.value.size_bytes == 10
    assert len(service.asked) == 1


def test_an_object_of_somebody_else_that_has_no_path_is_told() -> None:
    listing = (
        "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>some/prefix/../x</Key>"
        "<LastModified>2026-11-20T10:00:00.000Z</LastModified><ETag>1</ETag><Size>1</Size></Contents></ListBucketResult>"
    )
    with scripted_service(ScriptedAnswer(200, listing.encode())) as service, pytest.raises(ForeignObject):
        list(open_store(s3_at(service.url)).list(""))


# -- how it is asked


def test_a_put_is_one_create_only_request_signed_over_every_byte() -> None:
    with scripted_service(ScriptedAnswer(200, headers={"ETag": '"1"'})) as service:
        open_store(s3_at(service.url)).put("packs/3f/1", [b"he", b"", b"llo"])
    (asked,) = service.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/bucket/some/prefix/packs/3f/1", b"hello")
    assert asked.headers["if-none-match"] == "*"
    assert asked.headers["x-amz-content-sha256"] not in ("", "UNSIGNED-PAYLOAD")


def test_over_tls_the_payload_is_not_hashed_once_more_and_the_certificate_is_checked(tmp_path: Path) -> None:
    server, authority = make_certificate(tmp_path)
    with scripted_service(ScriptedAnswer(200, headers={"ETag": '"1"'}), certificate=server) as service:
        with pytest.raises(CertificateUnknown) as refused:
            open_store(s3_at(service.url)).put("a", b"x")
        assert service.asked == [], "nothing may be sent to somebody who is not known"
        assert "--ca-file" in refused.value.next_step()
        open_store(s3_at(service.url, ca_file=str(authority))).put("a", b"x")
    assert service.asked[0].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


def test_an_authoritys_own_certificate_at_a_server_is_told_apart_from_an_unknown_one(tmp_path: Path) -> None:
    server, authority = make_certificate(tmp_path, self_signed=True)
    with (
        scripted_service(ScriptedAnswer(200), certificate=server) as service,
        pytest.raises(CertificateUnknown, match="authority's own"),
    ):
        open_store(s3_at(service.url, ca_file=str(authority))).get("a")


def test_the_environment_leads_no_backup_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_service(ScriptedAnswer(200, headers={"ETag": '"1"'})) as service:
        for name, value in {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
            "AWS_ENDPOINT": "http://127.0.0.1:1",
            "AWS_ACCESS_KEY_ID": "SOMEBODYELSE",
            "AWS_SECRET_ACCESS_KEY": "other",
            "AWS_SESSION_TOKEN": "token-of-somebody-else",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_UNSIGNED_PAYLOAD": "true",
            "AWS_REGION": "eu-south-1",
        }.items():
            monkeypatch.setenv(name, value)
        open_store(s3_at(service.url)).put("a", b"x")
    (asked,) = service.asked
    assert KEY_ID in asked.headers["authorization"]
    assert "us-east-1" in asked.headers["authorization"]
    assert "x-amz-security-token" not in asked.headers
    assert asked.headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"


@pytest.mark.parametrize(
    ("given", "signed", "path"),
    [
        ({"AZURE_STORAGE_KEY": "a2V5"}, "SharedKey account:", "/account/container/a"),
        ({"AZURE_STORAGE_SAS_TOKEN": "?sv=2&sig=OURS"}, None, "/account/container/a?sv=2&sig=OURS"),
    ],
)
def test_the_environment_leads_no_backup_elsewhere_in_azure_either(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], signed: str | None, path: str
) -> None:
    headers = {"ETag": '"1"', "Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    with scripted_service(ScriptedAnswer(201, headers=headers)) as service:
        for name, value in {
            "AZURE_STORAGE_ACCOUNT_NAME": "somebodyelse",
            "AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI=",
            "AZURE_STORAGE_SAS_KEY": "sv=1&sig=OTHER",
            "AZURE_STORAGE_TOKEN": "token-of-somebody-else",
            "AZURE_ENDPOINT": "http://127.0.0.1:1",
            "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1",
            "AZURE_SKIP_SIGNATURE": "true",
            "AZURE_STORAGE_USE_EMULATOR": "true",
        }.items():
            monkeypatch.setenv(name, value)
        place = StorePlace(
            location="azure://account/container",
            options=StoreOptions(endpoint=f"{service.url}/account"),
            credentials=_credentials(**given),
        )
        open_store(place).put("a", b"x")
    (asked,) = service.asked
    assert asked.path == path
    assert asked.headers["if-none-match"] == "*"
    assert signed is None or asked.headers["authorization"].startswith(signed)
    assert signed is not None or "authorization" not in asked.headers


def test_a_listing_begins_where_the_prefix_does() -> None:
    empty = b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with scripted_service(ScriptedAnswer(200, empty)) as service:
        assert list(open_store(s3_at(service.url)).list("packs/3f/1")) == []
    assert "start-after=some%2Fprefix%2Fpacks%2F3f%2F0" in service.asked[0].path


def test_a_bucket_that_keeps_versions_is_refused_unless_it_was_told() -> None:
    headers = {"ETag": '"1"', "x-amz-version-id": "v1", "Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    with scripted_service(ScriptedAnswer(200, b"x", headers)) as service:
        store = open_store(s3_at(service.url))
        for ask in (READS, WRITES):
            with pytest.raises(BucketKeepsVersions, match="frees nothing"):
                ask(store)


# -- how it is written


@pytest.mark.parametrize(
    ("location", "options", "address", "path_style"),
    [
        ("s3://bucket", {}, "https://s3.us-east-1.amazonaws.com", False),
        ("s3://bucket/a/b/", {"region": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com", False),
        ("s3://with.dots", {}, "https://s3.us-east-1.amazonaws.com", True),
        ("s3://bucket", {"endpoint": "http://192.0.2.1:9000/"}, "http://192.0.2.1:9000", True),
        ("s3://bucket", {"endpoint": "https://s3.example.org", "path_style": False}, "https://s3.example.org", False),
    ],
)
def test_an_s3_location_is_understood(location: str, options: dict[str, str], address: str, path_style: bool) -> None:
    credentials = _credentials(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=KEY)
    place = StorePlace(location=location, options=StoreOptions(**options), credentials=credentials)  # type: ignore[arg-type]
    access = s3_access(place)
    assert (access.endpoint.url, access.path_style) == (address, path_style)
    assert KEY not in repr(access) + access.description


@pytest.mark.parametrize(
    ("location", "options", "hint"),
    [
        ("s3://", {}, "bucket"),
        ("s3://UPPER/x", {}, "name of a bucket"),
        ("s3://ab", {}, "name of a bucket"),
        (f"s3://{KEY_ID}:pass@bucket/x", {}, "credentials"),
        ("s3://bucket/x?versions", {}, "credentials and options"),
        ("s3://bucket/../x", {}, "below the bucket"),
        ("s3://bucket/ä", {}, "below the bucket"),
        ("s3://bucket", {"endpoint": "s3.example.org"}, "--endpoint"),
        ("s3://bucket", {"endpoint": "https://user:pass@s3.example.org"}, "--endpoint"),
        ("s3://bucket", {"region": "eu west"}, "--region"),
        ("s3://bucket", {"ca_file": "/nowhere/ca.pem"}, "--ca-file"),
        ("azure://account", {}, "container"),
        ("azure://Account/container", {}, "storage account"),
        ("azure://account/co", {}, "container"),
        ("azure://account/container", {"region": "westeurope"}, "--region means nothing"),
        ("azure://account/container", {"object_lock": LockMode.GOVERNANCE}, "--object-lock means nothing"),
        ("/srv/backup", {"endpoint": "http://x"}, "--endpoint means nothing"),
        ("gs://bucket", {}, "s3://"),
    ],
)
def test_what_no_bucket_can_be_is_refused_before_anything_is_asked(
    location: str, options: dict[str, str], hint: str
) -> None:
    credentials = _credentials(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=KEY, AZURE_STORAGE_KEY="a2V5")
    place = StorePlace(location=location, options=StoreOptions(**options), credentials=credentials)  # type: ignore[arg-type]
    with pytest.raises(LocationRefused, match=hint) as refused:
        open_store(place)
    assert refused.value.exit_status is ExitStatus.USAGE
    assert "pass" not in str(refused.value)


@pytest.mark.parametrize(
    ("location", "given", "missing"),
    [
        ("s3://bucket", {}, "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "x"}, "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"),
        ("azure://account/container", {}, "AZURE_STORAGE_KEY"),
    ],
)
def test_credentials_that_are_missing_are_named(location: str, given: dict[str, str], missing: str) -> None:
    with pytest.raises(CredentialsMissing) as refused:
        open_store(StorePlace(location=location, credentials=_credentials(**given)))
    assert refused.value.names == missing


def test_an_azure_key_of_the_wrong_form_is_refused_and_not_repeated() -> None:
    place = StorePlace(location="azure://account/container", credentials=_credentials(AZURE_STORAGE_KEY="no base64!"))
    with pytest.raises(HoldfastError) as refused:
        open_store(place).get("a")
    assert isinstance(refused.value, CredentialsRefused)
    assert "base64!" not in str(refused.value)


def test_azures_signature_is_never_told() -> None:
    with scripted_service(refusal(403, "AuthenticationFailed", "Signature did not match")) as service:
        place = StorePlace(
            location="azure://account/container",
            options=StoreOptions(endpoint=f"{service.url}/account"),
            credentials=_credentials(AZURE_STORAGE_SAS_TOKEN="?sv=2024-01-01&sig=SECRETSIGNATURE"),
        )
        store = open_store(place)
        with pytest.raises(CredentialsRefused) as refused:
            store.get("a")
    assert "sig=SECRETSIGNATURE" in service.asked[0].path
    assert "SECRETSIGNATURE" not in str(refused.value) + repr(refused.value.__cause__) + store.describe()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(403, "AccessDenied", "Access Denied"), StoreNotReadable),
        (refusal(403, "InvalidAccessKeyId"), CredentialsRefused),
        (refusal(404, "NoSuchBucket"), BucketMissing),
        (refusal(503, "SlowDown"), StoreUnreachable),
        (refusal(400, "InvalidRequest", "first line\nsecond line"), ServiceFailed),
    ],
)
def test_a_bucket_with_locks_tells_refusals_as_any_other(answer: ScriptedAnswer, kind: type[StoreError]) -> None:
    with scripted_service(answer) as service:
        store = open_store(s3_at(service.url, object_lock=LockMode.COMPLIANCE))
        with pytest.raises(StoreError) as refused:
            list(store.list(""))
        assert len(service.asked) == 1
        with pytest.raises(StoreError):
            open_store(s3_at(service.url, object_lock=LockMode.COMPLIANCE), create=True)
    assert type(refused.value) is kind
    assert "second line" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_bucket_with_locks_checks_certificates_and_reach_too(tmp_path: Path) -> None:
    server, authority = make_certificate(tmp_path)
    versions = b"<?xml version='1.0'?><ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>"
    with scripted_service(ScriptedAnswer(200, versions), certificate=server) as service:
        with pytest.raises(CertificateUnknown):
            list(open_store(s3_at(service.url, object_lock=LockMode.NONE)).list(""))
        trusting = s3_at(service.url, object_lock=LockMode.NONE, ca_file=str(authority))
        assert list(open_store(trusting).list("")) == []
    with pytest.raises(StoreUnreachable):
        list(open_store(trusting).list(""))


def test_a_bucket_where_locks_are_switched_off_is_refused() -> None:
    told = b"<?xml version='1.0'?><ObjectLockConfiguration></ObjectLockConfiguration>"
    for answer in (ScriptedAnswer(200, told), refusal(404, "ObjectLockConfigurationNotFoundError")):
        with scripted_service(answer) as service, pytest.raises(LockUnavailable):
            open_store(s3_at(service.url, object_lock=LockMode.GOVERNANCE), create=True)


def test_a_legal_hold_is_a_lock_without_an_end_and_a_missing_right_is_none() -> None:
    listing = (
        b"<?xml version='1.0'?><ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>some/prefix/a</Key>"
        b"<VersionId>v1</VersionId><IsLatest>true</IsLatest><Size>1</Size></Version></ListVersionsResult>"
    )
    held, free = {"x-amz-object-lock-legal-hold": "ON"}, {"x-amz-object-lock-legal-hold": "OFF"}
    for headers, kind in ((held, ObjectLocked), (free, StoreNotWritable)):
        answers = (
            ScriptedAnswer(200, listing),
            refusal(403, "AccessDenied"),
            ScriptedAnswer(200, headers=headers),
        )
        with scripted_service(*answers) as service, pytest.raises(StoreError) as refused:
            open_store(s3_at(service.url, object_lock=LockMode.GOVERNANCE)).delete("a")
        assert type(refused.value) is kind
        assert not isinstance(refused.value, ObjectLocked) or refused.value.until is None
        assert [each.method for each in service.asked] == ["GET", "DELETE", "HEAD"]


def test_without_the_extra_a_bucket_with_locks_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holdfast.storage.s3_versions", None)
    with pytest.raises(LockExtraMissing) as refused:
        open_store(s3_at("http://127.0.0.1:1", object_lock=LockMode.GOVERNANCE))
    assert "holdfast[s3lock]" in refused.value.next_step()
    assert open_store(s3_at("http://127.0.0.1:1")).describe()


# -- what is proven before a repository is made


class Overwriting(MemoryStore):
    """A service that passes over ``If-None-Match``."""

    def put(self, key: str, parts: Parts, **_: object) -> None:
        self.delete(key)
        super().put(key, parts)


def test_a_service_that_overwrites_is_found_out_and_left_clean() -> None:
    store = Overwriting()
    with pytest.raises(StoreOverwrites):
        prove_create_only(store)
    assert list(store.list("")) == []


def test_a_service_that_does_not_is_left_clean_even_after_a_crash_in_between() -> None:
    store = MemoryStore()
    store.put("probe/create-only", b"first")
    for _ in range(2):
        prove_create_only(store)
        assert list(store.list("")) == []
