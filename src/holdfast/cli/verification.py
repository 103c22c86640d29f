"""What a verification found, in words."""

from __future__ import annotations

from holdfast.core import format_bytes
from holdfast.repository import VerifyReport

__all__ = ["explain_verification"]


def explain_verification(report: VerifyReport) -> list[str]:
    """Return one line on what was checked, and one for each damage: where it is and whom it hits."""
    lines = [
        f"{report.points} points, {report.disks} disks, {report.packs} packs, {report.frames} frames, "
        f"{format_bytes(report.read_bytes)} read: {'all sound' if report.is_sound else 'DAMAGE FOUND'}"
    ]
    for damage in report.damage:
        slots = f" slots {', '.join(map(str, damage.slots[:10]))}{'…' if len(damage.slots) > 10 else ''}"
        lines.append(f"damaged: {damage.object}{slots if damage.slots else ''}: {damage.reason}")
        lines.extend(
            f"  hits VM {hit.vm_name!r} disk {hit.position} {hit.disk_name!r} in point {hit.point}"
            for hit in damage.hits
        )
    lines.extend(f"damaged: {each}" for each in report.damaged_points)
    return lines
