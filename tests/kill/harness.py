"""Kills workers at random instants and looks at what they leave.

Invariant: after each kill a fresh process opens the repository, every published point restores what its run backed up,
and after the last one, once the margins have passed, nothing is left but what points need.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from holdfast.core import Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.repository import OpenHolder, Repository, create_repository
from holdfast.repository.layout import PACKS_PREFIX, PackId, parse_pack_key
from holdfast.repository.records.moved import read_moves
from holdfast.storage import ObjectStore, StorePlace, open_store
from holdfast.storage.store import Parts
from holdfast.storage.wrapper import StoreWrapper
from tests.kill.worker import KILL_SAFETY, content_of, encode_place, open_place, reopen
from tests.sim.disks import Palette, read_content
from tests.support.repositories import key_ring

__all__ = ["KillReport", "kill_workers"]

_PROJECT = Path(__file__).parents[2]
_START_S_MAX = 60.0
_INSTANT_S_MAX = 1.2
_ROLES = ["write", "write", "write", "collect", "collect", "verify", "scrub"]
_PACK_BYTES = 120_000


class _ClockOfTomorrow(SystemClock):
    """A clock by which everybody who was killed today is long gone."""

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return super().now() + timedelta(days=1)


class _StoreOfTomorrow(StoreWrapper):
    """A store by which whatever is put now comes a day after all that was there."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._fresh: set[str] = set()

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        super().put(key, parts, locked_until=locked_until)
        self._fresh.add(key)

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        moment = super().stored_at(key)
        return moment + timedelta(days=1) if moment is not None and key in self._fresh else moment


@dataclass(frozen=True, slots=True)
class KillReport:
    """What happened."""

    kills: int
    points_seen: int
    """Published points that were restored and compared, over all looks."""


def kill_workers(place: StorePlace, *, kills: int, seed: int) -> KillReport:
    """Kill so many writers, and whoever works beside them. AssertionError when anything is lost."""
    chance = random.Random(seed)
    create_repository(
        open_store(place, create=True),
        holders=[OpenHolder()],
        clock=SystemClock(),
        entropy=SystemEntropy(),
        pack_bytes_max=_PACK_BYTES,
        safety=KILL_SAFETY,
    )
    text = encode_place(place)
    seen = 0
    for number in range(kills):
        roles = ["write", *(["write"] if chance.random() < 0.3 else []), *chance.sample(_ROLES, 1)]
        _run_and_kill(text, roles, seed=seed * 10_000 + number * 10, chance=chance)
        seen += _check(open_place(text))
    _check_nothing_is_left(open_place(text))
    return KillReport(kills=kills, points_seen=seen)


def _run_and_kill(place: str, roles: list[str], *, seed: int, chance: random.Random) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.kill.worker", place, role, str(seed + number)],
            cwd=_PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, role in enumerate(roles)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise AssertionError(f"a worker did not begin: {worker.communicate(timeout=_START_S_MAX)[1]}")
        SystemClock().sleep(chance.uniform(0, _INSTANT_S_MAX))
    finally:
        for worker in chance.sample(workers, len(workers)):
            worker.kill()
        ends = [(worker.communicate()[1], worker.returncode) for worker in workers]
    for told, status in ends:
        assert status == -signal.SIGKILL, f"a worker ended by itself with status {status}: {told}"


def _check(store: ObjectStore) -> int:
    """Restore every point and compare it; return how many there are."""
    repository, palette = reopen(store), Palette(key_ring(store))
    assert repository.damaged_points() == []
    points = repository.points()
    for point in points:
        found = read_content(repository, palette, point.disks[0].stored, Cancellation())
        assert found == content_of(point.facts.run), f"{point.id} is not what {point.facts.run} backed up"
    runs = [(point.facts.run, point.facts.vm.uuid) for point in points]
    assert len(set(runs)) == len(runs), "a run published twice"
    return len(points)


def _check_nothing_is_left(store: ObjectStore) -> None:
    """Collect when nobody can be thought alive any more, by whichever clock, and look."""
    repository = reopen(_StoreOfTomorrow(store), clock=_ClockOfTomorrow())
    for _ in range(3):
        repository.apply_gc(repository.plan_gc(), cancel=Cancellation())
    _check(store)
    report = repository.verify(None, progress=NoProgress(), cancel=Cancellation())
    assert report.is_sound, report.damage
    needed, there = _needed(repository), _packs(store)
    assert there == needed, f"nobody needs {there - needed}, and {needed - there} are gone"
    for prefix in ("leases/", "condemned/"):
        assert [info.key for info in store.list(prefix)] == []


def _packs(store: ObjectStore) -> set[PackId]:
    return {pack for info in store.list(PACKS_PREFIX) if (pack := parse_pack_key(info.key)) is not None}


def _needed(repository: Repository) -> set[PackId]:
    named = {pack for point in repository.points() for pack, _ in point.packs()}
    return read_moves(repository._vault).holders_of(named)
