"""Object Lock and versions on real services: what is locked stays, and what others do to a bucket hides nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.storage import (
    KeepsVersions,
    LockMode,
    ObjectExists,
    ObjectInfo,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    StorePlace,
    find_versions,
    open_store,
)
from holdfast.storage.s3 import BucketKeepsVersions
from holdfast.storage.s3_versions import LockUnavailable
from tests.support.s3_servers import S3Service, s3_place, shared_moto, shared_radosgw

SERVICES: dict[str, Callable[[], S3Service]] = {"moto": shared_moto, "radosgw": shared_radosgw}
EACH_SERVICE = ["moto", pytest.param("radosgw", marks=pytest.mark.judge)]

_numbers = itertools.count()


@dataclass
class Bucket:
    """A place in a bucket with locks, and the hands of somebody who has stolen its keys."""

    place: StorePlace
    client: Any

    @property
    def name(self) -> str:
        return self.place.location.split("/")[2]

    def full(self, key: str) -> str:
        return f"{self.place.location.split('/', 3)[3]}/{key}"

    def open(self, **_: object) -> ObjectStore:
        return open_store(self.place)

    def hide(self, key: str) -> None:
        """Delete as everybody does: a delete marker."""
        self.client.delete_object(Bucket=self.name, Key=self.full(key))

    def replace(self, key: str, content: bytes, **more: object) -> None:
        """Overwrite as everybody does: another version."""
        self.client.put_object(Bucket=self.name, Key=self.full(key), Body=content, **more)

    def seen_by_others(self, key: str) -> bytes | None:
        try:
            content: bytes = self.client.get_object(Bucket=self.name, Key=self.full(key))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return content

    def versions(self, key: str) -> int:
        """Return how many versions and markers lie under a key."""
        told = self.client.list_object_versions(Bucket=self.name, Prefix=self.full(key))
        return len(told.get("Versions", [])) + len(told.get("DeleteMarkers", []))


@pytest.fixture(params=EACH_SERVICE)
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    service = SERVICES[request.param]()
    place = s3_place(service, lock=LockMode.GOVERNANCE, prefix=f"versions-{next(_numbers)}")
    yield Bucket(place, service.client())


def in_an_hour() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


def versions_of(store: ObjectStore) -> KeepsVersions:
    found = find_versions(store)
    assert found is not None
    return found


def test_deleting_gives_the_space_back_and_leaves_no_marker(bucket: Bucket) -> None:
    store = bucket.open()
    store.put("a", b"x")
    store.delete("a")
    assert bucket.versions("a") == 0
    store.put("a", b"y")
    assert (store.get("a"), bucket.versions("a")) == (b"y", 1)


def test_a_hidden_object_is_read_listed_and_not_put_again(bucket: Bucket) -> None:
    bucket.open().put("points/1", b"precious", locked_until=in_an_hour())
    bucket.hide("points/1")
    assert bucket.seen_by_others("points/1") is None
    for _ in range(2):  # the first read learns of it, later ones know
        store = bucket.open()
        assert store.get("points/1") == b"precious"
        assert store.get_range("points/1", offset_bytes=3, length_bytes=2) == b"ci"
        assert store.size("points/1") == 8
        assert store.locked_until("points/1") is not None
        with pytest.raises(ObjectExists):
            store.put("points/1", b"another")
        assert list(store.list("points/")) == [ObjectInfo("points/1", 8)]
        assert store.get("points/1") == b"precious"


def test_a_replaced_object_is_read_as_it_was(bucket: Bucket) -> None:
    bucket.open().put("points/1", b"precious", locked_until=in_an_hour())
    bucket.replace("points/1", b"garbage of an attacker")
    assert bucket.open().get("points/1") == b"precious"
    assert bucket.open().size("points/1") == 8
    assert list(bucket.open().list("points/")) == [ObjectInfo("points/1", 8)]


def test_what_lies_on_top_is_found_and_removed_and_the_lock_still_holds(bucket: Bucket) -> None:
    store = bucket.open()
    for key in ("hidden", "replaced", "untouched"):
        store.put(f"points/{key}", key.encode(), locked_until=in_an_hour())
    bucket.hide("points/hidden")
    bucket.replace("points/replaced", b"garbage")
    bucket.hide("points/replaced")
    bucket.replace("points/replaced", b"more garbage")

    versions = versions_of(bucket.open())
    found = {each.key: each for each in versions.covered()}
    assert {key: each.is_hidden for key, each in found.items()} == {"points/hidden": True, "points/replaced": False}
    for each in found.values():
        for _ in range(2):
            versions.uncover(each)
    assert list(versions.covered()) == []
    for key in ("hidden", "replaced", "untouched"):
        assert bucket.seen_by_others(f"points/{key}") == key.encode()
        with pytest.raises(ObjectLocked):
            bucket.open().delete(f"points/{key}")


def test_what_an_attacker_has_locked_on_top_hides_nothing_and_is_told(bucket: Bucket) -> None:
    bucket.open().put("points/1", b"precious", locked_until=in_an_hour())
    bucket.replace(
        "points/1",
        b"garbage",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=in_an_hour(),
        ChecksumAlgorithm="SHA256",
    )
    store = bucket.open()
    (covered,) = versions_of(store).covered()
    with pytest.raises(ObjectLocked):
        versions_of(store).uncover(covered)
    assert list(store.list("")) == [ObjectInfo("points/1", 8)]
    assert store.get("points/1") == b"precious"


def test_a_locked_object_with_something_on_top_is_deleted_by_nobody(bucket: Bucket) -> None:
    until = in_an_hour()
    bucket.open().put("a", b"precious")
    assert bucket.open().try_lock("a", until) == until
    bucket.replace("a", b"garbage")
    store = bucket.open()
    assert list(store.list(""))
    with pytest.raises(ObjectLocked) as refused:
        store.delete("a")
    assert refused.value.until == until
    assert store.get("a") == b"precious"


def test_a_lock_is_extended_on_the_object_and_not_on_what_lies_on_top(bucket: Bucket) -> None:
    bucket.open().put("a", b"precious")
    bucket.replace("a", b"garbage")
    store = bucket.open()
    assert list(store.list(""))
    later = in_an_hour() + timedelta(days=1)
    assert store.try_lock("a", later) == later
    assert store.locked_until("a") == later
    (covered,) = versions_of(store).covered()
    versions_of(store).uncover(covered)
    assert bucket.open().locked_until("a") == later


def test_a_compliance_lock_stays_one_when_the_mode_was_changed(bucket: Bucket) -> None:
    until = in_an_hour()
    bucket.replace("a", b"x", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until, ChecksumAlgorithm="SHA256")
    assert bucket.open().try_lock("a", until + timedelta(hours=1)) == until + timedelta(hours=1)
    head = bucket.client.head_object(Bucket=bucket.name, Key=bucket.full("a"))
    assert head["ObjectLockMode"] == "COMPLIANCE"


def test_a_name_that_merely_begins_alike_is_left_alone(bucket: Bucket) -> None:
    store = bucket.open()
    for key in ("a", "ab", "a-b"):
        store.put(key, key.encode())
    bucket.hide("ab")
    store.delete("a")
    assert [each.key for each in bucket.open().list("")] == ["a-b", "ab"]
    with pytest.raises(ObjectMissing):
        bucket.open().get("a")


def test_many_versions_over_several_answers_are_told_apart(bucket: Bucket) -> None:
    store = bucket.open()
    for n in range(5):
        store.put(f"points/{n}", b"first")
        for _ in range(3):
            bucket.replace(f"points/{n}", b"garbage")
        bucket.hide(f"points/{n}")
    versions = bucket.open()
    # Two names of five versions each never fit into one of these answers.
    paginate = versions._versions._client.get_paginator  # type: ignore[attr-defined]
    pages = _PagesOf(paginate("list_object_versions"), page_length=4)
    versions._versions._client.get_paginator = lambda _: pages  # type: ignore[attr-defined]
    assert list(versions.list("points/")) == [ObjectInfo(f"points/{n}", 5) for n in range(5)]
    assert pages.count > 3
    assert versions.get("points/3") == b"first"


class _PagesOf:
    """A paginator whose pages are short."""

    def __init__(self, inner: Any, *, page_length: int) -> None:
        self._inner = inner
        self._page_length = page_length
        self.count = 0

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        for page in self._inner.paginate(**given, PaginationConfig={"PageSize": self._page_length}):
            self.count += 1
            yield page


def test_the_settings_of_other_programs_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nendpoint_url = http://127.0.0.1:1\nregion = eu-south-1\n[profile x]\n")
    for name, value in {
        "AWS_PROFILE": "of-somebody-else",
        "AWS_CONFIG_FILE": str(config),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_CA_BUNDLE": "/nowhere",
        "AWS_SESSION_TOKEN": "token-of-somebody-else",
    }.items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_place(shared_moto(), lock=LockMode.GOVERNANCE), create=True)
    store.put("a", b"x", locked_until=in_an_hour())
    assert store.locked_until("a") is not None


def test_a_bucket_without_locks_is_refused_when_a_repository_is_made() -> None:
    service = shared_moto()
    place = s3_place(service)
    wanting = StorePlace(
        location=place.location,
        options=s3_place(service, lock=LockMode.GOVERNANCE).options,
        credentials=place.credentials,
    )
    with pytest.raises(LockUnavailable):
        open_store(wanting, create=True)


@pytest.mark.parametrize("name", EACH_SERVICE)
def test_a_bucket_with_versions_is_refused_where_it_was_not_told(name: str) -> None:
    locked = s3_place(SERVICES[name](), lock=LockMode.GOVERNANCE)
    untold = StorePlace(
        location=locked.location, options=s3_place(SERVICES[name]()).options, credentials=locked.credentials
    )
    with pytest.raises(BucketKeepsVersions):
        open_store(untold, create=True)


@pytest.mark.parametrize("name", EACH_SERVICE)
@pytest.mark.parametrize("lock", [None, LockMode.NONE, LockMode.GOVERNANCE, LockMode.COMPLIANCE])
def test_a_service_is_tried_before_a_repository_is_made_and_left_clean(name: str, lock: LockMode | None) -> None:
    place = s3_place(SERVICES[name](), lock=lock)
    assert list(open_store(place, create=True).list("")) == []
