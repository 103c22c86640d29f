"""Filling packs: bounded memory, whatever many disks do at once, and never a frame lost."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pytest

from holdfast.core import MIB, Cancellation, Cancelled, SeededEntropy
from holdfast.repository.layout import SLOTS_MAX, Encoding, FrameKind, PackId, pack_key
from holdfast.repository.packs.entries import PackNumbers, pack_numbers_of, shares_of, slots_of
from holdfast.repository.packs.frame import Frame
from holdfast.repository.packs.pack_memory import SEGMENT_BYTES, PackMemory
from holdfast.repository.packs.pack_writer import DurablePack, PackDock, PackStream
from holdfast.repository.packs.trailer import TrailerNotes
from holdfast.storage import MemoryStore, StoreUnreachable
from holdfast.storage.store import Parts
from tests.support.repositories import World, key_ring


def frame(number: int, length: int = 60_000, *, kind: FrameKind = FrameKind.DATA) -> Frame:
    return Frame((number.to_bytes(32, "big"),), kind, Encoding.RAW, number.to_bytes(4, "big") * (length // 4))


class Dock:
    """A dock over a store in memory, with everything it told."""

    def __init__(
        self,
        *,
        segments: int = 6,
        bytes_max: int = 64 * MIB,
        putter: Executor | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        self.world = World()
        self.store = store or MemoryStore()
        self.numbers = PackNumbers()
        self.durable: list[DurablePack] = []
        self.cancel = Cancellation()
        self.memory = PackMemory(segments_max=segments)
        entropy = SeededEntropy(8)
        self.dock = PackDock(
            self.store,
            key_ring(self.world.store),
            memory=self.memory,
            numbers=self.numbers,
            notes=TrailerNotes(run="r"),
            next_pack=lambda: PackId(entropy.token_bytes(16)),
            on_durable=self.durable.append,
            putter=putter,
            bytes_max=bytes_max,
            cancel=self.cancel,
        )

    def ids_at(self, entries: list[int]) -> list[bytes]:
        """Return what the trailers say lies where the entries lead."""
        rows = {pack.number: pack.rows for pack in self.durable}
        array = np.array(entries, dtype=np.int64)
        return [
            rows[number][slot * 40 : slot * 40 + 32]
            for number, slot in zip(pack_numbers_of(array).tolist(), slots_of(array).tolist(), strict=True)
        ]


def test_frames_are_where_their_entries_say() -> None:
    dock = Dock()
    stream = dock.dock.open_stream()
    frames = [frame(number) for number in range(1, 200)]
    entries = stream.store(frames)
    stream.close()
    assert dock.ids_at(entries) == [each.ids[0] for each in frames]
    assert shares_of(np.array(entries)).tolist() == [60_016] * 199
    assert stream.stored_bytes == sum(info.length_bytes for info in dock.store.list(""))


def test_packs_keep_their_limits() -> None:
    dock = Dock(bytes_max=1 * MIB)
    stream = dock.dock.open_stream()
    stream.store([frame(number) for number in range(1, 100)])
    stream.close()
    sizes = [info.length_bytes for info in dock.store.list("")]
    assert len(sizes) == 6
    assert max(sizes) <= 1 * MIB


@pytest.mark.slow(reason="sixteen thousand frames")
def test_a_pack_has_no_more_slots_than_allowed() -> None:
    dock = Dock()
    stream = dock.dock.open_stream()
    stream.store([frame(number, 40) for number in range(1, SLOTS_MAX + 10)])
    stream.close()
    assert [len(pack.rows) // 40 for pack in dock.durable] == [SLOTS_MAX, 9]


def test_the_largest_frame_fits() -> None:
    dock = Dock(bytes_max=1 * MIB)
    stream = dock.dock.open_stream()
    entries = stream.store([frame(1, 2 * MIB, kind=FrameKind.MAP), frame(2)])
    stream.close()
    assert len(set(pack_numbers_of(np.array(entries)).tolist())) == 2


def test_frames_that_are_not_durable_yet_are_found_by_their_own_stream_only() -> None:
    dock = Dock()
    stream, other = dock.dock.open_stream(), dock.dock.open_stream()
    (entry,) = stream.store([frame(1)])
    assert stream.find([frame(1).ids[0], frame(2).ids[0]]) == [entry, None]
    assert other.find([frame(1).ids[0]]) == [None]
    stream.close()
    assert stream.find([frame(1).ids[0]]) == [None]
    other.abort()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.slow(reason="real threads wait for each other")
def test_many_disks_share_little_memory_and_all_come_to_an_end(threads: int) -> None:
    with ThreadPoolExecutor(threads) as putter:
        dock = Dock(segments=4, putter=putter)
        streams = [dock.dock.open_stream() for _ in range(6)]
        results: dict[int, list[int]] = {}

        def work(number: int) -> None:
            results[number] = []
            for part in range(8):
                first = number * 1000 + part * 40 + 1
                results[number] += streams[number].store([frame(first + each) for each in range(40)])
            streams[number].close()

        workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for number in range(6):
        expected = [frame(number * 1000 + each).ids[0] for each in range(1, 321)]
        assert dock.ids_at(results[number]) == expected
    assert dock.memory.segments_max * SEGMENT_BYTES == 16 * MIB


def test_one_disk_alone_goes_on_when_another_holds_memory_and_rests() -> None:
    dock = Dock(segments=2)
    resting, busy = dock.dock.open_stream(), dock.dock.open_stream()
    resting.store([frame(1)])
    busy.store([frame(number) for number in range(2, 200)])
    busy.close()
    resting.close()
    assert sum(len(pack.rows) // 40 for pack in dock.durable) == 199


class Failing(MemoryStore):
    """A store that takes nothing."""

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        raise StoreUnreachable(store="gone", key=key, reason="the cable")


@pytest.mark.parametrize("threaded", [False, True])
def test_what_goes_wrong_in_the_background_is_raised_by_close(threaded: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        dock = Dock(store=Failing(), putter=pool if threaded else None)
        stream = dock.dock.open_stream()
        stream.store([frame(1)])
        with pytest.raises(StoreUnreachable):
            stream.close()
        with pytest.raises(StoreUnreachable):
            stream.store([frame(2)])
        stream.abort()


def test_an_aborted_stream_gives_its_memory_back_and_stores_nothing() -> None:
    dock = Dock(segments=2)
    stream = dock.dock.open_stream()
    stream.store([frame(number) for number in range(1, 60)])
    stream.abort()
    stream.abort()
    assert list(dock.store.list("")) == []
    other = dock.dock.open_stream()
    other.store([frame(number) for number in range(1, 60)])
    other.close()
    assert len(dock.durable) >= 1


def test_a_cancelled_stream_stops() -> None:
    dock = Dock()
    stream: PackStream = dock.dock.open_stream()
    dock.cancel.cancel()
    with pytest.raises(Cancelled):
        stream.store([frame(1)])


def test_an_empty_stream_stores_nothing() -> None:
    dock = Dock()
    stream = dock.dock.open_stream()
    assert stream.store([]) == []
    stream.close()
    assert dock.durable == []
    assert pack_key(PackId(bytes(16))) not in dock.store.snapshot()
