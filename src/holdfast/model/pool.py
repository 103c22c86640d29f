"""What a pool holds, as values read at one moment: hosts, SRs, networks, VMs and their disks.

Each value keeps the few facts that decisions need; the whole record of XAPI travels beside it as ``JsonObject``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from holdfast.model.ids import DiskUuid, HostUuid, NetworkUuid, PoolUuid, SrUuid, VmUuid
from holdfast.model.json import JsonObject

__all__ = ["Disk", "Host", "Network", "Nic", "Pool", "PowerState", "Sr", "Vm", "VmDisk"]


class PowerState(enum.Enum):
    """The state of a VM, as XAPI spells it."""

    HALTED = "Halted"
    PAUSED = "Paused"
    RUNNING = "Running"
    SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool itself."""

    uuid: PoolUuid
    name: str
    master: HostUuid
    default_sr: SrUuid | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of a pool."""

    uuid: HostUuid
    name: str
    address: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sr:
    """A storage repository. ``free_bytes`` is what the SR says, physical size minus utilisation."""

    uuid: SrUuid
    name: str
    kind: str
    content_type: str
    shared: bool
    physical_size_bytes: int
    free_bytes: int
    supports_cbt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network. ``nbd`` is whether it is marked for NBD over TLS."""

    uuid: NetworkUuid
    name: str
    bridge: str
    nbd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A VDI."""

    uuid: DiskUuid
    name: str
    sr: SrUuid
    size_bytes: int
    used_bytes: int
    kind: str
    cbt_enabled: bool
    is_snapshot: bool
    snapshot_of: DiskUuid | None
    record: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDisk:
    """A disk at its place in a VM. ``position`` is XAPI's userdevice, e.g. ``0``."""

    position: str
    bootable: bool
    read_only: bool
    disk: Disk
    vbd_record: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card of a VM (VIF)."""

    position: str
    mac: str
    network: Network | None
    record: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM with its disks (CD drives left out) and network cards, in the order of their positions."""

    uuid: VmUuid
    name: str
    description: str
    power_state: PowerState
    tags: tuple[str, ...]
    memory_bytes: int
    vcpus: int
    disks: tuple[VmDisk, ...]
    nics: tuple[Nic, ...]
    record: JsonObject = field(repr=False)

    @property
    def provisioned_bytes(self) -> int:
        """Sum of the sizes of its disks."""
        return sum(each.disk.size_bytes for each in self.disks)
