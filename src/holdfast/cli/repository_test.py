"""``holdfast repository test``: whether a place can be trusted with restore points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.place_options import NO_PLACE_OPTIONS, PlaceOptions, given_credentials
from holdfast.cli.places import remembered_location
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_bytes
from holdfast.storage import Finding, SelfTest, Severity

__all__ = ["examine", "say_findings"]

_NO_COMMON = Common()

_STYLES = {Severity.GOOD: "green", Severity.NOTE: None, Severity.WARNING: "yellow", Severity.RISK: "bold red"}


class PlaceUnclear(HoldfastError):
    """Neither a repository nor a location was named, or both."""

    code = "cli.place-unclear"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was tested or changed."
    advice = "Give the name of a repository, or --location with a folder or URL that need not hold one."

    def __init__(self) -> None:
        super().__init__("either a repository or --location is tested")


def examine(
    name: str | None = None,
    *,
    location: str | None = None,
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
        A repository; it is neither opened nor changed.
    location
        A place without a repository, before you create one there: a folder or a URL.
    lock
        Also try whether objects can be held against deletion. What is locked stays for two minutes.
    """

    def body(session: Session) -> ExitStatus:
        if (name is None) == (location is None):
            raise PlaceUnclear
        with session.progress() as progress:
            if name is not None:
                outcome = service.examine_repository(
                    session.workspace, name, with_lock=lock, progress=progress, cancel=session.cancel
                )
            else:
                where = remembered_location(location or "")
                outcome = service.examine_location(
                    session.workspace,
                    where,
                    options=place.store_options(),
                    credentials=given_credentials(place.credentials, location=where),
                    with_lock=lock,
                    progress=progress,
                    cancel=session.cancel,
                )
        _tell(session, outcome)
        return ExitStatus.OK if outcome.is_fit else ExitStatus.REFUSED

    return run_command(common, body)


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
    out.result({"verdict": outcome.verdict, "fit": outcome.is_fit, **_document(outcome)})


def _document(outcome: SelfTest) -> dict[str, object]:
    return {
        "store": outcome.store,
        "findings": outcome.findings,
        "speed": outcome.speed,
        "free_bytes": outcome.free_bytes,
    }
