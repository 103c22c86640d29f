"""Damage as people are told it: the object, the slots, why, and every VM, disk and point it hits.

Invariant: what was healed, or what no restore point needs of a pack that is gone, is not told as damage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.repository.damage import MISSING
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.points.point import RestorePoint
from holdfast.repository.reading.hits import HitDisk, HitSearch
from holdfast.repository.records.moved import Moves
from holdfast.repository.records.quarantine import BrokenSlots
from holdfast.repository.vault import Vault

__all__ = ["DamageFound", "DamageReport", "Reasons", "report_damage", "unhealed"]

_KNOWN = "found damaged by an earlier check"


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageFound:
    """One damaged or missing object, and what it costs."""

    object: str
    slots: tuple[int, ...]
    """The damaged slots; empty when the whole object is meant."""
    reason: str
    hits: tuple[HitDisk, ...]
    """Empty when no restore point that was looked at needs what is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """Why packs and slots were called broken, as far as this check looked at them itself."""

    packs: Mapping[PackId, str] = field(default_factory=dict)
    slots: Mapping[NodeAddress, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageReport:
    """What is damaged, and what follows for the quarantine."""

    found: tuple[DamageFound, ...]
    harmless: frozenset[PackId]
    """Broken packs of which the points that were looked at need nothing that is broken."""
    dependents: BrokenSlots
    """Patches that are whole, but whose base is damaged."""


def report_damage(
    vault: Vault,
    points: Iterable[RestorePoint],
    broken: BrokenSlots,
    reasons: Reasons,
    *,
    moves: Moves,
    trust_tables: bool = True,
) -> DamageReport:
    """Return what is damaged and whom it hits, among these points. ``vault`` reads what is left of their maps.

    Only maps of points whose tables meet the damage are looked at, unless ``trust_tables`` says otherwise.
    """
    left = unhealed(broken, moves)
    search = HitSearch(vault, moves=moves, broken=left, trust_tables=trust_tables)
    if left:
        for point in points:
            search.add(point)
    found = []
    for pack, slots in sorted(left.items()):
        hits = search.hits_of(pack)
        reason = _reason(pack, slots, reasons)
        if hits or reason != MISSING:
            told = () if slots is None else tuple(sorted(slots))
            found.append(DamageFound(object=pack_key(pack), slots=told, reason=reason, hits=hits))
    dependents: dict[PackId, frozenset[int] | None] = {}
    for place in search.dependents:
        dependents[place.pack] = (dependents.get(place.pack) or frozenset()) | {place.slot}
    return DamageReport(
        found=tuple(found),
        harmless=frozenset(pack for pack in broken if not search.hits_of(pack)),
        dependents=dependents,
    )


def unhealed(broken: BrokenSlots, moves: Moves) -> dict[PackId, frozenset[int] | None]:
    """Return what is broken without the single slots from which a move leads away."""
    left: dict[PackId, frozenset[int] | None] = {}
    for pack, slots in broken.items():
        if slots is None:
            left[pack] = None
            continue
        places = [NodeAddress(pack, slot) for slot in slots]
        kept = frozenset(place.slot for place in places if moves.resolve(place) == place)
        if kept:
            left[pack] = kept
    return left


def _reason(pack: PackId, slots: frozenset[int] | None, reasons: Reasons) -> str:
    if slots is None:
        return reasons.packs.get(pack, _KNOWN)
    told = {reasons.slots.get(NodeAddress(pack, slot), _KNOWN) for slot in slots}
    return "; ".join(sorted(told))
