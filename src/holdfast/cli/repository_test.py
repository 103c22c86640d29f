"""``holdfast repository test``: whether a place can be trusted with restore points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.place_options import NO_PLACE_OPTIONS, PlaceOptions, given_credentials
from holdfast.cli.places import remembered_location
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import Cancelled, ExitStatus, HoldfastError, format_bytes
from holdfast.storage import Finding, SelfTest, Severity

__all__ = ["examine", "say_findings"]

_NO_COMMON = Common()

_STYLES = {Severity.GOOD: "green", Severity.NOTE: None, Severity.WARNING: "yellow", Severity.RISK: "bold red"}


class PlaceTestStopped(HoldfastError):
    """The test of a place was asked to stop."""

    code = "cli.place-test-stopped"
    exit_status = ExitStatus.INTERRUPTED
    effect = "What the test stored is removed; nothing else was touched."
    advice = "Run it again; there is no verdict."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the test was stopped: {reason}")
        self.reason = reason


def examine(
    name: str,
    *,
    lock: Annotated[bool, Parameter(negative="")] = False,
    place: PlaceOptions = NO_PLACE_OPTIONS,
    common: Common = _NO_COMMON,
) -> int:
    """Try whether a place keeps the promises that backups rest on, and how fast it is.

    Some two hundred MB are written, read and deleted again, beside what is there. Each finding says what it means for
    your data. Exit status 0 when the place is fit for backups, 4 when it is not.

    Example: holdfast repository test main

    Parameters
    ----------
    name
        A repository; it is neither opened nor changed. Or a place where none needs to be yet: a path with a slash in
        it, or a URL.
    lock
        Also try whether objects can be held against deletion. What is locked stays for two minutes.
    """

    def body(session: Session) -> ExitStatus:
        try:
            outcome = _examined(session, name, place, with_lock=lock)
        except Cancelled as stop:
            raise PlaceTestStopped(str(stop)) from stop
        _tell(session, outcome)
        return ExitStatus.OK if outcome.is_fit else ExitStatus.REFUSED

    return run_command(common, body)


def _examined(session: Session, name: str, place: PlaceOptions, *, with_lock: bool) -> SelfTest:
    with session.progress() as progress:
        if not _is_location(name):
            return service.examine_repository(
                session.workspace, name, with_lock=with_lock, progress=progress, cancel=session.cancel
            )
        where = remembered_location(name)
        return service.examine_location(
            session.workspace,
            where,
            options=place.store_options(),
            credentials=given_credentials(place.credentials, location=where),
            with_lock=with_lock,
            progress=progress,
            cancel=session.cancel,
        )


def _is_location(text: str) -> bool:
    """Whether a text is a place: no repository can have a slash in its name."""
    return "/" in text or "\\" in text


def say_findings(session: Session, findings: Sequence[Finding]) -> None:
    """Print findings for people: what was seen, and below it what that means."""
    for each in findings:
        session.out.say(f"{each.severity.value:<12}  {each.name}: {each.seen}", style=_STYLES[each.severity])
        session.out.say(f"{'':<12}  {each.meaning}")


def _tell(session: Session, outcome: SelfTest) -> None:
    out = session.out
    out.say(outcome.store, style="bold")
    say_findings(session, outcome.findings)
    if outcome.free_bytes is not None:
        out.say(f"{format_bytes(outcome.free_bytes)} free")
    out.gap()
    out.say(outcome.verdict, style="bold" if outcome.is_fit else "bold red")
    out.result({"verdict": outcome.verdict, "is_fit": outcome.is_fit, **_document(outcome)})


def _document(outcome: SelfTest) -> dict[str, object]:
    return {
        "store": outcome.store,
        "findings": outcome.findings,
        "speed": outcome.speed,
        "free_bytes": outcome.free_bytes,
    }
