"""Calls that make a disk out of another: snapshots, clones, full copies, moves; and the checksum that compares them."""

from __future__ import annotations

import contextlib
import hashlib

from holdfast.lab.attachments import attached
from holdfast.lab.calls.storage_lock import disk_operation, repository_operation
from holdfast.lab.calls.vm_placement import choose_host
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.disks import DiskFull, DiskStoreFull
from holdfast.lab.errors import ApiFailure
from holdfast.lab.operations import Mark
from holdfast.lab.rules import check_sr_operation, check_vdi_managed, check_vdi_operation, check_vm_operation, is_live
from holdfast.lab.volumes import (
    check_sr_attached,
    clone_vdi,
    create_vdi,
    destroy_vdi,
    disk_uuid,
    has_tree,
    mark_written,
    snapshot_vdi,
)

__all__ = ["calls", "checksum", "clone", "copy", "snapshot"]

calls = CallSet()

_CHECKSUM_PIECE_BYTES = 4 << 20


@calls.on("VDI.snapshot")
def snapshot(context: Context, vdi: str, driver_params: Fields | None = None) -> str:
    """Freeze the disk's content."""
    with disk_operation(context, vdi, "snapshot", needs_managed=True):
        return snapshot_vdi(context.pool, vdi)


@calls.on("VDI.clone")
def clone(context: Context, vdi: str, driver_params: Fields | None = None) -> str:
    """Make an independent disk of the same content; one that shares nothing when the image is no part of a tree."""
    pool = context.pool
    with disk_operation(context, vdi, "clone", needs_managed=True):
        if has_tree(pool, vdi):
            return clone_vdi(pool, vdi)
        fields = dict(context.db.row("VDI", vdi).fields)
        made = create_vdi(pool, {**fields, "sm_config": {}, "tags": []})
    # The operation is over while the bytes are copied: being attached protects the disk.
    _copy_bytes(context, vdi, made, base=NULL_REF)
    return made


@calls.on("VDI.revert")
def revert(context: Context, snapshot: str) -> str:
    """Take a disk back to its snapshot, where the driver can."""
    check_sr_operation(context.db, context.db.text("VDI", snapshot, "SR"), "vdi_revert")
    raise ApiFailure("UNIMPLEMENTED_IN_SM_BACKEND", context.db.text("VDI", snapshot, "SR"))


@calls.on("VDI.copy")
def copy(context: Context, vdi: str, sr: str = NULL_REF, base: str = NULL_REF, into: str = NULL_REF) -> str:
    """Copy the disk's bytes to a new disk or into one that exists; with a base only what differs from it."""
    db = context.db
    with disk_operation(context, vdi, "copy", needs_attached=False):
        if not _is_reachable(context, db.text("VDI", vdi, "SR")):
            raise ApiFailure("INTERNAL_ERROR", "Not_found")
        check_vdi_managed(db, vdi)
        if _is_anything(context, into):
            db.row("VDI", into)
            _copy_bytes(context, vdi, into, base=base)
            return into
        made = _new_target(context, vdi, sr)
        try:
            _copy_bytes(context, vdi, made, base=base)
        except BaseException:
            destroy_vdi(context.pool, made)
            raise
        return made


def _is_anything(context: Context, ref: str) -> bool:
    """Whether the pool has an object of this reference, of whatever class: only then it is looked at as a disk."""
    return any(context.db.exists(cls, ref) for cls in context.db.datamodel.classes)


def _is_reachable(context: Context, sr: str) -> bool:
    try:
        check_sr_attached(context.pool, sr)
    except ApiFailure:
        return False
    return True


def _new_target(context: Context, vdi: str, sr: str) -> str:
    fields = dict(context.db.row("VDI", vdi).fields)
    with repository_operation(context, sr, "vdi_create"):
        made = create_vdi(context.pool, {**fields, "SR": sr, "read_only": False, "sm_config": {}})
    context.db.set("VDI", made, "allow_caching", fields["allow_caching"])
    return made


def _copy_bytes(context: Context, vdi: str, into: str, *, base: str) -> None:
    pool, db = context.pool, context.db
    if db.flag("VDI", into, "read_only"):
        raise ApiFailure("VDI_READONLY", into)
    size_bytes = db.number("VDI", vdi, "virtual_size")
    if db.number("VDI", into, "virtual_size") < size_bytes:
        raise ApiFailure("VDI_TOO_SMALL", into, str(size_bytes))
    if not _is_reachable(context, db.text("VDI", into, "SR")):
        raise ApiFailure("NO_HOSTS_AVAILABLE")
    with contextlib.ExitStack() as stack:
        stack.enter_context(attached(pool, vdi, is_writable=False))
        blocks = None
        if _is_anything(context, base):
            stack.enter_context(attached(pool, base, is_writable=False))
            blocks = pool.disks.difference_blocks(disk_uuid(pool, base), disk_uuid(pool, vdi))
        stack.enter_context(attached(pool, into, is_writable=True))
        try:
            pool.disks.copy(disk_uuid(pool, vdi), disk_uuid(pool, into), blocks=blocks)
        except (DiskFull, DiskStoreFull) as cause:
            raise ApiFailure("VDI_COPY_FAILED", "No space left on device") from cause
    mark_written(pool, into)


@calls.on("VDI.pool_migrate")
def pool_migrate(context: Context, vdi: str, sr: str, options: Fields) -> str:
    """Move the disk of a VM to another repository: it becomes another disk there, and the VM has that."""
    pool, db = context.pool, context.db
    vbds = [row for row in db.rows("VBD") if row.fields["VDI"] == vdi]
    if not vbds:
        raise ApiFailure("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
    vm = str(vbds[0].fields["VM"])

    def check() -> None:
        check_vm_operation(db, vm, "migrate_send")
        check_vdi_operation(db, vdi, "mirror")

    marks = (Mark("VM", vm, "migrate_send"), Mark("VDI", vdi, "mirror"))
    with pool.operations.running_together(marks, task=context.task, check=check):
        if not is_live(db.row("VM", vm).fields):
            choose_host(context, vm)
            if not db.exists("SR", sr) or not _is_reachable(context, sr):
                raise ApiFailure("NO_HOSTS_AVAILABLE")
        check_sr_attached(pool, sr)
        fields = dict(db.row("VDI", vdi).fields)
        config = {"image-format": str(options["dest-img-format"])} if "dest-img-format" in options else {}
        made = create_vdi(pool, {**fields, "SR": sr, "sm_config": config})
        pool.disks.copy(disk_uuid(pool, vdi), disk_uuid(pool, made))
        with db.transaction():
            for vbd in vbds:
                db.set("VBD", vbd.ref, "VDI", made)
            for snapshot in db.texts("VDI", vdi, "snapshots"):
                db.set("VDI", snapshot, "snapshot_of", made)
            destroy_vdi(pool, vdi)
            mark_written(pool, made)
        return made


@calls.on("VDI.checksum")
def checksum(context: Context, vdi: str) -> str:
    """Return the MD5 of the whole disk, holes as zeros; an independent oracle for content."""
    pool = context.pool
    uuid = disk_uuid(pool, vdi)
    if not _is_reachable(context, context.db.text("VDI", vdi, "SR")):
        raise ApiFailure("NO_HOSTS_AVAILABLE")
    digest = hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(_CHECKSUM_PIECE_BYTES))
    with attached(pool, vdi, is_writable=False):
        size_bytes = pool.disks.size_bytes(uuid)
        for offset in range(0, size_bytes, _CHECKSUM_PIECE_BYTES):
            piece = buffer[: min(_CHECKSUM_PIECE_BYTES, size_bytes - offset)]
            pool.disks.read_into(uuid, offset, piece)
            digest.update(piece)
    return digest.hexdigest()
