"""The story of the demonstration: each act does real work through the same use cases as every command, and measures it.

Invariant: no number here is written down; each comes from the run that is being told, and each claim ends as a proof
that held or did not.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from holdfast import service
from holdfast.backup import BackupResult, VmResult
from holdfast.cli.output import Output
from holdfast.cli.point import POINT_COLUMNS, point_document, point_rows
from holdfast.cli.session import Session
from holdfast.cli.verification import explain_verification
from holdfast.core import HoldfastError, Secret, format_bytes, format_duration, format_rate, from_builtins
from holdfast.lab import LabHandle
from holdfast.model import JsonObject, PointId, RunStatus, VmUuid
from holdfast.repository import RestorePoint
from holdfast.restore import RestoreArgs, RestoreResult
from holdfast.service import BackupRequest, WorkReport, Workspace

__all__ = ["Story"]

_POOL, _REPOSITORY = "lab", "demo"


class ActFailed(HoldfastError):
    """A part of the demonstration did not end well; its run says why."""

    code = "demo.act-failed"
    effect = "Only the demonstration's own files are concerned."

    def __init__(self, *, act: str, report: WorkReport) -> None:
        super().__init__(f"{act} ended as {report.run.status.value}: {report.run.error and report.run.error.message}")
        self.act = act
        self._next_step = report.run.error.next_step if report.run.error else "Run it again with --verbose."

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return self._next_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A claim, and whether it held. ``held`` None: it could not be judged here, and ``detail`` says why."""

    claim: str
    held: bool | None
    detail: str


@dataclass(slots=True, kw_only=True)
class Story:
    """The acts in their order, over one lab pool and one repository."""

    session: Session
    workspace: Workspace
    lab: LabHandle
    folder: Path
    proofs: list[Proof] = field(default_factory=list)
    facts: JsonObject = field(default_factory=dict)

    @property
    def _out(self) -> Output:
        return self.session.out

    def tell(self) -> bool:
        """Go through all acts; return whether every proof held."""
        vms = self._meet_the_pool()
        self._make_the_repository()
        self._back_up("First backup: everything that is allocated is read", "first", vms)
        self._let_guests_work(vms)
        self._back_up("Second backup: the pool says what changed", "second", vms)
        newest = self._list_points()
        lost = service.find_point(self.workspace, _REPOSITORY, newest[vms[0]], cancel=self.session.cancel)
        self._lose(lost)
        restored = self._restore(lost)
        self._prove_disks(lost, restored)
        self._prove_filesystem(lost, restored)
        self._verify_repository()
        self._prove_nothing_left()
        return self._sum_up()

    def document(self) -> dict[str, object]:
        """Return what was measured and proven, for ``--json``."""
        where = {"folder": str(self.folder), "lab": self.lab.url}
        return {**where, **self.facts, "proofs": self.proofs}

    def tell_how_to_explore(self) -> None:
        """Print commands for a person who wants to look around."""
        home = self.folder / "home"
        out = self._out
        out.gap()
        out.say("The lab and the repository stay. Look around:", style="bold")
        out.say(f"  export HOLDFAST_HOME={home}")
        out.say(f"  alias holdfast={_own_command()}")
        for line in (
            f"holdfast vm list {_POOL}",
            f"holdfast point list --repository {_REPOSITORY}",
            f"holdfast point verify --repository {_REPOSITORY}",
            f"holdfast backup run --pool {_POOL} --repository {_REPOSITORY} --all",
            f"holdfast restore vm POINT --pool {_POOL} --repository {_REPOSITORY} --name again",
            f"holdfast lab status --state {self.folder / 'lab'}",
            f"holdfast lab fault list --state {self.folder / 'lab'}",
        ):
            out.say(f"  {line}")
        out.say(
            f"  The lab's API: {self.lab.url} (user {self.lab.user}, password in {self.folder / 'lab' / 'lab.json'})"
        )
        out.say("When you are done:")
        out.say(f"  holdfast lab stop --state {self.folder / 'lab'} && rm -r {self.folder}")

    def _act(self, title: str) -> None:
        self._out.gap()
        self._out.say(f"── {title} ", style="bold cyan")

    def _meet_the_pool(self) -> list[VmUuid]:
        self._act("The pool")
        facts = service.probe_pool(self.lab.url)
        assert facts is not None
        self._out.say(f"{self.lab.url}, certificate pinned: SHA-256 {facts.fingerprint}")
        service.add_pool(
            self.workspace,
            name=_POOL,
            url=self.lab.url,
            user=self.lab.user,
            password=Secret(self.lab.password.reveal()),
            trust=service.TrustKind.PINNED + facts.fingerprint,
            cancel=self.session.cancel,
        )
        _, inventory = service.show_pool(self.workspace, _POOL, self.session.cancel)
        rows = [
            (
                vm.name,
                vm.power_state.value,
                each.position,
                format_bytes(each.disk.size_bytes),
                format_bytes(each.disk.used_bytes),
            )
            for vm in inventory.vms
            for each in vm.disks
        ]
        self._out.table(("VM", "STATE", "DISK", ">PROVISIONED", ">USED ON SR"), rows, empty="no VMs")
        return [vm.uuid for vm in sorted(inventory.vms, key=lambda vm: (len(vm.disks), vm.name))]

    def _make_the_repository(self) -> None:
        self._act("The repository")
        created = service.create_repository(
            self.workspace, name=_REPOSITORY, location=str(self.folder / "repository"), cancel=self.session.cancel
        )
        assert created.recovery_key is not None
        self._out.say(f"{created.config.location}, encrypted. Recovery key, which you would print now:")
        self._out.say(f"    {created.recovery_key.reveal()}", style="bold")

    def _back_up(self, title: str, name: str, vms: list[VmUuid]) -> None:
        self._act(title)
        request = BackupRequest(pool=_POOL, repository=_REPOSITORY, vms=tuple(vms), job="demo")
        began_s = self.workspace.clock.monotonic_s()
        with self.session.progress() as progress:
            report = service.run_backup(self.workspace, request, progress=progress, cancel=self.session.cancel)
        took_s = self.workspace.clock.monotonic_s() - began_s
        if report.run.status is not RunStatus.SUCCEEDED:
            raise ActFailed(act=title, report=report)
        result = from_builtins(report.run.result, BackupResult)
        self._show_backup(result.vms, name=name, took_s=took_s)

    def _show_backup(self, vms: tuple[VmResult, ...], *, name: str, took_s: float) -> None:
        rows = [
            (
                vm.vm_name,
                disk.position,
                disk.source.value,
                format_bytes(disk.read_bytes),
                format_bytes(disk.new_bytes),
                format_bytes(disk.stored_bytes),
            )
            for vm in vms
            for disk in vm.disks
        ]
        self._out.table(("VM", "DISK", "SOURCE", ">READ", ">NEW", ">STORED"), rows, empty="")
        disks = [disk for vm in vms for disk in vm.disks]
        read_bytes, new_bytes, stored_bytes = (
            sum(getattr(disk, column) for disk in disks) for column in ("read_bytes", "new_bytes", "stored_bytes")
        )
        rate = format_rate(read_bytes / took_s)
        self._out.say(
            f"{format_bytes(read_bytes)} read, {format_bytes(new_bytes)} new, {format_bytes(stored_bytes)} stored "
            f"in {format_duration(took_s)} ({rate})"
        )
        self.facts[f"{name}_backup"] = {
            "read_bytes": read_bytes,
            "new_bytes": new_bytes,
            "stored_bytes": stored_bytes,
            "duration_s": took_s,
        }

    def _let_guests_work(self, vms: list[VmUuid]) -> None:
        self._act("The guests go on working")
        for vm in vms:
            with self._out.aside.status("They change files and database pages …"):
                told = self.lab.control.work_guest(vm)
            for done in told:
                self._out.say(f"  {done}")

    def _list_points(self) -> dict[VmUuid, PointId]:
        self._act("Restore points, each complete in itself")
        listed = service.list_points(self.workspace, _REPOSITORY, cancel=self.session.cancel)
        self._out.table(POINT_COLUMNS, point_rows(listed.points), empty="none")
        self.facts["points"] = [msgspec.to_builtins(point_document(each), enc_hook=str) for each in listed.points]
        return {point.vm_uuid: point.id for point in listed.points}

    def _lose(self, point: RestorePoint) -> None:
        self._act(f"Disaster: VM {point.facts.vm.name!r} is destroyed, with its disks")
        with service.connect_pool(self.workspace, _POOL, self.session.cancel) as pool:
            pool.shutdown_vm(point.facts.vm.uuid)
            pool.destroy_vm(point.facts.vm.uuid, with_disks=True)
        self._out.say("It is gone from the pool.")

    def _restore(self, point: RestorePoint) -> RestoreResult:
        self._act("Restore")
        args = RestoreArgs(pool=_POOL, repository=_REPOSITORY, point=point.id, start=True)
        plan = service.explain_restore(self.workspace, args, cancel=self.session.cancel)
        self._out.say(plan.explain())
        began_s = self.workspace.clock.monotonic_s()
        with self.session.progress() as progress:
            report = service.run_restore(self.workspace, args, progress=progress, cancel=self.session.cancel)
        took_s = self.workspace.clock.monotonic_s() - began_s
        if report.run.status is not RunStatus.SUCCEEDED:
            raise ActFailed(act="the restore", report=report)
        result = from_builtins(report.run.result, RestoreResult)
        data_bytes = sum(disk.data_bytes for disk in result.disks)
        rate = format_rate(data_bytes / took_s)
        self._out.say(f"{format_bytes(data_bytes)} of data written in {format_duration(took_s)} ({rate}); VM started")
        self.facts["restore"] = {"data_bytes": data_bytes, "duration_s": took_s}
        return result

    def _prove_disks(self, point: RestorePoint, restored: RestoreResult) -> None:
        self._act("Proofs")
        snapshots = {disk.facts.position: disk.facts.reference for disk in point.disks}
        for disk in restored.disks:
            reference = snapshots[disk.position]
            assert reference is not None
            with self._out.aside.status("The lab hashes the snapshot and the restored disk …"):
                wanted = self.lab.control.sha256(reference.snapshot)
                got = self.lab.control.sha256(disk.disk)
            self._prove(
                f"disk {disk.position} of {restored.vm_name} is bit-identical to the snapshot",
                held=wanted == got,
                detail=f"SHA-256 by the lab itself: {wanted[:16]}… and {got[:16]}…",
            )

    def _prove_filesystem(self, point: RestorePoint, restored: RestoreResult) -> None:
        for disk in restored.disks:
            with self._out.aside.status("The lab checks the file system …"):
                report = self.lab.control.check_filesystem(disk.disk)
            if report.found:
                self._prove(
                    f"the file system on disk {disk.position} of {point.facts.vm.name} is clean",
                    held=report.clean,
                    detail=report.detail,
                )

    def _verify_repository(self) -> None:
        began_s = self.workspace.clock.monotonic_s()
        with self.session.progress() as progress:
            report = service.verify(self.workspace, _REPOSITORY, (), progress=progress, cancel=self.session.cancel)
        took_s = self.workspace.clock.monotonic_s() - began_s
        self._prove(
            "every byte of every restore point in the repository is as it was written",
            held=report.is_sound,
            detail=f"{explain_verification(report)[0]} in {format_duration(took_s)}",
        )

    def _prove_nothing_left(self) -> None:
        left = self.lab.control.leftovers()
        self._prove(
            "on the pool nothing of ours is left but the change metadata for the next increment",
            held=not left,
            detail=", ".join(left) or "asked of the lab itself",
        )

    def _prove(self, claim: str, *, held: bool | None, detail: str) -> None:
        self.proofs.append(Proof(claim=claim, held=held, detail=detail))
        mark, style = {True: ("proven", "green"), False: ("FAILED", "bold red"), None: ("not judged", "yellow")}[held]
        self._out.say(f"  {mark}: {claim}", style=style)
        self._out.say(f"          {detail}", style="dim")

    def _sum_up(self) -> bool:
        held = all(proof.held is not False for proof in self.proofs)
        count = sum(proof.held is True for proof in self.proofs)
        self._out.gap()
        if held:
            self._out.say(f"All {count} proofs held.", style="bold green")
        else:
            self._out.say("A proof did not hold; see above.", style="bold red")
        return held


def _own_command() -> str:
    """Return how this very program is called from a shell, wherever it is installed."""
    return shlex.quote(str(Path(sys.argv[0]).absolute()))
