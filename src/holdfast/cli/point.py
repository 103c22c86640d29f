"""``holdfast point``: restore points of a repository."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.nouns import NOUNS
from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.verification import explain_verification
from holdfast.core import ExitStatus, format_bytes, format_minute
from holdfast.repository import PointSummary, summary_of

__all__ = ["app", "point_document", "point_rows"]

app = App(name="point", help=NOUNS["point"])

_NO_COMMON = Common()

POINT_COLUMNS = ("=POINT", "VM", "SOURCE", ">PROVISIONED", ">READ", ">NEW", ">STORED")


def point_rows(points: tuple[PointSummary, ...]) -> list[tuple[str, ...]]:
    """Return a table row per point, for ``POINT_COLUMNS``."""
    return [
        (
            each.id,
            each.vm_name,
            ", ".join(sorted({disk.change_source_text for disk in each.disks})),
            format_bytes(each.sizes.provisioned_bytes),
            format_bytes(each.sizes.read_bytes),
            format_bytes(each.sizes.new_bytes),
            format_bytes(each.sizes.stored_bytes),
        )
        for each in points
    ]


def point_document(point: PointSummary) -> dict[str, object]:
    """Return a point as its JSON document, without the VM's whole record."""
    return {
        "id": point.id,
        "vm": point.vm,
        "taken_at": point.taken_at,
        "run": point.run,
        "job": point.job,
        "consistency": point.consistency,
        "previous": point.previous,
        "tags": point.tags,
        "sizes": point.sizes,
        "disks": [
            {
                "position": disk.position,
                "uuid": disk.uuid,
                "name": disk.name,
                "size_bytes": disk.size_bytes,
                "change_source": disk.change_source,
                "change_reason": disk.change_reason,
                "sizes": disk.sizes,
            }
            for disk in point.disks
        ],
    }


@app.command(name="list")
def list_(
    *,
    repository: str,
    vm: str | None = None,
    checked: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """List restore points, oldest first, with their four sizes.

    Provisioned is what the guest sees; read is what came from the pool; new is what the repository had not seen;
    stored is what the repository grew by.

    Example: holdfast point list --repository main --vm web

    Parameters
    ----------
    repository
        The repository.
    vm
        Only points of this VM, by its name at that time or its uuid.
    checked
        Say of each point since when its data is checked; takes longer, as every point is opened.
    """

    def body(session: Session) -> ExitStatus:
        listed = service.list_points(session.workspace, repository, vm=vm, cancel=session.cancel)
        columns: tuple[str, ...] = POINT_COLUMNS
        rows = point_rows(listed.points)
        documents = [point_document(each) for each in listed.points]
        if checked:
            keys = [each.key for each in listed.points]
            grades = service.check_grades(session.workspace, repository, keys, cancel=session.cancel)
            columns = (*columns, "DATA")
            said = [grades[each.id].explain() if each.id in grades else "" for each in listed.points]
            rows = [(*row, text) for row, text in zip(rows, said, strict=True)]
            documents = [
                {**document, "checked": grades.get(each.id)}
                for document, each in zip(documents, listed.points, strict=True)
            ]
        session.out.table(columns, rows, empty="No restore point yet.")
        for damaged in listed.damaged:
            session.out.warn(f"damaged: {damaged}")
        session.out.result({"points": documents, "damaged": listed.damaged})
        return ExitStatus.DAMAGED if listed.damaged else ExitStatus.OK

    return run_command(common, body)


@app.command
def show(point: str, *, repository: str, common: Common = _NO_COMMON) -> int:
    """Show one restore point: when, what, how each disk was read and why.

    Example: holdfast point show 20261120T090820Z --repository main

    Parameters
    ----------
    point
        The point, or a unique beginning of its id.
    repository
        The repository.
    """

    def body(session: Session) -> ExitStatus:
        view = service.show_point(session.workspace, repository, point, cancel=session.cancel)
        out, found = session.out, view.point
        facts = found.facts
        out.say(found.id, style="bold")
        out.say(f"VM {facts.vm.name!r} ({facts.vm.uuid}) of pool {facts.vm.pool_name!r}")
        out.say(f"taken {facts.taken_at:%Y-%m-%d %H:%M:%S} UTC, {facts.consistency.value}, by run {facts.run}")
        if facts.previous:
            out.say(f"read against {facts.previous} (not needed to restore)")
        if facts.origin is not None:
            out.say(f"mirrored from point {facts.origin.point} of repository {facts.origin.repository}")
        if view.checked is not None:
            out.say(view.checked.explain())
        if view.held_until is not None:
            out.say(f"held against deletion until {format_minute(view.held_until)}")
        for disk in found.disks:
            sizes = disk.stored.sizes
            out.say(f"disk {disk.facts.position} {disk.facts.name!r}: {disk.facts.change_reason}")
            out.say(
                f"  provisioned {format_bytes(sizes.provisioned_bytes)}, read {format_bytes(sizes.read_bytes)}, "
                f"new {format_bytes(sizes.new_bytes)}, stored {format_bytes(sizes.stored_bytes)}"
            )
        document = {**point_document(summary_of(found)), "checked": view.checked, "held_until": view.held_until}
        document["origin"] = facts.origin
        out.result({**document, "vm_record": facts.vm_record})
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def verify(*points: str, repository: str, common: Common = _NO_COMMON) -> int:
    """Read and check every byte that restore points need; all points when none is named.

    Each block is decrypted, authenticated and compared with its id. Damage is named with the VMs and points it hits.

    Example: holdfast point verify --repository main

    Parameters
    ----------
    points
        The points, or unique beginnings of their ids.
    repository
        The repository.
    """

    def body(session: Session) -> ExitStatus:
        with session.progress() as progress:
            report = service.verify(session.workspace, repository, points, progress=progress, cancel=session.cancel)
        for line in explain_verification(report):
            session.out.say(line)
        session.out.result(report)
        return ExitStatus.OK if report.is_sound else ExitStatus.DAMAGED

    return run_command(common, body)


@app.command
def delete(
    point: str,
    *,
    repository: str,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Delete one restore point. Every other point stays complete; the space comes back with 'repository gc'.

    With --dry-run nothing is deleted: it says what would come back, and when.

    Example: holdfast point delete 20261120T090820Z-3f9a1c2e --repository main

    Parameters
    ----------
    point
        The point, or a unique beginning of its id.
    repository
        The repository.
    dry_run
        Say what would come back, and when, and stop.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        if dry_run:
            plan = service.plan_deletion(session.workspace, repository, point, cancel=session.cancel)
            session.out.say(f"Deleting point {plan.point} {plan.explain()}")
            session.out.result({"plan": plan})
            return ExitStatus.OK
        found = service.find_point(session.workspace, repository, point, cancel=session.cancel)
        what = f"Point {found.id} of VM {found.facts.vm.name!r} is deleted"
        confirm_destruction(what, name=found.id, yes=yes)
        deleted = service.delete_point(session.workspace, repository, found.id, cancel=session.cancel)
        session.out.say(f"Point {deleted} is deleted. Its space comes back with: holdfast repository gc {repository}")
        session.out.result({"deleted": deleted})
        return ExitStatus.OK

    return run_command(common, body)
