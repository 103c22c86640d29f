"""The table of packs that a stored disk uses: how often each is referred to, and how many bytes of it are live.

Garbage collection, mirrors and "what would deleting this free" read this table and walk no map. Invariant: a pack is
in the table exactly when a map of the disk, its root, or the base of a patch lies in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.repository.layout import PACK_TABLE_ROW, PackId

__all__ = ["PackTable", "PackUse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackUse:
    """How a disk uses one pack."""

    length_bytes: int
    """Length of the pack's object."""
    references: int
    """Entries of the disk's map that lead into the pack, its leaves and root included."""
    live_bytes: int
    """Sum of the lengths of the frames behind those entries; a frame that is used twice counts twice."""


class PackTable:
    """Which packs a disk uses. A value: it never changes."""

    __slots__ = ("_uses",)

    def __init__(self, uses: Mapping[PackId, PackUse]) -> None:
        self._uses = MappingProxyType(dict(sorted(uses.items())))

    @property
    def packs(self) -> Iterable[PackId]:
        """The packs, in the order of their ids."""
        return self._uses.keys()

    def items(self) -> Iterable[tuple[PackId, PackUse]]:
        """Return packs and uses, in the order of the ids."""
        return self._uses.items()

    def get(self, pack: PackId) -> PackUse | None:
        """Return how a pack is used, None when it is not."""
        return self._uses.get(pack)

    def __len__(self) -> int:
        return len(self._uses)

    def __contains__(self, pack: PackId) -> bool:
        return pack in self._uses

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackTable) and self._uses == other._uses

    def __hash__(self) -> int:
        return hash(tuple(self._uses))

    def __repr__(self) -> str:
        return f"PackTable({len(self._uses)} packs)"

    def to_bytes(self) -> bytes:
        """Return the table as it is stored."""
        rows: npt.NDArray[Any] = np.zeros(len(self._uses), dtype=PACK_TABLE_ROW)
        for row, (pack, use) in zip(rows, self._uses.items(), strict=True):
            row["pack"], row["length"] = np.void(pack), use.length_bytes
            row["references"], row["live"] = use.references, use.live_bytes
        return rows.tobytes()

    @classmethod
    def from_bytes(cls, stored: bytes) -> PackTable:
        """Return the table that ``to_bytes`` wrote. ValueError when it is not one."""
        rows = np.frombuffer(stored, dtype=PACK_TABLE_ROW)
        table = cls(
            {
                PackId(bytes(pack)): PackUse(length_bytes=length, references=references, live_bytes=live)
                for pack, length, references, live in rows.tolist()
            }
        )
        if len(table) != len(rows):
            raise ValueError("a pack is listed twice")
        return table
