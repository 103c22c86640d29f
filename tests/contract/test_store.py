"""The object store's contract, held by every implementation and every wrapper alike."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core import Cancellation, ManualClock, SeededEntropy, SystemClock
from holdfast.model import Extent
from holdfast.storage import (
    CachedStore,
    CappedStore,
    FaultyStore,
    KeyRefused,
    LaggingStore,
    LockMode,
    MemoryStore,
    MeteredStore,
    ObjectExists,
    ObjectInfo,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    PosixStore,
    RangeNotSatisfiable,
    RetryStore,
    Throttle,
    ThrottledStore,
    holds,
)
from holdfast.storage.obstore_store import BucketStore
from holdfast.storage.posix_calls import PosixCalls
from tests.support.s3_servers import new_azurite_store, new_moto_store, new_radosgw_store
from tests.support.smb_server import new_smb_store
from tests.support.sshfs_mount import new_sshfs_folder

MakeStore = Callable[[Path], ObjectStore]


class CallsWithoutHardLinks(PosixCalls):
    """A file system such as exFAT or an SMB share: no hard links, but exclusive renames."""

    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(target))


def with_retries(inner: ObjectStore) -> ObjectStore:
    return RetryStore(inner, clock=ManualClock(), entropy=SeededEntropy(1), cancel=Cancellation())


def throttled(inner: ObjectStore) -> ObjectStore:
    up, down = (Throttle(bytes_per_s_max=1 << 20, clock=ManualClock()) for _ in range(2))
    return ThrottledStore(inner, up=up, down=down, cancel=Cancellation())


def cached(inner: ObjectStore, folder: Path) -> ObjectStore:
    """Return a store that remembers whatever is asked of it, and has little room for it."""
    return CachedStore(inner, folder=folder / "cache", prefixes=[""], bytes_max=20_000, object_bytes_max=15_000)


STORES: dict[str, MakeStore] = {
    "memory": lambda folder: MemoryStore(),
    "memory-that-locks": lambda folder: MemoryStore(clock=SystemClock()),
    "posix": lambda folder: PosixStore(folder / "store", create=True),
    "posix-without-hard-links": lambda folder: PosixStore(folder / "store", create=True, calls=CallsWithoutHardLinks()),
    "posix-on-sshfs": lambda folder: PosixStore(new_sshfs_folder(), create=True),
    "smb": lambda folder: new_smb_store(),
    "smb-encrypted": lambda folder: new_smb_store(share="sealed"),
    "s3-moto": lambda folder: new_moto_store(),
    "s3-moto-versions": lambda folder: new_moto_store(lock=LockMode.NONE),
    "s3-moto-locked": lambda folder: new_moto_store(lock=LockMode.GOVERNANCE),
    "s3-radosgw": lambda folder: new_radosgw_store(),
    "s3-radosgw-governance": lambda folder: new_radosgw_store(lock=LockMode.GOVERNANCE),
    "s3-radosgw-compliance": lambda folder: new_radosgw_store(lock=LockMode.COMPLIANCE),
    "azure-azurite": lambda folder: new_azurite_store(),
    "capped": lambda folder: CappedStore(MemoryStore(), capacity_bytes=1 << 30),
    "faulty-without-faults": lambda folder: FaultyStore(MemoryStore()),
    "lagging-by-nothing": lambda folder: LaggingStore(MemoryStore(), lag_changes=0),
    "metered": lambda folder: MeteredStore(MemoryStore()),
    "throttled": lambda folder: throttled(MemoryStore()),
    "cached": lambda folder: cached(MemoryStore(), folder),
    "retry": lambda folder: with_retries(MemoryStore()),
    "all-of-them-around-posix": lambda folder: MeteredStore(
        cached(
            with_retries(
                throttled(FaultyStore(CappedStore(PosixStore(folder / "store", create=True), capacity_bytes=1 << 30)))
            ),
            folder,
        )
    ),
}

JUDGED = {name for name in STORES if name.startswith(("smb", "s3-radosgw", "azure"))}
"""Those behind which a server of others runs."""

LISTED = set(STORES) - {"s3-moto-locked", "s3-radosgw-governance", "s3-radosgw-compliance"}
"""Those that generated listings are tried on; the others list as one of these does, at half a second each."""

HOSTILE_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "a/",
    "a//b",
    "..",
    "../a",
    "a/../b",
    "a/..",
    ".",
    "a/./b",
    ".hidden",
    "a/.nfs0001",
    "a\0b",
    "a b",
    "a\nb",
    "a\n",
    "ä",
    "a\\b",
    "a:b",
    "tmp",
    "tmp/put-1",
    "x" * 201,
    "/".join("abcdefghi"),
]

SEGMENTS = st.text(alphabet="aAbz09._-", min_size=1, max_size=4).filter(lambda text: not text.startswith("."))
KEYS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.judge) if name in JUDGED else name for name in sorted(STORES)]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    make: MakeStore = STORES[request.param]
    return make(tmp_path)


def test_what_was_put_comes_back_whole(store: ObjectStore) -> None:
    store.put("packs/3f/3f9a", b"hello")
    assert store.get("packs/3f/3f9a") == b"hello"
    assert store.size("packs/3f/3f9a") == 5


def test_parts_of_every_kind_are_joined_in_order(store: ObjectStore) -> None:
    words = memoryview(bytearray(b"\1\0\2\0")).cast("H")
    store.put("a", [b"one", b"", bytearray(b"two"), memoryview(b"-three-")[1:6], words])
    assert store.get("a") == b"onetwothree\1\0\2\0"


def test_many_small_parts_and_one_large_one_arrive_whole(store: ObjectStore) -> None:
    parts = [bytes([n % 251]) * (n % 7) for n in range(5000)] + [b"x" * 3_000_000]
    store.put("a", parts)
    assert store.get("a") == b"".join(parts)


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.size("empty") == 0
    assert list(store.list("")) == [ObjectInfo("empty", 0)]


def test_a_put_keeps_its_own_copy(store: ObjectStore) -> None:
    buffer = bytearray(b"before")
    store.put("a", buffer)
    buffer[:] = b"after!"
    assert store.get("a") == b"before"


def test_a_taken_key_is_refused_and_its_object_unchanged(store: ObjectStore) -> None:
    store.put("a/b", b"first")
    with pytest.raises(ObjectExists) as refusal:
        store.put("a/b", b"second")
    assert refusal.value.key == "a/b"
    assert store.get("a/b") == b"first"


def test_a_repeated_put_can_be_told_from_a_clash(store: ObjectStore) -> None:
    store.put("a", b"first")
    assert holds(store, "a", [b"fi", b"rst"])
    assert not holds(store, "a", b"other")
    assert not holds(store, "a", b"first and more")
    assert not holds(store, "b", b"first")


def test_of_many_writers_of_one_key_exactly_one_wins(store: ObjectStore) -> None:
    start = threading.Barrier(8)
    won: list[bytes] = []
    lost: list[str] = []

    def write(content: bytes) -> None:
        start.wait()
        try:
            store.put("leases/one", content)
        except ObjectExists as refusal:
            lost.append(refusal.key)
        else:
            won.append(content)

    threads = [threading.Thread(target=write, args=(bytes([n]) * 4096,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7
    assert store.get("leases/one") == won[0]
    assert list(store.list("")) == [ObjectInfo("leases/one", 4096)]


def test_many_threads_put_list_and_read_side_by_side(store: ObjectStore) -> None:
    failures: list[BaseException] = []

    def work(writer: int) -> None:
        try:
            for n in range(10):
                key = f"packs/{n:02x}/{writer}"
                store.put(key, key.encode())
                assert key in [info.key for info in store.list(f"packs/{n:02x}/")]
                assert store.get(key) == key.encode()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.list("packs/"))) == 40


def test_a_range_is_exact_or_an_error(store: ObjectStore) -> None:
    store.put("a", b"0123456789")
    assert store.get_range("a", offset_bytes=0, length_bytes=10) == b"0123456789"
    assert store.get_range("a", offset_bytes=3, length_bytes=4) == b"3456"
    assert store.get_range("a", offset_bytes=10, length_bytes=0) == b""
    for offset, length in [(0, 11), (9, 2), (10, 1), (11, 0), (500, 1)]:
        with pytest.raises(RangeNotSatisfiable) as refusal:
            store.get_range("a", offset_bytes=offset, length_bytes=length)
        assert refusal.value.size_bytes == 10


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    for key in ["c", "a", "a/c", "a/b/c"]:
        for ask in (
            lambda key=key: store.get(key),
            lambda key=key: store.size(key),
            lambda key=key: store.stored_at(key),
            lambda key=key: store.get_range(key, offset_bytes=0, length_bytes=1),
        ):
            with pytest.raises(ObjectMissing) as refusal:
                ask()
            assert refusal.value.key == key


def test_a_store_tells_by_its_own_clock_in_which_order_objects_came(store: ObjectStore) -> None:
    keys = [f"leases/one/{number}" for number in range(3)]
    for key in keys:
        store.put(key, b"x")
    moments = [store.stored_at(key) for key in keys]
    if None in moments:
        assert moments == [None, None, None]
        return
    first, *_, last = told = [moment for moment in moments if moment is not None]
    assert told == sorted(told)
    assert all(moment.tzinfo is not None for moment in told)
    assert last - first < timedelta(minutes=5)


def test_deleting_twice_is_deleting_once(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.put("a/c", b"y")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    store.delete("a")
    assert [info.key for info in store.list("")] == ["a/c"]
    with pytest.raises(ObjectMissing):
        store.get("a/b")


def test_a_deleted_key_is_free_again(store: ObjectStore) -> None:
    store.put("a/b", b"old")
    store.delete("a/b")
    store.put("a/b", b"new")
    assert store.get("a/b") == b"new"


def test_an_empty_store_lists_nothing(store: ObjectStore) -> None:
    assert list(store.list("")) == []
    assert list(store.list("packs/")) == []


def test_a_prefix_is_plain_text_not_a_folder(store: ObjectStore) -> None:
    for key in ["packs/3e/1", "packs/3f/1", "packs/3f/2", "packs/4a/1", "packs-old", "points/3f"]:
        store.put(key, key.encode())
    assert [info.key for info in store.list("packs/3")] == ["packs/3e/1", "packs/3f/1", "packs/3f/2"]
    assert [info.key for info in store.list("packs/3f/")] == ["packs/3f/1", "packs/3f/2"]
    assert [info.key for info in store.list("packs/3f/2")] == ["packs/3f/2"]
    assert len(list(store.list("packs"))) == 5
    assert list(store.list("packs/3f/2/")) == []
    assert list(store.list("q")) == []


@pytest.mark.slow(reason="dozens of generated listings on a real file system or service")
@pytest.mark.parametrize("store", sorted(LISTED), indirect=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEYS, max_size=12), prefix=st.one_of(st.just(""), KEYS, SEGMENTS.map(lambda text: text + "/")))
def test_a_listing_is_sorted_and_complete(store: ObjectStore, keys: set[str], prefix: str) -> None:
    for info in list(store.list("")):
        store.delete(info.key)
    stored = set()
    for key in keys:
        try:
            store.put(key, key.encode())
        except KeyRefused:
            continue  # the folder of another one; a file system remembers folders of earlier examples
        stored.add(key)
    expected = sorted(ObjectInfo(key, len(key)) for key in stored if key.startswith(prefix))
    assert list(store.list(prefix)) == expected


def test_an_object_is_never_lost_to_a_folder_of_its_name(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    stored = ["a/b"]
    for key in ["a", "a/b/c", "a/b/c/d"]:
        try:
            store.put(key, b"y")
        except KeyRefused:
            continue
        stored.append(key)  # a bucket has no folders; asking each time would cost a request for every object
    assert [info.key for info in store.list("")] == sorted(stored)
    assert store.get("a/b") == b"x"
    assert isinstance(store, BucketStore) or stored == ["a/b"]


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=ascii)
def test_a_hostile_key_is_refused_by_every_verb(store: ObjectStore, key: str) -> None:
    for attempt in (
        lambda: store.put(key, b"x"),
        lambda: store.get(key),
        lambda: store.get_range(key, offset_bytes=0, length_bytes=1),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.try_punch(key, []),
    ):
        with pytest.raises(KeyRefused):
            attempt()
    assert list(store.list("")) == []


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "./", "a b", ".", "a\n", "x" * 201])
def test_a_hostile_prefix_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(KeyRefused):
        list(store.list(prefix))


def test_a_punched_range_reads_as_zeros_and_the_rest_stays(store: ObjectStore) -> None:
    content = b"x" * 20_000
    store.put("a", content)
    extents = [Extent(offset_bytes=100, length_bytes=50), Extent(offset_bytes=4096, length_bytes=8192)]
    for _ in range(2):
        freed = store.try_punch("a", extents)
        if freed is None:
            assert store.get("a") == content
            if isinstance(store, PosixStore):
                pytest.skip("this file system cannot punch holes")
            return  # buckets and shares never can
        assert freed == 50 + 8192
    expected = bytearray(content)
    expected[100:150] = bytes(50)
    expected[4096:12288] = bytes(8192)
    assert store.get("a") == expected


def test_a_hole_in_a_missing_object_is_refused_where_holes_can_be_made(store: ObjectStore) -> None:
    if not _punches(store):
        return
    with pytest.raises(ObjectMissing):
        store.try_punch("a", [Extent(offset_bytes=0, length_bytes=1)])


def _punches(store: ObjectStore) -> bool:
    """Whether the store makes holes at all: one that cannot says so without looking."""
    store.put("other", b"x")
    return store.try_punch("other", [Extent(offset_bytes=0, length_bytes=1)]) is not None


def test_a_hole_beyond_the_end_is_refused_before_anything_is_punched(store: ObjectStore) -> None:
    store.put("a", b"x" * 100)
    if not _punches(store):
        return
    with pytest.raises(RangeNotSatisfiable):
        store.try_punch("a", [Extent(offset_bytes=0, length_bytes=50), Extent(offset_bytes=90, length_bytes=11)])
    assert store.get("a") == b"x" * 100


def test_a_store_tells_people_where_it_is_and_what_is_free(store: ObjectStore) -> None:
    assert store.describe()
    free_bytes = store.free_bytes()
    assert free_bytes is None or free_bytes > 0


# -- locks, where the store has them

_SOON = timedelta(hours=1)


def test_a_locked_object_cannot_be_deleted_and_a_lock_is_never_shortened(store: ObjectStore) -> None:
    store.put("a", b"x")
    later = datetime.now(UTC).replace(microsecond=0) + _SOON
    held = store.try_lock("a", later)
    if held is None:
        assert store.locked_until("a") is None
        return
    assert held == later == store.locked_until("a")
    assert store.try_lock("a", later - timedelta(minutes=30)) == later
    assert store.try_lock("a", later + _SOON) == later + _SOON
    with pytest.raises(ObjectLocked) as refusal:
        store.delete("a")
    assert refusal.value.until == later + _SOON
    assert store.get("a") == b"x"


def test_an_object_can_be_locked_from_its_first_moment(store: ObjectStore) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + _SOON
    store.put("a", b"x", locked_until=later)
    assert store.get("a") == b"x"
    held = store.locked_until("a")
    # A store may round up to whole minutes.
    assert held is None or later <= held < later + timedelta(minutes=1)
    if held is not None:
        with pytest.raises(ObjectLocked):
            store.delete("a")


def test_an_object_that_is_not_there_has_no_lock(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        store.locked_until("a")
    with pytest.raises(ObjectMissing):
        store.try_lock("a", datetime.now(UTC) + _SOON)
