"""What garbage collection finds worth its while, and how much it may do at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from holdfast.core import KIB, MIB, limits

__all__ = ["HOLE_BYTES", "GcSettings"]

HOLE_BYTES = 4096
"""What file systems give space back in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GcSettings:
    """Thresholds and bounds of a collection. The defaults are for real repositories."""

    workers: int = 0
    poor_bytes_min: int = 64 * KIB
    """A pack with less that may be dead is left alone: its trailer alone takes as much."""
    poor_part_min: float = 1 / 16
    """The same as a part of the pack: finding out costs reading the maps of every point that uses it."""
    is_thorough: bool = False
    """Look at every pack that is needed. Tables count a frame that one disk uses often as often, so they may make a
    pack look fuller than it is."""
    moved_live_part_max: float = 0.4
    """Only packs that are no more live than this are copied: it gives back one and a half times of what it copies."""
    hole_bytes: int = HOLE_BYTES
    looked_again_after: timedelta = timedelta(days=30)
    """A pack in which nothing came back is looked at again when less of it is needed by its points' tables, or after
    so long: tables do not tell when the last of several disks that need different parts of a pack has gone."""
    batch_slots_max: int = 24_000_000
    """One byte each: 24 MB. About 16,000 packs, 1 TB, for one look at all points."""
    split_bytes_min: int = MIB
    """A pack of which less comes back when frames are split is left alone: its blocks may die together later."""
    split_part_min: float = 0.2
    """The same as a part of the pack. Waiting makes it cheaper: of a frame fewer blocks are left to be copied."""
    split_rows_max: int = 1_000_000
    """Moved blocks beyond which no more frames are split: 40 MB for everybody who reads the records."""
    portion_bytes_max: int = 1024 * MIB
    """So much is copied before it is published and given back: what an interrupted collection loses at most."""
    pack_bytes_max: int = limits.PACK_BYTES_MAX
    level: int = 1
    """The zstd level for blocks that leave their frame."""
    budget_bytes: int | None = None
    """How much may be copied out of packs; None is no bound."""
    budget_s: float | None = None
    """After how long no further batch is begun; None is no bound."""
