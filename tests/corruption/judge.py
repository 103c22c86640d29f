"""What becomes of a repository in which an object is not what it was.

The ground is the frozen repository with every kind of object and frame. Invariant, whatever is done to an object: what
is restored is right; what is refused names the object, and needs it; and whatever is written, collected or verified
afterwards, no point that could be restored before is lost.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from holdfast.core import Cancellation, HoldfastError, ManualClock, NoProgress, SeededEntropy
from holdfast.model import RunId
from holdfast.repository import GcSettings, Repository, RestorePoint, ScrubBudget, Unlock, open_repository
from holdfast.repository.layout import pack_key
from holdfast.repository.records.moved import read_moves
from holdfast.storage import MemoryStore
from tests.golden.repository.full_dumps import full_store, full_unlock
from tests.golden.repository.make_full import IMAGES
from tests.support.repositories import TEST_SAFETY, disk_facts, point_facts, read_all, write_whole

__all__ = ["Verdict", "judge", "keys_of_all_kinds", "sound_objects"]

_LATER_S = 24 * 60 * 60
_OPENS_WITH = ("holdfast.json", "keys/", "epochs/", "features/")
"""What is needed to open the repository; where it cannot be opened, the error need not name it."""

_THOROUGH = GcSettings(is_thorough=True, poor_bytes_min=0, moved_live_part_max=0.9)


class Verdict(enum.Enum):
    """What damage to one object did."""

    HARMLESS = "harmless"
    NOT_OPENED = "not opened"
    NAMED = "named"
    """Points could not be restored, or not be read, and the object was named."""


@dataclass(frozen=True, slots=True)
class _Needs:
    """By the run of each point the objects that it needs."""

    objects: Mapping[str, frozenset[str]]


def sound_objects() -> dict[str, bytes]:
    """Return every object of the frozen repository."""
    return dict(full_store().snapshot())


def keys_of_all_kinds() -> list[str]:
    """Return the names of all objects that have something in them to be spoiled."""
    return sorted(key for key, content in sound_objects().items() if content)


@cache
def _unlock() -> Unlock:
    return full_unlock("machine")


@cache
def _needs() -> _Needs:
    repository = _open(sound_objects())[0]
    vault = repository._vault
    moves = read_moves(vault)
    records = {info.key for info in vault.names("moved/")}
    needed = {}
    for point in repository.points():
        named = {pack for pack, _ in point.packs()}
        packs = named | moves.holders_of(named)
        needed[str(point.facts.run)] = frozenset({point.key, *map(pack_key, packs), *records})
    return _Needs(needed)


def judge(objects: Mapping[str, bytes], key: str, *, is_worked_on: bool = False) -> Verdict:
    """Return what it did that ``key`` is not what it was; AssertionError when an invariant does not hold.

    With ``is_worked_on`` the repository is written to, collected and verified afterwards, and looked at once more.
    """
    try:
        repository, clock = _open(objects)
    except HoldfastError:
        assert key.startswith(_OPENS_WITH), f"{key} keeps the repository from being opened"
        return Verdict.NOT_OPENED
    restored = _restored(repository, key)
    if is_worked_on:
        clock.advance(_LATER_S)
        _work(repository)
        after = _restored(repository, key)
        lost = restored - after
        assert not lost, f"damage to {key} lost {lost} when the repository was worked on"
    return Verdict.HARMLESS if len(restored) == len(IMAGES) else Verdict.NAMED


def _open(objects: Mapping[str, bytes]) -> tuple[Repository, ManualClock]:
    clock, store = ManualClock(), MemoryStore()
    clock.advance(_LATER_S)
    store.restore(objects)
    repository = open_repository(
        store, unlock=_unlock(), clock=clock, entropy=SeededEntropy(9), workers=0, safety=TEST_SAFETY
    )
    return repository, clock


def _restored(repository: Repository, key: str) -> set[str]:
    """Return the runs whose points restore; all others must need the object, and name it."""
    restored = set()
    unread = [str(damage) for damage in repository.damaged_points()]
    for point in repository.points():
        run = str(point.facts.run)
        if run not in IMAGES:
            continue
        refusal = _refusal(repository, point)
        if not refusal:
            restored.add(run)
            continue
        assert f"object {key}" in refusal, f"damage to {key} is told as {refusal}"
        assert key in _needs().objects[run], f"{run} does not need {key}, but is not restored: {refusal}"
    for run in IMAGES.keys() - restored:
        assert key in _needs().objects[run], f"{run} does not need {key}, but is gone"
        assert not key.startswith("points/") or any(key in each for each in unread), f"nobody says that {key} is bad"
    return restored


def _refusal(repository: Repository, point: RestorePoint) -> str:
    """Return why a point cannot be restored; nothing when it can, and is what was backed up."""
    try:
        image = read_all(repository, point.disks[0].stored, Cancellation())
    except HoldfastError as damage:
        return str(damage)
    assert image == IMAGES[point.facts.run], "wrong data was restored as if it were right"
    return ""


def _work(repository: Repository) -> None:
    """Do everything that changes a repository; refusals are fine."""
    image = IMAGES["r-7"]

    def back_up() -> None:
        with repository.begin_run(RunId("r-after"), cancel=Cancellation()) as writer:
            stored = write_whole(writer, image)
            writer.publish(point_facts("r-after"), [(disk_facts(len(image)), stored)])

    def collect() -> None:
        repository.apply_gc(repository.plan_gc(settings=_THOROUGH), cancel=Cancellation(), settings=_THOROUGH)

    def scrub() -> None:
        repository.care.scrub(ScrubBudget(), progress=NoProgress(), cancel=Cancellation())

    def verify() -> None:
        repository.verify(None, progress=NoProgress(), cancel=Cancellation())

    for work in (collect, back_up, scrub, collect, verify):
        try:
            work()
        except HoldfastError:
            continue
