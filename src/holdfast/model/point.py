"""A restore point: one VM at one moment, complete in itself, in a repository."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.model.ids import DiskUuid, PointId, PoolUuid, RepositoryId, RunId, VmUuid
from holdfast.model.json import JsonObject

__all__ = ["ChangeSource", "Consistency", "DiskFacts", "FourSizes", "Origin", "PointFacts", "Reference", "VmIdentity"]


class ChangeSource(enum.Enum):
    """Where the knowledge of what to read came from, best first."""

    CBT = "cbt"
    """Changed block tracking, 64 KiB, read over NBD."""
    VHD_DIFFERENCE = "vhd-difference"
    """A differencing VHD against the reference snapshot, 2 MiB."""
    FULL = "full"
    """Every allocated block was read."""


class Consistency(enum.Enum):
    """How the guest was treated when the snapshot was taken."""

    CRASH = "crash-consistent"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class FourSizes:
    """The four sizes of a disk or a point, in bytes. They mean the same everywhere they are shown."""

    provisioned_bytes: int
    """What the guest sees."""
    read_bytes: int
    """What was transferred from the pool by this run."""
    new_bytes: int
    """What of it the repository had not seen, before compression."""
    stored_bytes: int
    """What the repository grew by: compressed, sealed, maps and trailers included."""

    def __add__(self, other: FourSizes) -> FourSizes:
        return FourSizes(
            provisioned_bytes=self.provisioned_bytes + other.provisioned_bytes,
            read_bytes=self.read_bytes + other.read_bytes,
            new_bytes=self.new_bytes + other.new_bytes,
            stored_bytes=self.stored_bytes + other.stored_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmIdentity:
    """Which VM a point belongs to: the VM's uuid, on which pool, and its name at that moment."""

    uuid: VmUuid
    name: str
    pool: PoolUuid
    pool_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The point of another repository that a mirrored point was made from."""

    repository: RepositoryId
    point: PointId


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What was left on the pool so that the next run can read changes only."""

    snapshot: DiskUuid
    """The snapshot VDI, or the cbt_metadata record that is left of it."""
    has_data: bool
    """False when only change metadata was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A disk inside a point, as far as the flows know it; the engine adds where the bytes are."""

    uuid: DiskUuid
    """The live disk that was backed up."""
    name: str
    position: str
    bootable: bool
    size_bytes: int
    change_source: ChangeSource
    change_reason: str
    """One sentence: why this source and not a better one."""
    reference: Reference | None
    vdi_record: JsonObject = field(repr=False)
    vbd_record: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFacts:
    """Everything a point says about itself apart from where its bytes are."""

    vm: VmIdentity
    taken_at: datetime
    """When the snapshot was taken, by the pool's clock, UTC."""
    run: RunId
    job: str
    consistency: Consistency
    previous: PointId | None
    """The point this one was read against; for information only, never needed to restore."""
    tags: tuple[str, ...]
    vm_record: JsonObject = field(repr=False)
    """The VM's whole record, unknown fields included, and beside it VIFs, networks, guest metrics, by XAPI's names."""
    vm_metadata: bytes = field(repr=False)
    """The pool's own export_metadata archive of the snapshot (tar), empty when the pool gave none."""
    origin: Origin | None = None
    """Where a mirrored point came from; None for a point that was backed up from a pool."""
