"""A restore point as it is stored: MessagePack inside a sealed object.

Only this module knows the stored names of fields. Invariant: a field is never given another meaning; a new one has a
default here, and a reader skips those that it does not know.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from holdfast.core import format_time, parse_time
from holdfast.model import (
    ChangeSource,
    Consistency,
    DiskFacts,
    DiskUuid,
    FourSizes,
    Origin,
    PointFacts,
    PointId,
    PoolUuid,
    Reference,
    RepositoryId,
    RunId,
    VmIdentity,
    VmUuid,
)
from holdfast.repository.layout import PackId
from holdfast.repository.packs.pack_table import PackTable
from holdfast.repository.packs.stored_disk import NodeAddress, StoredDisk

__all__ = ["PointWire", "disk_from_wire", "disk_to_wire", "facts_from_wire", "facts_to_wire"]


class _SizesWire(msgspec.Struct, frozen=True, kw_only=True):
    provisioned: int
    read: int
    new: int
    stored: int


class _OriginWire(msgspec.Struct, frozen=True, kw_only=True):
    repository: str
    point: str


class DiskWire(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a point."""

    uuid: str
    name: str
    position: str
    bootable: bool
    size_bytes: int = msgspec.field(name="size")
    change_source: str
    change_reason: str
    reference_snapshot: str | None
    reference_has_data: bool
    vdi_record: dict[str, Any]
    vbd_record: dict[str, Any]
    stored_size_bytes: int = msgspec.field(name="stored_size")
    root_pack: bytes
    root_slot: int
    content_hash: bytes
    sizes: _SizesWire
    packs: bytes


class PointWire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole point."""

    version: int
    id: str
    published_at: str
    vm_uuid: str
    vm_name: str
    pool_uuid: str
    pool_name: str
    taken_at: str
    run: str
    job: str
    consistency: str
    previous: str | None
    tags: tuple[str, ...]
    vm_record: dict[str, Any]
    vm_metadata: bytes
    disks: tuple[DiskWire, ...]
    packs_held_until: str | None = None
    origin: _OriginWire | None = None


def disk_to_wire(facts: DiskFacts, stored: StoredDisk) -> DiskWire:
    """Return a disk as it is stored."""
    sizes = stored.sizes
    return DiskWire(
        uuid=facts.uuid,
        name=facts.name,
        position=facts.position,
        bootable=facts.bootable,
        size_bytes=facts.size_bytes,
        change_source=facts.change_source.value,
        change_reason=facts.change_reason,
        reference_snapshot=None if facts.reference is None else facts.reference.snapshot,
        reference_has_data=facts.reference is not None and facts.reference.has_data,
        vdi_record=facts.vdi_record,
        vbd_record=facts.vbd_record,
        stored_size_bytes=stored.size_bytes,
        root_pack=stored.root.pack,
        root_slot=stored.root.slot,
        content_hash=bytes.fromhex(stored.content_hash),
        sizes=_SizesWire(
            provisioned=sizes.provisioned_bytes, read=sizes.read_bytes, new=sizes.new_bytes, stored=sizes.stored_bytes
        ),
        packs=stored.packs.to_bytes(),
    )


def disk_from_wire(wire: DiskWire) -> tuple[DiskFacts, StoredDisk]:
    """Return what ``disk_to_wire`` took. ValueError when a value is not one."""
    reference = None
    if wire.reference_snapshot is not None:
        reference = Reference(snapshot=DiskUuid(wire.reference_snapshot), has_data=wire.reference_has_data)
    facts = DiskFacts(
        uuid=DiskUuid(wire.uuid),
        name=wire.name,
        position=wire.position,
        bootable=wire.bootable,
        size_bytes=wire.size_bytes,
        change_source=ChangeSource(wire.change_source),
        change_reason=wire.change_reason,
        reference=reference,
        vdi_record=wire.vdi_record,
        vbd_record=wire.vbd_record,
    )
    stored = StoredDisk(
        size_bytes=wire.stored_size_bytes,
        root=NodeAddress(PackId(wire.root_pack), wire.root_slot),
        content_hash=wire.content_hash.hex(),
        sizes=FourSizes(
            provisioned_bytes=wire.sizes.provisioned,
            read_bytes=wire.sizes.read,
            new_bytes=wire.sizes.new,
            stored_bytes=wire.sizes.stored,
        ),
        packs=PackTable.from_bytes(wire.packs),
    )
    return facts, stored


def facts_to_wire(
    facts: PointFacts, *, id: PointId, published_at: str, version: int, disks: tuple[DiskWire, ...]
) -> PointWire:
    """Return a point as it is stored."""
    return PointWire(
        version=version,
        id=id,
        published_at=published_at,
        vm_uuid=facts.vm.uuid,
        vm_name=facts.vm.name,
        pool_uuid=facts.vm.pool,
        pool_name=facts.vm.pool_name,
        taken_at=format_time(facts.taken_at),
        run=facts.run,
        job=facts.job,
        consistency=facts.consistency.value,
        previous=facts.previous,
        tags=facts.tags,
        vm_record=facts.vm_record,
        vm_metadata=facts.vm_metadata,
        disks=disks,
        origin=None if facts.origin is None else _OriginWire(**asdict(facts.origin)),
    )


def facts_from_wire(wire: PointWire) -> PointFacts:
    """Return the facts of a stored point. ValueError when a value is not one."""
    return PointFacts(
        vm=VmIdentity(
            uuid=VmUuid(wire.vm_uuid), name=wire.vm_name, pool=PoolUuid(wire.pool_uuid), pool_name=wire.pool_name
        ),
        taken_at=parse_time(wire.taken_at),
        run=RunId(wire.run),
        job=wire.job,
        consistency=Consistency(wire.consistency),
        previous=None if wire.previous is None else PointId(wire.previous),
        tags=wire.tags,
        vm_record=wire.vm_record,
        vm_metadata=wire.vm_metadata,
        origin=_origin_from_wire(wire.origin),
    )


def _origin_from_wire(wire: _OriginWire | None) -> Origin | None:
    return None if wire is None else Origin(repository=RepositoryId(wire.repository), point=PointId(wire.point))
