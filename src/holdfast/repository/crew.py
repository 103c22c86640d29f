"""The worker threads of a run, shared by all its disks, and a bounded way to work ahead in order.

With no workers everything happens at once in the calling thread, in the order it is asked for: that is how the
simulation runs the very same code.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from holdfast.core import Cancellation, limits

__all__ = ["WORKERS_MAX", "BufferShelf", "Crew", "default_workers", "in_order", "read_small"]

WORKERS_MAX = 4
"""Python's own share is about 20 us per block, so more threads than this only wait for each other."""

_PUTTERS = 3
"""Packs stored at once, as far as memory allows: a remote store gives each request a part of the line only."""

_FETCHERS = 8
"""Requests at once for what the reference has: hides the latency of a remote store, where each takes 30 ms."""

_SMALL_READERS = 16
"""Small objects read at once: one takes 20 ms of a remote store, whatever its size."""

_WAIT_S = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Return how many threads to use on this machine."""
    return max(1, min(WORKERS_MAX, len(os.sched_getaffinity(0))))


class BufferShelf:
    """Buffers of one size that are used again and again; thread-safe.

    Fresh memory costs a page fault per 4 KiB each time it is touched first, which for a disk's worth of short-lived
    copies is a second per few GiB. As many buffers exist as were ever out at once.
    """

    def __init__(self, *, length_bytes: int) -> None:
        self._length_bytes = length_bytes
        self._free: list[bytearray] = []

    def take(self) -> bytearray:
        """Return a buffer; what is in it is left over from its last use."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._length_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer back that nobody looks into any more."""
        assert len(buffer) == self._length_bytes
        self._free.append(buffer)


class Crew:
    """Worker threads with a bound on what waits for them. A context manager."""

    def __init__(self, *, workers: int) -> None:
        self.workers = workers
        self.putter: Executor | None = None
        self._fetchers: ThreadPoolExecutor | None = None
        self.buffers = BufferShelf(length_bytes=limits.RUN_BYTES_MAX)
        self._pool: ThreadPoolExecutor | None = None
        self._room = threading.BoundedSemaphore(self.tasks_max)
        if workers > 0:
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="holdfast-block")
            self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="holdfast-fetch")
            self.putter = ThreadPoolExecutor(_PUTTERS, thread_name_prefix="holdfast-put")

    @property
    def tasks_max(self) -> int:
        """How many tasks wait or work at most: enough that no worker idles while the reader reads."""
        return 2 * self.workers + 2

    def submit(self, work: Callable[[], None], *, cancel: Cancellation) -> Future[None]:
        """Return the future of a task; waits while too many are under way."""
        if self._pool is None:
            return _done_now(work)
        while not self._room.acquire(timeout=_WAIT_S):
            cancel.check()
        try:
            future = self._pool.submit(work)
        except BaseException:
            self._room.release()
            raise
        # Also called for a task that was cancelled before it began.
        future.add_done_callback(lambda _: self._room.release())
        return future

    def fetch(self, work: Callable[[], None]) -> None:
        """Let a piece of reading be done, by a thread that nobody else waits for; at once when there are none."""
        if self._fetchers is None:
            work()
        else:
            self._fetchers.submit(work)

    def close(self) -> None:
        """Let the threads finish what they do and end."""
        for pool in (self._pool, self._fetchers, self.putter):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)


def read_small(read: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Yield what ``read`` returns for each item, in order, while others are being read; one by one with no workers."""
    yield from in_order(read, items, workers=_SMALL_READERS if workers else 0, ahead=_SMALL_READERS)


def _done_now(work: Callable[[], None]) -> Future[None]:
    future: Future[None] = Future()
    work()
    future.set_result(None)
    return future


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int) -> Iterator[Result]:
    """Yield ``work(item)`` for all items, in order, while ``workers`` threads work up to ``ahead`` items ahead.

    With no workers each result is made when it is asked for. Closing the iterator stops the threads.
    """
    if workers == 0:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="holdfast-read") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
