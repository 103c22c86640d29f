"""The single things that a store is tried for: each returns what was seen, or says which promise was broken.

Invariant: every object is named below the probe's own prefix, so that whoever cleans up finds all of them.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from holdfast.core import MIB, Cancellation, Clock, Entropy, HoldfastError, limits
from holdfast.storage.errors import ObjectExists, ObjectLocked, ObjectMissing, RangeNotSatisfiable
from holdfast.storage.store import ObjectStore

__all__ = ["CHECKS", "Check", "Probe", "PromiseBroken", "Speed"]

_RACES = 3
_RACERS = 4
_SMALL_OPERATIONS = 10
_STREAMS = 4
_STREAM_BYTES = 16 * MIB


class PromiseBroken(Exception):
    """The store did something else than its contract says."""

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured."""

    latency_s_median: float
    """Of small puts, gets and deletes."""
    latency_s_worst: float
    up_bytes_per_s: float
    """With four objects at once, as the engine works."""
    down_bytes_per_s: float


class Probe:
    """The objects of one test, and how they are made."""

    def __init__(
        self, store: ObjectStore, *, prefix: str, clock: Clock, entropy: Entropy, cancel: Cancellation
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.cancel = cancel
        self._clock = clock
        # Noise that no store can compress or deduplicate, of a length that is no power of two.
        self._noise = entropy.token_bytes(1 * MIB + 17)

    def key(self, name: str) -> str:
        """Return the name of an object of this test."""
        return f"{self.prefix}{name}"

    def content(self, length_bytes: int) -> bytes:
        """Return that many bytes, the same every time."""
        repeats = -(-length_bytes // len(self._noise))
        return (self._noise * repeats)[:length_bytes]

    def lock(self, until: datetime) -> datetime | None:
        """Return until when an object is held, None where the store cannot; ``PromiseBroken`` when that is not true."""
        key = self.key("locked")
        wanted = until.replace(microsecond=0)
        self.store.put(key, b"locked", locked_until=wanted)
        held = self.store.try_lock(key, wanted - timedelta(minutes=1))
        if held is None:
            return None
        if held < wanted:
            raise PromiseBroken(f"a put with a lock until {wanted} was held until {held} only")
        try:
            self.store.delete(key)
        except ObjectLocked:
            pass
        else:
            raise PromiseBroken("an object that was locked could be deleted")
        if self.store.get(key) != b"locked":
            raise PromiseBroken("an object that was locked reads differently after an attempt to delete it")
        return held

    def measure_speed(self) -> Speed:
        """Return how fast small requests and large objects are."""
        taken_s = []
        for number in range(_SMALL_OPERATIONS):
            self.cancel.check()
            key = self.key(f"small-{number}")
            taken_s.append(self._timed(partial(self.store.put, key, b"small")))
            taken_s.append(self._timed(partial(self.store.get, key)))
            taken_s.append(self._timed(partial(self.store.delete, key)))
        content = self.content(_STREAM_BYTES)
        keys = [self.key(f"stream-{number}") for number in range(_STREAMS)]
        with ThreadPoolExecutor(_STREAMS) as pool:
            up_s = self._timed(lambda: list(pool.map(lambda key: self.store.put(key, content), keys)))
            self.cancel.check()
            down_s = self._timed(lambda: list(pool.map(self.store.get, keys)))
        return Speed(
            latency_s_median=statistics.median(taken_s),
            latency_s_worst=max(taken_s),
            up_bytes_per_s=_STREAMS * _STREAM_BYTES / up_s,
            down_bytes_per_s=_STREAMS * _STREAM_BYTES / down_s,
        )

    def _timed(self, action: Callable[[], object]) -> float:
        begin_s = self._clock.monotonic_s()
        action()
        # A clock that is stopped or coarse must not make the store infinitely fast.
        return max(self._clock.monotonic_s() - begin_s, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise."""

    title: str
    meaning_good: str
    meaning_bad: str
    run: Callable[[Probe], str]


def _create_only(probe: Probe) -> str:
    key = probe.key("once")
    probe.store.put(key, b"first")
    try:
        probe.store.put(key, b"second")
    except ObjectExists:
        pass
    else:
        raise PromiseBroken("a second put under the same name was accepted")
    if probe.store.get(key) != b"first":
        raise PromiseBroken("a second put was refused, and yet it replaced the first")
    return "a second put under the same name was refused"


def _create_only_at_once(probe: Probe) -> str:
    for race in range(_RACES):
        probe.cancel.check()
        key = probe.key(f"race-{race}")
        winners = _race(probe.store, key)
        if len(winners) != 1:
            raise PromiseBroken(f"of {_RACERS} writers of one name at once, {len(winners)} were told that they made it")
        if probe.store.get(key) != winners[0]:
            raise PromiseBroken("the writer that was told it made the object is not the one whose bytes are there")
    return f"of {_RACERS} writers of one name at once exactly one made it, {_RACES} times"


def _race(store: ObjectStore, key: str) -> Sequence[bytes]:
    """Return the contents of those writers that were told they had won."""
    start = threading.Barrier(_RACERS)

    def write(number: int) -> bytes | None:
        content = bytes([number]) * 4096
        start.wait()
        try:
            store.put(key, content)
        except ObjectExists:
            return None
        return content

    with ThreadPoolExecutor(_RACERS) as pool:
        return [each for each in pool.map(write, range(_RACERS)) if each is not None]


def _ranges(probe: Probe) -> str:
    key, content = probe.key("ranges"), probe.content(3 * MIB + 5)
    probe.store.put(key, content)
    for offset, length in [(0, 1), (1, 17), (MIB - 3, 7), (2 * MIB, MIB), (len(content) - 1, 1), (0, len(content))]:
        found = probe.store.get_range(key, offset_bytes=offset, length_bytes=length)
        if found != content[offset : offset + length]:
            raise PromiseBroken(f"the range {offset} to {offset + length} came back with {len(found)} other bytes")
    return "single bytes, pieces in the middle, the last byte and the whole came back exactly"


def _beyond_the_end(probe: Probe) -> str:
    key = probe.key("ends")
    probe.store.put(key, b"0123456789")
    for offset, length in [(5, 6), (10, 1), (0, 11), (10_000, 1)]:
        try:
            found = probe.store.get_range(key, offset_bytes=offset, length_bytes=length)
        except RangeNotSatisfiable:
            continue
        raise PromiseBroken(f"a range beyond the end of an object came back with {len(found)} bytes")
    return "a range that an object does not have is an error, never a short answer"


def _lengths(probe: Probe) -> str:
    for length in (0, 1, limits.PACK_BYTES_MAX):
        probe.cancel.check()
        key, content = probe.key(f"length-{length}"), probe.content(length)
        probe.store.put(key, content)
        if probe.store.size(key) != length or probe.store.get(key) != content:
            raise PromiseBroken(f"an object of {length} bytes did not come back as it was stored")
        probe.store.delete(key)
    return "objects of 0 bytes, 1 byte and 64 MiB came back as they were stored"


def _listing(probe: Probe) -> str:
    names = [probe.key(f"list-{number:02}") for number in range(12)]
    for name in reversed(names):
        probe.store.put(name, name.encode())
    found = list(probe.store.list(probe.key("list-")))
    if [each.key for each in found] != names:
        raise PromiseBroken(f"of {len(names)} objects just stored, a listing showed {len(found)}, or in another order")
    if any(each.length_bytes != len(each.key) for each in found):
        raise PromiseBroken("a listing told lengths that are not those of the objects")
    if [each.key for each in probe.store.list(probe.key("list-0"))] != names[:10]:
        raise PromiseBroken("a listing of some objects by the beginning of their names showed others")
    for name in names[::2]:
        probe.store.delete(name)
    if [each.key for each in probe.store.list(probe.key("list-"))] != names[1::2]:
        raise PromiseBroken("a listing still showed objects that were just deleted, or missed others")
    return "listings are complete, sorted, and show what was just stored and deleted"


def _deleting(probe: Probe) -> str:
    key = probe.key("deleted")
    probe.store.put(key, b"x")
    probe.store.delete(key)
    probe.store.delete(key)
    probe.store.delete(probe.key("never-was"))
    for ask in (probe.store.get, probe.store.size):
        try:
            ask(key)
        except ObjectMissing:
            continue
        raise PromiseBroken("an object could still be read after it was deleted")
    probe.store.put(key, b"again")
    if probe.store.get(key) != b"again":
        raise PromiseBroken("a name that was used again gave back its old object")
    return "deleting twice is fine, what is deleted is missing, and its name is free again"


def _missing(probe: Probe) -> str:
    for ask in (
        probe.store.get,
        probe.store.size,
        lambda key: probe.store.get_range(key, offset_bytes=0, length_bytes=1),
    ):
        try:
            ask(probe.key("never-was"))
        except ObjectMissing:
            continue
        except HoldfastError as failure:
            raise PromiseBroken(f"an object that never was is not told as missing, but: {failure}") from failure
        raise PromiseBroken("an object that never was could be read")
    return "what was never stored is told as missing"


CHECKS: Sequence[Check] = (
    Check(
        title="create only",
        meaning_good="Nothing that is stored is ever replaced.",
        meaning_bad="Two machines, or one that starts again, could overwrite restore points.",
        run=_create_only,
    ),
    Check(
        title="create only, at once",
        meaning_good="Several writers can work in one repository.",
        meaning_bad="Two machines that write at the same moment could overwrite each other's restore points.",
        run=_create_only_at_once,
    ),
    Check(
        title="lengths",
        meaning_good="Packs of full size and the smallest objects are kept whole.",
        meaning_bad="Restore points could be cut short.",
        run=_lengths,
    ),
    Check(
        title="ranges",
        meaning_good="A restore reads only what it needs.",
        meaning_bad="A restore would get wrong bytes; checksums would refuse them, and it would fail.",
        run=_ranges,
    ),
    Check(
        title="ranges beyond the end",
        meaning_good="A truncated object is noticed at once.",
        meaning_bad="Truncated objects are noticed late, by their checksums.",
        run=_beyond_the_end,
    ),
    Check(
        title="listing",
        meaning_good="Restore points are seen as soon as they are there; garbage collection sees everything.",
        meaning_bad="Restore points could be missing in lists, and garbage collection could take what is still needed.",
        run=_listing,
    ),
    Check(
        title="deleting",
        meaning_good="Retention and garbage collection work, also when they are interrupted.",
        meaning_bad="Space may not come back, or what was deleted may still be shown.",
        run=_deleting,
    ),
    Check(
        title="missing objects",
        meaning_good="Lost objects are told apart from a lost connection.",
        meaning_bad="A lost connection could be mistaken for lost data, or the other way round.",
        run=_missing,
    ),
)
