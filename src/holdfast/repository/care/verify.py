"""Verification: walks every map, reads every byte of every pack that is needed, and names what is damaged.

Invariant: a verified point restores bit-identical as long as its packs stay as they were read; damage is reported with
the object, the slots, and every VM, disk and point it hits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.core import Cancellation, Progress
from holdfast.repository.care.hole_check import KnownHoles
from holdfast.repository.care.verify_maps import Broken, MapWalk
from holdfast.repository.care.verify_packs import PackCheck, check_pack
from holdfast.repository.crew import in_order
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.points.point import RestorePoint, read_points
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.damage_report import DamageFound, DamageReport, Reasons, report_damage
from holdfast.repository.reading.hits import HitDisk, HitSearch
from holdfast.repository.records.moved import read_moves
from holdfast.repository.records.proofs import ProofWriter
from holdfast.repository.records.quarantine import read_quarantine, settle_quarantine
from holdfast.repository.vault import Vault
from holdfast.repository.writing.heal import HealReport
from holdfast.storage import ObjectMissing, StoreError

__all__ = ["VerifyReport", "verify"]

_READERS = 6
"""Packs under way at once. While some wait for the store others are decoded; 4 MiB of memory each."""


class _Checked(NamedTuple):
    check: PackCheck
    length_bytes: int
    began_s: int
    holes: dict[int, str]
    """Damaged slots that look punched, and what is wrong with them if somebody needs them."""


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
    healed: HealReport | None = None
    """What was healed of the damage that was found; None when there was none."""
    not_quarantined: str = ""
    """Why damaged packs, or where there are none what was read, could not be noted; empty when they are."""

    @property
    def is_sound(self) -> bool:
        """Whether every point that was looked at restores."""
        return not self.damaged_points and not any(each.hits for each in self.damage)


def verify(
    vault: Vault,
    points: Sequence[RestorePoint] | None,
    *,
    reading: Vault,
    heal: Callable[[], HealReport | None],
    workers: int,
    progress: Progress,
    cancel: Cancellation,
) -> VerifyReport:
    """Return the report; see ``Repository.verify``. ``reading`` reads what is left of maps; ``heal`` tries to heal."""
    damaged_points: tuple[PointDamaged, ...] = ()
    is_of_all = points is None
    if points is None:
        listing = read_points(vault, workers=workers)
        points, damaged_points = listing.points, listing.damaged
    walk = _walk(vault, points, progress=progress, cancel=cancel)
    checks = _check_packs(vault, points, walk, workers=workers, progress=progress, cancel=cancel)
    _look_into_holes(reading, points, checks)
    broken = _all_broken(walk, [each.check for each in checks])
    not_quarantined, healed = "", None
    damage: tuple[DamageFound, ...] = ()
    try:
        _write_down(vault, checks, broken)
        healed = heal() if broken else None
        if healed is not None and healed.healed_slots:
            _forget_healed(vault, broken)
    except StoreError as error:
        not_quarantined = str(error)
    if broken:
        # Points that were deleted meanwhile may have lost their packs rightly.
        points = [point for point in points if _is_there(vault, point)]
        reasons = Reasons(packs=broken.packs, slots=broken.slots)
        moves = read_moves(vault)
        report = report_damage(reading, points, _by_pack(broken), reasons, moves=moves, trust_tables=False)
        damage = report.found + _damaged_tables(points, broken)
        not_quarantined = not_quarantined or _settle(vault, report, is_of_all=is_of_all)
    return VerifyReport(
        points=len(points),
        disks=sum(len(point.disks) for point in points),
        packs=len(checks),
        frames=sum(check.frames for check, *_ in checks),
        read_bytes=sum(check.read_bytes for check, *_ in checks),
        block_bytes=sum(check.block_bytes for check, *_ in checks),
        damage=damage,
        damaged_points=damaged_points,
        not_quarantined=not_quarantined,
        healed=healed,
    )


def _look_into_holes(reading: Vault, points: Sequence[RestorePoint], checks: Sequence[_Checked]) -> None:
    """Call those punched slots damaged that somebody needs: nothing should have punched them."""
    holes = {each.check.pack: frozenset(each.holes) for each in checks if each.holes}
    search = HitSearch(reading, moves=read_moves(reading), broken=holes)
    for point in points if holes else ():
        search.add(point)
    for each in checks:
        needed = {slot for slot in each.holes if NodeAddress(each.check.pack, slot) in search.hit_places}
        each.check.slots.update({slot: each.holes[slot] for slot in needed})


def _write_down(vault: Vault, checks: Sequence[_Checked], broken: Broken) -> None:
    """Keep later backups from building on what is broken, and note what was read, in this order."""
    settle_quarantine(
        vault,
        checked={check.pack for check, *_ in checks},
        broken=_by_pack(broken),
        harmless=frozenset(),
        forgotten=frozenset(),
    )
    proofs = ProofWriter(vault)
    for each in checks:
        if not each.check.is_missing:
            proofs.add(each.check.pack, length_bytes=each.length_bytes, began_s=each.began_s)
    proofs.close()


def _forget_healed(vault: Vault, broken: Broken) -> None:
    """Drop what left the quarantine when something else was healed: patches whose base is whole again."""
    quarantine = read_quarantine(vault)
    for place in [place for place in broken.slots if place not in quarantine]:
        del broken.slots[place]


def _settle(vault: Vault, report: DamageReport, *, is_of_all: bool) -> str:
    """Tell the quarantine what the damage hits; return why that was not possible, or nothing."""
    try:
        settle_quarantine(
            vault,
            checked=frozenset(),
            broken=report.dependents,
            harmless=report.harmless if is_of_all else frozenset(),
            forgotten=frozenset(),
        )
    except StoreError as error:
        return str(error)
    return ""


def _by_pack(broken: Broken) -> dict[PackId, frozenset[int] | None]:
    slots: dict[PackId, frozenset[int] | None] = {}
    for place in broken.slots:
        slots[place.pack] = (slots.get(place.pack) or frozenset()) | {place.slot}
    return {**slots, **dict.fromkeys(broken.packs)}


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
) -> list[_Checked]:
    lengths = {pack: use.length_bytes for point in points for pack, use in point.packs()}
    blocks = BlockReader(vault, moves=read_moves(vault))
    holes = KnownHoles(vault)
    checks = []
    threads = max(_READERS, workers) if workers else 0
    decoding = threading.BoundedSemaphore(max(1, workers))
    # What reads bases waits for nobody, so it needs threads of its own.
    bases = ThreadPoolExecutor(_READERS, thread_name_prefix="holdfast-bases") if workers else None
    submit = None if bases is None else bases.submit

    def check(pack: PackId) -> _Checked:
        began_s = int(vault.clock.now().timestamp())
        found = check_pack(vault, blocks, pack, cancel=cancel, decoding=decoding, submit=submit)
        passed_over = holes.pass_over(found)
        return _Checked(found, lengths.get(pack, found.read_bytes), began_s, passed_over)

    with bases or nullcontext(), progress.start("every byte of every pack", total_bytes=sum(lengths.values())) as task:
        for found in in_order(check, sorted(walk.packs), workers=threads, ahead=threads):
            checks.append(found)
            task.advance(lengths.get(found.check.pack, 0))
    return checks


def _all_broken(walk: MapWalk, checks: Sequence[PackCheck]) -> Broken:
    broken = walk.broken
    for check in checks:
        if check.whole:
            broken.packs[check.pack] = check.whole
        for slot, reason in check.slots.items():
            broken.slots[NodeAddress(check.pack, slot)] = reason
    return broken


def _damaged_tables(points: Sequence[RestorePoint], broken: Broken) -> tuple[DamageFound, ...]:
    return tuple(
        DamageFound(
            object=pack_key(root.pack),
            slots=(root.slot,),
            reason=reason,
            hits=tuple(
                HitDisk(
                    point=point.id,
                    vm_uuid=point.facts.vm.uuid,
                    vm_name=point.facts.vm.name,
                    disk_name=disk.facts.name,
                    position=disk.facts.position,
                )
                for point in points
                for disk in point.disks
                if disk.stored.root == root
            ),
        )
        for root, reason in sorted(broken.tables.items())
    )


def _is_there(vault: Vault, point: RestorePoint) -> bool:
    try:
        vault.store.size(point.key)
    except ObjectMissing:
        return False
    return True
