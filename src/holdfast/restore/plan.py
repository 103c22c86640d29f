"""What a restore is going to do, checked and shown before the first byte: targets, networks, identity, what fits.

The plan is a value made from the point and the pool as they are now; making it changes nothing. Everything that will
not come back exactly as it was is a note in it, so nobody finds out afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.core import Cancellation, ExitStatus, HoldfastError, format_bytes
from holdfast.model import JsonObject, Network, Sr, nic_facts
from holdfast.repository import PointDisk, Repository, RestorePoint
from holdfast.restore.record import vm_record_for_create
from holdfast.xapi import Inventory

__all__ = [
    "DiskTarget",
    "Fidelity",
    "MacPolicy",
    "NicTarget",
    "NoTargetSr",
    "Note",
    "RestorePlan",
    "RestoreWishes",
    "SrTooSmall",
    "measure_data",
    "plan_restore",
]


class NoTargetSr(HoldfastError):
    """No SR was named and the pool has no default one."""

    code = "restore.no-target-sr"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was written to the pool; the restore point is untouched."
    advice = "Name the storage with --sr; 'holdfast pool show' lists what the pool has."

    def __init__(self) -> None:
        super().__init__("the pool has no default SR and none was named")


class SrTooSmall(HoldfastError):
    """The target SR has less room than the restore point has data."""

    code = "restore.sr-too-small"
    exit_status = ExitStatus.NO_SPACE
    effect = "Nothing was written to the pool; the restore point is untouched."
    advice = "Choose another SR with --sr, or make room on this one."

    def __init__(self, *, sr: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(f"SR {sr!r} has {format_bytes(free_bytes)} free, the disks hold {format_bytes(needed_bytes)}")
        self.sr, self.needed_bytes, self.free_bytes = sr, needed_bytes, free_bytes


class MacPolicy(enum.Enum):
    """What becomes of the MAC addresses."""

    AUTO = "auto"
    """Kept, unless a VM on the pool has one of them."""
    KEEP = "keep"
    NEW = "new"


class Fidelity(enum.Enum):
    """How a part of the VM comes back."""

    ADAPTED = "adapted"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that will not come back exactly as it was."""

    fidelity: Fidelity
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreWishes:
    """What the user asked for; everything else is decided by the plan."""

    name: str | None = None
    sr: str | None = None
    network_map: Mapping[str, str] = field(default_factory=dict)
    """Name or uuid of a network at backup time, to name or uuid of a network of the target pool."""
    mac: MacPolicy = MacPolicy.AUTO
    start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTarget:
    """One disk and where it will be."""

    source: PointDisk
    data_bytes: int
    """What will be written: everything but zeros."""
    sr: Sr

    @property
    def position(self) -> str:
        """The disk's userdevice."""
        return self.source.facts.position


@dataclass(frozen=True, slots=True, kw_only=True)
class NicTarget:
    """One network card and where it will be plugged. ``network`` None: the card is left out, disconnected."""

    position: str
    mac: str
    network: Network | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """The whole restore."""

    point: RestorePoint
    name: str
    disks: tuple[DiskTarget, ...]
    nics: tuple[NicTarget, ...]
    notes: tuple[Note, ...]
    start: bool
    record: JsonObject = field(repr=False)

    @property
    def data_bytes(self) -> int:
        """How much disk content will be written, zeros left out."""
        return sum(each.data_bytes for each in self.disks)

    def explain(self) -> str:
        """Return the plan for people, a line per part."""
        taken = f"{self.point.facts.taken_at:%Y-%m-%d %H:%M:%S} UTC"
        lines = [f"VM {self.name!r} from point {self.point.id} ({self.point.facts.vm.name}, {taken})"]
        for disk in self.disks:
            size, data = disk.source.facts.size_bytes, disk.data_bytes
            lines.append(
                f"  disk {disk.position} {disk.source.facts.name!r}: {format_bytes(size)} "
                f"({format_bytes(data)} of data) -> SR {disk.sr.name!r} ({format_bytes(disk.sr.free_bytes)} free)"
            )
        for nic in self.nics:
            where = f"network {nic.network.name!r}" if nic.network else "left out"
            lines.append(f"  card {nic.position}: {where} ({nic.why}), MAC {nic.mac or 'new'}")
        lines.extend(f"  {note.fidelity.value}: {note.subject}: {note.text}" for note in self.notes)
        lines.append("  the VM is started" if self.start else "  the VM stays halted")
        return "\n".join(lines)


def measure_data(repository: Repository, point: RestorePoint, *, cancel: Cancellation) -> dict[str, int]:
    """Return by position how much of each disk is anything but zeros; read from the maps, not from the data."""
    measured = {}
    for disk in point.disks:
        extents = repository.source(disk.stored, cancel=cancel).data_extents()
        measured[disk.facts.position] = sum(extent.length_bytes for extent in extents)
    return measured


def plan_restore(
    point: RestorePoint,
    inventory: Inventory,
    wishes: RestoreWishes,
    *,
    data_bytes: Mapping[str, int],
    fresh_generation: str,
) -> RestorePlan:
    """Return how this point would become a VM of that pool.

    ``data_bytes`` is what ``measure_data`` found. ``fresh_generation`` is the generation id a copy
    gets when its original still exists. Raises ``NoTargetSr``, ``SrTooSmall``, or the inventory's own errors for names
    that it does not know.
    """
    sr = _target_sr(inventory, wishes.sr)
    _check_space(sum(data_bytes.values()), sr)
    original_exists = any(vm.uuid == point.facts.vm.uuid for vm in inventory.vms)
    name = wishes.name or point.facts.vm.name
    keep_macs = _macs_are_kept(point, inventory, wishes.mac)
    record, notes = vm_record_for_create(
        point.facts.vm_record,
        name=name,
        keep_identity=keep_macs and not original_exists,
        fresh_generation=fresh_generation,
    )
    nics = tuple(_nic_targets(point, inventory, wishes.network_map, keep_macs=keep_macs))
    all_notes = [Note(fidelity=Fidelity(kind), subject=subject, text=text) for kind, subject, text in notes]
    if original_exists:
        all_notes.append(
            Note(fidelity=Fidelity.ADAPTED, subject="identity", text="the original VM still exists; this is a copy")
        )
    all_notes.extend(
        Note(fidelity=Fidelity.ADAPTED, subject=f"network card {nic.position}", text=nic.why)
        for nic in nics
        if nic.network is None
    )
    return RestorePlan(
        point=point,
        name=name,
        disks=tuple(DiskTarget(source=disk, data_bytes=data_bytes[disk.facts.position], sr=sr) for disk in point.disks),
        nics=nics,
        notes=tuple(all_notes),
        start=wishes.start,
        record=record,
    )


def _target_sr(inventory: Inventory, wanted: str | None) -> Sr:
    if wanted is not None:
        return inventory.find_sr(wanted)
    if inventory.pool.default_sr is None:
        raise NoTargetSr
    return inventory.find_sr(inventory.pool.default_sr)


def _check_space(needed_bytes: int, sr: Sr) -> None:
    if needed_bytes > sr.free_bytes:
        raise SrTooSmall(sr=sr.name, needed_bytes=needed_bytes, free_bytes=sr.free_bytes)


def _macs_are_kept(point: RestorePoint, inventory: Inventory, policy: MacPolicy) -> bool:
    if policy is not MacPolicy.AUTO:
        return policy is MacPolicy.KEEP
    in_use = {nic.mac.lower() for vm in inventory.vms for nic in vm.nics}
    return not any(facts.mac.lower() in in_use for facts in nic_facts(point.facts.vm_record))


def _nic_targets(
    point: RestorePoint, inventory: Inventory, network_map: Mapping[str, str], *, keep_macs: bool
) -> list[NicTarget]:
    by_uuid = {str(network.uuid): network for network in inventory.networks}
    by_name: dict[str, list[Network]] = {}
    for network in inventory.networks:
        by_name.setdefault(network.name, []).append(network)
    targets = []
    for facts in nic_facts(point.facts.vm_record):
        mapped = network_map.get(facts.network_uuid) or network_map.get(facts.network_name)
        same_name = by_name.get(facts.network_name, [])
        if mapped is not None:
            found, why = inventory.find_network(mapped), f"mapped from {facts.network_name!r}"
        elif facts.network_uuid in by_uuid:
            found, why = by_uuid[facts.network_uuid], "the same network"
        elif len(same_name) == 1:
            found, why = same_name[0], "by its name"
        else:
            reason = "is ambiguous here" if same_name else "does not exist here"
            found, why = None, f"network {facts.network_name!r} {reason}; name one with --network"
        targets.append(NicTarget(position=facts.position, mac=facts.mac if keep_macs else "", network=found, why=why))
    return targets
