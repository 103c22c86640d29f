"""Reading and writing through a chain of layers.

Invariant: a granule belongs to the topmost layer that does not inherit it, so a write completes a granule from below
before the top layer claims it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.lab.disks.granules import granules_of
from holdfast.lab.disks.layer import DATA, INHERITED, ZERO, Layer
from holdfast.model import Extent

__all__ = ["data_extents", "fill_zeros", "read_into", "write", "zero"]

_ZEROS = bytes(4 * MIB)
_UNKNOWN, _HOLE = -2, -1
_SCAN_GRANULES = 1 << 20
"""64 GiB of disk are looked at in one go: bounds the arrays when the disk is huge."""


def read_into(top: Layer, view: memoryview, offset_bytes: int) -> None:
    """Fill ``view`` with the disk's bytes. Ranges that no layer holds are zeros and touch no file."""
    end_bytes = offset_bytes + len(view)
    for owner, first, end in _spans(top, offset_bytes // BLOCK_BYTES, granules_of(end_bytes)):
        low = max(offset_bytes, first * BLOCK_BYTES)
        part = view[low - offset_bytes : min(end_bytes, end * BLOCK_BYTES) - offset_bytes]
        if owner is None:
            fill_zeros(part)
        else:
            owner.read_into(part, low)


def fill_zeros(view: memoryview) -> None:
    """Make ``view`` all zeros."""
    for low in range(0, len(view), len(_ZEROS)):
        part = view[low : low + len(_ZEROS)]
        part[:] = _ZEROS if len(part) == len(_ZEROS) else memoryview(_ZEROS)[: len(part)]


def write(top: Layer, data: memoryview, offset_bytes: int) -> None:
    """Write to the top layer; the caller holds the disk's lock and has checked the range."""
    end_bytes = offset_bytes + len(data)
    first, end = offset_bytes // BLOCK_BYTES, granules_of(end_bytes)
    # Only the first and the last granule can be partial; between them whole granules replace what was there.
    for granule in sorted({first, end - 1}):
        low, high = granule * BLOCK_BYTES, min((granule + 1) * BLOCK_BYTES, top.size_bytes)
        if offset_bytes > low or end_bytes < high:
            _complete(top, granule, high - low)
    top.write(data, offset_bytes)
    top.mark(first, end, DATA)


def zero(top: Layer, offset_bytes: int, length_bytes: int) -> None:
    """Make a range read as zeros. Whole granules cost a mark; a range that nobody ever wrote stays unallocated."""
    end_bytes = offset_bytes + length_bytes
    for owner, first, end in _spans(top, offset_bytes // BLOCK_BYTES, granules_of(end_bytes)):
        if owner is None:
            continue
        low, high = max(offset_bytes, first * BLOCK_BYTES), min(end_bytes, end * BLOCK_BYTES)
        whole_first = granules_of(low)
        whole_end = end if high >= min(end * BLOCK_BYTES, top.size_bytes) else high // BLOCK_BYTES
        if whole_first >= whole_end:
            write(top, memoryview(bytes(high - low)), low)
            continue
        top.mark(whole_first, whole_end, ZERO)
        if low < whole_first * BLOCK_BYTES:
            write(top, memoryview(bytes(whole_first * BLOCK_BYTES - low)), low)
        if high > whole_end * BLOCK_BYTES:
            write(top, memoryview(bytes(high - whole_end * BLOCK_BYTES)), whole_end * BLOCK_BYTES)


def data_extents(top: Layer, offset_bytes: int, length_bytes: int) -> Iterator[Extent]:
    """Yield the ranges inside the window that some layer holds data for, ascending, merged, on granule borders but for
    the ends of the window."""
    end_bytes = offset_bytes + length_bytes
    end = granules_of(end_bytes)
    open_low = open_high = -1
    for start in range(offset_bytes // BLOCK_BYTES, end, _SCAN_GRANULES):
        for owner, first, last in _spans(top, start, min(end, start + _SCAN_GRANULES)):
            if owner is None:
                continue
            low, high = max(offset_bytes, first * BLOCK_BYTES), min(end_bytes, last * BLOCK_BYTES)
            if low == open_high:
                open_high = high
                continue
            if open_high > open_low:
                yield Extent(offset_bytes=open_low, length_bytes=open_high - open_low)
            open_low, open_high = low, high
    if open_high > open_low:
        yield Extent(offset_bytes=open_low, length_bytes=open_high - open_low)


def _complete(top: Layer, granule: int, length_bytes: int) -> None:
    """Give the top layer its own copy of a granule that is about to be written in part."""
    ((owner, _, _),) = _spans(top, granule, granule + 1)
    if owner is top:
        return
    state = top.states.window(granule, granule + 1)
    if owner is None and (state is None or state[0] == INHERITED):
        return  # the top's file was never written here: its hole already reads as zeros
    buffer = memoryview(bytearray(length_bytes))
    if owner is not None:
        owner.read_into(buffer, granule * BLOCK_BYTES)
    top.write(buffer, granule * BLOCK_BYTES)


def _spans(top: Layer, first: int, end: int) -> list[tuple[Layer | None, int, int]]:
    """Return who answers for granules ``first`` to ``end``: (layer or None for zeros, first, end), merged."""
    owners = np.full(end - first, _UNKNOWN, dtype=np.int16)
    chain = top.lineage()
    for depth, layer in enumerate(chain):
        states = layer.states.window(first, end)
        if states is None:
            continue
        head = owners[: len(states)]
        unclaimed = head == _UNKNOWN
        head[unclaimed & (states == DATA)] = depth
        head[unclaimed & (states == ZERO)] = _HOLE
        if not (owners == _UNKNOWN).any():
            break
    owners[owners == _UNKNOWN] = _HOLE
    cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), end - first]
    spans: list[tuple[Layer | None, int, int]] = []
    for low, high in pairwise(cuts):
        depth = int(owners[low])
        spans.append((chain[depth] if depth >= 0 else None, first + low, first + high))
    return spans
