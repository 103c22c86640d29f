"""Calls of change tracking and of reading over NBD: what changed, and where the bytes can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from holdfast.formats.cbt import encode_bitmap
from holdfast.lab.calls.storage_lock import disk_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.disks import CbtLogMissing, CbtUnrelated, DiskUnknown
from holdfast.lab.driver_faults import meet_disk_fault
from holdfast.lab.errors import ApiFailure
from holdfast.lab.nbd_service import spoil_nbd_info
from holdfast.lab.rules import CBT_METADATA, has_vhd_disks
from holdfast.lab.tracking import check_trackable_size
from holdfast.lab.volumes import data_destroy_vdi, disk_uuid

__all__ = ["calls"]

calls = CallSet()

_TRACKED_BYTES = 64 * 1024


@calls.on("VDI.enable_cbt")
def enable_cbt(context: Context, vdi: str) -> str:
    """Track writes from now on. Doing it twice is harmless."""
    pool, db = context.pool, context.db
    with disk_operation(context, vdi, "enable_cbt"):
        if pool.is_restricted("cbt"):
            raise ApiFailure("FEATURE_RESTRICTED", "restrict_cbt")
        if not db.flag("VDI", vdi, "cbt_enabled"):
            meet_disk_fault(pool, vdi, "enable_cbt")
            _check_image(context, vdi)
            check_trackable_size(pool, vdi)
            pool.disks.enable_cbt(disk_uuid(pool, vdi))
            db.set("VDI", vdi, "cbt_enabled", True)
            pool.space.measure(vdi)
    return ""


def _check_image(context: Context, vdi: str) -> None:
    if context.db.mapping("VDI", vdi, "sm_config").get("type") == "raw":
        text = "Invalid VDI type [opterr=Raw VDI or snapshot not permitted]"
        raise ApiFailure("SR_BACKEND_FAILURE_66", "", text, "")


@calls.on("VDI.disable_cbt")
def disable_cbt(context: Context, vdi: str) -> str:
    """Stop tracking; snapshots keep their logs. Doing it twice is harmless."""
    pool, db = context.pool, context.db
    with disk_operation(context, vdi, "disable_cbt"):
        if db.flag("VDI", vdi, "cbt_enabled"):
            pool.disks.disable_cbt(disk_uuid(pool, vdi))
            db.set("VDI", vdi, "cbt_enabled", False)
            pool.space.measure(vdi)
    return ""


@calls.on("VDI.data_destroy")
def data_destroy(context: Context, vdi: str) -> str:
    """Free a snapshot's data and keep its change log. Waits a moment for the disk to be free of every VBD."""
    pool, db = context.pool, context.db
    with disk_operation(context, vdi, "data_destroy"):
        kind = db.text("VDI", vdi, "type")
        if kind == CBT_METADATA:
            return ""
        db.set("VDI", vdi, "type", CBT_METADATA)
        try:
            if not db.flag("VDI", vdi, "managed"):
                raise ApiFailure("VDI_NOT_MANAGED", vdi)
            if not _wait_without_vbds(context, vdi):
                raise ApiFailure("VDI_IN_USE", vdi, "data_destroy")
            meet_disk_fault(pool, vdi, "data_destroy")
            data_destroy_vdi(pool, vdi)
        except BaseException:
            db.set("VDI", vdi, "type", kind)
            raise
    return ""


def _wait_without_vbds(context: Context, vdi: str) -> bool:
    clock = context.pool.clock
    deadline_s = clock.monotonic_s() + context.pool.delays.data_destroy_wait_s
    with context.db.lock:
        while context.db.texts("VDI", vdi, "VBDs"):
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                return False
            context.db.changed.wait(left_s)
    return True


@calls.on("VDI.list_changed_blocks")
def list_changed_blocks(context: Context, source: str, target: str) -> str:
    """Return which 64 KiB blocks of ``target`` were written after ``source``, as a base64 bitmap."""
    pool, db = context.pool, context.db
    with disk_operation(context, target, "list_changed_blocks"):
        db.row("VDI", source)
        meet_disk_fault(pool, target, "list_changed_blocks")
        fault = pool.faults.take("changed-blocks-fail")
        if fault is not None:
            raise ApiFailure(fault.text("code"), "", fault.text("text"), "")
        size_bytes = db.number("VDI", target, "virtual_size")
        if has_vhd_disks(db, db.text("VDI", target, "SR")):
            changed = _tracked_changes(context, source, target)
        else:
            changed = _compared_changes(context, source, target)
        return encode_bitmap(changed, size_bytes=size_bytes)


def _tracked_changes(context: Context, source: str, target: str) -> NDArray[np.bool_]:
    disks = context.pool.disks
    try:
        return disks.changed_blocks(disk_uuid(context.pool, source), disk_uuid(context.pool, target))
    except (CbtUnrelated, CbtLogMissing, DiskUnknown) as cause:
        raise _unrelated(is_same=source == target) from cause


def _compared_changes(context: Context, source: str, target: str) -> NDArray[np.bool_]:
    """A driver of plain images compares contents; where one is gone, the log that it had tells."""
    disks = context.pool.disks
    uuids = disk_uuid(context.pool, source), disk_uuid(context.pool, target)
    blocks = -(-context.db.number("VDI", target, "virtual_size") // _TRACKED_BYTES)
    changed = np.zeros(blocks, dtype=np.bool_)
    if not all(disks.exists(uuid) and disks.has_data(uuid) for uuid in uuids):
        with contextlib.suppress(CbtUnrelated, CbtLogMissing, DiskUnknown):
            changed = disks.changed_blocks(*uuids)
        return changed
    for uuid in uuids:
        for extent in disks.data_extents(uuid):
            last = min(blocks, -(-extent.end_bytes // _TRACKED_BYTES))
            changed[extent.offset_bytes // _TRACKED_BYTES : last] = True
    for block in np.flatnonzero(changed).tolist():
        pieces = [_piece(context, uuid, block) for uuid in uuids]
        changed[block] = pieces[0] != pieces[1]
    return changed


def _piece(context: Context, uuid: str, block: int) -> bytes:
    """Return 64 KiB of the disk; what lies beyond its end is zeros."""
    offset_bytes = block * _TRACKED_BYTES
    length_bytes = max(0, min(_TRACKED_BYTES, context.pool.disks.size_bytes(uuid) - offset_bytes))
    data = context.pool.disks.read(uuid, offset_bytes, length_bytes) if length_bytes else b""
    return data.ljust(_TRACKED_BYTES, b"\0")


def _unrelated(*, is_same: bool) -> ApiFailure:
    which = "same" if is_same else "unrelated"
    text = f"Failed to calculate changed blocks for given VDIs. [opterr=Source and target VDI are {which}]"
    return ApiFailure("SR_BACKEND_FAILURE_460", "", text, "")


@calls.on("VDI.get_nbd_info")
def get_nbd_info(context: Context, vdi: str) -> list[dict[str, object]]:
    """Return where the disk can be read over NBD: one entry per address on a network with an NBD purpose."""
    pool, db = context.pool, context.db
    if db.text("VDI", vdi, "type") == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata")
    if pool.faults.take("nbd-info-empty"):
        return []
    export = f"/{disk_uuid(pool, vdi)}?session_id={context.session}"
    found: list[dict[str, object]] = []
    for pbd in db.texts("SR", db.text("VDI", vdi, "SR"), "PBDs"):
        if db.flag("PBD", pbd, "currently_attached"):
            for address in _nbd_addresses(context, db.text("PBD", pbd, "host")):
                info: dict[str, object] = {"exportname": export, "address": address, "port": pool.nbd_port}
                found.append({**info, "cert": pool.certificate_pem, "subject": pool.certificate_subject})
    return spoil_nbd_info(pool, found)


def _nbd_addresses(context: Context, host: str) -> Iterator[str]:
    db = context.db
    for row in db.rows("PIF"):
        fields = row.fields
        if fields["host"] == host and fields["currently_attached"]:
            purposes = db.texts("network", str(fields["network"]), "purpose")
            if {"nbd", "insecure_nbd"} & set(purposes):
                if fields["IP"]:
                    yield str(fields["IP"])
                yield from (address for address in db.texts("PIF", row.ref, "IPv6") if address)
