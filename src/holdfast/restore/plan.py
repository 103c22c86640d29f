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
from holdfast.restore.record import has_virtual_tpm, saved_drives, vm_record_for_create
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
    "SrUnsuitable",
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
        super().__init__(f"SR {sr!r} has {format_bytes(free_bytes)} free, the disks need {format_bytes(needed_bytes)}")
        self.sr, self.needed_bytes, self.free_bytes = sr, needed_bytes, free_bytes


class SrUnsuitable(HoldfastError):
    """The target SR holds no disks of VMs."""

    code = "restore.sr-unsuitable"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was written to the pool; the restore point is untouched."
    advice = "Choose another SR with --sr; 'holdfast pool show' lists what the pool has."

    def __init__(self, *, sr: str, kind: str) -> None:
        super().__init__(f"SR {sr!r} is of type {kind} and cannot hold disks")
        self.sr, self.kind = sr, kind


_THICK_KINDS = frozenset({"lvm", "lvmoiscsi", "lvmohba", "lvmofcoe"})
"""SRs that give a disk its whole size when it is made."""

_DISKLESS_KINDS = frozenset({"iso", "udev"})


class NetworkNotInPoint(HoldfastError):
    """A network was mapped that no card of the VM was plugged into."""

    code = "restore.network-not-in-point"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was written to the pool; the restore point is untouched."

    def __init__(self, *, name: str, known: list[str]) -> None:
        super().__init__(f"no network card of the VM was plugged into {name!r}")
        self.name, self.known = name, ", ".join(known)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Its cards were plugged into: {self.known or 'nothing'}. Write --network OLD=NEW with one of these."


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
    drives: tuple[str, ...]
    """Positions of the CD drives, which come back empty."""
    notes: tuple[Note, ...]
    start: bool
    from_description: bool
    """Whether the VM is made from the pool's own description, which alone carries a virtual TPM."""
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
        if self.from_description:
            lines.append("  made from the pool's own description, with its virtual TPM")
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

    ``data_bytes`` is what ``measure_data`` found. ``fresh_generation`` is the generation id for a VM that has one.
    Raises ``NoTargetSr``, ``SrUnsuitable``, ``SrTooSmall``, or the inventory's own errors for names that it does not
    know.
    """
    sr = _target_sr(inventory, wishes.sr)
    _check_space(point, data_bytes, sr)
    saved = point.facts.vm_record
    original_exists = any(vm.uuid == point.facts.vm.uuid for vm in inventory.vms)
    name = wishes.name or point.facts.vm.name
    keep_macs = _macs_are_kept(point, inventory, wishes.mac)
    record, record_notes = vm_record_for_create(
        saved,
        name=name,
        is_copy=original_exists,
        keep_identity=keep_macs and not original_exists,
        fresh_generation=fresh_generation,
    )
    nics = tuple(_nic_targets(point, inventory, wishes.network_map, keep_macs=keep_macs))
    from_description = has_virtual_tpm(saved) and bool(point.facts.vm_metadata)
    notes = [Note(fidelity=Fidelity(kind), subject=subject, text=text) for kind, subject, text in record_notes]
    notes.extend(_identity_notes(point, inventory, name=name, original_exists=original_exists, mac=wishes.mac))
    notes.extend(_device_notes(point, nics, from_description=from_description))
    return RestorePlan(
        point=point,
        name=name,
        disks=tuple(DiskTarget(source=disk, data_bytes=data_bytes[disk.facts.position], sr=sr) for disk in point.disks),
        nics=nics,
        drives=tuple(each.position for each in saved_drives(saved)),
        notes=tuple(notes),
        start=wishes.start,
        from_description=from_description,
        record=record,
    )


def _identity_notes(
    point: RestorePoint, inventory: Inventory, *, name: str, original_exists: bool, mac: MacPolicy
) -> list[Note]:
    notes = []
    if original_exists:
        notes.append(_adapted("identity", "the original VM still exists; this is a copy"))
    if any(vm.name == name for vm in inventory.vms):
        notes.append(_adapted("name", f"another VM of the pool is called {name!r} too; choose another with --name"))
    taken = _macs_in_use(inventory).intersection(facts.mac.lower() for facts in nic_facts(point.facts.vm_record))
    if mac is MacPolicy.KEEP and taken:
        notes.append(_adapted("MAC addresses", f"kept as asked, although another VM has {', '.join(sorted(taken))}"))
    return notes


def _device_notes(point: RestorePoint, nics: tuple[NicTarget, ...], *, from_description: bool) -> list[Note]:
    notes = [_adapted(f"network card {nic.position}", nic.why) for nic in nics if nic.network is None]
    if from_description:
        return notes
    if has_virtual_tpm(point.facts.vm_record):
        text = "the point does not hold the pool's own description, the only thing that carries its contents"
        notes.append(Note(fidelity=Fidelity.IMPOSSIBLE, subject="virtual TPM", text=text))
    notes.extend(
        _adapted(f"CD drive {drive.position}", "comes back empty")
        for drive in saved_drives(point.facts.vm_record)
        if drive.had_disc
    )
    return notes


def _adapted(subject: str, text: str) -> Note:
    return Note(fidelity=Fidelity.ADAPTED, subject=subject, text=text)


def _target_sr(inventory: Inventory, wanted: str | None) -> Sr:
    if wanted is None:
        sr = inventory.default_sr
        if sr is None:
            raise NoTargetSr
    else:
        sr = inventory.find_sr(wanted)
    if sr.kind in _DISKLESS_KINDS or sr.content_type == "iso":
        raise SrUnsuitable(sr=sr.name, kind=sr.kind)
    return sr


def _check_space(point: RestorePoint, data_bytes: Mapping[str, int], sr: Sr) -> None:
    """Refuse an SR without room. One that does not say how large it is gets the benefit of the doubt."""
    if sr.kind in _THICK_KINDS:
        needed_bytes = sum(disk.facts.size_bytes for disk in point.disks)
    else:
        needed_bytes = sum(data_bytes.values())
    if sr.physical_size_bytes > 0 and needed_bytes > sr.free_bytes:
        raise SrTooSmall(sr=sr.name, needed_bytes=needed_bytes, free_bytes=sr.free_bytes)


def _macs_are_kept(point: RestorePoint, inventory: Inventory, policy: MacPolicy) -> bool:
    if policy is not MacPolicy.AUTO:
        return policy is MacPolicy.KEEP
    in_use = _macs_in_use(inventory)
    return not any(facts.mac.lower() in in_use for facts in nic_facts(point.facts.vm_record))


def _macs_in_use(inventory: Inventory) -> set[str]:
    return {nic.mac.lower() for vm in inventory.vms for nic in vm.nics}


def _nic_targets(
    point: RestorePoint, inventory: Inventory, network_map: Mapping[str, str], *, keep_macs: bool
) -> list[NicTarget]:
    by_uuid = {str(network.uuid): network for network in inventory.networks}
    by_name: dict[str, list[Network]] = {}
    for network in inventory.networks:
        by_name.setdefault(network.name, []).append(network)
    targets = []
    cards = nic_facts(point.facts.vm_record)
    known = {name for facts in cards for name in (facts.network_uuid, facts.network_name)}
    stray = sorted(set(network_map) - known)
    if stray:
        raise NetworkNotInPoint(name=stray[0], known=sorted({facts.network_name for facts in cards}))
    for facts in cards:
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
