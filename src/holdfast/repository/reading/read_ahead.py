"""Reading a whole disk in order: windows of blocks are gathered ahead by worker threads, each in pack order.

A window is the next so many stored blocks of the disk, wherever on the disk and in whichever packs they lie. The blocks
of an increment are scattered over the packs of many runs; within a window each of those packs is read in few large
ranges, several at a time, so that a slow store is kept busy. Memory: ``_WINDOWS_MAX`` windows and ``_READERS``
requests, whatever the size of the disk.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from holdfast.core import BLOCK_BYTES, MIB, Cancellation
from holdfast.repository.damage import Damage
from holdfast.repository.packs.read_plan import Numbers
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.gather import Gatherer, Lose, WantedSlots

__all__ = ["WINDOW_BLOCKS", "Window", "WindowPlan", "read_windows"]

WINDOW_BLOCKS = 32 * MIB // BLOCK_BYTES
"""Large enough that a pack with one block in fifty there is still read by more than single blocks."""

_WINDOWS_MAX = 3
"""One that is consumed, two that are gathered: 96 MiB."""

_READERS = 8
"""Requests under way at once. Hides 40 ms of latency behind transfers of 4 MiB at 800 MB/s; 32 MiB."""

_WAIT_S = 0.5
"""How soon a wait notices that it was cancelled."""


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """What a window holds: the disk's blocks in ascending order, and where each of them is stored.

    Block ``blocks[i]`` goes to offset ``i * BLOCK_BYTES`` of the window's buffer.
    """

    blocks: Numbers
    wanted: WantedSlots


@dataclass(slots=True)
class Window:
    """A window that was read. ``data`` is used again when the next one is asked for."""

    plan: WindowPlan
    data: memoryview
    lost: dict[int, Damage] = field(default_factory=dict)
    """By index in the window: the blocks that cannot be read, and why. Always empty where damage is an error."""


class _UnderWay:
    """A window that is being gathered."""

    def __init__(self, gatherer: Gatherer, plan: WindowPlan, buffer: mmap.mmap | bytearray, *, tolerant: bool) -> None:
        self.buffer = buffer
        self.window = Window(plan, memoryview(buffer))
        lose = _noting_in(self.window) if tolerant else None
        self.done = gatherer.gather(self.window.data, plan.wanted, lose=lose)


def read_windows(
    blocks: BlockReader, plans: Iterable[WindowPlan], *, workers: int, tolerant: bool, cancel: Cancellation
) -> Iterator[Window]:
    """Yield the windows in order, read ahead. Damage is raised, or, when ``tolerant``, told in ``Window.lost``.

    With no workers each window is read when it is asked for. Closing the iterator stops the threads.
    """
    if workers == 0:
        yield from _read_here(blocks.gatherer(), plans, tolerant=tolerant, cancel=cancel)
        return
    waiting: deque[_UnderWay] = deque()
    free: list[mmap.mmap | bytearray] = []
    with ThreadPoolExecutor(_READERS, thread_name_prefix="holdfast-read") as pool:
        gatherer = blocks.gatherer(submit=pool.submit, decoding=threading.BoundedSemaphore(workers))
        try:
            for plan in plans:
                waiting.append(_UnderWay(gatherer, plan, free.pop() if free else _new_buffer(), tolerant=tolerant))
                if len(waiting) == _WINDOWS_MAX:
                    yield _wait(waiting[0], cancel)
                    free.append(waiting.popleft().buffer)
            while waiting:
                yield _wait(waiting[0], cancel)
                waiting.popleft()
        finally:
            # What is under way ends by itself; what waits for a thread is dropped, and nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)


def _read_here(
    gatherer: Gatherer, plans: Iterable[WindowPlan], *, tolerant: bool, cancel: Cancellation
) -> Iterator[Window]:
    buffer = bytearray()
    for plan in plans:
        if len(buffer) < len(plan.blocks) * BLOCK_BYTES:
            buffer = bytearray(len(plan.blocks) * BLOCK_BYTES)
        yield _wait(_UnderWay(gatherer, plan, buffer, tolerant=tolerant), cancel)


def _wait(under_way: _UnderWay, cancel: Cancellation) -> Window:
    """Return the window when it is complete; raise what kept it from being."""
    cancel.check()
    while not wait([under_way.done], timeout=_WAIT_S).done:
        cancel.check()
    under_way.done.result()
    return under_way.window


def _noting_in(window: Window) -> Lose:
    def note(offset: int, damage: Damage) -> None:
        window.lost[offset // BLOCK_BYTES] = damage

    return note


def _new_buffer() -> mmap.mmap:
    """Return memory for one window, beginning at a page, in large pages where there are some.

    Only what is used of it is ever taken from the system. Whoever writes past the page cache needs whole pages.
    """
    buffer = mmap.mmap(-1, WINDOW_BLOCKS * BLOCK_BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel without large pages refuses; small ones do as well.
        with contextlib.suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer
