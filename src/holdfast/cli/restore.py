"""``holdfast restore``: bring a restore point back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.nouns import NOUNS
from holdfast.cli.report import tell_work, work_document
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_bytes
from holdfast.restore import RestoreArgs, RestoredFile

__all__ = ["app"]

app = App(name="restore", help=NOUNS["restore"])

_NO_COMMON = Common()

_EXTENTS_SHOWN = 20


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


@app.command
def disk(
    point: str,
    disk: str,
    *,
    to: Path,
    repository: str,
    partial: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Restore one disk to a file: raw (.raw, .img), VHD (.vhd) or qcow2 (.qcow2), by the file's name.

    No pool is needed. The file appears when it is complete, and never replaces one that is there. Damage stops the
    restore, unless --partial is given; then the exit status is 8 and FILE.missing.json lists what is missing.

    Example: holdfast restore disk 20261120T090820Z 0 --to /srv/web.qcow2 --repository main

    Parameters
    ----------
    point
        The point, or a unique beginning of its id.
    disk
        The disk, by its position, uuid or name, as 'point show' tells them.
    to
        The file to make.
    repository
        The repository.
    partial
        Go on past damage: what cannot be read becomes zeros in the file.
    """

    def body(session: Session) -> ExitStatus:
        with session.progress() as progress:
            restored = service.restore_disk(
                session.workspace,
                repository,
                point,
                disk,
                to,
                partial=partial,
                progress=progress,
                cancel=session.cancel,
            )
        _tell_file(session, restored)
        session.out.result(restored)
        return ExitStatus.PARTIAL if restored.missing else ExitStatus.OK

    return run_command(common, body)


def _tell_file(session: Session, restored: RestoredFile) -> None:
    out = session.out
    size = format_bytes(restored.size_bytes)
    out.say(
        f"disk {restored.disk} {restored.disk_name!r} of VM {restored.vm_name!r} is restored: {restored.path} ({size})"
    )
    if not restored.missing:
        return
    out.warn(f"MISSING: {format_bytes(restored.missing_bytes)} could not be read and is zero in the file.")
    for extent in restored.missing[:_EXTENTS_SHOWN]:
        slot = "" if extent.slot is None else f", slot {extent.slot}"
        out.warn(f"  {extent.length_bytes} bytes at {extent.offset_bytes}: {extent.object}{slot}: {extent.reason}")
    if len(restored.missing) > _EXTENTS_SHOWN:
        out.warn(f"  and {len(restored.missing) - _EXTENTS_SHOWN} more extents")
    out.warn(f"  The whole list: {restored.missing_list}")


def _network_map(texts: tuple[str, ...]) -> dict[str, str]:
    mapping = {}
    for text in texts:
        old, separator, new = text.partition("=")
        if not (old and separator and new):
            raise NetworkMapInvalid(text)
        mapping[old] = new
    return mapping
