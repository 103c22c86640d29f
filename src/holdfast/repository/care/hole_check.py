"""Telling holes from damage: frames that garbage collection has punched read as zeros, and nobody needs them.

Invariant: a slot is taken for a hole only when a record of holes names it and its frame has zeros where sealed bytes
were. A verification, which walks the maps anyway, asks besides whether anybody needs it after all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from holdfast.model import Extent
from holdfast.repository.care.verify_packs import PackCheck
from holdfast.repository.damage import Damage
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.space.gc_geometry import carve, dead_frames
from holdfast.repository.space.gc_settings import HOLE_BYTES
from holdfast.repository.vault import Vault

__all__ = ["pass_over_holes"]


def pass_over_holes(vault: Vault, check: PackCheck, holes: AvoidedSlots) -> dict[int, str]:
    """Take from what a check found damaged the slots that were punched; return them with what the check said."""
    passed_over: dict[int, str] = {}
    named = holes.of_pack(check.pack)
    if named.isdisjoint(check.slots):
        return passed_over
    with contextlib.suppress(Damage):
        opened = vault.shelf.open(check.pack)
        dead = np.zeros(len(opened.trailer), dtype=np.bool_)
        dead[[slot for slot in named if slot < len(dead)]] = True
        extents = carve(opened.trailer, dead_frames(opened.trailer, ~dead), HOLE_BYTES).extents
        for slot in named & check.slots.keys():
            if _is_punched(opened, slot, extents):
                passed_over[slot] = check.slots.pop(slot)
    return passed_over


def _is_punched(opened: OpenPack, slot: int, extents: Sequence[Extent]) -> bool:
    """Return whether the frame of a slot has zeros wherever a hole reaches into it, if only with its border."""
    start, length_bytes = opened.frame_extent(slot)
    parts = [
        (max(start, hole.offset_bytes), min(start + length_bytes, hole.end_bytes))
        for hole in extents
        if hole.offset_bytes < start + length_bytes and start < hole.end_bytes
    ]
    return bool(parts) and not any(any(opened.read_range(first, end - first)) for first, end in parts)
