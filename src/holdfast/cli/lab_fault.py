"""``holdfast lab fault``: what can go wrong on a pool, on demand, to rehearse it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

from cyclopts import App, Parameter

from holdfast.cli.lab_folder import find_running_lab, running_lab
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError
from holdfast.lab import FAULT_AREAS, FAULT_KINDS, UNTIL_CLEARED, FaultKind, FaultManner, fault_kinds
from holdfast.model import JsonObject

__all__ = ["app"]

app = App(name="fault", help="What can go wrong on a pool, on demand.")

_NO_COMMON = Common()


class FaultParameterInvalid(HoldfastError):
    """A parameter of a fault is not NAME=VALUE."""

    code = "lab.fault-parameter-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Write --set NAME=VALUE; 'holdfast lab fault list' shows the parameters of each fault."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not NAME=VALUE")
        self.text = text


@app.command(name="list")
def fault_list(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """List the faults there are, with their parameters, and which are armed in the lab when it runs.

    Example: holdfast lab fault list

    Parameters
    ----------
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        lab = find_running_lab(session, state)
        armed = lab.control.faults() if lab is not None else []
        for area, kinds in FAULT_AREAS.items():
            session.out.say(area, style="bold")
            session.out.table(("FAULT", "PARAMETERS", "WHAT HAPPENS"), [_row(kind) for kind in kinds], empty="none")
            session.out.gap()
        for each in armed:
            session.out.say(f"armed: {_told(each)}")
        if not armed:
            session.out.say("No fault is armed." if lab is not None else "No lab runs here, so none is armed.")
        session.out.result({"kinds": fault_kinds(), "armed": armed})
        return ExitStatus.OK

    return run_command(common, body)


def _row(kind: FaultKind) -> tuple[str, str, str]:
    knobs = ", ".join(f"{name}={value}" for name, value in kind.parameters.items())
    manner = "" if kind.manner is FaultManner.WAITS else f" ({_MANNERS[kind.manner]})"
    return kind.name, knobs, kind.summary + manner


_MANNERS = {FaultManner.LASTS: "lasts until cleared", FaultManner.AT_ONCE: "happens at once"}


def _told(armed: JsonObject) -> str:
    """Return an armed fault as a person reads it."""
    remaining = armed["remaining"]
    often = {UNTIL_CLEARED: "until cleared", 1: "once"}.get(cast(int, remaining), f"{remaining} times")
    parameters = armed["parameters"]
    assert isinstance(parameters, dict)
    knobs = ", ".join(f"{name}={value}" for name, value in parameters.items() if value != "")
    return f"{armed['name']}, {often}" + (f", {knobs}" if knobs else "")


@app.command(name="set")
def fault_set(
    name: str,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False)] = (),
    times: int | Literal["until-cleared"] | None = None,
    state: Path | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Let a fault happen: at once, or the next times its place is reached, or until it is cleared.

    Example: holdfast lab fault set nbd-disconnects --set after_bytes=5000000 --times 3

    Parameters
    ----------
    name
        The fault.
    set_
        NAME=VALUE, a parameter of the fault; may be repeated.
    times
        How often it happens before it is gone, or until-cleared; once when left out.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        control = running_lab(session, state).control
        count = UNTIL_CLEARED if times == "until-cleared" else times
        armed = control.arm_fault_with(name, _parameters(set_), count=count)
        is_over = FAULT_KINDS[name].manner is FaultManner.AT_ONCE
        session.out.say(f"Happened: {name}." if is_over else f"Armed: {_told(armed)}.")
        session.out.result(armed)
        return ExitStatus.OK

    return run_command(common, body)


def _parameters(texts: tuple[str, ...]) -> dict[str, str]:
    parameters = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise FaultParameterInvalid(text)
        parameters[name] = value
    return parameters


@app.command(name="clear")
def fault_clear(name: str | None = None, *, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Disarm all faults, or those of one name; what lasts ends.

    Example: holdfast lab fault clear

    Parameters
    ----------
    name
        The fault; all when left out.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        control = running_lab(session, state).control
        cleared = control.clear_faults(name=name or "")
        armed = control.faults()
        session.out.say(f"Cleared: {cleared}. Still armed: {len(armed)}.")
        session.out.result({"cleared": cleared, "armed": armed})
        return ExitStatus.OK

    return run_command(common, body)
