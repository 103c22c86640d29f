"""Requests are counted once, for a month, by place; counting never fails what is counted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from holdfast.core import ManualClock
from holdfast.daemon import request_log
from holdfast.daemon.request_log import CountedStore, RequestLog
from holdfast.storage import CountedRequests, MemoryStore, Meter, Verb

DAY_S = 86400.0
PUTS = {Verb.PUT: Meter(requests=3, length_bytes=300), Verb.GET: Meter(), Verb.SIZE: Meter(requests=2)}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(tmp_path: Path, clock: ManualClock) -> RequestLog:
    return RequestLog(tmp_path / "requests", clock=clock)


def test_nothing_was_counted_in_the_beginning(log: RequestLog) -> None:
    assert log.counted("s3://a/b") == CountedRequests()


def test_commands_add_up_by_place(log: RequestLog, clock: ManualClock) -> None:
    log.count("s3://a/b", PUTS)
    clock.advance(2 * DAY_S)
    log.count("s3://a/b", {Verb.GET: Meter(requests=1, length_bytes=50), Verb.LIST: Meter(requests=4)})
    log.count("s3://a/other", PUTS)
    assert log.counted("s3://a/b") == CountedRequests(days=2.0, puts=3, gets=3, lists=4, put_bytes=300, get_bytes=50)


def test_what_is_older_than_a_month_no_longer_counts(log: RequestLog, clock: ManualClock) -> None:
    log.count("s3://a", PUTS)
    clock.advance(31 * DAY_S)
    assert log.counted("s3://a") == CountedRequests()
    log.count("s3://a", PUTS)
    clock.advance(DAY_S)
    assert log.counted("s3://a").puts == 3
    assert log.counted("s3://a").days == pytest.approx(1.0)


def test_a_store_is_counted_once_when_nobody_uses_it_any_more(log: RequestLog, clock: ManualClock) -> None:
    store = CountedStore(MemoryStore(), log, location="s3://a")
    store.put("a/b", b"12345")
    store.get("a/b")
    list(store.list(""))
    assert log.counted("s3://a") == CountedRequests()
    del store
    counted = log.counted("s3://a")
    assert (counted.puts, counted.gets, counted.lists, counted.put_bytes, counted.get_bytes) == (1, 1, 1, 5, 5)


def test_a_store_that_was_not_asked_leaves_no_line(log: RequestLog, tmp_path: Path) -> None:
    store = CountedStore(MemoryStore(), log, location="s3://a")
    del store
    assert not (tmp_path / "requests").exists()


def test_a_line_that_was_cut_off_is_passed_over(log: RequestLog, tmp_path: Path, clock: ManualClock) -> None:
    log.count("s3://a", PUTS)
    (file,) = (tmp_path / "requests").iterdir()
    whole = file.read_text()
    file.write_text(f'{whole}{whole[:20]}\n[]\n{{"at": 5}}\n\xff\n{whole}')
    assert log.counted("s3://a").puts == 6


def test_a_disk_that_refuses_fails_nothing(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "requests").write_bytes(b"a file is in the way")
    log = RequestLog(tmp_path / "requests", clock=clock)
    log.count("s3://a", PUTS)
    assert log.counted("s3://a") == CountedRequests()


def test_the_log_never_grows_beyond_its_bound(
    log: RequestLog, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_FILE_BYTES_MAX", 2000)
    for _ in range(200):
        log.count("s3://a", PUTS)
        clock.advance(DAY_S / 2)
        (file,) = (tmp_path / "requests").iterdir()
        assert file.stat().st_size <= 2000
    assert log.counted("s3://a").puts > 20


def test_many_threads_add_whole_lines(log: RequestLog) -> None:
    def count() -> None:
        for _ in range(50):
            log.count("s3://a", PUTS)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.counted("s3://a").puts == 600
