"""Reading blocks by their places, in the thread that asks.

Invariant: see ``gather``: what comes out was proven, block by block.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from holdfast.core import BLOCK_BYTES
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.reading.gather import Gatherer, Lose, Submit, WantedSlots, gather_places
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault

__all__ = ["BlockReader"]


class BlockReader:
    """Reads blocks by their places. Thread-safe."""

    def __init__(self, vault: Vault, *, moves: Moves) -> None:
        self._vault = vault
        self._moves = moves
        self._here = self.gatherer()

    def gatherer(
        self, *, submit: Submit | None = None, decoding: AbstractContextManager[object] | None = None
    ) -> Gatherer:
        """Return a gatherer of the same packs whose work runs elsewhere."""
        return Gatherer(
            self._vault.shelf,
            self._moves,
            block_key=self._vault.keys.block_id_key,
            submit=submit,
            decoding=decoding,
        )

    def read_into(self, out: memoryview, wanted: WantedSlots, *, lose: Lose | None = None) -> None:
        """Fill ``out`` with the wanted blocks. ``PackMissing``, ``PackDamaged``; to ``lose`` where there is one."""
        self._here.gather(out, wanted, lose=lose).result()

    def read(self, place: NodeAddress) -> bytes:
        """Return one block. Damage like ``read_into``."""
        block = bytearray(BLOCK_BYTES)
        self.read_into(memoryview(block), gather_places([place], [0]))
        return bytes(block)
