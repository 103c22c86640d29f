"""Planning reads: which ranges of a pack to ask for, so that many wanted blocks cost few requests.

Invariant: every wanted slot is in exactly one frame of the plan, and a frame is in it once, however many of its blocks
are wanted and however often.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core import KIB, MIB
from holdfast.repository import layout
from holdfast.repository.packs.trailer import Trailer

__all__ = ["GAP_BYTES_MAX", "REQUEST_BYTES_MAX", "FrameRead", "Numbers", "Request", "Want", "plan_reads"]

Numbers = npt.NDArray[np.int64]

REQUEST_BYTES_MAX = 4 * MIB
"""Amortises the round trip to an object store, and bounds what one thread holds of a pack."""

GAP_BYTES_MAX = 256 * KIB
"""Reading over a gap of this size costs no more than another request on a local disk, and much less elsewhere."""


class Want(NamedTuple):
    """One wanted block of a frame."""

    part: int
    """Its place in the frame."""
    id: bytes
    """What the trailer says it is."""
    token: int
    """What the one who wants it knows it by."""


class FrameRead(NamedTuple):
    """A frame that is read: where it lies, how it is opened, which of its blocks are wanted."""

    slot: int
    """The slot of its first block."""
    offset_bytes: int
    length_bytes: int
    kind: int
    encoding: int
    block_count: int
    wants: list[Want]


class Request(NamedTuple):
    """A range of a pack that is read at once, and the frames in it, ascending."""

    offset_bytes: int
    length_bytes: int
    frames: list[FrameRead]


def plan_reads(trailer: Trailer, slots: Numbers, tokens: Numbers) -> list[Request]:
    """Return the requests, ascending, that read these slots; ``tokens[i]`` tells what ``slots[i]`` is wanted for."""
    order = np.argsort(slots, kind="stable")
    slots, tokens = slots[order], tokens[order]
    rows: npt.NDArray[Any] = trailer.rows[slots]
    ids = rows["id"].tobytes()
    leaders = slots - rows["index"]
    leader_rows = trailer.rows[leaders]
    requests: list[Request] = []
    frames: list[FrameRead] = []
    before = start = end = -1
    for at, (slot, offset_bytes, length_bytes, kind, encoding, count, index, token) in enumerate(
        zip(
            leaders.tolist(),
            trailer.offsets[leaders].tolist(),
            leader_rows["length"].tolist(),
            rows["kind"].tolist(),
            rows["encoding"].tolist(),
            rows["count"].tolist(),
            rows["index"].tolist(),
            tokens.tolist(),
            strict=True,
        )
    ):
        want = Want(index, ids[at * layout.ID_BYTES : (at + 1) * layout.ID_BYTES], token)
        if slot == before:
            frames[-1].wants.append(want)
            continue
        before = slot
        reach_bytes = offset_bytes + length_bytes - start
        if frames and (offset_bytes - end > GAP_BYTES_MAX or reach_bytes > REQUEST_BYTES_MAX):
            requests.append(Request(start, end - start, frames))
            frames = []
        if not frames:
            start = offset_bytes
        end = offset_bytes + length_bytes
        frames.append(FrameRead(slot, offset_bytes, length_bytes, kind, encoding, count, [want]))
    if frames:
        requests.append(Request(start, end - start, frames))
    return requests
