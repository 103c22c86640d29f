"""Restore points: one VM at one moment, complete in itself; one small sealed object that is published last.

Invariant: a point is in the store or it is not; there is no other truth about a backup. Everything it refers to was
durable before it appeared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from holdfast.core import ExitStatus, HoldfastError, format_time, from_msgpack, parse_time
from holdfast.model import DiskFacts, FourSizes, PointFacts, PointId, VmUuid
from holdfast.repository.crew import read_small
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import POINTS_PREFIX, ObjectKind, PackId
from holdfast.repository.lock_terms import NO_HOLD, Hold
from holdfast.repository.packs.pack_table import PackUse
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.points.point_wire import (
    PointWire,
    disk_from_wire,
    disk_to_wire,
    facts_from_wire,
    facts_to_wire,
)
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault, stamped_name
from holdfast.storage import ObjectExists, ObjectMissing

__all__ = [
    "PointAmbiguous",
    "PointDisk",
    "PointListing",
    "PointUnknown",
    "RestorePoint",
    "each_point",
    "find_published",
    "point_key",
    "publish_point",
    "read_each",
    "read_point",
    "read_points",
]

_POINT_VERSION = 1
_NAME_ATTEMPTS_MAX = 8
"""Two runs whose points would get the same name: one chance in four thousand million per pair and second."""


class PointUnknown(HoldfastError):
    """There is no restore point of this name."""

    code = "repository.point-unknown"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."
    advice = "See 'holdfast point list'."

    def __init__(self, *, point: str) -> None:
        super().__init__(f"there is no restore point {point!r}")
        self.point = point


class PointAmbiguous(HoldfastError):
    """Several restore points begin like this."""

    code = "repository.point-ambiguous"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Give more digits of the restore point's id."

    def __init__(self, *, point: str, count: int) -> None:
        super().__init__(f"{count} restore points begin with {point!r}")
        self.point, self.count = point, count


@dataclass(frozen=True, slots=True, kw_only=True)
class PointDisk:
    """A disk of a restore point: what is known of it, and where its bytes are."""

    facts: DiskFacts
    stored: StoredDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """One VM at one moment."""

    id: PointId
    key: str
    """The name of its object in the store."""
    published_at: datetime
    facts: PointFacts
    disks: tuple[PointDisk, ...]
    packs_held_until: datetime | None = None
    """Until when every pack of it was held, at least, when it was published; None: nothing held them."""

    @property
    def sizes(self) -> FourSizes:
        """The four sizes of all disks together."""
        total = FourSizes(provisioned_bytes=0, read_bytes=0, new_bytes=0, stored_bytes=0)
        for disk in self.disks:
            total += disk.stored.sizes
        return total

    def packs(self) -> Iterator[tuple[PackId, PackUse]]:
        """Yield the packs its disks use; one that several disks use comes several times."""
        for disk in self.disks:
            yield from disk.stored.packs.items()


@dataclass(frozen=True, slots=True)
class PointListing:
    """All points that were found, and what could not be read."""

    points: tuple[RestorePoint, ...]
    damaged: tuple[PointDamaged, ...]


def publish_point(
    vault: Vault,
    facts: PointFacts,
    disks: Sequence[tuple[DiskFacts, StoredDisk]],
    *,
    check_before: Callable[[], None],
    hold: Hold = NO_HOLD,
) -> RestorePoint:
    """Store a point, held as long as its packs are, and return it.

    ``check_before`` is called right before each put and raises if it must not be.
    """
    wires = tuple(disk_to_wire(disk, stored) for disk, stored in disks)
    published_at = format_time(vault.clock.now())
    for attempt in range(_NAME_ATTEMPTS_MAX):
        id = PointId(stamped_name(facts.taken_at, _suffix(vault, facts, attempt)))
        key = _folder(vault, facts.vm.uuid) + id
        wire = facts_to_wire(facts, id=id, published_at=published_at, version=_POINT_VERSION, disks=wires)
        if hold.packs_until is not None:
            wire = msgspec.structs.replace(wire, packs_held_until=format_time(hold.packs_until))
        check_before()
        try:
            vault.write(key, msgspec.msgpack.encode(wire), kind=ObjectKind.POINT, locked_until=hold.point_until)
        except ObjectExists:
            # Either this very publication arrived before, or another run owns the name.
            other = read_point(vault, key)
            if other is not None and other.facts.run == facts.run:
                return other
            continue
        return _from_wire(wire, key)
    raise PointDamaged(key=_folder(vault, facts.vm.uuid), reason="every name for the new point is taken")


def find_published(vault: Vault, facts: PointFacts) -> RestorePoint | None:
    """Return the point that the same run published for the same VM, if there is one that can be read."""
    suffixes = tuple(_suffix(vault, facts, attempt) for attempt in range(_NAME_ATTEMPTS_MAX))
    for info in list(vault.names(_folder(vault, facts.vm.uuid))):
        if info.key.endswith(suffixes):
            try:
                point = read_point(vault, info.key)
            except PointDamaged:
                continue
            if point is not None and point.facts.run == facts.run:
                return point
    return None


def read_points(vault: Vault, *, vm: VmUuid | None = None, workers: int = 0) -> PointListing:
    """Return all points, oldest first; the damaged ones apart."""
    prefix = POINTS_PREFIX if vm is None else _folder(vault, vm)
    names = [info.key for info in vault.names(prefix)]
    found = list(read_each(vault, names, workers=workers))
    damaged = [each for each in found if isinstance(each, PointDamaged)]
    points = [each for each in found if isinstance(each, RestorePoint)]
    points.sort(key=lambda each: (each.facts.taken_at, each.published_at, each.id))
    return PointListing(tuple(points), tuple(damaged))


def read_each(vault: Vault, keys: Iterable[str], *, workers: int) -> Iterator[RestorePoint | PointDamaged | None]:
    """Yield the point in each object, in order: what is wrong with it when it is damaged, None when it is gone."""

    def read(key: str) -> RestorePoint | PointDamaged | None:
        try:
            return read_point(vault, key)
        except PointDamaged as damage:
            return damage

    return read_small(read, keys, workers=workers)


def read_point(vault: Vault, key: str) -> RestorePoint | None:
    """Return the point in one object; None when the object is gone. ``PointDamaged``."""
    try:
        wire = from_msgpack(vault.read(key, kind=ObjectKind.POINT), PointWire)
        if wire.version != _POINT_VERSION:
            raise PointDamaged(key=key, reason=f"it has version {wire.version}, which this Holdfast does not know")
        return _from_wire(wire, key)
    except ObjectMissing:
        return None
    except (SealBroken, msgspec.DecodeError, ValueError) as cause:
        raise PointDamaged(key=key, reason=str(cause)) from cause


def each_point(vault: Vault) -> Iterator[RestorePoint]:
    """Yield the points that can be read, one after the other: only one of them is in memory."""
    for info in list(vault.names(POINTS_PREFIX)):
        with contextlib.suppress(PointDamaged):
            point = read_point(vault, info.key)
            if point is not None:
                yield point


def _from_wire(wire: PointWire, key: str) -> RestorePoint:
    return RestorePoint(
        id=PointId(wire.id),
        key=key,
        published_at=datetime.fromisoformat(wire.published_at),
        facts=facts_from_wire(wire),
        disks=tuple(
            PointDisk(facts=facts, stored=stored) for facts, stored in (disk_from_wire(disk) for disk in wire.disks)
        ),
        packs_held_until=None if wire.packs_held_until is None else parse_time(wire.packs_held_until),
    )


def point_key(vault: Vault, vm: VmUuid, point: PointId) -> str:
    """Return the name of the object that holds a point of a VM."""
    return _folder(vault, vm) + point


def _folder(vault: Vault, vm: VmUuid) -> str:
    return f"{POINTS_PREFIX}{vault.keys.vm_folder(vm)}/"


def _suffix(vault: Vault, facts: PointFacts, attempt: int) -> str:
    return vault.keys.point_suffix(run=facts.run, vm=facts.vm.uuid, attempt=attempt)
