"""``holdfast backup``: make restore points."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.nouns import NOUNS
from holdfast.cli.report import tell_work, work_document
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus
from holdfast.service import BackupRequest

__all__ = ["app"]

app = App(name="backup", help=NOUNS["backup"])

_NO_COMMON = Common()


@app.command
def run(
    *,
    pool: str,
    repository: str,
    vm: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    all_vms: Annotated[bool, Parameter(name="--all", negative="")] = False,
    full: Annotated[bool, Parameter(negative="")] = False,
    keep: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Back up VMs of a pool into a repository: what changed since their newest point, or everything the first time.

    Ctrl-C pauses within seconds; 'holdfast run resume' continues where it was.

    Example: holdfast backup run --pool prod --vm web --vm db --repository main --keep 14

    Parameters
    ----------
    pool
        The pool.
    repository
        The repository.
    vm
        A VM by name or uuid; may be repeated.
    all_vms
        Every VM of the pool.
    full
        Read every allocated block, as if nothing were known. Known content is still stored only once.
    keep
        Afterwards keep the newest N points of each VM and delete the others; all are kept when left out.
    dry_run
        Print the plan and stop.
    """

    def body(session: Session) -> ExitStatus:
        request = BackupRequest(
            pool=pool, repository=repository, vms=vm, all_vms=all_vms, force_full=full, keep_points=keep
        )
        if dry_run:
            plan = service.explain_backup(session.workspace, request, cancel=session.cancel)
            session.out.say(plan.explain())
            session.out.result({"plan": plan.explain().splitlines()})
            return ExitStatus.OK
        with session.progress() as progress:
            report = service.run_backup(session.workspace, request, progress=progress, cancel=session.cancel)
        session.out.result(work_document(report))
        return tell_work(session, report)

    return run_command(common, body)
