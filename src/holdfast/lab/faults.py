"""Faults on demand: what can go wrong in a pool, each by name, with parameters and a count, deterministic.

The code that can fail asks ``take`` at the place where the real thing fails; a fault that nobody asked for has no
effect. Invariant: a fault fires exactly as often as it was told to, in the order of arming, and then is gone.
"""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass, field

__all__ = ["FAULT_KINDS", "ArmedFault", "FaultKind", "FaultUnknown", "FaultValueInvalid", "Faults"]

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One way to fail. ``parameters`` are its knobs with their defaults; an empty string matches everything."""

    name: str
    summary: str
    parameters: dict[str, Value] = field(default_factory=dict)


_KINDS = (
    FaultKind("login-refused", "A login is refused although the password is right."),
    FaultKind(
        "host-is-slave",
        "A login is answered with HOST_IS_SLAVE naming another address.",
        {"address": "192.0.2.1"},
    ),
    FaultKind(
        "session-invalid",
        "The session is gone when this method is called; it is destroyed first.",
        {"method": ""},
    ),
    FaultKind(
        "call-fails",
        "A call is refused with this code; parameters are separated by '|'.",
        {"method": "", "code": "INTERNAL_ERROR", "parameters": ""},
    ),
    FaultKind("call-stalls", "A call takes this long before it is looked at.", {"method": "", "seconds": 5.0}),
    FaultKind(
        "operation-in-progress",
        "A call is refused with OTHER_OPERATION_IN_PROGRESS, as after two hours of waiting.",
        {"method": ""},
    ),
    FaultKind("too-many-tasks", "A call is refused with TOO_MANY_PENDING_TASKS.", {"method": ""}),
    FaultKind(
        "task-vanishes",
        "The task of an asynchronous call is destroyed before it completes; the work itself is done.",
        {"method": ""},
    ),
    FaultKind(
        "snapshot-fails",
        "Snapshotting the n-th disk of a VM fails (0 is the first); the snapshots before it are removed again.",
        {"disk": 0, "code": "SR_BACKEND_FAILURE_44", "text": "There is insufficient space"},
    ),
    FaultKind(
        "cbt-lost",
        "At the next snapshot of the disk its tracking is found inconsistent: cbt_enabled is false, a message tells.",
        {"disk": ""},
    ),
    FaultKind(
        "changed-blocks-fail",
        "list_changed_blocks fails in the storage driver.",
        {"code": "SR_BACKEND_FAILURE_460", "text": "Failed to calculate changed blocks for given VDIs."},
    ),
    FaultKind("nbd-info-empty", "get_nbd_info returns an empty list."),
    FaultKind("nbd-busy", "The NBD server closes a new connection at once, as with all 16 taken."),
    FaultKind("nbd-disconnects", "An NBD connection ends after so many bytes of data.", {"after_bytes": 1 << 20}),
    FaultKind(
        "nbd-stalls",
        "An NBD connection pauses after so many bytes of data.",
        {"after_bytes": 1 << 20, "seconds": 5.0},
    ),
    FaultKind(
        "disk-stays-in-use",
        "After an NBD connection or an export ends, the disk stays attached to the control domain for so long.",
        {"seconds": 5.0},
    ),
    FaultKind("vbd-leaks", "After an NBD connection or an export ends, the control domain's VBD is never removed."),
    FaultKind(
        "export-cut",
        "An export's connection is cut after so many bytes; the task fails.",
        {"after_bytes": 4096},
    ),
    FaultKind(
        "export-fails-late",
        "An export fails after so many bytes: a second HTTP response with status 500 follows inside the body.",
        {"after_bytes": 0},
    ),
    FaultKind(
        "export-truncated",
        "An export ends early and politely, and its task says success.",
        {"after_bytes": 4096},
    ),
    FaultKind("export-lies", "A VHD export's block table is damaged, and its task says success."),
    FaultKind(
        "export-stalls",
        "An export pauses after so many bytes.",
        {"after_bytes": 4096, "seconds": 5.0},
    ),
    FaultKind("import-fails-late", "An import reads everything and then fails with an I/O error."),
    FaultKind("import-resets", "An import succeeds, but its connection is reset instead of closed."),
)

FAULT_KINDS: dict[str, FaultKind] = {kind.name: kind for kind in _KINDS}


class FaultUnknown(Exception):
    """No fault, or no parameter of that fault, has this name."""


class FaultValueInvalid(Exception):
    """A parameter of a fault, or its count, is not of the kind that is expected."""

    def __init__(self, name: str, parameter: str, *, expected: str, got: object) -> None:
        super().__init__(f"{parameter} of fault {name!r} is {expected}, not {got!r}")


@dataclass(slots=True)
class ArmedFault:
    """A fault that waits to fire."""

    id: int
    name: str
    parameters: dict[str, Value]
    remaining: int
    """How often it will still fire; -1 means until cleared."""

    def text(self, name: str) -> str:
        """Return a parameter as text."""
        return str(self.parameters[name])

    def number(self, name: str) -> int:
        """Return a parameter as a whole number."""
        return int(self.parameters[name])

    def seconds(self) -> float:
        """Return how long the fault lasts."""
        return float(self.parameters["seconds"])


class Faults:
    """The armed faults of one lab. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: dict[int, ArmedFault] = {}
        self._ids = itertools.count(1)

    def arm(self, name: str, /, *, count: int = 1, **parameters: Value) -> ArmedFault:
        """Let the fault happen ``count`` times (-1: until cleared). Numbers may come as text.

        ``FaultUnknown`` for a name that does not exist, ``FaultValueInvalid`` for a value that makes no sense: a fault
        that cannot be carried out would otherwise fail in the middle of somebody's call.
        """
        kind = FAULT_KINDS.get(name)
        if kind is None:
            raise FaultUnknown(f"no fault is called {name!r}; there are: {', '.join(sorted(FAULT_KINDS))}")
        stray = sorted(set(parameters) - set(kind.parameters))
        if stray:
            raise FaultUnknown(f"fault {name!r} has no parameter {stray[0]!r}")
        if count != -1 and count < 1:
            raise FaultValueInvalid(name, "count", expected="1 or more, or -1 for until cleared", got=count)
        fitting = {each: _fitting(kind, each, value) for each, value in parameters.items()}
        with self._lock:
            fault = ArmedFault(next(self._ids), name, {**kind.parameters, **fitting}, count)
            self._armed[fault.id] = fault
            return fault

    def take(self, name: str, **facts: Value) -> ArmedFault | None:
        """Return the first armed fault of this name whose parameters agree with ``facts``, and count it as fired."""
        with self._lock:
            for fault in self._armed.values():
                if fault.name == name and fault.remaining != 0 and _agrees(fault, facts):
                    if fault.remaining > 0:
                        fault.remaining -= 1
                        if fault.remaining == 0:
                            del self._armed[fault.id]
                    return fault
            return None

    def clear(self, *, name: str = "") -> int:
        """Disarm all faults, or those of one name; return how many."""
        with self._lock:
            doomed = [fault.id for fault in self._armed.values() if name in ("", fault.name)]
            for fault_id in doomed:
                del self._armed[fault_id]
            return len(doomed)

    def armed(self) -> list[ArmedFault]:
        """Return what is armed, in order of arming."""
        with self._lock:
            return list(self._armed.values())


def _agrees(fault: ArmedFault, facts: dict[str, Value]) -> bool:
    return all(fault.parameters.get(key, "") in ("", value) for key, value in facts.items())


def _fitting(kind: FaultKind, parameter: str, value: Value) -> Value:
    """Return the value as what the parameter's default is. ``FaultValueInvalid`` when it cannot be that."""
    default = kind.parameters[parameter]
    if isinstance(default, str):
        return str(value)
    is_whole = isinstance(default, int)
    expected = f"a {'whole ' if is_whole else ''}number of 0 or more"
    if isinstance(value, bool):
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value)
    try:
        number = int(value) if is_whole else float(value)
    except (ValueError, OverflowError) as cause:
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value) from cause
    is_cut = isinstance(value, float) and number != value
    if is_cut or not math.isfinite(number) or number < 0:
        raise FaultValueInvalid(kind.name, parameter, expected=expected, got=value)
    return number
