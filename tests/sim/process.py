"""A process of the simulation: its stores, its clock, and what befalls it.

Every operation on any of its stores is a turn. At operations that a plan names, the process dies or the operation
fails: before it took effect, after, or while it is under way, so that it takes effect later. Invariant: a dead process
reaches nothing any more, whichever of its stores it was using when it died.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from holdfast.core import Cancellation, HoldfastError, ManualClock
from holdfast.model import Extent
from holdfast.storage import ObjectInfo, ObjectStore, Parts, SimulatedCrash, StoreUnreachable
from holdfast.storage.store import as_views
from tests.sim.turns import Stage

__all__ = ["Effect", "Process", "ProcessClock", "ProcessStore"]

_T = TypeVar("_T")


class Effect(enum.Enum):
    """What happens at the chosen operation. Only puts and deletes can be under way; others then have no effect."""

    CRASH_BEFORE = "crash-before"
    CRASH_AFTER = "crash-after"
    CRASH_UNDER_WAY = "crash-under-way"
    FAIL_BEFORE = "fail-before"
    FAIL_AFTER = "fail-after"
    FAIL_UNDER_WAY = "fail-under-way"

    @property
    def is_crash(self) -> bool:
        """Whether the process dies of it."""
        return self in (Effect.CRASH_BEFORE, Effect.CRASH_AFTER, Effect.CRASH_UNDER_WAY)

    @property
    def is_done(self) -> bool:
        """Whether the operation takes effect at once."""
        return self in (Effect.CRASH_AFTER, Effect.FAIL_AFTER)

    @property
    def is_under_way(self) -> bool:
        """Whether the operation takes effect later."""
        return self in (Effect.CRASH_UNDER_WAY, Effect.FAIL_UNDER_WAY)


class Process:
    """What all stores of one process share: how far it came, and its end."""

    def __init__(self, stage: Stage, plan: Mapping[int, Effect]) -> None:
        self.operations = 0
        self.is_dead = False
        self._stage = stage
        self._plan = plan

    def perform(self, action: Callable[[], _T], *, key: str, changes: bool = False, is_whole: bool = False) -> _T:
        """Return what an operation returns, unless the plan says otherwise. ``is_whole``: it may take effect late."""
        if self.is_dead:
            raise SimulatedCrash("this process has crashed before")
        self._stage.give_turn(changes=changes)
        self.operations += 1
        effect = self._plan.get(self.operations)
        if effect is None:
            return action()
        if effect.is_done:
            try:
                action()
            except HoldfastError:
                if not effect.is_crash:
                    raise
        elif effect.is_under_way and is_whole and self._stage.is_running:
            self._stage.leave_under_way(lambda: _try(action))
        self._strike(effect, key)
        raise AssertionError("a strike does not return")

    def _strike(self, effect: Effect, key: str) -> None:
        if effect.is_crash:
            self.is_dead = True
            raise SimulatedCrash(f"{effect.value} at operation {self.operations}: {key}")
        raise StoreUnreachable(store="the simulation", key=key, reason=f"{effect.value} at {self.operations}")


class ProcessStore:
    """A store as a process sees it. ``on_delete`` sees each key before it goes, ``on_punch`` each hole."""

    def __init__(
        self,
        inner: ObjectStore,
        process: Process,
        *,
        on_delete: Callable[[str], None],
        on_punch: Callable[[str, Sequence[Extent]], None],
    ) -> None:
        self._inner = inner
        self._process = process
        self._on_delete = on_delete
        self._on_punch = on_punch

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        # What is under way must not change when its sender uses the memory again.
        content = b"".join(as_views(parts))
        self._process.perform(
            lambda: self._inner.put(key, content, locked_until=locked_until), key=key, changes=True, is_whole=True
        )

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        return self._process.perform(lambda: self._inner.get(key), key=key)

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        return self._process.perform(
            lambda: self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes), key=key
        )

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._process.perform(lambda: self._inner.size(key), key=key)

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._process.perform(lambda: self._inner.stored_at(key), key=key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``. It is one operation."""
        return iter(self._process.perform(lambda: list(self._inner.list(prefix)), key=prefix))

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""

        def delete() -> None:
            self._on_delete(key)
            self._inner.delete(key)

        self._process.perform(delete, key=key, changes=True, is_whole=True)

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""

        def punch() -> int | None:
            self._on_punch(key, extents)
            return self._inner.try_punch(key, extents)

        return self._process.perform(punch, key=key, changes=True)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        return self._process.perform(lambda: self._inner.try_lock(key, until), key=key, changes=True)

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        return self._process.perform(lambda: self._inner.locked_until(key), key=key)

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``."""
        return self._inner.free_bytes()

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return self._inner.describe()


class ProcessClock:
    """The clock of one machine: wrong by a little from the start, and wrong by something else after it has jumped."""

    def __init__(
        self, true: ManualClock, stage: Stage, *, skew_s: float, jump_at_s: float, skew_after_s: float
    ) -> None:
        self._true = true
        self._stage = stage
        self._jump_at_s = true.monotonic_s() + jump_at_s
        self._skew = timedelta(seconds=skew_s)
        self._skew_after = timedelta(seconds=skew_after_s)

    def now(self) -> datetime:
        """See ``Clock.now``."""
        has_jumped = self._true.monotonic_s() >= self._jump_at_s
        return self._true.now() + (self._skew_after if has_jumped else self._skew)

    def monotonic_s(self) -> float:
        """See ``Clock.monotonic_s``."""
        return self._true.monotonic_s()

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        """Let the others run; how much time passes is for the stage to say."""
        if cancel is not None:
            cancel.check()
        self._stage.give_turn()


def _try(action: Callable[[], object]) -> None:
    """Do what nobody waits for; that it fails nobody hears."""
    try:
        action()
    except HoldfastError:
        return
