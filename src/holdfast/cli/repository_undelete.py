"""``holdfast repository undelete``: after an attack, bring back what a bucket with versions has kept."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus

__all__ = ["undelete"]

_NO_COMMON = Common()


def undelete(
    name: str,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Remove what somebody put on top of objects in a bucket with versions: delete markers and other contents.

    Restoring needs none of it: Holdfast reads the first version of each object, whatever lies on top. Do it once the
    stolen keys are withdrawn, so that every other tool sees the objects again too.

    Example: holdfast repository undelete offsite --dry-run

    Parameters
    ----------
    name
        The repository.
    dry_run
        Count what would be brought back and stop.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        out = session.out
        plan = service.plan_uncovering(session.workspace, name, cancel=session.cancel)
        if not plan.hidden and not plan.replaced:
            out.say("Nothing lies on top of any object: nobody but Holdfast has deleted or replaced any.")
        else:
            out.say(f"{plan.hidden} objects are hidden by delete markers, {plan.replaced} by another content, such as:")
            for key in plan.examples:
                out.say(f"  {key}")
        if dry_run or not (plan.hidden or plan.replaced):
            out.result({"plan": plan})
            return ExitStatus.OK
        confirm_destruction(
            f"What lies on top of {plan.hidden + plan.replaced} objects is removed for good; the objects stay",
            name=name,
            yes=yes,
        )
        done = service.uncover_objects(session.workspace, name, cancel=session.cancel)
        out.say(f"{done.uncovered} objects are as Holdfast put them. Next: holdfast point verify --repository {name}")
        if done.locked:
            out.warn(f"On {done.locked} objects something stays that was locked by others; Holdfast reads past it.")
        out.result({"plan": plan, "done": done})
        return ExitStatus.OK

    return run_command(common, body)
