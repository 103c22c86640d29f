"""What a damaged disk has lost: the exact extents that could not be read, and why.

Invariant: an extent is in the list exactly when a restore that goes on past damage leaves zeros in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core import BLOCK_BYTES
from holdfast.repository.damage import MISSING, Damage, MapDamaged, ObjectDamaged, PackDamaged, PackMissing

__all__ = ["MissingExtent", "MissingLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingExtent:
    """A range of a disk that cannot be read."""

    offset_bytes: int
    length_bytes: int
    object: str
    """The damaged or missing object in the store."""
    slot: int | None
    """The damaged slot of a pack; None when the whole object is meant."""
    reason: str

    @property
    def end_bytes(self) -> int:
        """The first byte after the range."""
        return self.offset_bytes + self.length_bytes


class MissingLog:
    """Collects what is missing while a disk is read from its beginning to its end."""

    def __init__(self) -> None:
        self._extents: list[MissingExtent] = []

    def add(self, first_block: int, block_count: int, damage: Damage, *, disk_bytes: int) -> None:
        """Take note of neighbouring blocks that are lost for one reason."""
        offset_bytes = first_block * BLOCK_BYTES
        object, slot, reason = _cause(damage)
        extent = MissingExtent(
            offset_bytes=offset_bytes,
            length_bytes=min(block_count * BLOCK_BYTES, disk_bytes - offset_bytes),
            object=object,
            slot=slot,
            reason=reason,
        )
        _append(self._extents, extent)

    def extents(self) -> tuple[MissingExtent, ...]:
        """Return what is missing, ascending; neighbours with one cause are one extent."""
        merged: list[MissingExtent] = []
        for extent in sorted(self._extents, key=lambda each: each.offset_bytes):
            _append(merged, extent)
        return tuple(merged)


def _append(extents: list[MissingExtent], extent: MissingExtent) -> None:
    """Add an extent, as part of the one before when it continues that."""
    if extents:
        before = extents[-1]
        joined = replace(before, length_bytes=before.length_bytes + extent.length_bytes)
        if replace(extent, offset_bytes=before.offset_bytes, length_bytes=joined.length_bytes) == joined and (
            before.end_bytes == extent.offset_bytes
        ):
            extents[-1] = joined
            return
    extents.append(extent)


def _cause(damage: Damage) -> tuple[str, int | None, str]:
    """Return object, slot and reason."""
    match damage:
        case PackDamaged() | MapDamaged():
            return damage.object, damage.slot, damage.reason
        case PackMissing():
            return damage.object, None, MISSING
        case ObjectDamaged():
            return damage.object, None, damage.reason
        case _:
            return "", None, str(damage)
