"""Where the frames of a pack lie, and what of its space comes back when some of them are punched.

Invariant: frames are dead as a whole or not at all, and nothing outside of dead frames is ever in an extent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.model import Extent
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.records.holes import Dead

__all__ = ["Carving", "carve", "dead_frames", "live_frame_bytes", "slots_to_split"]


@dataclass(frozen=True, slots=True)
class Carving:
    """Ranges of a pack to punch, what they give back, and the slots whose frames they touch."""

    extents: tuple[Extent, ...]
    freed_bytes: int
    slots: Dead


def dead_frames(trailer: Trailer, live: npt.NDArray[np.bool_]) -> Dead:
    """Return for each slot whether no slot of its frame is live."""
    leaders = np.arange(len(trailer)) - trailer.rows["index"]
    is_live = np.zeros(len(trailer), dtype=np.bool_)
    np.logical_or.at(is_live, leaders, live)
    dead: Dead = ~is_live[leaders]
    return dead


def live_frame_bytes(trailer: Trailer, dead: Dead) -> int:
    """Return the shares of the slots that are not dead; where frames are dead as a whole, the length of the others."""
    return int(trailer.shares(np.flatnonzero(~dead)).sum())


def slots_to_split(trailer: Trailer, live: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the live slots that share their frame with at least as many dead ones.

    Stored in a frame of their own they let the old one go: that gives back no less than it costs.
    """
    leaders = np.arange(len(trailer)) - trailer.rows["index"]
    living = np.bincount(leaders[live], minlength=len(trailer))
    split: npt.NDArray[np.bool_] = live & (2 * living[leaders] <= trailer.rows["count"])
    return split


def carve(trailer: Trailer, dead: Dead, hole_bytes: int) -> Carving:
    """Return how dead frames are punched: neighbours together, and only whole blocks of the file system."""
    leaders = np.flatnonzero(trailer.rows["index"] == 0)
    is_dead = dead[leaders]
    edges = np.flatnonzero(np.diff(is_dead, prepend=False, append=False)).reshape(-1, 2)
    starts = trailer.offsets[leaders]
    ends = starts + trailer.rows["length"][leaders]
    slots: Dead = np.zeros(len(trailer), dtype=np.bool_)
    extents, freed_bytes = [], 0
    bounds = np.append(leaders, len(trailer))
    for first, end in edges.tolist():
        start = -(-int(starts[first]) // hole_bytes) * hole_bytes
        stop = int(ends[end - 1]) // hole_bytes * hole_bytes
        if stop > start:
            extents.append(Extent(offset_bytes=start, length_bytes=stop - start))
            freed_bytes += stop - start
            slots[bounds[first] : bounds[end]] = True
    return Carving(tuple(extents), freed_bytes, slots)
