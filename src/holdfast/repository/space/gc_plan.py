"""What garbage collection would do, and what it did: values that explain themselves.

Invariant: what is called *now* is given back by a collection that begins at this moment; everything else is told with
what it waits for.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

import numpy as np
import numpy.typing as npt

from holdfast.core import format_bytes
from holdfast.repository.layout import PackId
from holdfast.repository.packs.pack_set import PackSet

__all__ = ["DeadPack", "DeadPacks", "FrameWay", "GcPlan", "GcReport", "Wait", "WaitKind"]


@dataclass(frozen=True, slots=True, order=True)
class DeadPack:
    """A pack that no restore point needs."""

    pack: PackId
    length_bytes: int


class DeadPacks(Sequence[DeadPack]):
    """Many of them, in 24 bytes each."""

    __slots__ = ("lengths", "packs")

    def __init__(self, packs: PackSet, lengths: npt.NDArray[np.int64]) -> None:
        assert len(packs) == len(lengths)
        self.packs, self.lengths = packs, lengths

    @property
    def length_bytes(self) -> int:
        """The length of all together."""
        return int(self.lengths.sum())

    @overload
    def __getitem__(self, place: int) -> DeadPack: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[DeadPack]: ...
    def __getitem__(self, place: int | slice) -> DeadPack | Sequence[DeadPack]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        return DeadPack(self.packs.pack(at), int(self.lengths[at]))

    def __len__(self) -> int:
        return len(self.packs)


class WaitKind(enum.Enum):
    """What giving space back has to wait for."""

    RUN = "run"
    """A backup that is running, or whose process died a moment ago."""
    INTERRUPTED = "interrupted-run"
    """What an interrupted run stored is kept for its resumption."""
    LEASE = "unreadable-lease"
    LOCK = "lock"
    RECORD = "unreadable-record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that holds space back, for how long, and how much."""

    kind: WaitKind
    what: str
    """One sentence."""
    until: datetime | None
    """When that is over at the latest, unless it is renewed; None when nobody knows."""
    packs: int
    length_bytes: int


class FrameWay(enum.Enum):
    """How the space of dead frames comes back from packs that are still needed."""

    PUNCH = "punch"
    MOVE = "move"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPlan:
    """What garbage collection would do now. A value; it changes nothing."""

    made_at: datetime
    dead: DeadPacks
    """Packs that no point needs, whether they go now or have to wait."""
    now_bytes: int
    """What deleting them gives back at once."""
    later_bytes: int
    """What it gives back when the waits are over."""
    waits: tuple[Wait, ...]
    kept_packs: int
    kept_bytes: int
    poor: PackSet
    """Packs that are still needed, but of which frames seem to be dead."""
    poor_bytes_max: int
    """At most so much of them comes back."""
    copied_bytes_max: int
    """At most so much that is needed is stored anew for it."""
    poor_way: FrameWay
    forgotten: PackSet
    """Packs whose moves nobody follows any more."""
    emptied: PackSet
    """Packs whose frames have all moved, so that they can go."""
    held: PackSet
    """Packs that leases name."""

    @property
    def dead_bytes(self) -> int:
        """How much space deleting gives back in the end."""
        return self.dead.length_bytes

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is kept although it is dead, and whom deleting will have to wait for; one sentence each."""
        return tuple(each.what for each in self.waits)

    def explain(self) -> str:
        """Return the plan for people, a few lines."""
        lines = [
            f"delete {len(self.dead)} packs that no restore point needs: {format_bytes(self.dead_bytes)}",
            f"keep {self.kept_packs} packs: {format_bytes(self.kept_bytes)}",
        ]
        if len(self.poor):
            lines.append(
                f"{_WAYS[self.poor_way]} {len(self.poor)} packs that are partly needed: up to "
                f"{format_bytes(self.poor_bytes_max)}, for which up to {format_bytes(self.copied_bytes_max)} are copied"
            )
        if self.later_bytes:
            lines.append(f"now {format_bytes(self.now_bytes)}, later {format_bytes(self.later_bytes)}")
        return "\n".join([*lines, *self.remarks])


_WAYS = {
    FrameWay.PUNCH: "give back in place what is dead in",
    FrameWay.MOVE: "move what is live out of",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What garbage collection did."""

    deleted_packs: int
    freed_bytes: int
    """What the packs that were deleted took."""
    waiting_packs: int
    """Condemned, but a running backup might still use them; the next collection deletes them."""
    rescued_packs: int
    """Condemned, but a restore point published meanwhile needs them."""
    waits_for: tuple[str, ...]
    """Whose end is waited for; one sentence each."""
    locked_packs: int = 0
    locked_until: datetime | None = None
    """When the last of the locks ends that held packs back; None when there was none, or nobody knows."""
    punched_packs: int = 0
    punched_bytes: int = 0
    """What came back from packs that are still needed, in place."""
    emptied_packs: int = 0
    moved_bytes: int = 0
    """What was copied: out of packs that are emptied, and deleted once no running backup is disturbed by it; and out of
    frames that are mostly dead, so that these can be punched."""
    poor_waiting_packs: int = 0
    """Partly needed packs that have to wait for running backups, for locks, or for the next collection."""
    is_complete: bool = True
    """False when the budget, or the room for copies, ended before everything was done."""
