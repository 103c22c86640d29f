"""``holdfast lab``: a simulated pool to learn, rehearse and test on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError
from holdfast.lab import FAULT_KINDS, LabHandle, LabOptions, read_lab, spawn_lab

__all__ = ["app"]

app = App(name="lab", help="A simulated pool on this machine, to learn, rehearse and test on.")
fault = App(name="fault", help="What can go wrong on a pool, on demand.")
app.command(fault)

_NO_COMMON = Common()


class NoLabRuns(HoldfastError):
    """No lab pool runs on that state folder."""

    code = "lab.not-running"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."

    def __init__(self, folder: Path) -> None:
        super().__init__(f"no lab pool runs on {folder}")
        self.folder = str(folder)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return "Start one with 'holdfast lab start', or name its folder with --state."


class FaultParameterInvalid(HoldfastError):
    """A parameter of a fault is not NAME=VALUE."""

    code = "lab.fault-parameter-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Write --set NAME=VALUE; 'holdfast lab fault list' shows the parameters of each fault."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not NAME=VALUE")
        self.text = text


@app.command
def start(
    *,
    state: Path | None = None,
    scenario: Literal["tiny", "demo", "empty"] = "demo",
    nbd: Literal["tls", "plain", "none"] = "tls",
    no_cbt: Annotated[bool, Parameter(negative="")] = False,
    hosts: int = 1,
    common: Common = _NO_COMMON,
) -> int:
    """Start a lab pool in the background; it runs until 'holdfast lab stop'.

    It listens on this machine only, and keeps its state: started again on the same folder it has its VMs back.

    Example: holdfast lab start --scenario tiny

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    scenario
        What it holds at its first start: tiny (two VMs of 64 MiB), demo (a web and a database server), empty.
    nbd
        How its network offers NBD: encrypted, plain, or not at all.
    no_cbt
        Disks start without change tracking.
    hosts
        1, or 2 for a pool with a member that sends clients to its master.
    """

    def body(session: Session) -> ExitStatus:
        folder = _state(session, state)
        lab = spawn_lab(
            LabOptions(state_dir=folder, scenario=scenario, nbd=nbd, cbt=not no_cbt, hosts=hosts), cancel=session.cancel
        )
        session.out.say(f"The lab pool runs at {lab.url}")
        session.out.say(f"  user {lab.user}, password in {folder / 'lab.json'}")
        session.out.say(f"  certificate SHA-256 {lab.fingerprint}")
        session.out.say(f"Add it: HOLDFAST_POOL_PASSWORD=… holdfast pool add lab {lab.url} --yes")
        session.out.result(_document(lab, folder))
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def status(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Show whether a lab pool runs, where, and what it holds.

    Example: holdfast lab status

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        folder = _state(session, state)
        lab = _running(folder)
        told = lab.control.status()
        session.out.say(f"The lab pool runs at {lab.url}, state in {folder}")
        for name, value in told.items():
            if isinstance(value, dict):
                session.out.say(f"  {name}: {', '.join(f'{count} {kind}' for kind, count in value.items())}")
            elif not isinstance(value, list):
                session.out.say(f"  {name}: {value}")
        session.out.result({**_document(lab, folder), "status": told})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def stop(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Stop a lab pool; its state stays in its folder.

    Example: holdfast lab stop

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        folder = _state(session, state)
        _running(folder).stop()
        session.out.say(f"Stopped. Its state stays in {folder}.")
        session.out.result({"stopped": str(folder)})
        return ExitStatus.OK

    return run_command(common, body)


@fault.command(name="list")
def fault_list(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """List the faults there are, with their parameters, and which are armed.

    Example: holdfast lab fault list

    Parameters
    ----------
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        control = _running(_state(session, state)).control
        armed = control.faults()
        rows = [
            (each.name, ", ".join(f"{name}={value}" for name, value in each.parameters.items()), each.summary)
            for each in FAULT_KINDS.values()
        ]
        session.out.table(("FAULT", "PARAMETERS", "WHAT HAPPENS"), rows, empty="none")
        for each in armed:
            session.out.say(f"armed: {each['name']}, {each['remaining']} more times, {each['parameters']}")
        session.out.result({"kinds": control.fault_kinds(), "armed": armed})
        return ExitStatus.OK

    return run_command(common, body)


@fault.command(name="set")
def fault_set(
    name: str,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False)] = (),
    times: int = 1,
    state: Path | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Arm a fault: the next times its place is reached, it happens.

    Example: holdfast lab fault set nbd-disconnects --set after_bytes=5000000

    Parameters
    ----------
    name
        The fault.
    set_
        NAME=VALUE, a parameter of the fault; may be repeated.
    times
        How often it happens before it is gone.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        control = _running(_state(session, state)).control
        control.arm_fault(name, count=times, **_parameters(set_))
        session.out.say(f"Armed: {name}, {times} times.")
        session.out.result({"armed": name, "times": times})
        return ExitStatus.OK

    return run_command(common, body)


@fault.command(name="clear")
def fault_clear(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Disarm all faults.

    Example: holdfast lab fault clear

    Parameters
    ----------
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        _running(_state(session, state)).control.clear_faults()
        session.out.say("No fault is armed.")
        session.out.result({"armed": []})
        return ExitStatus.OK

    return run_command(common, body)


def _state(session: Session, folder: Path | None) -> Path:
    return folder.expanduser().absolute() if folder is not None else session.settings.lab_folder


def _running(folder: Path) -> LabHandle:
    lab = read_lab(folder)
    if lab is None:
        raise NoLabRuns(folder)
    return lab


def _document(lab: LabHandle, folder: Path) -> dict[str, object]:
    return {"url": lab.url, "user": lab.user, "fingerprint": lab.fingerprint, "state": str(folder)}


def _parameters(texts: tuple[str, ...]) -> dict[str, str]:
    parameters = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise FaultParameterInvalid(text)
        parameters[name] = value
    return parameters
