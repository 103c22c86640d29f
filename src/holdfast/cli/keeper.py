"""``holdfast keeper``: on the file server of a repository, as root, hold finished objects against deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from holdfast.cli.nouns import NOUNS
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import Cancelled, ExitStatus, format_duration
from holdfast.keeper import Keeper, KeeperFailed, LinuxFlags, PassReport, explain_not_held, read_status

__all__ = ["app"]

app = App(name="keeper", help=NOUNS["keeper"])

_NO_COMMON = Common()
_STATE = Path("/var/lib/holdfast-keeper")
_EVERY_S = 60.0


@app.command
def run(
    *,
    folder: Path,
    days: int,
    days_max: int | None = None,
    state: Path = _STATE,
    every_s: float = _EVERY_S,
    once: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Hold what is finished in a repository's folder, look again each minute, and let go when the time is over.

    It needs root and a local ext4, XFS or btrfs file system; it knows no keys and opens no connection.

    Example: holdfast keeper run --folder /srv/backup/holdfast --days 30

    Parameters
    ----------
    folder
        The repository's folder on this machine.
    days
        For how many days each new object is held.
    days_max
        For how long the backup machine may ask to hold objects; default twice the days and 45.
    state
        Where the keeper remembers what it holds; out of reach of whoever may write into the folder.
    every_s
        Seconds between two looks.
    once
        Look once and stop, for instance from a timer.
    """

    def body(session: Session) -> ExitStatus:
        clock = session.workspace.clock
        with Keeper(folder, state=state, days=days, days_max=days_max, flags=LinuxFlags(), clock=clock) as keeper:
            while True:
                try:
                    report = keeper.look()
                except KeeperFailed as failure:
                    if once:
                        raise
                    session.out.warn(f"{failure}; trying again in {format_duration(every_s)}")
                else:
                    _say(session, report, once=once)
                    if once:
                        session.out.result(report)
                        return ExitStatus.OK
                try:
                    clock.sleep(every_s, cancel=session.cancel)
                except Cancelled:
                    session.out.say("Stopped. What is held stays held, also without a keeper.")
                    session.out.result({"stopped": True})
                    return ExitStatus.OK

    return run_command(common, body)


@app.command
def status(*, folder: Path, common: Common = _NO_COMMON) -> int:
    """Show what the keeper of a folder said after its last look. Needs no root; works through a mount too.

    Example: holdfast keeper status --folder /srv/backup/holdfast

    Parameters
    ----------
    folder
        The repository's folder.
    """

    def body(session: Session) -> ExitStatus:
        found = read_status(folder, clock=session.workspace.clock)
        session.out.say(found.explain())
        for remark in found.remarks():
            session.out.warn(remark)
        session.out.result(found)
        return ExitStatus.OK

    return run_command(common, body)


def _say(session: Session, report: PassReport, *, once: bool) -> None:
    """Tell a look in which something was done; every one that was asked for singly."""
    if once or report.newly_held or report.lengthened or report.let_go:
        session.out.say(
            f"{report.newly_held} new objects held, {report.lengthened} held for longer, {report.let_go} let go; "
            f"{report.held} are held."
        )
    if report.vanished:
        session.out.warn(f"{report.vanished} objects that were held are gone: look who has been root here.")
    if report.not_held and once:
        session.out.warn(explain_not_held(report.not_held))
