"""Reading past a damaged trailer: the copy in an index opens what is left of the pack.

For restores only. Verification reports such a pack as damaged, and writers do not refer to it. Invariant: a block that
is read this way is proven like any other.
"""

from __future__ import annotations

import contextlib
import threading

from holdfast.core import get_log
from holdfast.repository.damage import PackDamaged
from holdfast.repository.layout import PackId
from holdfast.repository.packs.index import list_index_heads, read_indexed_trailer
from holdfast.repository.packs.pack import OpenPack, PackShelf, SealedTrailer
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, RangeNotSatisfiable

__all__ = ["SalvagingShelf", "salvaging_vault"]

_log = get_log(__name__)


class SalvagingShelf(PackShelf):
    """A shelf that opens a pack by the copy of its trailer when its own is damaged."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault.store, vault.keys)
        self._vault = vault
        self._salvage_lock = threading.Lock()
        self._salvaged: set[PackId] = set()

    def open(self, pack: PackId) -> OpenPack:
        """See ``PackShelf.open``; the damage is raised only when no index has a copy."""
        try:
            return super().open(pack)
        except PackDamaged as damage:
            with self._salvage_lock:
                if pack in self._salvaged:
                    # Another thread was faster; or it was long ago, and the copy is not kept any more.
                    with contextlib.suppress(PackDamaged):
                        return super().open(pack)
                copy = self._find_copy(pack)
                if copy is None:
                    raise
                if pack not in self._salvaged:
                    _log.warning("pack.trailer-salvaged", object=damage.object, reason=damage.reason)
                    self._salvaged.add(pack)
                return self.adopt(copy)

    def _find_copy(self, pack: PackId) -> SealedTrailer | None:
        heads, _ = list_index_heads(self._vault)
        for head in heads:
            for number, listed in enumerate(head.pack_ids()):
                if listed == pack:
                    try:
                        return read_indexed_trailer(self._vault, head, number)
                    except (ObjectMissing, RangeNotSatisfiable):
                        break
        return None


def salvaging_vault(vault: Vault) -> Vault:
    """Return a vault for reading what a damaged repository still has; it keeps trailers of its own."""
    return Vault(vault.store, vault.keys, clock=vault.clock, entropy=vault.entropy, shelf=SalvagingShelf(vault))
