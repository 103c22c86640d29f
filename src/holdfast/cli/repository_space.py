"""``holdfast repository gc``: the space of a repository, and how it comes back."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_bytes

__all__ = ["gc"]

_NO_COMMON = Common()


def gc(name: str, *, plan: Annotated[bool, Parameter(negative="")] = False, common: Common = _NO_COMMON) -> int:
    """Give back the space of deleted points and interrupted runs. Safe while backups run.

    Example: holdfast repository gc main --plan

    Parameters
    ----------
    name
        The repository.
    plan
        Say what comes back and stop.
    """

    def body(session: Session) -> ExitStatus:
        if plan:
            decided = service.plan_collection(session.workspace, name, cancel=session.cancel)
            session.out.say(decided.explain())
            session.out.result({"plan": decided.explain().splitlines()})
            return ExitStatus.OK
        report = service.collect_garbage(session.workspace, name, cancel=session.cancel)
        session.out.say(f"{report.deleted_packs} packs deleted, {format_bytes(report.freed_bytes)} freed.")
        for waits_for in report.waits_for:
            session.out.say(f"waiting: {waits_for}")
        session.out.result(report)
        return ExitStatus.OK

    return run_command(common, body)
