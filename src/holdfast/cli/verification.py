"""What a verification found, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from holdfast.core import format_bytes
from holdfast.model import PointId, VmUuid
from holdfast.repository import DamageFound, HitDisk, VerifyReport

__all__ = ["explain_damage", "explain_verification"]

_OBJECTS_SAID_MAX = 40
"""Two screens; by then it is known to be the store that is ill."""
_HITS_SAID_MAX = 6
"""Newer and older points of one VM mostly share what is damaged, and were told VM by VM above."""
_EXTENTS_SAID_MAX = 4
"""Where on the disk the first ones begin; all of them are in the JSON document."""


def explain_verification(report: VerifyReport) -> list[str]:
    """Return one line on what was checked, then what was found: see ``explain_damage``."""
    lines = [
        f"{report.points} points, {report.disks} disks, {report.packs} packs, {report.frames} frames, "
        f"{format_bytes(report.read_bytes)} read: {'all sound' if report.is_sound else 'DAMAGE FOUND'}"
    ]
    if report.healed is not None and report.healed.healed_slots:
        lines.append(f"damaged slots healed from copies that the repository has: {report.healed.healed_slots}")
    lines += explain_damage(report.damage)
    lines.extend(f"damaged: {each}" for each in report.damaged_points)
    if report.not_quarantined and report.is_sound:
        lines.append(f"that it was read could not be noted, so a scrub reads it again: {report.not_quarantined}")
    elif report.not_quarantined:
        lines.append(f"the damage could not be noted, so later backups may build on it: {report.not_quarantined}")
    return lines


def explain_damage(found: Sequence[DamageFound]) -> list[str]:
    """Return what each VM has lost, then each damaged object and whom it hits; of very many the first ones."""
    lines = _explain_losses([hit for damage in found for hit in damage.hits])
    for damage in found[:_OBJECTS_SAID_MAX]:
        slots = f" slots {', '.join(map(str, damage.slots[:10]))}{'…' if len(damage.slots) > 10 else ''}"
        lines.append(f"damaged: {damage.object}{slots if damage.slots else ''}: {damage.reason}")
        if not damage.hits:
            lines.append("  hits no restore point")
        lines.extend(
            f"  hits VM {hit.vm_name!r} disk {hit.position} {hit.disk_name!r} in point {hit.point}{_where(hit)}"
            for hit in damage.hits[:_HITS_SAID_MAX]
        )
        if len(damage.hits) > _HITS_SAID_MAX:
            lines.append(f"  and {len(damage.hits) - _HITS_SAID_MAX} more disks of restore points")
    if len(found) > _OBJECTS_SAID_MAX:
        lines.append(f"… and {len(found) - _OBJECTS_SAID_MAX} more damaged objects; --json names all of them")
    return lines


def _explain_losses(hits: Sequence[HitDisk]) -> list[str]:
    """Return which points of each VM have lost data, and how much one of them has lost of each disk at most."""
    points: dict[VmUuid, set[PointId]] = {}
    lost: dict[tuple[VmUuid, str, str], Counter[PointId]] = {}
    names = {hit.vm_uuid: hit.vm_name for hit in sorted(hits, key=lambda hit: hit.point)}
    for hit in hits:
        points.setdefault(hit.vm_uuid, set()).add(hit.point)
        lost.setdefault((hit.vm_uuid, hit.position, hit.disk_name), Counter())[hit.point] += hit.lost_bytes
    lines = []
    for uuid, name in sorted(names.items(), key=lambda item: item[1]):
        count, first, last = len(points[uuid]), min(points[uuid]), max(points[uuid])
        which = f"restore point {first} has" if count == 1 else f"{count} restore points, {first} to {last}, have"
        lines.append(f"VM {name!r}: {which} lost data")
        for (owner, position, disk), by_point in sorted(lost.items()):
            if owner == uuid:
                most_bytes = max(by_point.values())
                what = f"up to {format_bytes(most_bytes)} in one of them" if count > 1 else format_bytes(most_bytes)
                lines.append(f"  disk {position} {disk!r}: {what if most_bytes else 'its map is damaged'}")
    return lines


def _where(hit: HitDisk) -> str:
    if not hit.extents:
        return ""
    first = ", ".join(str(each.offset_bytes) for each in hit.extents[:_EXTENTS_SAID_MAX])
    more = ", …" if len(hit.extents) > _EXTENTS_SAID_MAX else ""
    return f": {format_bytes(hit.lost_bytes)} lost, at byte {first}{more}"
