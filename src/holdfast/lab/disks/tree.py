"""How a disk branches: the top layer is frozen as a hidden base copy and both branches stand on it.

Invariants: a disk keeps its uuid and its change log's identity through a snapshot; a branch copies no data; a tree is
never deeper than a VHD storage repository allows.
"""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass

from holdfast.core import Entropy
from holdfast.lab.disks import cbt
from holdfast.lab.disks.catalog import Catalog, Disk, Role
from holdfast.lab.disks.errors import DiskChainTooLong, DiskHasNoData, DiskReadOnly
from holdfast.lab.disks.layer import Layer
from holdfast.model import DiskUuid

__all__ = ["CHAIN_DEPTH_MAX", "SnapshotMade", "base_under", "branch", "check_not_base", "freeze", "reset", "top_of"]

CHAIN_DEPTH_MAX = 30
"""What a VHD storage repository allows before it refuses a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMade:
    """What a snapshot or clone did to the tree.

    ``base_uuid`` is the hidden base copy that both disks stand on now. It is not new when the disk had written nothing
    since it was frozen last; then the copy became its sibling.
    """

    base_uuid: DiskUuid
    base_is_new: bool


def branch(catalog: Catalog, uuid: str, *, copy_uuid: str, role: Role, entropy: Entropy) -> SnapshotMade:
    """Make ``copy_uuid`` a second disk of the same content; a snapshot also takes the change log over."""
    with catalog.lock:
        disk = catalog.disk(uuid)
        name = catalog.check_free(copy_uuid)
        check_not_base(disk)
        with disk.lock:
            top = top_of(disk)
            base = base_under(catalog, top) if top.is_empty else None
            is_new = base is None
            if base is None:
                base = _freeze(catalog, disk, entropy=entropy)
            layer = catalog.new_layer(parent=base.layer, size_bytes=disk.size_bytes)
            copy = catalog.disks[name] = Disk(name, disk.size_bytes, role, layer)
            if role is Role.SNAPSHOT:
                cbt.hand_over(catalog, disk, snapshot=copy)
            catalog.save()
    return SnapshotMade(base_uuid=base.uuid, base_is_new=is_new)


def freeze(catalog: Catalog, uuid: str, *, entropy: Entropy) -> SnapshotMade:
    """Put the disk on a base copy of what it is now, with no second disk beside it; its change log goes on."""
    with catalog.lock:
        disk = catalog.disk(uuid)
        check_not_base(disk)
        with disk.lock:
            top = top_of(disk)
            base = base_under(catalog, top) if top.is_empty else None
            is_new = base is None
            if base is None:
                base = _freeze(catalog, disk, entropy=entropy)
            catalog.save()
    return SnapshotMade(base_uuid=base.uuid, base_is_new=is_new)


def reset(catalog: Catalog, uuid: str) -> None:
    """Let the disk forget what was written to it since it was put on its base copy; nothing happens without one."""
    with catalog.lock:
        disk = catalog.disk(uuid)
        check_not_base(disk)
        with disk.lock:
            top = top_of(disk)
            if top.parent is not None and not top.is_empty:
                disk.layer = catalog.new_layer(parent=top.parent, size_bytes=disk.size_bytes)
                catalog.save()


def base_under(catalog: Catalog, layer: Layer) -> Disk | None:
    """Return the base copy that a layer stands on directly."""
    if layer.parent is None:
        return None
    return next((disk for disk in catalog.disks.values() if disk.layer is layer.parent), None)


def top_of(disk: Disk) -> Layer:
    """Return the layer that a disk's bytes are read from first; ``DiskHasNoData`` when they were destroyed."""
    layer = disk.layer
    if layer is None:
        raise DiskHasNoData(disk=disk.uuid)
    return layer


def check_not_base(disk: Disk) -> None:
    """Return when the disk may change; ``DiskReadOnly`` when it is a hidden base copy."""
    if disk.role is Role.BASE:
        raise DiskReadOnly(disk=disk.uuid)


def _freeze(catalog: Catalog, disk: Disk, *, entropy: Entropy) -> Disk:
    """Turn the disk's top layer into a base copy, which is returned, and give the disk a fresh one."""
    top = top_of(disk)
    depth = len(top.lineage())
    if depth >= CHAIN_DEPTH_MAX:
        raise DiskChainTooLong(disk=disk.uuid, depth=depth, depth_max=CHAIN_DEPTH_MAX)
    name = DiskUuid(str(uuids.UUID(bytes=entropy.token_bytes(16), version=4)))
    base = catalog.disks[name] = Disk(name, disk.size_bytes, Role.BASE, top)
    disk.layer = catalog.new_layer(parent=top, size_bytes=disk.size_bytes)
    return base
