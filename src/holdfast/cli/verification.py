"""What a verification found, in words."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core import format_bytes
from holdfast.repository import DamageFound, HitDisk, VerifyReport

__all__ = ["explain_damage", "explain_verification"]

_EXTENTS_SAID_MAX = 4
"""Where on the disk the first ones begin; all of them are in the JSON document."""


def explain_verification(report: VerifyReport) -> list[str]:
    """Return one line on what was checked, and one for each damage: where it is and whom it hits."""
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
    """Return a line for each damage, and one for each disk that it hits: how much is lost, and where."""
    lines = []
    for damage in found:
        slots = f" slots {', '.join(map(str, damage.slots[:10]))}{'…' if len(damage.slots) > 10 else ''}"
        lines.append(f"damaged: {damage.object}{slots if damage.slots else ''}: {damage.reason}")
        if not damage.hits:
            lines.append("  hits no restore point")
        lines.extend(
            f"  hits VM {hit.vm_name!r} disk {hit.position} {hit.disk_name!r} in point {hit.point}{_where(hit)}"
            for hit in damage.hits
        )
    return lines


def _where(hit: HitDisk) -> str:
    if not hit.extents:
        return ""
    first = ", ".join(str(each.offset_bytes) for each in hit.extents[:_EXTENTS_SAID_MAX])
    more = ", …" if len(hit.extents) > _EXTENTS_SAID_MAX else ""
    return f": {format_bytes(hit.lost_bytes)} lost, at byte {first}{more}"
