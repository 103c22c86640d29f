"""``holdfast lab``: a simulated pool to learn, rehearse and test on."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from holdfast.cli import lab_fault, lab_vm
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.lab_folder import NoLabRuns, lab_folder, running_lab
from holdfast.cli.nouns import NOUNS
from holdfast.cli.secrets import find_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import GIB, ExitStatus, format_bytes
from holdfast.lab import (
    HOSTS_MAX,
    LAB_LOG,
    REAL_DELAYS,
    SCENARIO_SUMMARIES,
    SCENARIOS,
    LabDelays,
    LabHandle,
    LabWishes,
    NbdPurpose,
    apply_removal,
    plan_removal,
    resume_options,
    spawn_lab,
)

__all__ = ["app"]

app = App(name="lab", help=NOUNS["lab"])
app.command(lab_fault.app)
app.command(lab_vm.app)
guest = App(name="guest", help="What the guests of the lab's VMs do.")
app.command(guest)

_NO_COMMON = Common()
_LOG_LINES = 40
_PORT_MAX = 65535
_STORAGE_GIB_MAX = 1 << 20
_PASSWORD_VARIABLE = "HOLDFAST_LAB_PASSWORD"
_Port = Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=_PORT_MAX))]
_DOORS = {"plain": "plain HTTP", "tls": "HTTPS", "nbd": "NBD"}
_STATUS_NAMES = {"time": "time in the lab", "faults": "armed faults"}


@app.command
def start(
    *,
    state: Path | None = None,
    scenario: str | None = None,
    nbd: NbdPurpose | None = None,
    no_cbt: Annotated[bool, Parameter(negative="")] = False,
    hosts: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=HOSTS_MAX))] = None,
    role_users: Annotated[bool, Parameter(negative="")] = False,
    storage_gib: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=_STORAGE_GIB_MAX))] = None,
    seed: int | None = None,
    user: str | None = None,
    password_file: Path | None = None,
    port: _Port = None,
    plain_port: _Port = None,
    nbd_port: _Port = None,
    pace: Literal["quick", "real"] = "quick",
    common: Common = _NO_COMMON,
) -> int:
    """Start a lab pool in the background; it runs until 'holdfast lab stop'.

    It listens on this machine only, and keeps its state: started again on the same folder it has its VMs back, and what
    it was made with need not be said again. With -v it writes every call down; see 'holdfast lab logs'.

    Example: holdfast lab start --scenario tiny

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    scenario
        What it holds at its first start, 'demo' when left out; 'holdfast lab scenarios' lists them.
    nbd
        How its network offers NBD at the first start: encrypted (when left out), plain, or not at all.
    no_cbt
        Disks start without change tracking at the first start.
    hosts
        How many at least, at the first start; members send clients to the master. A scenario may need more.
    role_users
        Besides root there is one user per role, named like it: read-only, vm-admin and so on; all with root's password.
    storage_gib
        What the repository for the VMs' disks holds, at the first start; 2048 when left out.
    seed
        Draws the contents of the disks at the first start; the same seed gives the same bytes.
    user
        The superuser's name from now on; that of the last run, or root, when left out.
    password_file
        A file that holds the superuser's password from now on; without it $HOLDFAST_LAB_PASSWORD, that of the last run,
        or one drawn at random.
    port
        Where HTTPS listens from now on; that of the last run, or any that is free, when left out.
    plain_port
        The same for HTTP without encryption.
    nbd_port
        The same for NBD; 10809 on a real pool.
    pace
        Whether attaching and snapshotting disks takes no time, or as long as on a real host.
    """

    def body(session: Session) -> ExitStatus:
        folder = lab_folder(session, state)
        wishes = LabWishes(
            scenario=scenario,
            nbd=nbd,
            cbt=False if no_cbt else None,
            hosts=hosts,
            role_users=role_users or None,
            storage_bytes=storage_gib * GIB if storage_gib is not None else None,
            seed=seed,
        )
        delays = REAL_DELAYS if pace == "real" else LabDelays()
        password = find_secret(
            what="password of the lab", variable=_PASSWORD_VARIABLE, option="--password-file", file=password_file
        )
        options = replace(
            resume_options(folder, wishes),
            user=user,
            password=password,
            tls_port=port or 0,
            plain_port=plain_port or 0,
            nbd_port=nbd_port or 0,
            delays=delays,
            verbosity=common.verbose,
        )
        lab = spawn_lab(options, cancel=session.cancel)
        _tell_start(session, lab, folder)
        session.out.result(_document(lab, folder))
        return ExitStatus.OK

    return run_command(common, body)


def _tell_start(session: Session, lab: LabHandle, folder: Path) -> None:
    session.out.say(f"The lab pool runs at {lab.url}")
    for moved in lab.moved:
        session.out.warn(
            f"Its {_DOORS[moved.name]} is at port {moved.port} this time: something else listens at "
            f"{moved.wanted_port}, where it was and is looked for again at the next start."
        )
    state = "" if folder == session.settings.lab_folder else f" --state {shlex.quote(str(folder))}"
    session.out.say(f"  user {lab.user}, password: holdfast lab password{state}")
    session.out.say(f"  certificate SHA-256 {lab.fingerprint}")
    session.out.say(
        f"Add it: HOLDFAST_POOL_PASSWORD=$(holdfast lab password{state}) holdfast pool add lab {lab.url} --yes"
    )
    for each in lab.companions:
        session.out.say(f"Beside it runs a pool at {each.url}, with the same password; state in {each.state_dir}")


@app.command
def password(*, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Print the password of a lab pool that runs, and nothing else: HOLDFAST_POOL_PASSWORD=$(holdfast lab password).

    Example: holdfast lab password

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        lab = running_lab(session, state)
        session.out.say(lab.password.reveal())  # shown on purpose: it opens a pool that is not there
        session.out.result({"user": lab.user, "password": lab.password.reveal()})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def delete(
    *,
    state: Path | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Remove a lab pool that does not run: its VMs, its disks, its log. Other files in its folder stay.

    Example: holdfast lab delete --yes

    Parameters
    ----------
    state
        The folder of its state; $HOLDFAST_HOME/lab when left out.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        plan = plan_removal(lab_folder(session, state))
        size = format_bytes(plan.length_bytes)
        session.out.say(f"The lab pool in {plan.folder}, scenario '{plan.scenario}', takes {size}:")
        for path in plan.paths:
            session.out.say(f"  {path}")
        for name in plan.stays:
            session.out.say(f"  stays: {name}")
        what = f"The lab pool in {plan.folder} is removed with all its disks"
        confirm_destruction(what, name=plan.folder.name, yes=yes)
        apply_removal(plan)
        session.out.say("Removed.")
        session.out.result({"removed": [str(path) for path in plan.paths], "length_bytes": plan.length_bytes})
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
        folder, lab = lab_folder(session, state), running_lab(session, state)
        told = lab.control.status()
        session.out.say(f"The lab pool runs at {lab.url}, state in {folder}")
        for name, value in told.items():
            if isinstance(value, dict):
                session.out.say(f"  VMs: {', '.join(f'{count} {kind}' for kind, count in value.items()) or 'none'}")
            elif not isinstance(value, list):
                session.out.say(f"  {_STATUS_NAMES.get(name, name)}: {value}")
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
        folder = lab_folder(session, state)
        running_lab(session, state).stop()
        session.out.say(f"Stopped. Its state stays in {folder}.")
        session.out.result({"stopped": str(folder)})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def scenarios(*, common: Common = _NO_COMMON) -> int:
    """List what a lab pool can hold at its first start.

    Example: holdfast lab scenarios
    """

    def body(session: Session) -> ExitStatus:
        found = [(name, SCENARIOS[name].cost, summary) for name, summary in sorted(SCENARIO_SUMMARIES.items())]
        session.out.table(("SCENARIO", "=FIRST START", "WHAT IT HOLDS"), found, empty="none")
        session.out.result([{"name": name, "cost": cost, "summary": summary} for name, cost, summary in found])
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def clock(
    *,
    advance: Annotated[timedelta | None, Parameter(negative="")] = None,
    state: Path | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Show what time it is in the lab, or let time pass there at once with all that becomes due meanwhile.

    Disks are merged, old tasks collected, idle sessions closed. The clock never goes back, and keeps its lead until the
    lab ends.

    Example: holdfast lab clock --advance 24h

    Parameters
    ----------
    advance
        How much time passes, such as 90s, 15m, 24h or 2d12h.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        passed_s = advance.total_seconds() if advance is not None else 0.0
        now = running_lab(session, state).control.advance(passed_s)
        session.out.say(f"In the lab it is {now}.")
        session.out.result({"now": now, "advanced_s": passed_s})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def restart_toolstack(*, silent_s: float = 0.0, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Restart the pool's management daemon: sessions and tasks are forgotten, connections cut, VMs run on.

    Example: holdfast lab restart-toolstack --silent-s 20

    Parameters
    ----------
    silent_s
        For how many seconds nobody answers.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        running_lab(session, state).control.restart_toolstack(silent_s=silent_s)
        session.out.say("The toolstack was restarted; sessions and tasks are gone.")
        session.out.result({"restarted": True, "silent_s": silent_s})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def logs(
    *,
    lines: Annotated[int, Parameter(validator=validators.Number(gte=0))] = _LOG_LINES,
    state: Path | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Show the last lines that the lab wrote down, running or not: refusals, faults, and with 'start -v' every call.

    Example: holdfast lab logs --lines 100

    Parameters
    ----------
    lines
        How many at most.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        path = lab_folder(session, state) / LAB_LOG
        if not path.is_file():
            raise NoLabRuns(path.parent)
        told = path.read_text(encoding="utf-8", errors="replace").splitlines()
        last = told[max(0, len(told) - lines) :]
        for line in last:
            session.out.say(line)
        session.out.result({"file": str(path), "lines": last})
        return ExitStatus.OK

    return run_command(common, body)


@guest.command
def work(vm: str, *, state: Path | None = None, common: Common = _NO_COMMON) -> int:
    """Let the guest of a running VM do a day's work: files come and go, a database and a log grow.

    Example: holdfast lab guest work web

    Parameters
    ----------
    vm
        The VM, by name or uuid.
    state
        The folder of the lab's state; $HOLDFAST_HOME/lab when left out.
    """

    def body(session: Session) -> ExitStatus:
        done = running_lab(session, state).control.work_guest(vm)
        for sentence in done:
            session.out.say(sentence)
        session.out.result({"vm": vm, "done": done})
        return ExitStatus.OK

    return run_command(common, body)


def _document(lab: LabHandle, folder: Path) -> dict[str, object]:
    companions = [_document(each, each.state_dir) for each in lab.companions]
    facts = {"url": lab.url, "user": lab.user, "fingerprint": lab.fingerprint, "state": str(folder)}
    return {**facts, "companions": companions}
