"""Where the knowledge of what to read comes from: CBT over NBD, else a VHD difference, else the whole disk.

Invariant: planning changes nothing on the pool, and every source that was passed over is named with its reason. A
source is taken only after it was seen to work: the bitmap is in hand, the difference has answered with its head.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from holdfast.core import format_bytes, get_log, limits
from holdfast.formats.cbt import CbtBitmapDamaged, decode_blocks
from holdfast.model import ChangeSource, Coverage, DiskUuid, JsonObject, Reference
from holdfast.xapi.calls import Calls
from holdfast.xapi.errors import ExportDamaged, NbdUnavailable, PoolAnswerInvalid, PoolConnectionLost, PoolFailure
from holdfast.xapi.exports import read_export_head, read_qcow2_export_head
from holdfast.xapi.image_format import is_kept_as_qcow2
from holdfast.xapi.nbd_door import NbdDoor
from holdfast.xapi.pieces import (
    Blocks,
    all_blocks,
    blocks_of_qcow2,
    blocks_of_vhd,
    covered_bytes,
    with_grown_edge,
)
from holdfast.xapi.records import as_text, flag, integer, text
from holdfast.xapi.tasks import call_async
from holdfast.xapi.values import ReadPlan, ReadTransport

__all__ = ["plan_read"]

_log = get_log(__name__)


_EXPORT_TROUBLE = (PoolFailure, ExportDamaged, PoolConnectionLost, PoolAnswerInvalid)


class _NotThisWay(Exception):
    """A source of changes is of no use for this disk; the reason is a clause for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The disk that is to be read, and what is known about it."""

    live: DiskUuid
    snapshot: DiskUuid
    ref: str
    size_bytes: int
    cbt_enabled: bool
    is_qcow2: bool
    """Whether the pool says that it keeps the disk as qcow2, whatever its size."""
    nbd_refusal: str
    """Why it cannot be read over NBD; empty when it can."""


def plan_read(
    calls: Calls,
    door: NbdDoor,
    *,
    live: DiskUuid,
    snapshot: DiskUuid,
    reference: Reference | None,
    force_full: bool,
    without_nbd: str = "",
) -> ReadPlan:
    """Return the best way to read the snapshot. ``without_nbd`` is why NBD must not be used, when it must not."""
    subject = _look_at(calls, door, live=live, snapshot=snapshot, without_nbd=without_nbd)
    reasons: list[str] = []
    if force_full:
        reasons.append("a full read was asked for")
    elif reference is None:
        reasons.append("there is no reference on the pool yet")
    else:
        try:
            return _plan_cbt(calls, subject, reference)
        except _NotThisWay as refusal:
            reasons.append(str(refusal))
        try:
            return _plan_difference(calls, subject, reference, reasons)
        except _NotThisWay as refusal:
            reasons.append(str(refusal))
    _log.info("changes.read-in-full", disk=snapshot, why="; ".join(reasons))
    plan = _plan_full(calls, subject, reasons)
    return dataclasses.replace(plan, wanted=reference, force_full=force_full)


def _look_at(calls: Calls, door: NbdDoor, *, live: DiskUuid, snapshot: DiskUuid, without_nbd: str) -> _Subject:
    ref = calls.ref("VDI", snapshot)
    record = calls.record("VDI", ref)
    refusal = without_nbd
    if not refusal:
        try:
            door.probe(calls, snapshot)
        except NbdUnavailable as failure:
            refusal = failure.why
    return _Subject(
        live=live,
        snapshot=snapshot,
        ref=ref,
        size_bytes=integer(record, "virtual_size"),
        cbt_enabled=flag(record, "cbt_enabled", False),
        is_qcow2=is_kept_as_qcow2(calls, record, source=live),
        nbd_refusal=refusal,
    )


def _plan_cbt(calls: Calls, subject: _Subject, reference: Reference) -> ReadPlan:
    """Return a plan from the pool's changed-block bitmap, read over NBD."""
    if subject.nbd_refusal:
        raise _NotThisWay(f"change tracking needs NBD, which cannot be used ({subject.nbd_refusal})")
    if not subject.cbt_enabled:
        raise _NotThisWay("change tracking is off on this disk")
    base_ref, base = _reference_record(calls, reference)
    try:
        bitmap = call_async(calls, "VDI.list_changed_blocks", base_ref, subject.ref)
        blocks = decode_blocks(as_text(bitmap, what="VDI.list_changed_blocks"), size_bytes=subject.size_bytes)
    except PoolFailure as failure:
        raise _NotThisWay(f"the pool could not tell the changes [{failure.xapi_code}: {failure.what}]") from failure
    except CbtBitmapDamaged as failure:
        raise _NotThisWay(str(failure)) from failure
    reference_size_bytes = integer(base, "virtual_size")
    blocks = with_grown_edge(blocks, reference_size_bytes=reference_size_bytes)
    planned_bytes = covered_bytes(blocks, size_bytes=subject.size_bytes)
    return ReadPlan(
        live=subject.live,
        snapshot=subject.snapshot,
        size_bytes=subject.size_bytes,
        source=ChangeSource.CBT,
        transport=ReadTransport.NBD,
        coverage=Coverage.CHANGES,
        reason=f"the pool tracked {format_bytes(planned_bytes)} of changes since the reference.",
        reference=reference,
        wanted=reference,
        force_full=False,
        blocks=blocks,
        planned_bytes=planned_bytes,
        reference_size_bytes=reference_size_bytes,
    )


def _plan_difference(calls: Calls, subject: _Subject, reference: Reference, reasons: list[str]) -> ReadPlan:
    """Return a plan from a VHD difference against the reference snapshot."""
    if not reference.has_data:
        raise _NotThisWay("the reference holds change metadata only, so there is nothing to take a difference from")
    if subject.size_bytes > limits.VHD_DISK_BYTES_MAX:
        raise _NotThisWay("the disk is too large for VHD")
    if subject.is_qcow2:
        raise _NotThisWay("the disk is kept as qcow2, of which there is no VHD difference")
    _, base = _reference_record(calls, reference)
    if text(base, "type") == "cbt_metadata":
        raise _NotThisWay("the reference's data is gone from the pool")
    try:
        head = read_export_head(calls, subject.snapshot, base=reference.snapshot, size_bytes=subject.size_bytes)
    except _EXPORT_TROUBLE as failure:
        raise _NotThisWay(f"the pool cannot export a VHD difference ({failure})") from failure
    planned_bytes = head.allocated_blocks.size * head.block_bytes
    return ReadPlan(
        live=subject.live,
        snapshot=subject.snapshot,
        size_bytes=subject.size_bytes,
        source=ChangeSource.VHD_DIFFERENCE,
        transport=ReadTransport.STREAM,
        coverage=Coverage.CHANGES,
        reason=f"a VHD difference of {format_bytes(planned_bytes)} was taken, because {'; '.join(reasons)}.",
        reference=reference,
        wanted=reference,
        force_full=False,
        blocks=None,
        planned_bytes=min(planned_bytes, subject.size_bytes),
        reference_size_bytes=integer(base, "virtual_size"),
        nbd_refusal=subject.nbd_refusal,
    )


def _plan_full(calls: Calls, subject: _Subject, reasons: list[str]) -> ReadPlan:
    """Return a plan for the whole disk; over NBD the tables of its image tell which blocks exist."""
    because = "; ".join(reasons)
    blocks, table_refusal = _allocated_blocks(calls, subject)
    if subject.nbd_refusal:
        if subject.size_bytes > limits.VHD_DISK_BYTES_MAX:
            raise NbdUnavailable(why=f"a disk beyond 2040 GiB can only be read over it, and {subject.nbd_refusal}")
        # Where change tracking was wanted, the refusal is among the reasons already.
        over_nbd_why = "" if subject.nbd_refusal in because else f"; NBD: {subject.nbd_refusal}"
        how = f"the disk is read in full from the export stream, because {because}{over_nbd_why}."
    elif table_refusal:
        how = f"the disk is read in full, holes included, because {because}; its block table: {table_refusal}."
    else:
        how = f"the disk is read in full without its holes, because {because}."
    over_nbd = not subject.nbd_refusal
    return ReadPlan(
        live=subject.live,
        snapshot=subject.snapshot,
        size_bytes=subject.size_bytes,
        source=ChangeSource.FULL,
        transport=ReadTransport.NBD if over_nbd else ReadTransport.STREAM,
        coverage=Coverage.WHOLE,
        reason=how,
        reference=None,
        wanted=None,
        force_full=False,
        blocks=blocks if over_nbd else None,
        planned_bytes=covered_bytes(blocks, size_bytes=subject.size_bytes),
        nbd_refusal=subject.nbd_refusal,
    )


def _allocated_blocks(calls: Calls, subject: _Subject) -> tuple[Blocks, str]:
    """Return what of the disk may hold data, and why that is all of it where the block table could not be read.

    The table is asked for in the format that the disk is kept in: for another one the pool would read the whole disk
    before it sends a byte.
    """
    size_bytes = subject.size_bytes
    if subject.is_qcow2 and subject.nbd_refusal:
        return all_blocks(size_bytes), "it is not needed for an export stream"
    if not subject.is_qcow2 and size_bytes > limits.VHD_DISK_BYTES_MAX:
        why = "the disk is too large for VHD, and the pool does not say that it is kept as qcow2"
        return all_blocks(size_bytes), why
    try:
        if subject.is_qcow2:
            table = read_qcow2_export_head(calls, subject.snapshot, size_bytes=size_bytes)
            return blocks_of_qcow2(table.held, cluster_bytes=table.cluster_bytes, size_bytes=size_bytes), ""
        head = read_export_head(calls, subject.snapshot, base=None, size_bytes=size_bytes)
    except _EXPORT_TROUBLE as failure:
        return all_blocks(size_bytes), str(failure)
    return blocks_of_vhd(head.allocated_blocks, vhd_block_bytes=head.block_bytes, size_bytes=size_bytes), ""


def _reference_record(calls: Calls, reference: Reference) -> tuple[str, JsonObject]:
    ref = calls.try_ref("VDI", reference.snapshot)
    record = calls.try_record("VDI", ref) if ref is not None else None
    if ref is None or record is None:
        raise _NotThisWay("the reference is gone from the pool")
    return ref, record
