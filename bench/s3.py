"""The engine on an S3 service beside the service's own ceiling, and how many requests it makes for each TB.

The ceiling is what bare puts and gets of the same sizes reach, as many at once as the engine makes. The disk is
incompressible and without repetition, so that every byte travels. Invariant: what was restored is compared with what
was stored.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.s3_servers import S3Service, find_radosgw, running_radosgw, s3_place

from bench.ours import point_of_run
from holdfast.core import BLOCK_BYTES, MIB, Cancellation, NoProgress, SeededEntropy, SystemClock, SystemEntropy
from holdfast.model import Coverage, DataRun, new_run_id
from holdfast.repository import OpenHolder, Repository, RestorePoint, StoredDisk, create_repository
from holdfast.storage import Meter, MeteredStore, ObjectStore, Verb, open_store

__all__ = ["NO_SERVICE", "Figure", "measure_s3", "s3_table"]

NO_SERVICE = "radosgw is not installed: apt install radosgw ceph-mon ceph-osd ceph-common"

_PACK_BYTES = 64 * MIB
_AT_ONCE = 4
_READ_BYTES = 8 * MIB
_TB = 10**12
_SHOWN = (Verb.PUT, Verb.GET, Verb.SIZE, Verb.LIST, Verb.DELETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One step: how much travelled or was covered, how long it took, what was asked of the service."""

    step: str
    length_bytes: int
    wall_s: float
    cpu_s: float
    requests: Mapping[Verb, int]

    @property
    def mb_per_s(self) -> float:
        """MB (10^6 bytes) each second."""
        return self.length_bytes / 1e6 / self.wall_s


def measure_s3(*, disk_bytes: int, rounds: int, say: Callable[[str], None]) -> str:
    """Return the report; everything runs on this machine, the service in memory."""
    if find_radosgw() is None:
        return NO_SERVICE
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="holdfast-bench-s3-") as folder, running_radosgw(Path(folder)) as service:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            figures += _round(service, disk_bytes, seed=number)
    return s3_table(figures, disk_bytes=disk_bytes)


def _round(service: S3Service, disk_bytes: int, *, seed: int) -> Iterator[Figure]:
    """Yield the figures of one round; what it stored is removed, because the service lives in memory."""
    image = _image(disk_bytes, seed=seed)
    raw = MeteredStore(open_store(s3_place(service)))
    yield from _ceiling(raw, image)
    _empty(raw)
    store = MeteredStore(open_store(s3_place(service)))
    yield from _engine(store, image, seed=seed)
    _empty(store)


def _ceiling(store: MeteredStore, image: memoryview) -> Iterator[Figure]:
    pieces = [image[start : start + _PACK_BYTES] for start in range(0, len(image), _PACK_BYTES)]
    keys = [f"raw/{number}" for number in range(len(pieces))]
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        with _measured("bare puts of 64 MiB", store, len(image)) as figures:
            list(workers.map(store.put, keys, pieces))
        yield from figures
        with _measured("bare gets of 64 MiB", store, len(image)) as figures:
            assert sum(len(content) for content in workers.map(store.get, keys)) == len(image)
        yield from figures
        ranges = [(key, start) for key in keys for start in range(0, _PACK_BYTES, _READ_BYTES)]
        with _measured("bare ranges of 8 MiB", store, len(image)) as figures:
            list(
                workers.map(
                    lambda each: store.get_range(each[0], offset_bytes=each[1], length_bytes=_READ_BYTES), ranges
                )
            )
        yield from figures


def _engine(store: MeteredStore, image: memoryview, *, seed: int) -> Iterator[Figure]:
    repository = create_repository(store, holders=[OpenHolder()], clock=SystemClock(), entropy=SystemEntropy())
    with _measured("first backup", store, len(image)) as figures:
        first = _back_up(repository, image, blocks=None, reference=None, points=[])
    yield from figures
    changed = bytearray(image)
    blocks = list(range(0, len(image) // BLOCK_BYTES, 200))
    for block in blocks:
        changed[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = SeededEntropy(seed + block).token_bytes(BLOCK_BYTES)
    with _measured("increment, 0.5 % scattered", store, len(blocks) * BLOCK_BYTES) as figures:
        reference = first.disks[0].stored
        second = _back_up(repository, memoryview(changed), blocks=blocks, reference=reference, points=[first])
    yield from figures
    with _measured("restore", store, len(image)) as figures:
        for run in repository.source(second.disks[0].stored, cancel=Cancellation()).runs():
            assert changed[run.offset_bytes : run.offset_bytes + run.length_bytes] == run.data
    yield from figures
    with _measured("verify", store, len(image) + len(blocks) * BLOCK_BYTES) as figures:
        assert repository.verify(None, progress=NoProgress(), cancel=Cancellation()).is_sound
    yield from figures
    repository.delete_point(second.id)
    with _measured("garbage collection", store, len(blocks) * BLOCK_BYTES) as figures:
        repository.apply_gc(repository.plan_gc(), cancel=Cancellation())
    yield from figures


def _back_up(
    repository: Repository,
    image: memoryview,
    *,
    blocks: list[int] | None,
    reference: StoredDisk | None,
    points: list[RestorePoint],
) -> RestorePoint:
    run_id = new_run_id(clock=SystemClock(), entropy=SystemEntropy())
    coverage = Coverage.WHOLE if blocks is None else Coverage.CHANGES
    with repository.begin_run(run_id, cancel=Cancellation()) as run:
        disk = run.open_disk(len(image), coverage=coverage, reference=reference)
        if blocks is None:
            for start in range(0, len(image), 2 * MIB):
                disk.write(DataRun(start, image[start : start + 2 * MIB]))
        for block in blocks or ():
            disk.write(DataRun(block * BLOCK_BYTES, image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]))
        return run.publish(*point_of_run(run_id, points, size_bytes=len(image), stored=disk.finish()))


@contextmanager
def _measured(step: str, store: MeteredStore, length_bytes: int) -> Iterator[list[Figure]]:
    """Give a list that holds the block's figure at its end."""
    figures: list[Figure] = []
    before, wall_s, cpu_s = store.meters(), time.perf_counter(), time.process_time()
    yield figures
    wall_s, cpu_s, after = time.perf_counter() - wall_s, time.process_time() - cpu_s, store.meters()
    requests = {verb: _requests(after[verb]) - _requests(before[verb]) for verb in Verb}
    figures.append(Figure(step=step, length_bytes=length_bytes, wall_s=wall_s, cpu_s=cpu_s, requests=requests))


def _requests(meter: Meter) -> int:
    return meter.requests


def _image(disk_bytes: int, *, seed: int) -> memoryview:
    """Return a disk that no compressor shrinks and in which nothing repeats."""
    entropy = SeededEntropy(1000 + seed)
    image = bytearray(disk_bytes)
    for start in range(0, disk_bytes, MIB):
        image[start : start + MIB] = entropy.token_bytes(MIB)
    return memoryview(image)


def _empty(store: ObjectStore) -> None:
    for each in list(store.list("")):
        store.delete(each.key)


def s3_table(figures: list[Figure], *, disk_bytes: int) -> str:
    """Return the medians as text, and what they mean for a TB."""
    mib = disk_bytes // MIB
    columns = "".join(f"{name:>9}" for name in ("MB/s", "CPU/GiB", *(verb.value for verb in _SHOWN)))
    lines = [
        f"Ceph radosgw in memory on this machine, a disk of {mib} MiB that no compressor shrinks, medians.",
        "",
        f"{'':28}{columns}  put, get, size for 1 TB",
    ]
    for step in dict.fromkeys(each.step for each in figures):
        same = [each for each in figures if each.step == step]
        length_bytes = same[0].length_bytes
        counts = {verb: statistics.median(each.requests[verb] for each in same) for verb in _SHOWN}
        cpu_s = statistics.median(each.cpu_s for each in same) / length_bytes * (1 << 30)
        speed = statistics.median(each.mb_per_s for each in same)
        line = f"{step:28}{speed:>9.0f}{cpu_s:>9.2f}" + "".join(f"{count:>9.0f}" for count in counts.values())
        if length_bytes >= disk_bytes:
            # Listings and deletions belong to a run, whatever its size.
            growing = sum(counts[verb] for verb in (Verb.PUT, Verb.GET, Verb.SIZE))
            line += f"{growing / length_bytes * _TB:>25,.0f}"
        lines.append(line)
    return "\n".join(lines)
