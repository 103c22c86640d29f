"""Which packs a run may refer to: those that are in the store, not condemned, and not in quarantine.

Invariant: asked only while the run holds its lease. What is present and not condemned then, stays until the lease
ends; so an answer is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from holdfast.repository.layout import PACKS_PREFIX, PackId, pack_key, parse_pack_key
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["PackPresence"]

_ASKED_SINGLY_MAX = 24
"""So many packs are asked for one by one; for more, one listing of all packs is cheaper."""


class PackPresence:
    """Answers whether packs may be used. Thread-safe. ``condemned`` None: nothing that exists may be used."""

    def __init__(
        self, vault: Vault, *, condemned: frozenset[PackId] | None, quarantined: frozenset[PackId] = frozenset()
    ) -> None:
        self._vault = vault
        self._condemned = condemned
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

    def may_use(self, pack: PackId) -> bool:
        """Return whether a pack may be used."""
        return not self.unusable([pack])

    def unusable(self, packs: Iterable[PackId]) -> list[PackId]:
        """Return those of the packs that are missing, condemned or known to be damaged."""
        with self._lock:
            foreign = [pack for pack in packs if pack not in self._own]
            if self._condemned is None:
                return foreign
            unknown = [pack for pack in foreign if pack not in self._present]
            if unknown and not self._is_listed:
                self._look(unknown)
            refused = self._condemned | self._quarantined
            return [pack for pack in foreign if pack in refused or not self._present.get(pack, False)]

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
