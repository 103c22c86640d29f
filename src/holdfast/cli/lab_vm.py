"""``holdfast lab vm``: the VMs of a lab, started and shut down as an admin would, for rehearsals."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from cyclopts import App

from holdfast.cli.lab_folder import running_lab
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus
from holdfast.model import JsonObject

__all__ = ["app"]

app = App(name="vm", help="The VMs of the lab.")

_NO_COMMON = Common()


@app.command(name="list")
def vm_list(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """List the lab's VMs and whether they run.

    Example: holdfast lab vm list

    Parameters
    ----------
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        vms = cast("list[JsonObject]", running_lab(session, state).control.status()["vms"])
        rows = [(str(each["name"]), str(each["power_state"]), str(each["uuid"])) for each in vms]
        session.out.table(("NAME", "STATE", "=UUID"), sorted(rows), empty="No VMs.")
        session.out.result(vms)
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def start(vm: str, *, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Start a VM of the lab.

    Example: holdfast lab vm start web

    Parameters
    ----------
    vm
        The VM, by name or uuid.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        running_lab(session, state).control.start_vm(vm)
        session.out.say(f"{vm} runs.")
        session.out.result({"vm": vm, "power_state": "Running"})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def stop(vm: str, *, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Shut a VM of the lab down.

    Example: holdfast lab vm stop web

    Parameters
    ----------
    vm
        The VM, by name or uuid.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        running_lab(session, state).control.shut_down_vm(vm)
        session.out.say(f"{vm} is halted.")
        session.out.result({"vm": vm, "power_state": "Halted"})
        return ExitStatus.OK

    return run_command(common, body)
