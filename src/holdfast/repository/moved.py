"""Moved records: where frames lie now that were copied to another pack after their points were published.

This version writes none, but follows them, so that a repository cleaned by a later version stays readable.
Invariant: a move leads to a frame with the same kind and id as the old one; readers compare it like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import MOVED_PREFIX, MOVED_ROW, ObjectKind, PackId
from holdfast.repository.sealing import SealBroken
from holdfast.repository.stored_disk import NodeAddress
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["Moves", "read_moves", "write_moves"]

_STEPS_MAX = 64
"""A frame is moved at most once in each clean-up; a longer way is a circle."""


class _MovedRecord(msgspec.Struct, frozen=True, kw_only=True):
    rows: bytes


class Moves:
    """All moves of a repository as of when they were read. A value."""

    def __init__(self, moves: Mapping[NodeAddress, NodeAddress]) -> None:
        self._moves = dict(moves)

    def resolve(self, place: NodeAddress) -> NodeAddress:
        """Return where a frame lies now."""
        for _ in range(_STEPS_MAX):
            further = self._moves.get(place)
            if further is None:
                return place
            place = further
        raise ObjectDamaged(key=MOVED_PREFIX, reason=f"moves of pack {place.pack.hex()} lead in a circle")

    def live_targets(self, live: Iterable[PackId]) -> set[PackId]:
        """Return the packs that are needed because a needed pack's frames were moved into them."""
        targets: dict[PackId, set[PackId]] = {}
        for old, new in self._moves.items():
            targets.setdefault(old.pack, set()).add(new.pack)
        needed: set[PackId] = set()
        waiting = list(live)
        while waiting:
            for target in targets.get(waiting.pop(), ()):
                if target not in needed:
                    needed.add(target)
                    waiting.append(target)
        return needed

    def __len__(self) -> int:
        return len(self._moves)


def read_moves(vault: Vault) -> Moves:
    """Return all moves. A record that cannot be read is an error: what it moved could not be found."""
    moves: dict[NodeAddress, NodeAddress] = {}
    for info in list(vault.names(MOVED_PREFIX)):
        try:
            record = msgspec.msgpack.decode(vault.read(info.key, kind=ObjectKind.MOVED), type=_MovedRecord)
            rows = np.frombuffer(record.rows, dtype=MOVED_ROW)
        except ObjectMissing:
            continue
        except (SealBroken, msgspec.DecodeError, ValueError) as cause:
            raise ObjectDamaged(key=info.key, reason=str(cause)) from cause
        for old_pack, old_slot, new_pack, new_slot in rows.tolist():
            moves[NodeAddress(PackId(old_pack), old_slot)] = NodeAddress(PackId(new_pack), new_slot)
    return Moves(moves)


def write_moves(vault: Vault, moves: Mapping[NodeAddress, NodeAddress]) -> str:
    """Publish a moved record; return its name. The new packs are durable already."""
    rows = np.zeros(len(moves), dtype=MOVED_ROW)
    for row, (old, new) in zip(rows, moves.items(), strict=True):
        row["old_pack"], row["old_slot"] = np.void(old.pack), old.slot
        row["new_pack"], row["new_slot"] = np.void(new.pack), new.slot
    key = vault.fresh_name(MOVED_PREFIX)
    vault.write(key, msgspec.msgpack.encode(_MovedRecord(rows=rows.tobytes())), kind=ObjectKind.MOVED)
    return key
