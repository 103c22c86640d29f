"""``holdfast repository gc`` and ``usage``: the space of a repository, whose it is, and how it comes back."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.amounts import parse_budget
from holdfast.cli.output import Output
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_bytes, format_minute
from holdfast.repository import GcPlan, GcReport, SpaceReport

__all__ = ["gc", "usage"]

_NO_COMMON = Common()


def gc(
    name: str,
    *,
    plan: Annotated[bool, Parameter(negative="")] = False,
    budget: str | None = None,
    thorough: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Give back the space of deleted points and interrupted runs. Safe while backups run.

    Whole packs that nobody needs are deleted. Then the space of single dead frames comes back from packs that are
    partly needed: in place where the store can do that, by copying what is live elsewhere. It can be interrupted at any
    moment, and the next one goes on.

    Example: holdfast repository gc main --plan

    Parameters
    ----------
    name
        The repository.
    plan
        Say what comes back now, what later and when, and stop.
    budget
        How long partly needed packs are looked at, or how much is copied out of them: 20min, 50GiB.
    thorough
        Look at every pack that is needed, not only at those whose tables promise something.
    """

    def body(session: Session) -> ExitStatus:
        bound = parse_budget(budget)
        if plan:
            decided = service.plan_collection(session.workspace, name, is_thorough=thorough, cancel=session.cancel)
            session.out.say(decided.explain())
            session.out.result({"plan": _plan_document(decided)})
            return ExitStatus.OK
        with session.progress() as progress:
            report = service.collect_garbage(
                session.workspace,
                name,
                is_thorough=thorough,
                budget_bytes=bound.length_bytes,
                budget_s=bound.duration_s,
                progress=progress,
                cancel=session.cancel,
            )
        _tell(session.out, report)
        session.out.result(report)
        return ExitStatus.OK

    return run_command(common, body)


def usage(
    name: str,
    *,
    exact: Annotated[bool, Parameter(negative="")] = False,
    by_point: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Show whose space it is: what each VM needs alone, what several share, what nobody needs.

    Unique is what would come back if all points of a VM were deleted. Counted are whole packs, from the points' tables:
    quick, and exact for what deleting packs frees. With --exact every frame is counted, by walking all maps.

    Example: holdfast repository usage main --exact

    Parameters
    ----------
    name
        The repository.
    exact
        Count frames instead of whole packs; reads the maps of all points.
    by_point
        Show each restore point, too.
    """

    def body(session: Session) -> ExitStatus:
        with session.progress() as progress:
            report = service.measure_space(
                session.workspace, name, is_exact=exact, progress=progress, cancel=session.cancel
            )
        _tell_space(session.out, report, by_point=by_point)
        session.out.result(report)
        return ExitStatus.OK

    return run_command(common, body)


def _plan_document(plan: GcPlan) -> dict[str, object]:
    return {
        "made_at": plan.made_at,
        "dead_packs": len(plan.dead),
        "dead_bytes": plan.dead_bytes,
        "now_bytes": plan.now_bytes,
        "later_bytes": plan.later_bytes,
        "kept_packs": plan.kept_packs,
        "kept_bytes": plan.kept_bytes,
        "poor_packs": len(plan.poor),
        "poor_bytes_max": plan.poor_bytes_max,
        "poor_way": plan.poor_way,
        "copied_bytes_max": plan.copied_bytes_max,
        "emptied_packs": len(plan.emptied),
        "waits": plan.waits,
    }


def _tell(out: Output, report: GcReport) -> None:
    out.say(f"{report.deleted_packs} packs deleted, {format_bytes(report.freed_bytes)} freed.")
    if report.punched_packs:
        out.say(
            f"{format_bytes(report.punched_bytes)} given back in place, from {report.punched_packs} packs that are "
            "partly needed."
        )
    if report.moved_bytes and not report.emptied_packs:
        out.say(f"{format_bytes(report.moved_bytes)} were copied for it, out of frames that were mostly dead.")
    if report.emptied_packs:
        out.say(
            f"{report.emptied_packs} poor packs emptied: {format_bytes(report.moved_bytes)} were copied; the next "
            "collection deletes them."
        )
    if report.locked_packs:
        until = "" if report.locked_until is None else f", the last until {format_minute(report.locked_until)}"
        out.say(f"{report.locked_packs} packs are locked{until}: they come back with a collection after that.")
    if report.waiting_packs or report.poor_waiting_packs:
        out.say(
            f"{report.waiting_packs + report.poor_waiting_packs} packs wait; the next collection goes on with them."
        )
    for waits_for in report.waits_for:
        out.say(f"waiting: {waits_for}")
    if not report.is_complete:
        out.say("Some is left, because the budget or the room for copies is used up; the next collection goes on.")


def _tell_space(out: Output, report: SpaceReport, *, by_point: bool) -> None:
    rows = [
        (each.vm_name, each.vm_uuid, str(each.points), format_bytes(each.unique_bytes), format_bytes(each.shared_bytes))
        for each in report.vms
    ]
    out.table(("VM", "=UUID", ">POINTS", ">UNIQUE", ">SHARED"), rows, empty="No restore point yet.")
    if by_point:
        out.gap()
        points = [
            (each.point, each.vm_name, format_bytes(each.unique_bytes), format_bytes(each.shared_bytes))
            for each in report.points
        ]
        out.table(("=POINT", "VM", ">UNIQUE", ">SHARED"), points, empty="No restore point yet.")
    out.gap()
    parts = [
        f"unique {format_bytes(report.unique_bytes)}",
        f"shared {format_bytes(report.shared_bytes)}",
        f"needed by nobody {format_bytes(report.dead_bytes)}",
    ]
    if report.is_exact:
        parts.append(f"headers and trailers {format_bytes(report.overhead_bytes)}")
    out.say(f"{format_bytes(report.pack_bytes)} in packs: {', '.join(parts)}.")
    if report.hindered_bytes:
        hindered = format_bytes(report.hindered_bytes)
        out.say(
            f"Of what nobody needs, {hindered} share frames with blocks that are needed, and come back when most of "
            "such a frame is dead."
        )
    if report.punched_bytes:
        out.say(f"Of what nobody needs, {format_bytes(report.punched_bytes)} were given back in place already.")
    if not report.is_exact:
        out.say("Counted in whole packs; --exact counts every frame.")
