"""Random access to a stored disk: what file restore, NBD and FUSE will feel.

The cold figure opens the repository's disk anew each time and reads one byte somewhere: maps, trailers and the block
are all fetched, from a page cache that is warm. The others read from a disk that stays open.
"""

from __future__ import annotations

import random
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.contenders import Holdfast, Step, Workplace
from bench.images import Images
from bench.measure import run_measured
from holdfast.core import KIB, MIB, Cancellation, Secret, SystemClock, SystemEntropy
from holdfast.model import DiskSource
from holdfast.repository import IdentityUnlock, Repository, open_repository
from holdfast.storage import PosixStore

__all__ = ["access_table", "measure_access"]

_PAGE_BYTES = 4 * KIB
_HOT_BYTES = 16 * MIB
_COLD_OPENS = 40
_THREADS = 4
_FOR_S = 3.0


def measure_access(images: Images, *, folder: Path, say: Callable[[str], None]) -> str:
    """Store the base image and two increments, read the newest point at random; return a Markdown table."""
    place = Workplace(folder / "work")
    shutil.rmtree(place.folder, ignore_errors=True)
    place.state.mkdir(parents=True)
    ours = Holdfast()
    try:
        say("storing the disk and two increments")
        states = {
            Step.CREATE: images.base,
            Step.FIRST: images.base,
            Step.UPGRADE: images.upgrade.disk,
            Step.DATABASE: images.database.disk,
        }
        for step, disk in states.items():
            place.show(disk, at=place.disk)
            command = ours.command(step, place, images)
            run_measured(command, environment=ours.environment(place), log=place.folder / "log")
        return access_table(place.repository, place.state / "key", for_s=_FOR_S, say=say)
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)


def access_table(repository: Path, key: Path, *, for_s: float, say: Callable[[str], None]) -> str:
    """Return what reading the newest point's disk takes, each kind of access ``for_s`` long."""
    chance = random.Random(1)
    source = _open_disk(_open(repository, key))
    extents = list(source.data_extents())
    weights = [extent.length_bytes for extent in extents]

    def draw(count: int) -> list[int]:
        """Return offsets of pages that hold data."""
        chosen = chance.choices(extents, weights, k=count)
        return [
            each.offset_bytes + chance.randrange(max(1, each.length_bytes // _PAGE_BYTES)) * _PAGE_BYTES
            for each in chosen
        ]

    say("first bytes")
    firsts_ms = [_first_byte_ms(_open(repository, key), offset) for offset in draw(_COLD_OPENS)]
    lines = [
        "| access | figure |",
        "| --- | --- |",
        f"| first byte, disk not open before | {statistics.median(firsts_ms):.1f} ms, {max(firsts_ms):.1f} at most |",
    ]
    everywhere = draw(50_000)
    hot = [offset for offset in everywhere if offset - everywhere[0] in range(_HOT_BYTES)] or everywhere[:1]
    for name, offsets in ((f"{_HOT_BYTES // MIB} MiB of it", hot), ("all of it", everywhere)):
        for threads in (1, _THREADS):
            say(f"random pages of {name}, {threads} threads")
            rate = _reads_per_s(source, offsets, threads=threads, for_s=for_s)
            lines.append(f"| random 4 KiB of {name}, threads: {threads} | {rate:,.0f} reads/s |")
    say("forward")
    lines.append(
        f"| forward, 128 KiB at a time | {_forward_mb_per_s(_open_disk(_open(repository, key)), for_s):,.0f} MB/s |"
    )
    return "\n".join(lines)


def _open(repository: Path, key: Path) -> Repository:
    return open_repository(
        PosixStore(repository),
        unlock=IdentityUnlock(Secret(key.read_text())),
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )


def _open_disk(repository: Repository) -> DiskSource:
    return repository.source(repository.points()[-1].disks[0].stored, cancel=Cancellation())


def _first_byte_ms(repository: Repository, offset_bytes: int) -> float:
    stored = repository.points()[-1].disks[0].stored
    start = time.perf_counter()
    repository.source(stored, cancel=Cancellation()).read(offset_bytes, 1)
    return (time.perf_counter() - start) * 1000


def _reads_per_s(source: DiskSource, offsets: Sequence[int], *, threads: int, for_s: float) -> float:
    """Return reads in all threads together; the first pass over a small range is not counted."""
    for offset in offsets[:2000]:
        source.read(offset, _PAGE_BYTES)

    def read_for_a_while(number: int) -> int:
        end, count = time.perf_counter() + for_s, 0
        while time.perf_counter() < end:
            source.read(offsets[(number * 7919 + count) % len(offsets)], _PAGE_BYTES)
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(read_for_a_while, range(threads))) / for_s


def _forward_mb_per_s(source: DiskSource, for_s: float) -> float:
    start, done, step = time.perf_counter(), 0, 128 * KIB
    while time.perf_counter() < start + for_s and done + step <= source.size_bytes:
        source.read(done, step)
        done += step
    return done / 1e6 / (time.perf_counter() - start)
