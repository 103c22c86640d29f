"""``holdfast restore``: bring a restore point back."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.report import tell_work, work_document
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError
from holdfast.restore import RestoreArgs

__all__ = ["app"]

app = App(name="restore", help="Bring a restore point back.")

_NO_COMMON = Common()


class NetworkMapInvalid(HoldfastError):
    """A network mapping is not of the form OLD=NEW."""

    code = "restore.network-map-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was written to the pool; the restore point is untouched."
    advice = "Write --network OLD=NEW, each a name or a uuid."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not OLD=NEW")
        self.text = text


@app.command
def vm(
    point: str,
    *,
    repository: str,
    pool: str,
    name: str | None = None,
    sr: str | None = None,
    network: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    mac: Literal["auto", "keep", "new"] = "auto",
    start: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Restore a VM from a restore point, as a new VM.

    The plan is checked before the first byte; --dry-run prints it. What cannot come back exactly is said in it.

    Example: holdfast restore vm 20261120T090820Z --repository main --pool prod --dry-run

    Parameters
    ----------
    point
        The point, or a unique beginning of its id.
    repository
        The repository.
    pool
        The pool that gets the VM.
    name
        The name of the restored VM; its name at backup time when left out.
    sr
        The SR for its disks, by name or uuid; the pool's default SR when left out.
    network
        OLD=NEW: what was plugged into network OLD is plugged into NEW; may be repeated.
    mac
        keep the MAC addresses, take new ones, or auto: keep them unless a VM on the pool has one.
    start
        Start the VM when it is restored.
    dry_run
        Print the plan and stop.
    """

    def body(session: Session) -> ExitStatus:
        args = RestoreArgs(
            pool=pool,
            repository=repository,
            point=point,
            name=name,
            sr=sr,
            network_map=_network_map(network),
            mac=mac,
            start=start,
        )
        if dry_run:
            plan = service.explain_restore(session.workspace, args, cancel=session.cancel)
            session.out.say(plan.explain())
            session.out.result({"plan": plan.explain().splitlines()})
            return ExitStatus.OK
        with session.progress() as progress:
            report = service.run_restore(
                session.workspace,
                args,
                progress=progress,
                cancel=session.cancel,
                show_plan=lambda plan: session.out.say(plan.explain()),
            )
        session.out.result(work_document(report))
        return tell_work(session, report)

    return run_command(common, body)


def _network_map(texts: tuple[str, ...]) -> dict[str, str]:
    mapping = {}
    for text in texts:
        old, separator, new = text.partition("=")
        if not (old and separator and new):
            raise NetworkMapInvalid(text)
        mapping[old] = new
    return mapping
