"""Mirroring restore points into another repository, which has keys, compression and a store of its own.

A point is sent as what it changes against the newest older point of the VM that both repositories have; what differs is
told by the source's maps, so an increment costs an increment. Blocks that the target knows are not sent at all.

Invariant: a mirrored point has the same run and VM as its origin and the same bytes, and is published only when it is
complete. A mirror that is interrupted anywhere goes on where it was, because what it stored is found by its lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from holdfast.core import Cancellation, ExitStatus, HoldfastError, Progress, format_bytes
from holdfast.model import DataRun, DiskReader, DiskUuid, FourSizes, Origin, PointId, RunId, VmUuid
from holdfast.repository import (
    Damage,
    DiskNoLongerStored,
    PointDisk,
    PointSummary,
    PointUnknown,
    Repository,
    RestorePoint,
    RunWriter,
    StoredDisk,
    WholeReader,
)

__all__ = ["MirrorFailure", "MirrorPlan", "MirrorReport", "MirrorToItself", "apply_mirror", "plan_mirror"]

_RUN_STORED_BYTES_MAX = 1 << 40
"""A terabyte under one lease; then the next begins, so that a lease names 16,000 packs at most."""


class MirrorToItself(HoldfastError):
    """A repository was to be mirrored into itself."""

    code = "upkeep.mirror-to-itself"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was sent."
    advice = "Name another repository as the target."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store} cannot be its own mirror")
        self.store = store


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    """Which points the target lacks, in the order in which they are sent: by VM, oldest first."""

    missing: tuple[PointSummary, ...]
    present: int
    """How many of the chosen points the target has already."""
    damaged: tuple[PointId, ...] = ()
    """Those of them, as the target calls them, that are known to be damaged there. Their names are taken, so a mirror
    sends them again only after they were deleted."""

    def explain(self) -> str:
        """Return the plan for people, a few lines."""
        names = dict.fromkeys(each.vm_name for each in self.missing)
        stored_bytes = sum(each.sizes.stored_bytes for each in self.missing)
        damaged = f", {len(self.damaged)} of them damaged" if self.damaged else ""
        lines = [f"{self.present} points are there already{damaged}"]
        lines += [
            f"send {sum(1 for each in self.missing if each.vm_name == name)} points of VM {name!r}" for name in names
        ]
        if self.missing:
            lines.append(f"the source stored {format_bytes(stored_bytes)} for them when they were made")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorFailure:
    """A point that could not be sent."""

    point: PointId
    vm_name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorReport:
    """What a mirror did."""

    sent: tuple[PointId, ...]
    """The points as they are called in the target."""
    sizes: FourSizes
    """Of all points that were sent: *read* from the source, *new* and *stored* in the target."""
    failed: tuple[MirrorFailure, ...]
    gone: tuple[PointId, ...]
    """Deleted from the source meanwhile."""


def plan_mirror(
    source: Repository, target: Repository, *, vms: Collection[str] = (), newest: int | None = None
) -> MirrorPlan:
    """Return what the target lacks: of some VMs by name or uuid, or of all; of each only the ``newest`` so many points.

    ``MirrorToItself``. A point that cannot be read in the source is not planned; verification names it.
    """
    if source.id == target.id:
        raise MirrorToItself(store=target.store_description)
    there = {(each.run, each.vm_uuid): each.id for each in target.summaries().points}
    by_vm: dict[VmUuid, list[PointSummary]] = {}
    for point in source.summaries().points:
        if not vms or point.vm_name in vms or point.vm_uuid in vms:
            by_vm.setdefault(point.vm_uuid, []).append(point)
    chosen = [point for own in by_vm.values() for point in (own if newest is None else own[-newest:])]
    missing = tuple(point for point in chosen if (point.run, point.vm_uuid) not in there)
    twins = [there[each.run, each.vm_uuid] for each in chosen if (each.run, each.vm_uuid) in there]
    hit = target.care.known_hits()
    damaged = tuple(each for each in twins if each in hit)
    return MirrorPlan(missing=missing, present=len(twins), damaged=damaged)


def apply_mirror(
    source: Repository, target: Repository, plan: MirrorPlan, *, progress: Progress, cancel: Cancellation
) -> MirrorReport:
    """Send what a plan names; a point that is damaged in the source is reported and the others go on.

    Raises what concerns all of them: a target that is full or away, a lost lease, a cancellation.
    """
    mirror = _Mirror(source, target, progress=progress, cancel=cancel)
    waiting = list(plan.missing)
    while waiting:
        # One run for all VMs and not one for each: a run reads the target's samples once.
        with target.begin_run(mirror.run, cancel=cancel) as writer:
            stored_before = mirror.sizes.stored_bytes
            while waiting and mirror.sizes.stored_bytes - stored_before < _RUN_STORED_BYTES_MAX:
                mirror.send(writer, waiting.pop(0))
    return MirrorReport(
        sent=tuple(mirror.sent), sizes=mirror.sizes, failed=tuple(mirror.failed), gone=tuple(mirror.gone)
    )


@dataclass(frozen=True, slots=True)
class _Base:
    """A disk that both repositories have, as each of them stores it."""

    source: StoredDisk
    target: StoredDisk


class _Mirror:
    """One mirror under way, and what it has done so far."""

    def __init__(self, source: Repository, target: Repository, *, progress: Progress, cancel: Cancellation) -> None:
        self.run = RunId(f"mirror-{source.id}")
        """The same each time, so that the next mirror takes over what an interrupted one stored."""
        self.sizes = FourSizes(provisioned_bytes=0, read_bytes=0, new_bytes=0, stored_bytes=0)
        self.sent: list[PointId] = []
        self.failed: list[MirrorFailure] = []
        self.gone: list[PointId] = []
        self._vm: VmUuid | None = None
        self._ours: list[RestorePoint] = []
        self._theirs: dict[RunId, RestorePoint] = {}
        self._source = source
        self._target = target
        self._progress = progress
        self._cancel = cancel

    def send(self, writer: RunWriter, summary: PointSummary) -> None:
        """Send one point; note it as failed or gone when that is what it is."""
        self._cancel.check()
        try:
            self._turn_to(summary.vm_uuid)
            made = self._send(writer, self._source.point(summary.id))
        except PointUnknown:
            self.gone.append(summary.id)
        except Damage as damage:
            if self._is_gone(summary):
                self.gone.append(summary.id)
            else:
                self.failed.append(MirrorFailure(point=summary.id, vm_name=summary.vm_name, reason=str(damage)))
        else:
            self._theirs[made.facts.run] = made
            self.sent.append(made.id)
            self.sizes += made.sizes

    def _is_gone(self, summary: PointSummary) -> bool:
        """Return whether the point was deleted meanwhile, and its packs rightly with it."""
        try:
            self._source.point(summary.id)
        except PointUnknown:
            return True
        except Damage:
            return False
        return False

    def _send(self, writer: RunWriter, point: RestorePoint) -> RestorePoint:
        bases, previous = self._bases(point)
        disks = []
        for disk in point.disks:
            what = f"{point.facts.vm.name}, {point.facts.taken_at:%Y-%m-%d %H:%M}: disk {disk.facts.position}"
            stored = self._send_disk(writer, disk, bases.get(disk.facts.uuid), what=what)
            # What lies on the pool for the next run belongs to the repository that the run wrote to.
            disks.append((replace(disk.facts, reference=None), stored))
        origin = point.facts.origin or Origin(repository=self._source.id, point=point.id)
        return writer.publish(replace(point.facts, previous=previous, origin=origin), disks)

    def _bases(self, point: RestorePoint) -> tuple[dict[DiskUuid, _Base], PointId | None]:
        """Return the disks of the newest older point that both have, and what that point is called in the target."""
        older = [
            (ours, twin)
            for ours in self._ours
            if ours.facts.taken_at < point.facts.taken_at
            and (twin := self._theirs.get(ours.facts.run)) is not None
            # Ids of runs are drawn by chance, on machines that know nothing of each other.
            and twin.facts.taken_at == ours.facts.taken_at
        ]
        if not older:
            return {}, None
        ours, twin = older[-1]
        stored = {disk.facts.uuid: disk.stored for disk in twin.disks}
        bases = {
            disk.facts.uuid: _Base(disk.stored, stored[disk.facts.uuid])
            for disk in ours.disks
            if disk.facts.uuid in stored and stored[disk.facts.uuid].size_bytes == disk.stored.size_bytes
        }
        return bases, twin.id

    def _turn_to(self, vm: VmUuid) -> None:
        """Read what both repositories have of a VM, once for all of its points."""
        if vm != self._vm:
            self._vm = vm
            self._ours = self._source.points(vm=vm)
            self._theirs = {each.facts.run: each for each in self._target.points(vm=vm)}

    def _send_disk(self, writer: RunWriter, disk: PointDisk, base: _Base | None, *, what: str) -> StoredDisk:
        source = self._source.source(disk.stored, cancel=self._cancel)
        if base is not None and base.source.size_bytes <= source.size_bytes:
            try:
                with self._source.changes(base.source, disk.stored, cancel=self._cancel) as changes:
                    return self._feed(writer, changes, what=what, reference=base.target)
            except (DiskNoLongerStored, _TargetDamaged) as refusal:
                self._progress.note(f"{what}: read whole, because the older copy cannot be built upon: {refusal}")
        return self._feed(writer, WholeReader(source), what=what, reference=None if base is None else base.target)

    def _feed(self, writer: RunWriter, reader: DiskReader, *, what: str, reference: StoredDisk | None) -> StoredDisk:
        """Return the disk as the target stores it. Damage of the source is raised as it is."""
        with _blaming_the_target():
            disk = writer.open_disk(reader.size_bytes, coverage=reader.coverage, reference=reference)
        try:
            with self._progress.start(what, total_bytes=reader.planned_bytes) as task:
                for run in reader.runs():
                    with _blaming_the_target():
                        disk.write(run)
                    task.advance(run.length_bytes if isinstance(run, DataRun) else 0)
            with _blaming_the_target():
                return disk.finish()
        except BaseException:
            disk.abort()
            raise


class _TargetDamaged(Exception):
    """What the target has of an older point is damaged; its own verification names it."""


@contextlib.contextmanager
def _blaming_the_target() -> Iterator[None]:
    try:
        yield
    except Damage as damage:
        raise _TargetDamaged(str(damage)) from damage
