"""Telling holes from damage: frames that garbage collection has punched read as zeros, and nobody needs them.

Invariant: a slot is taken for a hole only when a record of holes names it and its frame has zeros where sealed bytes
were. A verification, which walks the maps anyway, asks besides whether anybody needs it after all.
"""

from __future__ import annotations

import contextlib
import itertools
import threading

from holdfast.core import SECTOR_BYTES
from holdfast.repository.care.verify_packs import PackCheck
from holdfast.repository.damage import Damage
from holdfast.repository.layout import HOLES_PREFIX
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.records.avoided import NOTHING_AVOIDED, AvoidedSlots
from holdfast.repository.records.holes import read_holes
from holdfast.repository.vault import Vault

__all__ = ["KnownHoles"]


class KnownHoles:
    """What records of holes name, read again when a check finds what they do not explain. Thread-safe."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._slots = NOTHING_AVOIDED
        self._look()

    def pass_over(self, check: PackCheck) -> dict[int, str]:
        """Take from what a check found damaged the slots that were punched; return them with what the check said."""
        known = self._slots
        passed_over = self._pass_over(check, known)
        # A collection may be under way. A slot is named before it is punched, so a record that explains it is there.
        if check.slots and (now := self._look()) is not known:
            passed_over.update(self._pass_over(check, now))
        return passed_over

    def _look(self) -> AvoidedSlots:
        """Return what the records name now; the same value as before while they are the same."""
        with self._lock:
            names = [info.key for info in self._vault.names(HOLES_PREFIX)]
            if names != self._names:
                self._names, self._slots = names, read_holes(self._vault).avoided()
            return self._slots

    def _pass_over(self, check: PackCheck, holes: AvoidedSlots) -> dict[int, str]:
        passed_over: dict[int, str] = {}
        named = holes.of_pack(check.pack)
        if named.isdisjoint(check.slots):
            return passed_over
        with contextlib.suppress(Damage):
            opened = self._vault.shelf.open(check.pack)
            for slot in named & check.slots.keys():
                if _is_punched(opened, slot):
                    passed_over[slot] = check.slots.pop(slot)
        return passed_over


def _is_punched(opened: OpenPack, slot: int) -> bool:
    """Return whether the frame of a slot has nothing but zeros in one of the sectors that a punch gives back.

    In one, because what else was punched around it is not known: more may be planned than was done.
    """
    start, length_bytes = opened.frame_extent(slot)
    sealed = opened.read_range(start, length_bytes)
    edges = [0, *range(SECTOR_BYTES - start % SECTOR_BYTES, length_bytes, SECTOR_BYTES), length_bytes]
    return any(not any(sealed[first:end]) for first, end in itertools.pairwise(edges))
