"""Calls of disks: their life, copies and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.lab.attachments import attached
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import CBT_METADATA, check_vdi_operation
from holdfast.lab.volumes import (
    clone_vdi,
    create_vdi,
    destroy_vdi,
    disk_uuid,
    mark_written,
    resize_vdi,
    snapshot_vdi,
)

__all__ = ["calls", "disk_operation"]

calls = CallSet()

_CHECKSUM_PIECE_BYTES = 4 << 20


@contextmanager
def disk_operation(context: Context, vdi: str, operation: str) -> Iterator[None]:
    """Have the operation running on the disk while the block runs; the pool's refusal when it may not begin."""
    context.db.row("VDI", vdi)
    with context.pool.operations.running(
        "VDI", vdi, operation, task=context.task, check=lambda: check_vdi_operation(context.db, vdi, operation)
    ):
        yield


@calls.on("VDI.create")
def create(context: Context, record: Fields) -> str:
    """Make an empty disk."""
    return create_vdi(context.pool, record)


@calls.on("VDI.destroy")
def destroy(context: Context, vdi: str) -> str:
    """Remove a disk that nobody uses."""
    with disk_operation(context, vdi, "destroy"):
        destroy_vdi(context.pool, vdi)
    return ""


@calls.on("VDI.snapshot")
def snapshot(context: Context, vdi: str, driver_params: Fields | None = None) -> str:
    """Freeze the disk's content."""
    with disk_operation(context, vdi, "snapshot"):
        return snapshot_vdi(context.pool, vdi)


@calls.on("VDI.clone")
def clone(context: Context, vdi: str, driver_params: Fields | None = None) -> str:
    """Make an independent disk of the same content."""
    with disk_operation(context, vdi, "clone"):
        return clone_vdi(context.pool, vdi)


@calls.on("VDI.copy")
def copy(context: Context, vdi: str, sr: str = NULL_REF, base: str = NULL_REF, into: str = NULL_REF) -> str:
    """Copy the disk's bytes to a new disk or into one that exists; with a base only what differs from it."""
    pool, db = context.pool, context.db
    check_vdi_operation(db, vdi, "copy")
    if into == vdi:
        text = "Storage_error ([S(Illegal_transition);[[S(Activated);S(RO)];[S(Activated);S(RW)]]])"
        raise ApiFailure("INTERNAL_ERROR", text)
    size_bytes = db.number("VDI", vdi, "virtual_size")
    if into != NULL_REF:
        if db.number("VDI", into, "virtual_size") < size_bytes:
            raise ApiFailure("VDI_TOO_SMALL", into, str(size_bytes))
    else:
        db.row("SR", sr)
        fields = dict(db.row("VDI", vdi).fields)
        into = create_vdi(pool, {**fields, "SR": sr, "read_only": False, "type": "user", "sm_config": {}})
    with disk_operation(context, vdi, "copy"), attached(pool, vdi, is_writable=False):
        blocks = None
        if base != NULL_REF:
            blocks = pool.disks.difference_blocks(disk_uuid(pool, base), disk_uuid(pool, vdi))
        pool.disks.copy(disk_uuid(pool, vdi), disk_uuid(pool, into), blocks=blocks)
    mark_written(pool, into)
    return into


@calls.on("VDI.resize", "VDI.resize_online")
def resize(context: Context, vdi: str, size_bytes: int) -> str:
    """Grow the disk."""
    with disk_operation(context, vdi, "resize"):
        resize_vdi(context.pool, vdi, size_bytes)
    return ""


@calls.on("VDI.forget")
def forget(context: Context, vdi: str) -> str:
    """Remove the record; the lab has nobody who could introduce the bytes again, so they go with it."""
    with disk_operation(context, vdi, "forget"):
        destroy_vdi(context.pool, vdi)
    return ""


@calls.on("VDI.update")
def update(context: Context, vdi: str) -> str:
    """Look at the disk again."""
    check_vdi_operation(context.db, vdi, "update")
    return ""


@calls.on("VDI.set_read_only", "VDI.set_sharable")
def refuse_internal(context: Context, vdi: str, value: bool) -> str:
    """Only storage drivers may set these."""
    raise ApiFailure("PERMISSION_DENIED", "")


@calls.on("VDI.set_on_boot")
def set_on_boot(context: Context, vdi: str, value: str) -> str:
    """Make the disk forget at each start of its VM, or not; refused while changes are tracked."""
    if context.db.text("VDI", vdi, "type") == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata")
    if context.db.flag("VDI", vdi, "cbt_enabled"):
        raise ApiFailure("VDI_CBT_ENABLED", vdi)
    context.db.set("VDI", vdi, "on_boot", value)
    return ""


@calls.on("VDI.pool_migrate")
def pool_migrate(context: Context, vdi: str, sr: str, options: Fields) -> str:
    """Refuse: disks are only migrated with their running VM."""
    raise ApiFailure("VDI_NEEDS_VM_FOR_MIGRATE", context.db.row("VDI", vdi).ref)


@calls.on("VDI.checksum")
def checksum(context: Context, vdi: str) -> str:
    """Return the MD5 of the whole disk, holes as zeros; an independent oracle for content."""
    pool = context.pool
    uuid = disk_uuid(pool, vdi)
    digest = hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(_CHECKSUM_PIECE_BYTES))
    size_bytes = pool.disks.size_bytes(uuid)
    with attached(pool, vdi, is_writable=False):
        for offset in range(0, size_bytes, _CHECKSUM_PIECE_BYTES):
            piece = buffer[: min(_CHECKSUM_PIECE_BYTES, size_bytes - offset)]
            pool.disks.read_into(uuid, offset, piece)
            digest.update(piece)
    return digest.hexdigest()
