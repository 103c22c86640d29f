"""Which packs a run may refer to: those that are in the store, not condemned, not emptied, and not in quarantine.

A reference that is inherited may lead into an emptied pack; then the packs count that hold its frames now.

Invariant: asked only while the run holds its lease. What is present and not condemned then, stays until the lease
ends; so an answer is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Set

from holdfast.repository.layout import PACKS_PREFIX, PackId, pack_key, parse_pack_key
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["PackPresence"]

_ASKED_SINGLY_MAX = 24
"""So many packs are asked for one by one; for more, one listing of all packs is cheaper."""


class PackPresence:
    """Answers whether packs may be used. Thread-safe. ``condemned`` None: nothing that exists may be used."""

    def __init__(
        self,
        vault: Vault,
        *,
        condemned: Set[PackId] | None,
        moves: Moves,
        quarantined: frozenset[PackId] = frozenset(),
    ) -> None:
        self._vault = vault
        self._condemned = condemned
        self._moves = moves
        self._quarantined = quarantined
        self._lock = threading.Lock()
        self._present: dict[PackId, bool] = {}
        self._own: set[PackId] = set()
        self._asked = 0
        self._is_listed = False

    def add(self, pack: PackId) -> None:
        """Note that this run has stored a pack."""
        with self._lock:
            self._own.add(pack)

    def is_own(self, pack: PackId) -> bool:
        """Return whether this run has stored a pack."""
        with self._lock:
            return pack in self._own

    def may_use(self, pack: PackId) -> bool:
        """Return whether something in a pack may be referred to that no earlier point refers to."""
        return pack not in self._moves.emptied and not self.unusable([pack])

    def unusable(self, packs: Iterable[PackId]) -> list[PackId]:
        """Return those packs of a stored disk's table that are missing, condemned or known to be damaged."""
        with self._lock:
            foreign = [pack for pack in packs if pack not in self._own]
            if self._condemned is None:
                return foreign
            holders = {pack: self._holders(pack) for pack in foreign}
            unknown = [each for held in holders.values() for each in held if each not in self._present]
            if unknown and not self._is_listed:
                self._look(list(dict.fromkeys(unknown)))
            return [pack for pack, held in holders.items() if self._is_refused(pack) or not self._are_usable(held)]

    def _holders(self, pack: PackId) -> Iterable[PackId]:
        """Return the packs that hold what a table means by a pack."""
        return self._moves.holders_of([pack])

    def _are_usable(self, packs: Iterable[PackId]) -> bool:
        return all(self._present.get(pack, False) and not self._is_refused(pack) for pack in packs)

    def _is_refused(self, pack: PackId) -> bool:
        return pack in self._quarantined or (self._condemned is not None and pack in self._condemned)

    def _look(self, packs: list[PackId]) -> None:
        self._asked += len(packs)
        if self._asked > _ASKED_SINGLY_MAX:
            for info in self._vault.names(PACKS_PREFIX):
                pack = parse_pack_key(info.key)
                if pack is not None:
                    self._present[pack] = True
            self._is_listed = True
            return
        for pack in packs:
            try:
                self._vault.store.size(pack_key(pack))
                self._present[pack] = True
            except ObjectMissing:
                self._present[pack] = False
