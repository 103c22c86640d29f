"""``holdfast repository lock``: holding restore points against deletion, and whether that works."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_minute
from holdfast.repository import LockingReport, ProtectionReport, Verdict

__all__ = ["lock", "lock_new", "say_protection"]

_NO_COMMON = Common()

_HEADLINES = {
    Verdict.PROTECTED: ("PROTECTED", "green"),
    Verdict.PENDING: ("NOT PROTECTED YET", "yellow"),
    Verdict.NOT_PROTECTED: ("NOT PROTECTED", "bold red"),
    Verdict.NOT_TRIED: ("NOT KNOWN", "yellow"),
    Verdict.NOT_ASKED_FOR: ("NOT PROTECTED", "yellow"),
}


def lock(
    name: str,
    *,
    days: str | None = None,
    status: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Hold restore points against deletion by anybody, this machine included; or show whether they are held.

    The status is found out by trying to delete a canary. Exit status 1: the points should be held, and are not.

    Example: holdfast repository lock main --days 30

    Parameters
    ----------
    name
        The repository.
    days
        For how many days each point is held from its publication on, and those that are there from now on. 0: nothing
        new is held; what is held stays so.
    status
        Only show whether it works, which is also done without any option.
    """

    def body(session: Session) -> ExitStatus:
        report = None
        if days is not None and not status:
            wanted = service.parse_lock_days(days)
            with session.progress() as progress:
                report = service.lock_repository(
                    session.workspace, name, days=wanted, progress=progress, cancel=session.cancel
                )
            _say_locking(session, name, report)
        protection = service.show_protection(session.workspace, name, cancel=session.cancel)
        say_protection(session, protection)
        newest = [
            (each.point, each.vm_name, format_minute(each.until) if each.until else "not held")
            for each in protection.newest
        ]
        if newest:
            session.out.gap()
            session.out.table(("=NEWEST POINT", "VM", "HELD UNTIL"), newest, empty="")
        session.out.result({"locked": report, "protection": protection})
        is_bare = protection.verdict is Verdict.NOT_PROTECTED or (report is not None and bool(report.not_held))
        return ExitStatus.FAILED if is_bare else ExitStatus.OK

    return run_command(common, body)


def say_protection(session: Session, protection: ProtectionReport) -> None:
    """Tell what a trial has shown."""
    headline, style = _HEADLINES[protection.verdict]
    until = f" until {format_minute(protection.held_until)}" if protection.held_until else ""
    is_proven = protection.verdict is Verdict.PROTECTED
    out = session.out
    out.say(f"{headline}{until if is_proven else ''}: {protection.reason}", style=style)
    out.say(f"  tried at {protection.tried_at:%Y-%m-%d %H:%M:%S} UTC")
    if not is_proven:
        out.say(f"  What to do: {protection.next_step}")


def lock_new(session: Session, name: str, days: int) -> LockingReport | None:
    """Lock a repository that was just made; None, and the reason told, when that fails: the repository is there."""
    try:
        with session.progress() as progress:
            report = service.lock_repository(
                session.workspace, name, days=days, progress=progress, cancel=session.cancel
            )
        protection = service.show_protection(session.workspace, name, cancel=session.cancel)
    except HoldfastError as error:
        session.out.tell_error(error)
        session.out.warn(
            f"The repository is ready but holds nothing yet: holdfast repository lock {name} --days {days}"
        )
        return None
    _say_locking(session, name, report)
    say_protection(session, protection)
    return report


def _say_locking(session: Session, name: str, report: LockingReport) -> None:
    """Tell what setting a policy has done."""
    out, days = session.out, report.policy.days
    if not days:
        out.say(
            f"Repository {name} holds nothing new from now on. What is held already stays so until its time is over."
        )
        return
    out.say(
        f"Repository {name} is to hold each restore point for {days} days. "
        f"{report.held_points} that were there are held."
    )
    for key in report.not_held[:3]:
        out.warn(f"not held: {key}; 'holdfast point verify --repository {name}' tells why, or see the status below")
