"""Xen Orchestra's backup engine at one lab: jobs, restores and what became of the bytes, in the words of a test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.core import MIB, SystemClock
from holdfast.lab import RunningLab
from tests.judges.xo.labs import patient_lab
from tests.judges.xo.peer import Peer, PeerFailed, peer_or_skip
from tests.support.lab import PASSWORD, logged_in
from tests.unit.lab.talk import new_disk, wait_until

__all__ = ["Machine", "Orchestra", "Step", "orchestra_at", "other_pool"]

_SCHEDULE = "22222222-2222-4222-8222-222222222222"
_FOLDER = "folder"
_NIGHT_S = 3600.0
"""What passes between two runs: the pool's housekeeping is long done then."""


_DISK = {
    "bootable": False,
    "mode": "RW",
    "type": "Disk",
    "unpluggable": True,
    "empty": False,
    "other_config": {},
    "qos_algorithm_type": "",
    "qos_algorithm_params": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the engine did in one unit of its work, and in the units within."""

    name: str
    status: str
    told: dict[str, Any]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, tree: dict[str, Any]) -> Step:
        """Return the tree that the engine told."""
        within = tuple(cls.of(each) for each in tree["tasks"])
        return cls(name=str(tree["name"]), status=tree["status"], told=tree, steps=within)

    def all(self) -> Iterator[Step]:
        """Return this step and everything within."""
        yield self
        for step in self.steps:
            yield from step.all()

    def named(self, name: str) -> list[Step]:
        """Return the steps of that name."""
        return [step for step in self.all() if step.name == name]

    @property
    def infos(self) -> list[str]:
        """What the engine remarked."""
        return [info for step in self.all() for info in step.told["infos"]]

    @property
    def complaints(self) -> list[str]:
        """Every failure and warning, a line each; a run that went well has none."""
        found: list[str] = []
        for step in self.all():
            if step.status != "success":
                result = step.told.get("result") or {}
                found.append(f"{step.name} {step.status} in {result.get('call')}: {result.get('stack', result)}")
            found += [f"{step.name}: {message} {cause}" for message, cause in step.told["warnings"]]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A VM as the pool knows it."""

    ref: str
    uuid: str
    name: str
    disks: dict[str, str]
    """Uuid of each disk, by its device."""


class Orchestra:
    """The engine, connected to a lab, with one folder for backups."""

    def __init__(self, lab: RunningLab, peer: Peer, session: Any, folder: Path) -> None:
        self.lab = lab
        self.api: Any = session.xenapi
        self.folder = folder
        self.peer = peer
        self._jobs = itertools.count(1)
        self._clock = SystemClock()
        self._last_ended_at = datetime.min.replace(tzinfo=UTC)
        self._folders = {_FOLDER: str(folder)}

    # -- the pool

    @property
    def sr(self) -> str:
        """Uuid of the repository that disks go to by default."""
        (pool,) = self.api.pool.get_all()
        return str(self.api.SR.get_uuid(self.api.pool.get_default_SR(pool)))

    def machine(self, name: str) -> Machine:
        """Return the one VM of that name that is no snapshot."""
        (ref,) = (ref for ref in self.api.VM.get_by_name_label(name) if not self.api.VM.get_is_a_snapshot(ref))
        return self.machine_at(ref)

    def machine_at(self, ref: str) -> Machine:
        """Return a VM by its reference."""
        disks: dict[str, str] = {}
        for vbd in self.api.VM.get_VBDs(ref):
            record = self.api.VBD.get_record(vbd)
            if record["type"] == "Disk":
                disks[record["userdevice"]] = self.api.VDI.get_uuid(record["VDI"])
        record = self.api.VM.get_record(ref)
        return Machine(ref=ref, uuid=record["uuid"], name=record["name_label"], disks=dict(sorted(disks.items())))

    def content(self, machine: Machine) -> dict[str, str]:
        """Return the hash of each disk, by device."""
        return {device: self.lab.control.sha256(disk) for device, disk in machine.disks.items()}

    def replicas_of(self, machine: Machine) -> list[Machine]:
        """Return the VMs that the engine made of another one and keeps up to date."""
        return [
            self.machine_at(ref)
            for ref, vm in self.api.VM.get_all_records().items()
            if "xo:backup:sr" in vm["other_config"] and not vm["is_a_snapshot"] and machine.name in vm["name_label"]
        ]

    def wait_until_running(self, machine: Machine) -> None:
        """Return when the VM runs again; the engine starts it without waiting."""
        state = self.lab.pool.db.text
        wait_until(self.lab, lambda: state("VM", machine.ref, "power_state") == "Running")

    def add_disk(self, machine: Machine, *, name: str) -> str:
        """Give a running VM one more disk; return its device."""
        disk = new_disk(self.api, 8 * MIB, name=name)
        device = str(self.api.VM.get_allowed_VBD_devices(machine.ref)[0])
        record = {"VM": machine.ref, "VDI": disk, "userdevice": device, **_DISK}
        self.api.VBD.plug(self.api.VBD.create(record))
        return device

    def remove_disk(self, machine: Machine, device: str) -> None:
        """Take a disk from a running VM and destroy it."""
        for vbd in self.api.VM.get_VBDs(machine.ref):
            record = self.api.VBD.get_record(vbd)
            if record["userdevice"] == device:
                self.api.VBD.unplug(vbd)
                self.api.VBD.destroy(vbd)
                self.api.VDI.destroy(record["VDI"])

    def remove(self, machine: Machine) -> None:
        """Destroy a VM, its snapshots and all their disks."""
        record = self.api.VM.get_record(machine.ref)
        for snapshot in record["snapshots"]:
            self.remove(self.machine_at(snapshot))
        if record["power_state"] != "Halted":
            self.api.VM.hard_shutdown(machine.ref)
        self.api.VM.destroy(machine.ref)
        for disk in machine.disks.values():
            self.api.VDI.destroy(self.api.VDI.get_by_uuid(disk))

    def pass_a_day(self, machine: Machine) -> None:
        """Let the guest work and the pool tidy up."""
        self.lab.control.work_guest(machine.uuid)
        self.pass_time()

    def pass_time(self) -> None:
        """Let the pool tidy up: without that, chains of disks grow until the engine refuses to go on."""
        self.lab.control.advance(_NIGHT_S)

    # -- the engine

    def new_job(self) -> str:
        """Return an identity for a job; runs of one job build upon each other."""
        return f"11111111-1111-4111-8111-{next(self._jobs):012d}"

    def run(
        self,
        job: str,
        machine: Machine,
        *,
        mode: str = "delta",
        settings: dict[str, Any] | None = None,
        schedule: dict[str, Any] | None = None,
        onto: Orchestra | None = None,
        **fields: Any,
    ) -> Step:
        """Run a job on one VM into the folder, or as a replica onto a pool, and return what the engine did."""
        kept = (
            {"exportRetention": 1, "copyRetention": 0} if onto is None else {"exportRetention": 0, "copyRetention": 1}
        )
        description = {
            "id": job,
            "name": f"job {job[-2:]}",
            "type": "backup",
            "mode": mode,
            "vms": _any_of(machine.uuid),
            "srs": _any_of(*([] if onto is None else [onto.sr])),
            "remotes": _any_of(*([_FOLDER] if onto is None else [])),
            "settings": {
                "": {"timezone": "UTC", "mergeBackupsSynchronously": True, **(settings or {})},
                _SCHEDULE: {**kept, "snapshotRetention": 0, **(schedule or {})},
            },
            **fields,
        }
        return self._run(description)

    def dump_pool(self) -> Step:
        """Run a job that keeps the pool's database in the folder."""
        (pool,) = self.api.pool.get_all()
        description = {
            "id": self.new_job(),
            "name": "pool",
            "type": "metadataBackup",
            "remotes": _any_of(_FOLDER),
            "pools": _any_of(self.api.pool.get_uuid(pool)),
            "settings": {_SCHEDULE: {"retentionPoolMetadata": 2}},
        }
        return self._run(description)

    def _run(self, description: dict[str, Any]) -> Step:
        schedule = {"id": _SCHEDULE, "name": "daily"}
        self._wait_for_another_second()
        try:
            return Step.of(self.peer.ask("run", folders=self._folders, job=description, schedule=schedule))
        finally:
            self._last_ended_at = self._clock.now()

    def _wait_for_another_second(self) -> None:
        """Keep two runs from one second: the engine names what it keeps by that, and removes the older of one name."""
        now = self._clock.now()
        if now.replace(microsecond=0) == self._last_ended_at.replace(microsecond=0):
            self._clock.sleep(1 - now.microsecond / 1e6)

    def points(self, machine: Machine, job: str) -> list[dict[str, Any]]:
        """Return what the folder holds of a VM by one job, oldest first."""
        found = self.peer.ask("points", folders=self._folders, folder=_FOLDER, vm=machine.uuid)
        return [point for point in found if point["job"] == job]

    def restore(self, point: dict[str, Any], **settings: Any) -> tuple[Machine, Step]:
        """Make a new VM from what the folder holds; return it and what the engine did."""
        given = {"folder": _FOLDER, "file": point["file"], "sr": self.sr, "settings": settings}
        step = Step.of(self.peer.ask("restore", folders=self._folders, **given))
        if step.complaints:
            raise AssertionError("\n".join(step.complaints))
        return self.machine_at(self.api.VM.get_by_uuid(step.told["result"]["id"])), step

    def check_folder(self, machine: Machine) -> list[Any]:
        """Let the engine read all that the folder holds of a VM; return what it finds wrong."""
        found: list[Any] = self.peer.ask("clean", folders=self._folders, folder=_FOLDER, vm=machine.uuid)
        return found

    def restore_pool(self) -> Step:
        """Give the newest dump of the pool's database back to the pool, and let the host reboot with it.

        The pool keeps the upload's connection open until then, and the engine waits for its end.
        """
        dumps = self.peer.ask("poolDumps", folders=self._folders, folder=_FOLDER)
        newest = max(dump["id"].removeprefix("/") for dumps_of_pool in dumps.values() for dump in dumps_of_pool)
        answer = self.peer.begin("restorePool", folders=self._folders, folder=_FOLDER, id=newest)
        wait_until(self.lab, lambda: self.lab.pool.chores.is_due("restore-reboot"))
        wait_until(
            self.lab, lambda: not self._tasks("[XO] Import pool metadata")
        )  # it removes its task when that ended
        self.lab.control.advance(_NIGHT_S)
        return Step.of(self.peer.answer_of(answer))

    def _tasks(self, label: str) -> list[str]:
        """Return the tasks of that name."""
        tasks = (row.fields for row in self.lab.pool.db.rows("task"))
        return [str(task["uuid"]) for task in tasks if task["name_label"] == label]


def _any_of(*ids: str) -> dict[str, Any]:
    return {"id": {"__or": list(ids)}}


@contextlib.contextmanager
def orchestra_at(folder: Path, **changes: Any) -> Iterator[Orchestra]:
    """Yield the engine at a fresh lab with real file systems; ``changes`` are fields of ``LabOptions``.

    Skips when the engine cannot be had.
    """
    with peer_or_skip("backups.mjs") as peer, _connected(peer, folder, **{"scenario": "tiny", **changes}) as engine:
        yield engine
        with contextlib.suppress(PeerFailed):
            peer.ask("disconnect")


@contextlib.contextmanager
def other_pool(engine: Orchestra) -> Iterator[Orchestra]:
    """Yield the same engine at one more lab, which is empty."""
    with _connected(engine.peer, engine.folder, scenario="empty") as other:
        yield other


@contextlib.contextmanager
def _connected(peer: Peer, folder: Path, **changes: Any) -> Iterator[Orchestra]:
    with patient_lab(**changes) as lab, logged_in(lab) as session:
        peer.ask("connect", url=lab.url, auth={"user": "root", "password": PASSWORD}, debounce=50)
        yield Orchestra(lab, peer, session, folder)
