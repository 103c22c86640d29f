"""Many threads on one tree: readers, a writer, snapshots and merges at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core import KIB, SeededEntropy
from holdfast.lab.disks import DiskBusy, DiskStore

SIZE_BYTES = 512 * KIB


@pytest.mark.slow(reason="threads need time to meet")
def test_snapshots_stay_as_they_are_while_everything_around_them_moves(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    stop = threading.Event()

    def repeat(action: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                while not stop.is_set():
                    action()
            except BaseException as problem:
                problems.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with DiskStore(tmp_path, entropy=SeededEntropy(1)) as store:
        store.create("live", SIZE_BYTES)
        content = SeededEntropy(2).token_bytes(SIZE_BYTES)
        store.write("live", 0, content)
        store.snapshot("live", "fixed")
        place = iter(range(1 << 40))

        def write() -> None:
            store.write("live", next(place) * 4999 % (SIZE_BYTES - 3000), b"w" * 3000)

        def read() -> None:
            assert store.read("fixed", 1000, SIZE_BYTES - 2000) == content[1000:-1000]

        def read_live() -> None:
            assert len(store.read("live", 0, SIZE_BYTES)) == SIZE_BYTES

        threads = [repeat(write), repeat(read), repeat(read_live)]
        for number in range(60):
            store.snapshot("live", f"snap-{number}")
            if number >= 2:
                store.destroy(f"snap-{number - 2}")
            for name in store.coalescable():
                try:
                    store.coalesce(name)
                except DiskBusy:
                    continue  # the tree changed since it was asked
        stop.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert store.depth("live") < 10
