"""A folder store believes the keeper only where nothing speaks against it, and tells a lock from other refusals."""

from __future__ import annotations

import errno
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from holdfast.keeper import KEEPER_FOLDER
from holdfast.model import Extent
from holdfast.storage import ObjectLocked, ObjectMissing, PosixStore, StoreFull, StoreNotWritable, posix_locks
from holdfast.storage.posix_calls import PosixCalls
from tests.support.keeping import FakeFlags, Kept

PACK = "packs/3f/3f9a4c1d2e3f405162738495a6b7c8d9"


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path)
    made.store.put(PACK, bytes(8192))
    return made


def refuse_to_delete(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every removal fail, as the kernel does for a file that is immutable."""

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "unlink", unlink)


def requests(kept: Kept) -> list[Path]:
    return sorted((kept.folder / KEEPER_FOLDER / "requests").iterdir())


def test_without_a_keeper_nothing_can_be_locked_and_nothing_is_asked(kept: Kept) -> None:
    assert kept.store.try_lock(PACK, datetime.max.replace(tzinfo=kept.clock.now().tzinfo)) is None
    assert kept.store.locked_until(PACK) is None
    assert not (kept.folder / KEEPER_FOLDER).exists()


def test_a_lock_is_promised_when_it_is_asked_for_and_told_when_it_is_there(kept: Kept) -> None:
    kept.look()
    until = kept.clock.now() + timedelta(days=60, microseconds=5)
    with kept.keeper() as keeper:
        assert kept.store.try_lock(PACK, until) == until
        assert kept.store.locked_until(PACK) == kept.clock.now() + timedelta(days=30)
        keeper.look()
    held = kept.store.locked_until(PACK)
    assert held is not None
    assert until <= held < until + timedelta(seconds=1)


def test_an_object_that_is_not_there_cannot_be_locked(kept: Kept) -> None:
    kept.look()
    with pytest.raises(ObjectMissing):
        kept.store.try_lock("packs/00/00000000000000000000000000000000", kept.clock.now())
    with pytest.raises(ObjectMissing):
        kept.store.locked_until("packs/00/00000000000000000000000000000000")


def test_what_the_keeper_does_not_hold_is_not_asked_for(kept: Kept) -> None:
    kept.look()
    kept.store.put("leases/a/00000001", b"x", locked_until=kept.clock.now() + timedelta(days=5))
    assert kept.store.try_lock("leases/a/00000001", kept.clock.now() + timedelta(days=5)) is None
    assert requests(kept) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_refusal_is_told_as_a_lock_with_its_time(kept: Kept, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    kept.look()
    refuse_to_delete(monkeypatch, number)
    with pytest.raises(ObjectLocked) as told:
        kept.store.delete(PACK)
    assert told.value.until == kept.clock.now() + timedelta(days=30)
    with pytest.raises(ObjectLocked):
        kept.store.try_punch(PACK, [Extent(offset_bytes=0, length_bytes=4096)])


def test_through_a_mount_that_shows_no_flags_the_keepers_word_counts(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.look()
    mounted = PosixStore(kept.folder, flags=FakeFlags(works=False))
    assert mounted.locked_until(PACK) == kept.clock.now() + timedelta(days=30)
    refuse_to_delete(monkeypatch, errno.EPERM)
    with pytest.raises(ObjectLocked):
        mounted.delete(PACK)


def test_a_flag_that_somebody_set_by_hand_is_a_lock_without_a_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(kept.folder / PACK, os.O_RDONLY)
    kept.flags.change(descriptor, on=0x10)
    os.close(descriptor)
    refuse_to_delete(monkeypatch, errno.EPERM)
    with pytest.raises(ObjectLocked) as told:
        kept.store.delete(PACK)
    assert told.value.until is None


def test_another_refusal_is_not_called_a_lock(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_delete(monkeypatch, errno.EACCES)
    with pytest.raises(StoreNotWritable):
        kept.store.delete(PACK)


@pytest.mark.parametrize("text", [b"", b"rubbish", b"holdfast-keeper-held 1\nx"])
def test_a_word_or_list_that_cannot_be_read_locks_nothing(kept: Kept, text: bytes) -> None:
    kept.look()
    (kept.folder / KEEPER_FOLDER / "held" / "packs-3f").write_bytes(text)
    assert kept.store.locked_until(PACK) is None
    (kept.folder / KEEPER_FOLDER / "word.json").write_bytes(text)
    assert kept.store.try_lock(PACK, kept.clock.now()) is None


class FullCalls(PosixCalls):
    """A disk without room for a request."""

    def write(self, descriptor: int, views: object) -> None:
        raise OSError(errno.ENOSPC, "full")


def test_a_request_that_finds_no_room_is_an_error_and_leaves_no_object(kept: Kept) -> None:
    kept.look()
    full = PosixStore(kept.folder, calls=FullCalls(), flags=kept.flags)
    key = "packs/00/00000000000000000000000000000000"
    with pytest.raises(StoreFull):
        full.put(key, b"x", locked_until=kept.clock.now() + timedelta(days=60))
    assert [info.key for info in kept.store.list("packs/00/")] == []


def test_one_file_takes_many_requests_until_it_is_old_or_full(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.look()
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    until = kept.clock.now() + timedelta(days=40)
    for _ in range(3):
        kept.store.try_lock(PACK, until)
    assert len(requests(kept)) == 1
    now_s += 601
    kept.store.try_lock(PACK, until)
    assert len(requests(kept)) == 2
    monkeypatch.setattr(posix_locks, "_FILE_LINES_MAX", 1)
    kept.store.try_lock(PACK, until)
    assert len(requests(kept)) == 3
    assert sum(len(path.read_bytes().splitlines()) for path in requests(kept)) == 5
