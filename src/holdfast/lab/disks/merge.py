"""Coalescing: a layer that only one other stands on is merged with it, so that chains do not grow for ever.

Two merges exist, as on a real storage repository: a base copy into the one below it, and a disk into its base copy
(leaf coalesce). Invariant: no reader of any disk, and no witness, can see a merge: the bytes below change only where
the layer above answers anyway. When to merge is the caller's business.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from holdfast.core import BLOCK_BYTES
from holdfast.lab.disks.catalog import Catalog, Disk, Role
from holdfast.lab.disks.errors import DiskBusy
from holdfast.lab.disks.layer import DATA, INHERITED, Layer
from holdfast.model import DiskUuid

__all__ = ["coalesce", "iter_coalescable"]

_PIECE_GRANULES = 64


def iter_coalescable(catalog: Catalog) -> list[DiskUuid]:
    """Return the disks that can be merged into what they stand on, base copies first."""
    with catalog.lock:
        found = [disk for disk in catalog.disks.values() if _below(catalog, disk) is not None]
    return [disk.uuid for disk in sorted(found, key=lambda disk: disk.role is not Role.BASE)]


def coalesce(catalog: Catalog, disk: Disk) -> int:
    """Merge ``disk`` into what it stands on and return the bytes that were moved; ``DiskBusy`` when others stand there.

    The caller holds the catalog's lock. A base copy vanishes into the one below; a disk takes the place of its base.
    """
    below = _below(catalog, disk)
    if below is None or below.layer is None or disk.layer is None:
        raise DiskBusy(disk=disk.uuid, reason="it stands on nothing, or not alone")
    if catalog.witnesses_beside(disk.layer):
        raise DiskBusy(disk=disk.uuid, reason="a destroyed snapshot that is still witnessed stands beside it")
    with disk.lock:
        upper, lower = disk.layer, below.layer
        if upper.size_bytes > lower.size_bytes:
            lower.grow(upper.size_bytes)
        moved_bytes = _move(upper, lower)
        if disk.role is Role.BASE:
            below.size_bytes = max(below.size_bytes, disk.size_bytes)
            for layer in _layers_on(catalog, upper):
                layer.parent = lower
            del catalog.disks[disk.uuid]
        else:
            disk.layer = lower
            del catalog.disks[below.uuid]
        catalog.save()
    return moved_bytes


def _below(catalog: Catalog, disk: Disk) -> Disk | None:
    """Return the base copy that ``disk`` alone stands on, if it is so."""
    if disk.layer is None or disk.layer.parent is None or len(catalog.children(disk.layer.parent)) != 1:
        return None
    return next((base for base in catalog.disks.values() if base.layer is disk.layer.parent), None)


def _layers_on(catalog: Catalog, lower: Layer) -> list[Layer]:
    tops = [disk.layer for disk in catalog.disks.values()] + [seen.layer for seen in catalog.witnesses.values()]
    return [layer for layer in tops if layer is not None and layer.parent is lower]


def _move(upper: Layer, lower: Layer) -> int:
    """Let ``lower`` answer with the bytes of ``upper`` wherever ``upper`` answers itself."""
    states = upper.states.values()
    if states is None:
        return 0
    cuts = [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), len(states)]
    moved_bytes = 0
    for low, high in pairwise(cuts):
        state = int(states[low])
        if state == INHERITED:
            continue
        for first in range(low, high, _PIECE_GRANULES) if state == DATA else ():
            start_bytes = first * BLOCK_BYTES
            end_bytes = min(min(high, first + _PIECE_GRANULES) * BLOCK_BYTES, upper.size_bytes)
            buffer = memoryview(bytearray(end_bytes - start_bytes))
            upper.read_into(buffer, start_bytes)
            lower.write(buffer, start_bytes)
            moved_bytes += len(buffer)
        lower.mark(low, high, state)
    return moved_bytes
