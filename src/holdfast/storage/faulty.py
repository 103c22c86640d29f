"""Faults on demand: a store that fails, lies or dies at exactly the operations that a plan names.

For tests and simulations: the same plan over the same operations does the same thing, always. A crash is a
``BaseException`` that no handler for errors catches, and after it the store is dead for this owner, as a killed process
would be: not even clean-up code reaches the objects. A new ``FaultyStore`` around the same inner store is the restart.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from holdfast.core import HoldfastError
from holdfast.model import Extent
from holdfast.storage.errors import StoreUnreachable
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper, Verb

__all__ = ["Fault", "FaultEffect", "FaultyStore", "SimulatedCrash"]

_T = TypeVar("_T")


class SimulatedCrash(BaseException):
    """The process has died at this point, as far as the code under test can tell."""


class FaultEffect(enum.Enum):
    """What happens at the chosen operation."""

    FAIL_BEFORE = "fail-before"
    """``StoreUnreachable``, and nothing was done."""
    FAIL_AFTER = "fail-after"
    """``StoreUnreachable``, although it was done: the answer got lost."""
    CRASH_BEFORE = "crash-before"
    """``SimulatedCrash``, and nothing was done."""
    CRASH_AFTER = "crash-after"
    """``SimulatedCrash`` right after it was done."""
    FLIP = "flip"
    """One bit of what a get returns is wrong. Other verbs are unharmed."""
    TRUNCATE = "truncate"
    """A get returns only the first half. Other verbs are unharmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a plan: at the ``at``-th operation of this owner (from 1), or the ``at``-th of one verb."""

    at: int
    effect: FaultEffect
    verb: Verb | None = None

    def __post_init__(self) -> None:
        assert self.at >= 1


class FaultyStore(StoreWrapper):
    """A store as one process sees it, with the faults of a plan. ``free_bytes`` and ``describe`` never fail."""

    def __init__(self, inner: ObjectStore, plan: Sequence[Fault] = ()) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._faults = {(fault.verb, fault.at): fault.effect for fault in plan}
        self._counts: dict[Verb | None, int] = {None: 0, **dict.fromkeys(Verb, 0)}
        self._is_dead = False

    @property
    def operations(self) -> int:
        """How many operations there were: run once without a plan to learn where a crash can be put."""
        with self._lock:
            return self._counts[None]

    @property
    def is_dead(self) -> bool:
        """Whether a planned crash has happened."""
        with self._lock:
            return self._is_dead

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        self._perform(Verb.PUT, key, lambda: self._inner.put(key, parts, locked_until=locked_until))

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        return self._read(key, lambda: self._inner.get(key))

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        return self._read(key, lambda: self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes))

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._perform(Verb.SIZE, key, lambda: self._inner.size(key))[1]

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._perform(Verb.SIZE, key, lambda: self._inner.stored_at(key))[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``. It is one operation; a fault after it strikes when half of it was yielded."""
        effect = self._begin(Verb.LIST)
        self._strike(effect, prefix, before=True)
        found = list(self._inner.list(prefix))
        if effect in (FaultEffect.FAIL_AFTER, FaultEffect.CRASH_AFTER):
            yield from found[: len(found) // 2]
            self._strike(effect, prefix, before=False)
        yield from found

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._perform(Verb.DELETE, key, lambda: self._inner.delete(key))

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        return self._perform(Verb.PUNCH, key, lambda: self._inner.try_punch(key, extents))[1]

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        return self._perform(Verb.LOCK, key, lambda: self._inner.try_lock(key, until))[1]

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        return self._perform(Verb.LOCK, key, lambda: self._inner.locked_until(key))[1]

    def _read(self, key: str, action: Callable[[], bytes]) -> bytes:
        effect, content = self._perform(Verb.GET, key, action)
        if effect is FaultEffect.TRUNCATE:
            return content[: len(content) // 2]
        if effect is FaultEffect.FLIP and content:
            spoiled = bytearray(content)
            # A place that depends on the operation alone: plans that differ hit different bytes.
            spoiled[self.operations * 7919 % len(content)] ^= 1
            return bytes(spoiled)
        return content

    def _perform(self, verb: Verb, key: str, action: Callable[[], _T]) -> tuple[FaultEffect | None, _T]:
        effect = self._begin(verb)
        self._strike(effect, key, before=True)
        try:
            result = action()
        except HoldfastError:
            self._strike(effect, key, before=False)
            raise
        self._strike(effect, key, before=False)
        return effect, result

    def _begin(self, verb: Verb) -> FaultEffect | None:
        """Count the operation; return what the plan has in store for it."""
        with self._lock:
            if self._is_dead:
                raise SimulatedCrash("the owner of this store has crashed before")
            self._counts[None] += 1
            self._counts[verb] += 1
            by_verb = self._faults.get((verb, self._counts[verb]))
            return by_verb or self._faults.get((None, self._counts[None]))

    def _strike(self, effect: FaultEffect | None, key: str, *, before: bool) -> None:
        if effect is (FaultEffect.CRASH_BEFORE if before else FaultEffect.CRASH_AFTER):
            with self._lock:
                self._is_dead = True
            raise SimulatedCrash(f"planned crash at operation {self.operations}: {key}")
        if effect is (FaultEffect.FAIL_BEFORE if before else FaultEffect.FAIL_AFTER):
            raise StoreUnreachable(store=self.describe(), key=key, reason=f"planned fault at {self.operations}")
