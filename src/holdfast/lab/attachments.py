"""Disks attached to the control domain while an export, an import or an NBD connection reads or writes them.

The attachment is an ordinary VBD that clients see: it takes a moment to go away again, and while it is there the disk
is in use. Invariant: what was attached here is detached exactly once, unless a fault leaks it on purpose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from holdfast.lab.context import PoolCore
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.driver_faults import meet_disk_fault
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import CBT_METADATA, type_text
from holdfast.lab.volumes import activate_vdi, deactivate_vdi

__all__ = [
    "attach_to_control_domain",
    "attached",
    "detach_from_control_domain",
    "remove_attachment",
    "sweep_attachments",
]

_NOT_ATTACHED = frozenset({CBT_METADATA, "ha_statefile", "redo_log"})
"""Types of disks that no VM may have."""

_HARMLESS = frozenset({"copy", "mirror"})
"""What may be going on with a disk while it is attached."""


def attach_to_control_domain(pool: PoolCore, vdi: str, *, is_writable: bool) -> str:
    """Attach the disk and return the VBD.

    It waits while something else is being done with the disk. The pool's refusal when the disk is none to attach, or
    someone else writes to it.
    """
    db = pool.db
    meet_disk_fault(pool, vdi, "attach")
    vbd = _create(pool, vdi, is_writable=is_writable)
    task = f"DummyRef:|{pool.new_uuid()}|VBD.plug"
    check = partial(_check_plug, pool, vdi, vbd, is_writable=is_writable)
    try:
        with pool.operations.running("VBD", vbd, "plug", task=task, check=check):
            with db.transaction():
                db.update("VBD", vbd, {"device": f"sm/backend/{pool.new_uuid()}", "currently_attached": True})
                activate_vdi(pool, vdi, is_writable=is_writable)
                db.touch("VDI", vdi)
            if pool.delays.plug_s:
                pool.clock.sleep(pool.delays.plug_s)
    except BaseException:
        remove_attachment(pool, vbd)
        raise
    return vbd


def _create(pool: PoolCore, vdi: str, *, is_writable: bool) -> str:
    db = pool.db
    with db.transaction():
        fields = db.row("VDI", vdi).fields
        if fields["type"] in _NOT_ATTACHED:
            raise ApiFailure("VDI_INCOMPATIBLE_TYPE", vdi, type_text(str(fields["type"])))
        if is_writable and fields["read_only"]:
            raise ApiFailure("VDI_READONLY", vdi)
        return db.create(
            "VBD",
            {
                "VM": pool.control_domain_ref,
                "VDI": vdi,
                "userdevice": str(_free_device(pool)),
                "mode": "RW" if is_writable else "RO",
                "type": "Disk",
                "unpluggable": True,
                "metrics": f"OpaqueRef:{pool.new_uuid()}",
            },
        )


def _check_plug(pool: PoolCore, vdi: str, vbd: str, *, is_writable: bool) -> None:
    db = pool.db
    if not db.flag("VDI", vdi, "managed"):
        raise ApiFailure("VDI_NOT_MANAGED", vbd)
    for task, operation in db.mapping("VDI", vdi, "current_operations").items():
        if operation not in _HARMLESS:
            raise ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi, operation, task)
    for other in db.texts("VDI", vdi, "VBDs"):
        if other != vbd and _collides(pool, other, is_writable=is_writable):
            raise ApiFailure("VDI_IN_USE", vdi, "attach")
    if is_writable and _is_read_only_in_control_domain(pool, vdi):
        text = "Storage_error ([S(Illegal_transition);[[S(Activated);S(RO)];[S(Activated);S(RW)]]])"
        raise ApiFailure("INTERNAL_ERROR", text)


def _collides(pool: PoolCore, vbd: str, *, is_writable: bool) -> bool:
    """Whether another attachment forbids this one.

    What a sleeping VM has attached is only a note for its waking, and the control domain shares disks with itself:
    some clients try an upload before they begin it, and the trial is still detaching then.
    """
    fields = pool.db.row("VBD", vbd).fields
    vm = pool.db.row("VM", str(fields["VM"])).fields
    is_note = vm["power_state"] not in ("Running", "Paused")
    if not fields["currently_attached"] or is_note or vm["is_control_domain"]:
        return False
    return is_writable or fields["mode"] == "RW"


def _is_read_only_in_control_domain(pool: PoolCore, vdi: str) -> bool:
    """Whether the control domain has the disk for reading and nobody for writing: it cannot become writable then."""
    held = [pool.db.row("VBD", vbd).fields for vbd in pool.db.texts("VDI", vdi, "VBDs")]
    modes = {
        fields["mode"] for fields in held if fields["currently_attached"] and fields["VM"] == pool.control_domain_ref
    }
    return modes == {"RO"}


def _free_device(pool: PoolCore) -> int:
    db = pool.db
    taken = {db.text("VBD", vbd, "userdevice") for vbd in db.texts("VM", pool.control_domain_ref, "VBDs")}
    return next(number for number in range(len(taken) + 1) if str(number) not in taken)


def detach_from_control_domain(pool: PoolCore, vbd: str) -> None:
    """Detach the disk after the usual moment and remove the VBD. Safe when somebody else removed it meanwhile."""
    if pool.faults.take("vbd-leaks"):
        return
    fault = pool.faults.take("disk-stays-in-use")
    delay_s = pool.delays.unplug_s + (fault.seconds() if fault else 0.0)
    if delay_s:
        pool.clock.sleep(delay_s)
    remove_attachment(pool, vbd)


def remove_attachment(pool: PoolCore, vbd: str) -> None:
    """Remove the VBD at once. Safe to call twice."""
    db = pool.db
    with db.transaction():
        row = db.find("VBD", vbd)
        if row is None:
            return
        vdi = str(row.fields["VDI"])
        was_attached = bool(row.fields["currently_attached"])
        db.destroy("VBD", vbd)
        if vdi != NULL_REF and db.exists("VDI", vdi):
            if was_attached and not any(
                db.flag("VBD", other, "currently_attached") for other in db.texts("VDI", vdi, "VBDs")
            ):
                deactivate_vdi(pool, vdi)
            db.touch("VDI", vdi)


@contextlib.contextmanager
def attached(pool: PoolCore, vdi: str, *, is_writable: bool) -> Iterator[None]:
    """Have the disk attached to the control domain while the block runs."""
    vbd = attach_to_control_domain(pool, vdi, is_writable=is_writable)
    try:
        yield
    finally:
        detach_from_control_domain(pool, vbd)


def sweep_attachments(pool: PoolCore) -> int:
    """Remove what a killed lab left attached; return how many."""
    vbds = pool.db.texts("VM", pool.control_domain_ref, "VBDs")
    for vbd in vbds:
        remove_attachment(pool, vbd)
    return len(vbds)
