"""``holdfast repository mirror``: the restore points of one repository, given to another."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.output import Output
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_bytes
from holdfast.upkeep import MirrorPlan

__all__ = ["mirror"]

_NO_COMMON = Common()


def mirror(
    source: str,
    target: str,
    *,
    vm: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    newest: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Send the restore points that another repository lacks. It keeps its own keys, compression and retention.

    Only what differs is read, only what the target does not know is sent. Interrupted at any moment, it goes on
    where it was when it is started again. Exit status 6: points are damaged, here or there.

    Example: holdfast repository mirror main offsite --vm web --newest 7

    Parameters
    ----------
    source
        The repository whose points are sent.
    target
        The repository that receives them.
    vm
        Only points of this VM, by name or uuid; may be given several times.
    newest
        Of each VM only so many points, the newest.
    dry_run
        Say what would be sent and stop.
    """

    def body(session: Session) -> ExitStatus:
        out = session.out
        plan = service.plan_mirror(session.workspace, source, target, vms=vm, newest=newest, cancel=session.cancel)
        missing = [{"point": each.id, "vm": each.vm, "taken_at": each.taken_at} for each in plan.missing]
        if dry_run:
            out.say(plan.explain())
            _tell_damaged(out, plan, source, target)
            out.result({"plan": {"present": plan.present, "damaged": plan.damaged, "missing": missing}})
            return ExitStatus.OK
        with session.progress() as progress:
            report = service.mirror_repository(
                session.workspace, source, target, plan, progress=progress, cancel=session.cancel
            )
        sizes = report.sizes
        out.say(
            f"{len(report.sent)} points sent to {target}: {format_bytes(sizes.read_bytes)} read from {source}, "
            f"{format_bytes(sizes.new_bytes)} of it new, {format_bytes(sizes.stored_bytes)} stored."
        )
        for point in report.gone:
            out.say(f"{point} was deleted from {source} meanwhile")
        for failure in report.failed:
            out.warn(f"{failure.point} of VM {failure.vm_name!r} was not sent: {failure.reason}")
        if report.failed:
            out.warn(f"Verify them ('holdfast point verify --repository {source}'); {target} has none of their data.")
        _tell_damaged(out, plan, source, target)
        out.result(
            {
                "sent": report.sent,
                "sizes": report.sizes,
                "failed": report.failed,
                "gone": report.gone,
                "damaged": plan.damaged,
            }
        )
        return ExitStatus.DAMAGED if report.failed or plan.damaged else ExitStatus.OK

    return run_command(common, body)


def _tell_damaged(out: Output, plan: MirrorPlan, source: str, target: str) -> None:
    for point in plan.damaged:
        out.warn(f"{point} is in {target} already, but damaged there")
    if plan.damaged:
        out.warn(f"Heal them with 'holdfast repository heal {target} --from-mirror {source}'.")
        out.warn(f"One that stays damaged is sent anew once it was deleted from {target}.")
