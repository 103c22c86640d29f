"""What a folder promises beyond the contract: it survives crashes, full disks, missing mounts and foreign files."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from holdfast.core import ExitStatus, Retry, limits
from holdfast.model import Extent
from holdfast.storage import (
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    PosixStore,
    RangeNotSatisfiable,
    SimulatedCrash,
    StoreEmpty,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreMissing,
    StoreNotAFolder,
    StoreNotReadable,
    StoreNotWritable,
    StoreUnreachable,
    StoreUnsuitable,
    holds,
    open_store,
)
from holdfast.storage.posix_calls import PosixCalls

CALLS_OF_A_PUT = 10
"""More than a put in a new, nested folder makes; the tests below count them."""


class ScriptedCalls(PosixCalls):
    """The real calls, written down; the chosen one fails or kills the process, for good in the latter case."""

    def __init__(self, *, fail_at: int = 0, failure: Callable[[], BaseException] | None = None) -> None:
        self.made: list[str] = []
        self.armed = True
        self._fail_at = fail_at
        self._failure = failure or (lambda: SimulatedCrash("planned"))
        self._is_dead = False

    def _count(self, name: str) -> None:
        if not self.armed:
            return
        if self._is_dead:
            raise SimulatedCrash("dead")
        self.made.append(name)
        if len(self.made) == self._fail_at:
            failure = self._failure()
            self._is_dead = isinstance(failure, SimulatedCrash)
            raise failure

    def create_temporary(self, folder: Path) -> tuple[int, Path]:
        self._count("create_temporary")
        return super().create_temporary(folder)

    def write(self, descriptor: int, views: Sequence[memoryview]) -> None:
        # A crash or a full disk in the middle: half of it is there.
        half = len(views) // 2
        super().write(descriptor, views[:half])
        self._count("write")
        super().write(descriptor, views[half:])

    def make_durable(self, descriptor: int) -> None:
        self._count("make_durable")
        super().make_durable(descriptor)

    def make_folder_durable(self, folder: Path) -> None:
        self._count(f"make_folder_durable {folder.name}")
        super().make_folder_durable(folder)

    def make_folder(self, folder: Path) -> None:
        self._count(f"make_folder {folder.name}")
        super().make_folder(folder)

    def link(self, source: Path, target: Path) -> None:
        self._count("link")
        super().link(source, target)

    def remove(self, path: Path) -> None:
        self._count("remove")
        super().remove(path)


def disarmed(root: Path, calls: ScriptedCalls) -> PosixStore:
    calls.armed = False
    store = PosixStore(root, create=True, calls=calls)
    calls.armed = True
    return store


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(path: Path, *, by_s: float) -> None:
    facts = path.stat()
    os.utime(path, (facts.st_atime, facts.st_mtime - by_s))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_name_is_given_only_when_bytes_and_folders_are_durable(root: Path) -> None:
    calls = ScriptedCalls()
    disarmed(root, calls).put("packs/3f/a", b"x")
    assert calls.made == [
        "create_temporary",
        "write",
        "make_durable",
        "make_folder packs",
        "make_folder_durable store",
        "make_folder 3f",
        "make_folder_durable packs",
        "link",
        "make_folder_durable 3f",
        "remove",
    ]


@pytest.mark.parametrize("fail_at", range(1, CALLS_OF_A_PUT + 1))
def test_a_crash_at_any_step_leaves_the_object_whole_or_absent(root: Path, fail_at: int) -> None:
    content = [b"first half, ", b"second half"]
    calls = ScriptedCalls(fail_at=fail_at)
    store = disarmed(root, calls)
    with pytest.raises(SimulatedCrash):
        store.put("packs/3f/a", content)

    after = PosixStore(root)
    assert list(after.list("")) in ([], [ObjectInfo("packs/3f/a", 23)])
    try:
        after.put("packs/3f/a", content)
    except ObjectExists:
        assert holds(after, "packs/3f/a", content)
    assert after.get("packs/3f/a") == b"".join(content)
    for path in (root / "tmp").iterdir():
        age(path, by_s=limits.TEMPORARY_AGE_S_MIN + 1)
    after.sweep_temporaries()
    assert names_in(root / "tmp") == []
    assert after.get("packs/3f/a") == b"".join(content)


@pytest.mark.parametrize("fail_at", range(1, CALLS_OF_A_PUT - 2))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_any_step_leaves_nothing_behind(root: Path, fail_at: int, number: int) -> None:
    calls = ScriptedCalls(fail_at=fail_at, failure=lambda: OSError(number, os.strerror(number)))
    store = disarmed(root, calls)
    with pytest.raises(StoreFull) as refusal:
        store.put("packs/3f/a", [b"x" * 100, b"y" * 100])
    assert refusal.value.key == "packs/3f/a"
    assert refusal.value.exit_status is ExitStatus.NO_SPACE
    assert names_in(root / "tmp") == []
    assert list(store.list("")) == []
    store.put("packs/3f/a", b"space again")
    assert store.get("packs/3f/a") == b"space again"


@pytest.mark.parametrize(
    ("number", "expected", "retry"),
    [
        (errno.EACCES, StoreNotWritable, Retry.NEVER),
        (errno.EPERM, StoreNotWritable, Retry.NEVER),
        (errno.EROFS, StoreNotWritable, Retry.NEVER),
        (errno.EIO, StoreFailed, Retry.NEVER),
        (errno.ESTALE, StoreUnreachable, Retry.LATER),
        (errno.ETIMEDOUT, StoreUnreachable, Retry.LATER),
        (errno.ENOTCONN, StoreUnreachable, Retry.LATER),
        (errno.ENOSPC, StoreFull, Retry.NEVER),
    ],
)
def test_every_refusal_of_the_system_has_its_own_error(
    root: Path, number: int, expected: type[StoreError], retry: Retry
) -> None:
    calls = ScriptedCalls(fail_at=2, failure=lambda: OSError(number, os.strerror(number)))
    with pytest.raises(StoreError) as refusal:
        disarmed(root, calls).put("a", b"x")
    assert type(refusal.value) is expected
    assert refusal.value.retry is retry
    assert os.strerror(number) in str(refusal.value) or expected is StoreFull
    assert isinstance(refusal.value.__cause__, OSError)
    assert refusal.value.facts()["key"] == "a"


def test_a_put_that_the_kernel_breaks_off_leaves_nothing_behind(root: Path) -> None:
    store = PosixStore(root, create=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreFailed) as refusal:
            store.put("a", [b"x" * 60_000, b"y" * 60_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refusal.value.error_number == errno.EFBIG
    assert names_in(root) == ["tmp"]
    assert names_in(root / "tmp") == []


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("NOT PROVEN HERE: a really full file system needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow(reason="mounts a file system")
def test_a_really_full_file_system_loses_nothing_and_recovers(small_file_system: Path) -> None:
    store = PosixStore(small_file_system / "store", create=True)
    store.put("packs/00/kept", b"k" * 300_000)
    with pytest.raises(StoreFull):
        store.put("packs/01/large", [b"x" * 4096] * 300)
    assert names_in(small_file_system / "store" / "tmp") == []
    assert list(store.list("")) == [ObjectInfo("packs/00/kept", 300_000)]
    free_bytes = store.free_bytes()
    assert free_bytes is not None
    assert free_bytes > 500_000
    store.delete("packs/00/kept")
    store.put("packs/01/smaller", b"x" * 900_000)
    assert store.size("packs/01/smaller") == 900_000


_WRITER = """
import sys
from holdfast.storage import PosixStore
store = PosixStore(sys.argv[1])
print("ready", flush=True)
for n in range(100_000):
    store.put(f"packs/{n % 4:02x}/{n}", [bytes([n % 251]) * 100_000] * 20)
"""


@pytest.mark.slow(reason="starts a Python process and kills it")
def test_kill_9_in_the_middle_of_puts_leaves_whole_objects_only(root: Path) -> None:
    PosixStore(root, create=True)
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(root)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 20
        while len(list(PosixStore(root).list("packs/"))) < 5 and time.monotonic() < deadline:
            pass
        writer.send_signal(signal.SIGKILL)
    store = PosixStore(root)
    found = list(store.list(""))
    assert len(found) >= 5
    for info in found:
        n = int(info.key.rpartition("/")[2])
        expected = hashlib.sha256(bytes([n % 251]) * 2_000_000).digest()
        assert hashlib.sha256(store.get(info.key)).digest() == expected
    assert sorted(int(info.key.rpartition("/")[2]) for info in found) == list(range(len(found)))


def test_without_hard_links_and_exclusive_renames_nothing_is_stored(root: Path) -> None:
    class PoorCalls(PosixCalls):
        def link(self, source: Path, target: Path) -> None:
            raise OSError(errno.EOPNOTSUPP, "no links")

        def rename_exclusively(self, source: Path, target: Path) -> None:
            raise OSError(errno.EINVAL, "no flags")

    store = PosixStore(root, create=True, calls=PoorCalls())
    with pytest.raises(StoreUnsuitable):
        store.put("a", b"x")
    assert names_in(root / "tmp") == []
    assert list(store.list("")) == []


def test_a_link_that_nfs_repeats_is_no_clash(root: Path) -> None:
    class CallsThatRepeat(PosixCalls):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            super().link(source, target)

    store = PosixStore(root, create=True, calls=CallsThatRepeat())
    store.put("a", b"first")
    assert store.get("a") == b"first"
    with pytest.raises(ObjectExists):
        store.put("a", b"first")


def test_where_holes_are_unknown_nothing_is_punched(root: Path) -> None:
    class CallsWithoutHoles(PosixCalls):
        def punch(self, descriptor: int, *, offset_bytes: int, length_bytes: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "no holes")

    store = PosixStore(root, create=True, calls=CallsWithoutHoles())
    store.put("a", b"x" * 100)
    assert store.try_punch("a", [Extent(offset_bytes=0, length_bytes=100)]) is None
    assert store.get("a") == b"x" * 100


def test_a_punched_object_gives_its_space_back(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("a", os.urandom(1 << 20))
    before = (root / "a").stat().st_blocks
    if store.try_punch("a", [Extent(offset_bytes=0, length_bytes=1 << 19)]) is None:
        pytest.skip("NOT PROVEN HERE: this file system cannot punch holes")
    assert (root / "a").stat().st_blocks <= before - (1 << 19) // 512
    assert store.size("a") == 1 << 20


def test_an_unmounted_store_is_never_written_and_never_called_empty(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("packs/00/a", b"x")
    root.rename(root.with_name("elsewhere"))
    root.mkdir()  # what is left of a mount point
    for attempt in (
        lambda: store.put("packs/00/b", b"y"),
        lambda: store.get("packs/00/a"),
        lambda: store.size("packs/00/a"),
        lambda: store.delete("packs/00/a"),
        lambda: list(store.list("")),
        lambda: store.free_bytes(),
    ):
        with pytest.raises(StoreUnreachable, match="unmounted"):
            attempt()
    assert names_in(root) == []
    with pytest.raises(StoreEmpty):
        PosixStore(root)


def test_a_folder_that_vanishes_under_a_put_costs_one_retry(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("packs/00/a", b"x")
    store.delete("packs/00/a")
    (root / "packs/00").rmdir()
    with pytest.raises(StoreUnreachable) as failure:
        store.put("packs/00/b", b"y")
    assert failure.value.retry is Retry.LATER
    store.put("packs/00/b", b"y")
    assert store.get("packs/00/b") == b"y"


def test_opening_tells_missing_empty_and_not_a_folder_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing) as missing:
        PosixStore(tmp_path / "none")
    assert missing.value.exit_status is ExitStatus.NOT_FOUND
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreEmpty):
        PosixStore(tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"mine")
    for create in (False, True):
        with pytest.raises(StoreNotAFolder):
            PosixStore(tmp_path / "file", create=create)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_creating_makes_the_folder_but_never_its_parents(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing) as refusal:
        PosixStore(tmp_path / "mount" / "store", create=True)
    assert refusal.value.path == str(tmp_path / "mount")
    assert names_in(tmp_path) == []


def test_creating_twice_is_creating_once(root: Path) -> None:
    PosixStore(root, create=True).put("a", b"x")
    assert PosixStore(root, create=True).get("a") == b"x"


def test_opening_writes_nothing_and_a_copied_store_can_be_written(root: Path) -> None:
    PosixStore(root, create=True).put("a", b"x")
    (root / "tmp").rmdir()  # rsync and object copies leave empty folders out
    store = PosixStore(root)
    assert store.get("a") == b"x"
    assert store.sweep_temporaries() == 0
    assert names_in(root) == ["a"]
    store.put("b", b"y")
    assert names_in(root) == ["a", "b", "tmp"]


def test_nobody_else_can_read_what_is_stored(root: Path) -> None:
    before = os.umask(0)
    try:
        PosixStore(root, create=True).put("packs/3f/a", b"x")
    finally:
        os.umask(before)
    for folder in (root, root / "tmp", root / "packs", root / "packs/3f"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (root / "packs/3f/a").stat().st_mode & 0o777 == 0o600


def test_foreign_files_are_neither_listed_nor_touched(root: Path, tmp_path: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("packs/3f/a", b"x")
    (root / "lost+found").mkdir()
    (root / ".snapshot").mkdir()
    (root / "packs/3f/.nfs0001").write_bytes(b"")
    (root / "packs/notes (copy).txt").write_bytes(b"")
    (root / "tmp/put-other").write_bytes(b"unfinished")
    (root / "packs/elsewhere").symlink_to(tmp_path)
    (root / "packs/3f/link").symlink_to(root / "packs/3f/a")
    (root / "1/2/3/4/5/6/7/8").mkdir(parents=True)
    (root / "1/2/3/4/5/6/7/8/too-deep").write_bytes(b"")
    os.mkfifo(root / "packs/3f/fifo")
    assert [info.key for info in store.list("")] == ["packs/3f/a"]
    assert list(store.list("tm")) == list(store.list("tmp/")) == []
    with pytest.raises(StoreError):
        store.get("packs/3f/link")


def test_a_sweep_removes_what_the_dead_left_and_nothing_else(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("a", b"x")
    for name, days in [("put-dead", 2.0), ("put-live", 0.9), ("put-new", 0.0)]:
        (root / "tmp" / name).write_bytes(b"12345")
        age(root / "tmp" / name, by_s=days * 86_400)
    (root / "tmp/folder").mkdir()
    age(root / "tmp/folder", by_s=10 * 86_400)
    assert store.sweep_temporaries() == 5
    assert names_in(root / "tmp") == ["folder", "put-live", "put-new"]
    assert store.get("a") == b"x"


def test_a_second_name_of_a_published_object_can_be_swept(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("a", b"x")
    os.link(root / "a", root / "tmp/put-dead")  # a crash between giving the name and removing the temporary
    age(root / "a", by_s=2 * 86_400)
    store.sweep_temporaries()
    assert names_in(root / "tmp") == []
    assert store.get("a") == b"x"


def test_no_failure_leaks_a_descriptor(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("packs/a", b"x")

    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_descriptors()
    for attempt in (
        lambda: store.put("packs/a", b"y"),
        lambda: store.get("packs"),
        lambda: store.get_range("packs/a", offset_bytes=5, length_bytes=5),
        lambda: store.try_punch("packs/a", [Extent(offset_bytes=5, length_bytes=5)]),
    ):
        with pytest.raises(StoreError):
            attempt()
    assert next(store.list("")).key == "packs/a"
    assert open_descriptors() == before


@pytest.fixture
def folder_of_ordinary_user() -> Iterator[Path]:
    """Yield a folder of ours, as a user to whom things can be forbidden: root steps down for the time of the test."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, nobody, nobody)
        os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_what_is_forbidden_is_called_so(folder_of_ordinary_user: Path) -> None:
    root = folder_of_ordinary_user / "store"
    store = PosixStore(root, create=True)
    store.put("packs/a", b"x")
    (root / "packs").chmod(0o500)
    (root / "packs/a").chmod(0o000)
    with pytest.raises(StoreNotWritable):
        store.put("packs/b", b"y")
    with pytest.raises(StoreNotWritable):
        store.delete("packs/a")
    with pytest.raises(StoreNotReadable):
        store.get("packs/a")
    assert names_in(root / "tmp") == []
    (root / "packs").chmod(0o000)
    with pytest.raises(StoreNotReadable):
        list(store.list(""))
    (root / "packs").chmod(0o700)


def test_a_store_cannot_be_made_where_writing_is_forbidden(folder_of_ordinary_user: Path) -> None:
    folder_of_ordinary_user.chmod(0o500)
    with pytest.raises(StoreNotWritable) as refusal:
        PosixStore(folder_of_ordinary_user / "store", create=True)
    assert refusal.value.exit_status is ExitStatus.REFUSED


def test_a_store_that_may_only_be_read_can_be_opened_and_read(folder_of_ordinary_user: Path) -> None:
    root = folder_of_ordinary_user / "store"
    PosixStore(root, create=True).put("packs/a", b"x")
    for folder in (root / "tmp", root / "packs", root):
        folder.chmod(0o500)
    store = open_store(str(root))
    assert [info.key for info in store.list("")] == ["packs/a"]
    assert store.get("packs/a") == b"x"
    with pytest.raises(StoreNotWritable):
        store.put("b", b"y")
    for folder in (root, root / "tmp", root / "packs"):
        folder.chmod(0o700)


def test_a_refused_read_is_named_for_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(root, create=True)
    store.put("a", b"x")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("holdfast.storage.posix.os.open", refuse)
    with pytest.raises(StoreNotReadable):
        store.get("a")
    with pytest.raises(StoreNotWritable):
        store.try_punch("a", [])


def test_a_read_that_the_system_splits_comes_back_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.storage.posix._READ_BYTES_MAX", 3)
    store = PosixStore(root, create=True)
    store.put("a", b"0123456789")
    assert store.get("a") == b"0123456789"
    assert store.get_range("a", offset_bytes=1, length_bytes=8) == b"12345678"


def test_an_object_that_shrinks_while_it_is_read_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(root, create=True)
    store.put("a", b"0123456789")

    def lie(descriptor: int) -> os.stat_result:
        facts = list(os.stat(descriptor))
        facts[6] = 20
        return os.stat_result(tuple(facts))

    monkeypatch.setattr("holdfast.storage.posix.os.fstat", lie)
    attempts: list[Callable[[], bytes]] = [
        lambda: store.get("a"),
        lambda: store.get_range("a", offset_bytes=5, length_bytes=10),
    ]
    for attempt in attempts:
        with pytest.raises(RangeNotSatisfiable) as refusal:
            attempt()
        assert refusal.value.size_bytes == 10


def test_an_object_that_goes_while_it_is_listed_is_left_out(root: Path) -> None:
    store = PosixStore(root, create=True)
    for key in ("a/1", "b/1", "b/2", "c/1"):
        store.put(key, b"x")
    listing = store.list("")
    assert next(listing).key == "a/1"
    assert next(listing).key == "b/1"
    store.delete("b/2")
    store.delete("c/1")
    (root / "c").rmdir()
    assert list(listing) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_only_a_folder_that_cannot_be_synced_at_all_goes_unsynced(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = PosixStore(root, create=True)

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("holdfast.storage.posix_calls.os.fsync", sync)
    if number == errno.EIO:
        with pytest.raises(StoreFailed):
            store.put("a", b"x")
    else:
        store.put("a", b"x")
        assert store.get("a") == b"x"


def test_an_object_that_is_a_folder_is_missing(root: Path) -> None:
    store = PosixStore(root, create=True)
    store.put("a/b", b"x")
    with pytest.raises(ObjectMissing):
        store.size("a")
