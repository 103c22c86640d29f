"""Telling holes from damage: frames that garbage collection has punched read as zeros, and nobody needs them.

Invariant: a slot is taken for a hole only when a record of holes names it and its frame has zeros where sealed bytes
were. A verification, which walks the maps anyway, asks besides whether anybody needs it after all.
"""

from __future__ import annotations

import contextlib

from holdfast.repository.avoided import AvoidedSlots
from holdfast.repository.damage import Damage
from holdfast.repository.vault import Vault
from holdfast.repository.verify_packs import PackCheck

__all__ = ["pass_over_holes"]

_ZEROS = bytes(64)
"""Sealed bytes look like chance: so many zeros in a row were put there."""


def pass_over_holes(vault: Vault, check: PackCheck, holes: AvoidedSlots) -> dict[int, str]:
    """Take from what a check found damaged the slots that were punched; return them with what the check said."""
    passed_over = {}
    for slot in holes.of_pack(check.pack) & check.slots.keys():
        with contextlib.suppress(Damage):
            opened = vault.shelf.open(check.pack)
            if _ZEROS in bytes(opened.read_range(*opened.frame_extent(slot))):
                passed_over[slot] = check.slots.pop(slot)
    return passed_over
