"""Arming faults and taking them: the code that can fail asks ``take`` at the place where the real thing fails.

A fault that nobody asked for has no effect. Invariant: a fault fires exactly as often as it was told to, in the order
of arming, and then is gone; one that lasts has begun exactly while it is armed.
"""

from __future__ import annotations

import difflib
import itertools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.core import get_log
from holdfast.lab.faults.catalogue import FAULT_KINDS
from holdfast.lab.faults.kind import FaultKind, FaultManner, Value

__all__ = ["UNTIL_CLEARED", "ArmedFault", "FaultUnknown", "FaultValueInvalid", "Faults"]

UNTIL_CLEARED = -1
"""The count of a fault that happens again and again."""

_NEAR_NAMES_MAX = 3

_YEAR_S = 366 * 86_400
_RANGES: dict[str, tuple[float, float]] = {"seconds": (0, _YEAR_S), "bytes_per_s": (1, math.inf)}
"""What a number may be, where not all of 0 and more makes sense: a clock has an end, and nothing moves at no pace."""

log = get_log(__name__)

Fact = Value | tuple[Value, ...]
"""What the place of a fault knows of itself: one value, or several that all name the same thing."""


class FaultUnknown(Exception):
    """No fault, or no parameter of that fault, has this name."""


class FaultValueInvalid(Exception):
    """A parameter of a fault, or its count, is not of the kind that is expected."""

    def __init__(self, name: str, parameter: str, *, expected: str, got: object) -> None:
        super().__init__(f"{parameter} of fault {name!r} is {expected}, not {got!r}")


@dataclass(slots=True)
class ArmedFault:
    """A fault that waits to fire, or lasts."""

    id: int
    name: str
    parameters: dict[str, Value]
    remaining: int
    """How often it will still fire; ``UNTIL_CLEARED``, or 0 for one that is over."""

    def text(self, name: str) -> str:
        """Return a parameter as text."""
        return str(self.parameters[name])

    def number(self, name: str) -> int:
        """Return a parameter as a whole number."""
        return int(self.parameters[name])

    def seconds(self) -> float:
        """Return how long the fault lasts."""
        return float(self.parameters["seconds"])


Enact = Callable[[ArmedFault], None]
Knows = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Act:
    begin: Enact
    end: Enact | None


@dataclass(frozen=True, slots=True)
class _Place:
    expected: str
    knows: Knows


class Faults:
    """The armed faults of one lab. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: dict[int, ArmedFault] = {}
        self._ids = itertools.count(1)
        self._acts: dict[str, _Act] = {}
        self._places: dict[str, _Place] = {}

    def learn(self, parameter: str, knows: Knows, *, expected: str) -> None:
        """Say which words a parameter of this name can be: a fault for a place that is not there never happens."""
        self._places[parameter] = _Place(expected, knows)

    def enact(self, name: str, begin: Enact, *, end: Enact | None = None) -> None:
        """Say who carries out a fault that does not wait: ``begin`` when it is armed, ``end`` when it is cleared."""
        assert FAULT_KINDS[name].manner is (FaultManner.AT_ONCE if end is None else FaultManner.LASTS)
        self._acts[name] = _Act(begin, end)

    def arm(self, name: str, /, *, count: int | None = None, **parameters: Value) -> ArmedFault:
        """See ``arm_with``."""
        return self.arm_with(name, parameters, count=count)

    def arm_with(self, name: str, parameters: Mapping[str, Value], *, count: int | None = None) -> ArmedFault:
        """Let the fault happen ``count`` times (-1: until cleared). Numbers may come as text.

        Without a count it happens once; one that lasts, until cleared; one that happens at once has happened on return.
        ``FaultUnknown`` for a name that does not exist, ``FaultValueInvalid`` for a value that makes no sense: a fault
        that cannot be carried out would otherwise fail in the middle of somebody's call.
        """
        kind = _kind(name)
        stray = sorted(set(parameters) - set(kind.parameters))
        if stray:
            raise FaultUnknown(f"fault {name!r} has no parameter {stray[0]!r}")
        remaining = _checked_count(kind, count)
        fitting = {each: _fitting(kind, each, value) for each, value in parameters.items()}
        for each, given in fitting.items():
            self._check_place(kind, each, given)
        with self._lock:
            fault = ArmedFault(next(self._ids), name, {**kind.parameters, **fitting}, remaining)
        act = self._acts.get(name)
        if act is not None:
            act.begin(fault)
        with self._lock:
            if fault.remaining:
                self._armed[fault.id] = fault
        log.info("lab.fault-armed" if fault.remaining else "lab.fault-happened", fault=name, **fitting)
        return fault

    def _check_place(self, kind: FaultKind, parameter: str, value: Value) -> None:
        place = self._places.get(parameter)
        if place is None or not isinstance(value, str) or not value or parameter in kind.choices:
            return
        if not place.knows(value):
            raise FaultValueInvalid(kind.name, parameter, expected=place.expected, got=value)

    def take(self, name: str, **facts: Fact) -> ArmedFault | None:
        """Return the first armed fault of this name whose parameters agree with ``facts``, and count it as fired."""
        with self._lock:
            for fault in self._armed.values():
                if fault.name == name and _agrees(fault, facts):
                    self._count(fault)
                    break
            else:
                return None
        log.info("lab.fault-fired", fault=name, remaining=_told(fault.remaining), **_plain(facts))
        return fault

    def take_this(self, fault: ArmedFault) -> bool:
        """Count that very fault as fired; False when it is not armed any more."""
        with self._lock:
            if fault.id not in self._armed:
                return False
            self._count(fault)
        log.info("lab.fault-fired", fault=fault.name, remaining=_told(fault.remaining))
        return True

    def _count(self, fault: ArmedFault) -> None:
        if fault.remaining > 0:
            fault.remaining -= 1
            if fault.remaining == 0:
                del self._armed[fault.id]

    def clear(self, *, name: str = "") -> int:
        """Disarm all faults, or those of one name; return how many. What lasts ends. ``FaultUnknown``."""
        if name:
            _kind(name)
        with self._lock:
            cleared = [fault for fault in self._armed.values() if name in ("", fault.name)]
            for fault in cleared:
                del self._armed[fault.id]
        for fault in reversed(cleared):
            act = self._acts.get(fault.name)
            if act is not None and act.end is not None:
                act.end(fault)
            log.info("lab.fault-cleared", fault=fault.name)
        return len(cleared)

    def armed(self) -> list[ArmedFault]:
        """Return what is armed, in order of arming."""
        with self._lock:
            return list(self._armed.values())


def _kind(name: str) -> FaultKind:
    kind = FAULT_KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, FAULT_KINDS, n=_NEAR_NAMES_MAX)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise FaultUnknown(f"no fault is called {name!r}.{meant} 'holdfast lab fault list' shows them all")
    return kind


def _told(remaining: int) -> int | str:
    return "until cleared" if remaining == UNTIL_CLEARED else remaining


def _plain(facts: Mapping[str, Fact]) -> dict[str, Value]:
    """Return where a fault fired as a person reads it: of several names of one thing the last, its own."""
    return {key: fact[-1] if isinstance(fact, tuple) else fact for key, fact in facts.items() if fact != ()}


def _agrees(fault: ArmedFault, facts: Mapping[str, Fact]) -> bool:
    for key, fact in facts.items():
        wanted = fault.parameters.get(key, "")
        if wanted != "" and wanted not in (fact if isinstance(fact, tuple) else (fact,)):
            return False
    return True


def _checked_count(kind: FaultKind, count: int | None) -> int:
    match kind.manner:
        case FaultManner.WAITS:
            if count is not None and count != UNTIL_CLEARED and count < 1:
                raise FaultValueInvalid(kind.name, "count", expected="1 or more, or -1 for until cleared", got=count)
            return 1 if count is None else count
        case FaultManner.LASTS:
            if count not in (None, UNTIL_CLEARED):
                raise FaultValueInvalid(kind.name, "count", expected="-1: it lasts until cleared", got=count)
            return UNTIL_CLEARED
        case FaultManner.AT_ONCE:
            if count not in (None, 1):
                raise FaultValueInvalid(kind.name, "count", expected="1: it happens at once", got=count)
            return 0


def _fitting(kind: FaultKind, parameter: str, value: Value) -> Value:
    """Return the value as what the parameter's default is. ``FaultValueInvalid`` when it cannot be that."""
    default = kind.parameters[parameter]
    if isinstance(default, str):
        return _chosen(kind, parameter, str(value))
    is_whole = isinstance(default, int)
    least, most = _RANGES.get(parameter, (0, math.inf))
    bounds = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:.0f}"
    expected = f"a {'whole ' if is_whole else ''}number {bounds}"
    if isinstance(value, bool):
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value)
    try:
        number = int(value) if is_whole else float(value)
    except (ValueError, OverflowError) as cause:
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value) from cause
    is_cut = isinstance(value, float) and number != value
    if is_cut or not math.isfinite(number) or not least <= number <= most:
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value)
    return number


def _chosen(kind: FaultKind, parameter: str, value: str) -> str:
    choices = kind.choices.get(parameter)
    if choices is not None and value not in choices:
        raise FaultValueInvalid(kind.name, parameter, expected=f"one of {', '.join(choices)}", got=value)
    return value
