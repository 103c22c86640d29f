"""After somebody with the keys of a bucket has deleted or replaced objects: what the bucket kept is brought back.

Where versions are kept, Holdfast reads past what was put on top, so nothing here is needed to restore. It makes the
bucket plain again: for other tools, for a store opened without versions, and for the speed of reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from holdfast.core import Cancellation, ExitStatus, HoldfastError, limits
from holdfast.service.workspace import Workspace
from holdfast.storage import CoveredObject, KeepsVersions, ObjectLocked, find_versions

__all__ = ["NoVersionsKept", "UncoverPlan", "Uncovered", "plan_uncovering", "uncover_objects"]

_EXAMPLES_MAX = 5
"""Enough to recognise what was hit; the numbers say how much."""
_BATCH = 1000
"""Objects handed to the workers at once: a whole bucket may be covered, and is never held in memory."""


class NoVersionsKept(HoldfastError):
    """The repository is not in a place that keeps what others delete."""

    code = "repository.no-versions-kept"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed."
    advice = "Only a bucket with versions keeps them, when the repository was connected with --object-lock."

    def __init__(self, *, name: str) -> None:
        super().__init__(f"repository {name!r} is in a place where what is deleted is gone")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoverPlan:
    """What was found on top of objects."""

    hidden: int
    """Objects below a delete marker."""
    replaced: int
    """Objects below another version."""
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """What was done about it."""

    uncovered: int
    locked: int
    """Objects on which something stays that somebody has locked; Holdfast reads past it."""


def plan_uncovering(workspace: Workspace, name: str, *, cancel: Cancellation) -> UncoverPlan:
    """Return how many objects of a repository's place are hidden or replaced. ``NoVersionsKept``."""
    hidden = replaced = 0
    examples: list[str] = []
    for each in _versions_of(workspace, name, cancel).covered():
        cancel.check()
        hidden += each.is_hidden
        replaced += not each.is_hidden
        if len(examples) < _EXAMPLES_MAX:
            examples.append(each.key)
    return UncoverPlan(hidden=hidden, replaced=replaced, examples=tuple(examples))


def uncover_objects(workspace: Workspace, name: str, *, cancel: Cancellation) -> Uncovered:
    """Remove what lies on top of every object of a repository's place, some at a time. Safe to call twice."""
    versions = _versions_of(workspace, name, cancel)
    uncovered = locked = 0

    def uncover(each: CoveredObject) -> bool:
        cancel.check()
        try:
            versions.uncover(each)
        except ObjectLocked:
            return False
        return True

    with ThreadPoolExecutor(limits.STORE_DELETES_AT_ONCE_MAX, thread_name_prefix="uncover") as workers:
        for batch in _batches(versions.covered()):
            done = list(workers.map(uncover, batch))
            uncovered += sum(done)
            locked += len(done) - sum(done)
    return Uncovered(uncovered=uncovered, locked=locked)


def _versions_of(workspace: Workspace, name: str, cancel: Cancellation) -> KeepsVersions:
    store = workspace.open_store(workspace.registry.repository(name).place, False, cancel)
    found = find_versions(store)
    if found is None:
        raise NoVersionsKept(name=name)
    return found


def _batches(objects: Iterable[CoveredObject]) -> Iterator[list[CoveredObject]]:
    """Yield lists of bounded length: a whole bucket may be covered."""
    source = iter(objects)
    while batch := list(islice(source, _BATCH)):
        yield batch
