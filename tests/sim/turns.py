"""Turns: several actors run the real code, each in a thread, but only one at a time, and chance says who is next.

An actor gives its turn away before every store operation. What it had sent when it died may still take effect later, in
a turn of its own. Invariant: the same seed makes the same history, because nothing runs outside a turn.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from holdfast.core import ManualClock

__all__ = ["Stage"]


_SLEEP_S_MAX = 3000.0


class Actor:
    """One thread that waits for its turn."""

    def __init__(self, name: str, work: Callable[[], None], stage: Stage) -> None:
        self.name = name
        self.turn = threading.Semaphore(0)
        self.is_over = False
        self.priority = stage.chance.random()
        self.changing_since_s: float | None = None
        """Since when it waits for the turn in which it changes the store."""
        self.failure: BaseException | None = None
        self._work = work
        self._stage = stage
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self.turn.acquire()
        try:
            self._work()
        except BaseException as failure:
            self.failure = failure
        self.is_over = True
        self._stage.back.release()


class Stage:
    """Runs a set of actors to their end, one operation at a time."""

    def __init__(self, chance: random.Random, clock: ManualClock, *, delay_s_max: float) -> None:
        self.back = threading.Semaphore(0)
        self.chance = chance
        self._clock = clock
        self._delay_s_max = delay_s_max
        self._haste = chance.choice([0.9, 0.98, 1.0])
        self._naps = 0
        self._shuffle = chance.choice([1.0, 0.15, 0.05])
        self._current: Actor | None = None
        self._actors: list[Actor] = []

    @property
    def is_running(self) -> bool:
        """Whether actors take turns now; otherwise whoever calls has the world for himself."""
        return self._current is not None

    def run(self, works: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """Return when all actors have ended; raise the first failure that an actor did not handle itself."""
        self._actors = [Actor(name, work, self) for name, work in works]
        for actor in self._actors:
            actor.thread.start()
        while alive := [actor for actor in self._actors if not actor.is_over]:
            self._pass_time(alive)
            self._current = self._choose(alive)
            self._current.changing_since_s = None
            self._current.turn.release()
            self.back.acquire()
        self._current = None
        for actor in self._actors:
            actor.thread.join()
        for actor in self._actors:
            if actor.failure is not None:
                raise actor.failure

    def leave_under_way(self, change: Callable[[], None]) -> None:
        """Let a change that was sent take effect some time later, though its sender does not hear of it."""
        late = Actor("under way", change, self)
        late.changing_since_s = self._clock.monotonic_s()
        self._actors.append(late)
        late.thread.start()

    def give_turn(self, *, changes: bool = False) -> None:
        """Let somebody else run; return when it is this actor's turn again. Outside a stage it returns at once."""
        actor = self._current
        if actor is None:
            return
        if changes:
            actor.changing_since_s = self._clock.monotonic_s()
        self.back.release()
        actor.turn.acquire()

    def _choose(self, alive: Sequence[Actor]) -> Actor:
        """Return who is next. In some worlds all take turns, in others one runs far while the rest stand still."""
        if self.chance.random() < self._shuffle:
            self.chance.choice(alive).priority = self.chance.random()
        return max(alive, key=lambda actor: actor.priority)

    def nap(self) -> None:
        """Let the current actor fall asleep for long, as a suspended machine does; it goes on after everybody else."""
        actor = self._current
        if actor is not None:
            actor.priority = -1.0
            self._naps += 1
            self.give_turn()

    def _pass_time(self, alive: Sequence[Actor]) -> None:
        """Let some time pass. Anybody may sleep for long, but a change takes effect within what the margins allow."""
        changing = [actor.changing_since_s for actor in alive if actor.changing_since_s is not None]
        room_s = _SLEEP_S_MAX
        if changing:
            room_s = min(changing) + self._delay_s_max - self._clock.monotonic_s()
        if self._naps and not changing:
            self._naps = 0
            self._clock.advance(self.chance.uniform(100, _SLEEP_S_MAX))
        elif room_s > 0 and self.chance.random() >= self._haste:
            self._clock.advance(self.chance.uniform(0, min(room_s, self.chance.choice([1, 10, 100, 600]))))
