"""Verification: walks every map, reads every byte of every pack that is needed, and names what is damaged.

Invariant: a verified point restores bit-identical as long as its packs stay as they were read; damage is reported with
the object, the slots, and every VM, disk and point it hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.core import Cancellation, Progress
from holdfast.model import PointId
from holdfast.repository.block_reader import BlockReader
from holdfast.repository.crew import in_order
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.moved import read_moves
from holdfast.repository.point import RestorePoint, read_points
from holdfast.repository.quarantine import settle_quarantine
from holdfast.repository.stored_disk import NodeAddress
from holdfast.repository.vault import Vault
from holdfast.repository.verify_maps import Broken, MapWalk
from holdfast.repository.verify_packs import PackCheck, check_pack
from holdfast.storage import ObjectMissing, StoreError

__all__ = ["DamageFound", "HitDisk", "VerifyReport", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HitDisk:
    """A disk of a restore point that damage hits."""

    point: PointId
    vm_name: str
    disk_name: str
    position: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageFound:
    """One damaged or missing object, and what it costs."""

    object: str
    slots: tuple[int, ...]
    """The damaged slots; empty when the whole object is meant."""
    reason: str
    hits: tuple[HitDisk, ...]
    """Empty when no verified point needs what is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification looked at and found."""

    points: int
    disks: int
    packs: int
    frames: int
    read_bytes: int
    block_bytes: int
    """What the verified blocks hold, uncompressed."""
    damage: tuple[DamageFound, ...]
    damaged_points: tuple[PointDamaged, ...]
    """Points whose own object cannot be read."""
    not_quarantined: str = ""
    """Why damaged packs could not be put in quarantine; empty when they are, or when there are none."""

    @property
    def is_sound(self) -> bool:
        """Whether every point that was looked at restores."""
        return not self.damaged_points and not any(each.hits for each in self.damage)


def verify(
    vault: Vault, points: Sequence[RestorePoint] | None, *, workers: int, progress: Progress, cancel: Cancellation
) -> VerifyReport:
    """Return the report; see ``Repository.verify``."""
    damaged_points: tuple[PointDamaged, ...] = ()
    if points is None:
        listing = read_points(vault)
        points, damaged_points = listing.points, listing.damaged
    walk = _walk(vault, points, progress=progress, cancel=cancel)
    checks = _check_packs(vault, points, walk, workers=workers, progress=progress, cancel=cancel)
    broken = _all_broken(walk, checks)
    not_quarantined = _quarantine(vault, checks, broken)
    if broken:
        # Points that were deleted meanwhile may have lost their packs rightly.
        points = [point for point in points if _is_there(vault, point)]
    return VerifyReport(
        points=len(points),
        disks=sum(len(point.disks) for point in points),
        packs=len(checks),
        frames=sum(check.frames for check in checks),
        read_bytes=sum(check.read_bytes for check in checks),
        block_bytes=sum(check.block_bytes for check in checks),
        damage=_damage(points, walk, broken),
        damaged_points=damaged_points,
        not_quarantined=not_quarantined,
    )


def _quarantine(vault: Vault, checks: Sequence[PackCheck], broken: Broken) -> str:
    """Keep later backups from building on what is broken; return why that was not possible, or nothing."""
    slots: dict[PackId, frozenset[int] | None] = {}
    for place in broken.slots:
        slots[place.pack] = (slots.get(place.pack) or frozenset()) | {place.slot}
    try:
        settle_quarantine(
            vault,
            checked={check.pack for check in checks},
            broken={**slots, **dict.fromkeys(broken.packs)},
            harmless=frozenset(),
            forgotten=frozenset(),
        )
    except StoreError as error:
        return str(error)
    return ""


def _walk(vault: Vault, points: Sequence[RestorePoint], *, progress: Progress, cancel: Cancellation) -> MapWalk:
    walk = MapWalk(vault, moves=read_moves(vault))
    disks = [disk.stored for point in points for disk in point.disks]
    with progress.start("maps of all disks", total_bytes=sum(disk.size_bytes for disk in disks)) as task:
        for disk in disks:
            cancel.check()
            walk.add(disk)
            task.advance(disk.size_bytes)
    return walk


def _check_packs(
    vault: Vault,
    points: Sequence[RestorePoint],
    walk: MapWalk,
    *,
    workers: int,
    progress: Progress,
    cancel: Cancellation,
) -> list[PackCheck]:
    lengths = {pack: use.length_bytes for point in points for pack, use in point.packs()}
    blocks = BlockReader(vault, moves=read_moves(vault))
    checks = []
    with progress.start("every byte of every pack", total_bytes=sum(lengths.values())) as task:
        found = in_order(
            lambda pack: check_pack(vault, blocks, pack, cancel=cancel),
            sorted(walk.packs),
            workers=workers,
            ahead=2 * workers,
        )
        for check in found:
            checks.append(check)
            task.advance(lengths.get(check.pack, 0))
    return checks


def _all_broken(walk: MapWalk, checks: Sequence[PackCheck]) -> Broken:
    broken = walk.broken
    for check in checks:
        if check.whole:
            broken.packs[check.pack] = check.whole
        for slot, reason in check.slots.items():
            broken.slots[NodeAddress(check.pack, slot)] = reason
    return broken


def _damage(points: Sequence[RestorePoint], walk: MapWalk, broken: Broken) -> tuple[DamageFound, ...]:
    found = []
    for pack, reason in sorted(broken.packs.items()):
        found.append(_found(points, walk, pack, (), reason))
    by_pack: dict[PackId, dict[int, str]] = {}
    for place, reason in broken.slots.items():
        if place.pack not in broken.packs:
            by_pack.setdefault(place.pack, {})[place.slot] = reason
    for pack, slots in sorted(by_pack.items()):
        found.append(_found(points, walk, pack, tuple(sorted(slots)), "; ".join(sorted(set(slots.values())))))
    for root, reason in sorted(broken.tables.items()):
        hits = _hits(points, walk, {root.pack: frozenset({root.slot})})
        found.append(DamageFound(object=pack_key(root.pack), slots=(root.slot,), reason=reason, hits=hits))
    return tuple(found)


def _found(
    points: Sequence[RestorePoint], walk: MapWalk, pack: PackId, slots: tuple[int, ...], reason: str
) -> DamageFound:
    hits = _hits(points, walk, {pack: frozenset(slots) if slots else None})
    return DamageFound(object=pack_key(pack), slots=slots, reason=reason, hits=hits)


def _hits(
    points: Sequence[RestorePoint], walk: MapWalk, places: Mapping[PackId, frozenset[int] | None]
) -> tuple[HitDisk, ...]:
    return tuple(
        HitDisk(
            point=point.id,
            vm_name=point.facts.vm.name,
            disk_name=disk.facts.name,
            position=disk.facts.position,
        )
        for point in points
        for disk in point.disks
        if walk.is_hit(disk.stored, places)
    )


def _is_there(vault: Vault, point: RestorePoint) -> bool:
    try:
        vault.store.size(point.key)
    except ObjectMissing:
        return False
    return True
