"""``holdfast repository scrub`` and ``heal``: is what was stored still whole, and how it becomes whole again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.amounts import parse_budget
from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.verification import explain_damage
from holdfast.core import ExitStatus, format_bytes, format_minute
from holdfast.repository import HealReport, ScrubBudget, ScrubReport

__all__ = ["heal", "scrub"]

_NO_COMMON = Common()


def scrub(
    name: str,
    *,
    budget: str | None = None,
    status: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Read stored data again, what was not read for the longest time first, and say what is damaged.

    Every byte is decrypted, authenticated and compared with its id. Damage is named with the VMs, points and extents
    of disks that it hits; nothing new refers to it, and it heals when a later backup stores the same content. Safe
    while backups run; stopped at any moment, the next scrub continues.

    Example: holdfast repository scrub main --budget 50GiB

    Parameters
    ----------
    name
        The repository.
    budget
        How much to read: bytes such as 50GiB, or a time such as 20min. Without it, everything once.
    status
        Read nothing; say what is known, and how many scrubs of this budget a full round takes.
    """

    def body(session: Session) -> ExitStatus:
        given = parse_budget(budget)
        allowed = ScrubBudget(read_bytes=given.length_bytes, duration_s=given.duration_s)
        out = session.out
        if status:
            report = service.scrub_status(session.workspace, name, cancel=session.cancel)
        else:
            with session.progress() as progress:
                report = service.scrub(session.workspace, name, allowed, progress=progress, cancel=session.cancel)
            whole = ", everything that restore points need" if report.is_round_complete else ""
            out.say(f"Packs read: {report.packs}, {format_bytes(report.read_bytes)}{whole}.")
        for line in _explain(report, allowed):
            out.say(line)
        out.result(_document(report, allowed))
        return ExitStatus.OK if report.is_sound else ExitStatus.DAMAGED

    return run_command(common, body)


def heal(
    name: str,
    *,
    from_mirror: str | None = None,
    from_image: Path | None = None,
    disk: str | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Make damaged restore points whole again, as far as their content can be had from somewhere.

    The repository itself is asked first: a later backup may have stored the same blocks again. Whatever comes from
    elsewhere is used only when it is, bit for bit, what was lost.

    Example: holdfast repository heal main --from-mirror offsite

    Parameters
    ----------
    name
        The repository.
    from_mirror
        Another repository that has restore points of the same VMs.
    from_image
        A raw image of a disk, as it was when the damaged restore point was taken, or nearly so.
    disk
        The disk that the image is of: its uuid or its name, as 'point show' tells them.
    """

    def body(session: Session) -> ExitStatus:
        with session.progress() as progress:
            done = service.heal(
                session.workspace,
                name,
                from_mirror=from_mirror,
                from_image=from_image,
                disk=disk,
                progress=progress,
                cancel=session.cancel,
            )
        out = session.out
        out.say(explain_healing(done.healed))
        for line in explain_damage(done.damage):
            out.say(line)
        if done.is_sound:
            out.say("No restore point is known to be damaged.")
        else:
            out.say(
                "What is left, maps of disks above all, comes back with the named objects from a copy of the store;"
            )
            out.say("a restore point that a mirror has whole is sent back once it was deleted here:")
            out.say("holdfast point delete POINT --repository " + name)
            out.say("holdfast repository mirror MIRROR " + name)
        out.result({"healed": done.healed, "damage": done.damage, "is_sound": done.is_sound})
        return ExitStatus.OK if done.is_sound else ExitStatus.DAMAGED

    return run_command(common, body)


def explain_healing(healed: HealReport) -> str:
    """Return what a healing did."""
    if healed.failure:
        return f"Healing was given up: {healed.failure}"
    stored = f", {format_bytes(healed.stored_bytes)} stored for it" if healed.stored_bytes else ""
    return f"Damaged slots healed: {healed.healed_slots}{stored}; left without a whole copy: {healed.left_slots}."


def _explain(report: ScrubReport, budget: ScrubBudget) -> list[str]:
    state = report.status
    lines = []
    if report.healed is not None:
        lines.append(explain_healing(report.healed))
    lines.append(
        f"Packs needed: {state.packs}, {format_bytes(state.length_bytes)}; "
        f"{format_bytes(state.recent_bytes)} of it read in the last 30 days."
    )
    if state.never_packs:
        never = format_bytes(state.never_bytes)
        lines.append(f"Not read since they were stored: {state.never_packs}, {never}.")
    elif state.oldest_at is not None:
        lines.append(f"Oldest proof: {format_minute(state.oldest_at)}.")
    scrubs = _round_scrubs(report, budget)
    if scrubs is not None:
        lines.append(f"Scrubs of this budget for a full round: {scrubs}.")
    lines += explain_damage(report.damage)
    lines += [f"damaged: {each}" for each in report.damaged_points]
    if report.not_noted:
        lines.append(f"not all of this could be noted, so later backups may build on the damage: {report.not_noted}")
    if report.is_sound:
        lines.append("No restore point is known to be damaged.")
    else:
        lines.append("Damage heals when a backup stores the same content again, or with 'holdfast repository heal'.")
    return lines


def _document(report: ScrubReport, budget: ScrubBudget) -> dict[str, object]:
    return {
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "is_round_complete": report.is_round_complete,
        "status": report.status,
        "round_scrubs": _round_scrubs(report, budget),
        "healed": report.healed,
        "damage": report.damage,
        "damaged_points": [str(each) for each in report.damaged_points],
        "not_noted": report.not_noted,
        "is_sound": report.is_sound,
    }


def _round_scrubs(report: ScrubReport, budget: ScrubBudget) -> int | None:
    """Return how many scrubs a full round takes; for a budget of time only after one has shown how much that reads."""
    if budget.read_bytes is not None:
        return report.status.round_scrubs(budget.read_bytes)
    if budget.duration_s is not None and report.read_bytes:
        return report.status.round_scrubs(report.read_bytes)
    return None
