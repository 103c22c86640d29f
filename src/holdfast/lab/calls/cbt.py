"""Calls of change tracking and of reading over NBD: what changed, and where the bytes can be read."""

from __future__ import annotations

import numpy as np

from holdfast.formats.cbt import encode_bitmap
from holdfast.lab.calls.vdi import disk_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.disks import CbtLogMissing, CbtUnrelated
from holdfast.lab.driver_faults import meet_disk_fault
from holdfast.lab.errors import ApiFailure
from holdfast.lab.nbd_service import spoil_nbd_info
from holdfast.lab.rules import CBT_METADATA, has_vhd_disks
from holdfast.lab.volumes import data_destroy_vdi, disk_uuid

__all__ = ["calls"]

calls = CallSet()

_TRACKABLE = frozenset({"user", "system"})


def _check_trackable(context: Context, vdi: str) -> None:
    db = context.db
    if db.text("VDI", vdi, "type") == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata")
    if db.flag("VDI", vdi, "is_a_snapshot"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VDI is a snapshot: {vdi}")
    if db.text("VDI", vdi, "type") not in _TRACKABLE:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, db.text("VDI", vdi, "type"))
    if db.text("VDI", vdi, "on_boot") == "reset":
        raise ApiFailure("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")


@calls.on("VDI.enable_cbt")
def enable_cbt(context: Context, vdi: str) -> str:
    """Track writes from now on. Doing it twice is harmless."""
    _check_trackable(context, vdi)
    if not context.db.flag("VDI", vdi, "cbt_enabled"):
        with disk_operation(context, vdi, "enable_cbt"):
            meet_disk_fault(context.pool, vdi, "enable_cbt")
            context.pool.disks.enable_cbt(disk_uuid(context.pool, vdi))
            context.db.set("VDI", vdi, "cbt_enabled", True)
    return ""


@calls.on("VDI.disable_cbt")
def disable_cbt(context: Context, vdi: str) -> str:
    """Stop tracking; snapshots keep their logs. Doing it twice is harmless."""
    _check_trackable(context, vdi)
    if context.db.flag("VDI", vdi, "cbt_enabled"):
        with disk_operation(context, vdi, "disable_cbt"):
            context.pool.disks.disable_cbt(disk_uuid(context.pool, vdi))
            context.db.set("VDI", vdi, "cbt_enabled", False)
    return ""


@calls.on("VDI.data_destroy")
def data_destroy(context: Context, vdi: str) -> str:
    """Free a snapshot's data and keep its change log. Waits a moment for the disk to be free of every VBD."""
    pool, db = context.pool, context.db
    if not db.flag("VDI", vdi, "is_a_snapshot"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {vdi}")
    kind = db.text("VDI", vdi, "type")
    if kind == CBT_METADATA:
        return ""
    if not db.flag("VDI", vdi, "cbt_enabled"):
        raise ApiFailure("VDI_NO_CBT_METADATA", vdi)
    meet_disk_fault(pool, vdi, "data_destroy")
    db.set("VDI", vdi, "type", CBT_METADATA)
    if not _wait_without_vbds(context, vdi):
        db.set("VDI", vdi, "type", kind)
        raise ApiFailure("VDI_IN_USE", vdi, "data_destroy")
    data_destroy_vdi(pool, vdi)
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
    for vdi in (source, target):
        _check_not_attached(context, vdi)
    meet_disk_fault(pool, target, "list_changed_blocks")
    fault = pool.faults.take("changed-blocks-fail")
    if fault is not None:
        raise ApiFailure(fault.text("code"), "", fault.text("text"), "")
    size_bytes = db.number("VDI", target, "virtual_size")
    try:
        changed = pool.disks.changed_blocks(disk_uuid(pool, source), disk_uuid(pool, target))
    except (CbtUnrelated, CbtLogMissing) as cause:
        if has_vhd_disks(db, db.text("VDI", target, "SR")):
            text = "Failed to calculate changed blocks for given VDIs."
            opterr = "Source and target VDI are unrelated"
            raise ApiFailure("SR_BACKEND_FAILURE_460", "", f"{text} [opterr={opterr}]", "") from cause
        changed = np.zeros(-(-size_bytes // (64 * 1024)), dtype=np.bool_)  # plain images compare nothing
    return encode_bitmap(changed, size_bytes=size_bytes)


def _check_not_attached(context: Context, vdi: str) -> None:
    db = context.db
    for vbd in db.texts("VDI", vdi, "VBDs"):
        fields = db.row("VBD", vbd).fields
        vm = db.find("VM", str(fields["VM"]))
        if fields["currently_attached"] and vm is not None and not vm.fields["is_a_snapshot"]:
            raise ApiFailure("VDI_IN_USE", vdi, "list_changed_blocks")


@calls.on("VDI.get_nbd_info")
def get_nbd_info(context: Context, vdi: str) -> list[dict[str, object]]:
    """Return where the disk can be read over NBD: one entry per address on a network with an NBD purpose."""
    pool, db = context.pool, context.db
    if db.text("VDI", vdi, "type") == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata")
    if pool.faults.take("nbd-info-empty"):
        return []
    export = f"/{disk_uuid(pool, vdi)}?session_id={context.session}"
    hosts = {db.text("PBD", pbd, "host") for pbd in db.texts("SR", db.text("VDI", vdi, "SR"), "PBDs")}
    found: list[dict[str, object]] = []
    for network in db.rows("network"):
        if not set(db.texts("network", network.ref, "purpose")) & {"nbd", "insecure_nbd"}:
            continue
        for pif in db.texts("network", network.ref, "PIFs"):
            fields = db.row("PIF", pif).fields
            if fields["currently_attached"] and fields["host"] in hosts and fields["IP"]:
                info: dict[str, object] = {"exportname": export, "address": fields["IP"], "port": pool.nbd_port}
                found.append({**info, "cert": pool.certificate_pem, "subject": pool.certificate_subject})
    return spoil_nbd_info(pool, found)
