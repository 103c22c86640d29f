"""Telling holes from damage: frames that garbage collection has punched read as zeros, and nobody needs them.

Invariant: a slot is taken for a hole only when a record of holes names it and its frame has zeros where sealed bytes
were. A verification, which walks the maps anyway, asks besides whether anybody needs it after all.
"""

from __future__ import annotations

import contextlib
import itertools

from holdfast.repository.care.verify_packs import PackCheck
from holdfast.repository.damage import Damage
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.records.avoided import AvoidedSlots
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
        for slot in named & check.slots.keys():
            if _is_punched(opened, slot):
                passed_over[slot] = check.slots.pop(slot)
    return passed_over


def _is_punched(opened: OpenPack, slot: int) -> bool:
    """Return whether the frame of a slot has nothing but zeros in one of the blocks that a punch gives back.

    In one, because what else was punched around it is not known: more may be planned than was done.
    """
    start, length_bytes = opened.frame_extent(slot)
    sealed = opened.read_range(start, length_bytes)
    edges = [0, *range(HOLE_BYTES - start % HOLE_BYTES, length_bytes, HOLE_BYTES), length_bytes]
    return any(not any(sealed[first:end]) for first, end in itertools.pairwise(edges))
