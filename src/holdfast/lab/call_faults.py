"""What armed faults make of a call: hosts that are not ready, connections that break, refusals, rivals who were faster.

A refusal that the real pool gives while it works fails the task of an asynchronous call, and so do these.
"""

from __future__ import annotations

from holdfast.lab.context import Context, PoolCore
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.volumes import destroy_vdi

__all__ = ["is_answer_lost", "is_call_lost", "meet_call_faults", "stall_call", "unready_code"]

_UNREADY = {"host-still-booting": "HOST_STILL_BOOTING", "host-in-emergency": "HOST_IN_EMERGENCY_MODE"}
_VM_PARTS = {"VBDs": "VBD", "VIFs": "VIF", "VTPMs": "VTPM", "VGPUs": "VGPU", "VUSBs": "VUSB"}


def unready_code(pool: PoolCore) -> str | None:
    """Return what a host says that answers no call now; None when it is ready."""
    return next((code for name, code in _UNREADY.items() if pool.faults.take(name)), None)


def is_call_lost(pool: PoolCore, method: str) -> bool:
    """Whether the connection breaks before the call is looked at."""
    return pool.faults.take("call-lost", method=method) is not None


def is_answer_lost(pool: PoolCore, method: str) -> bool:
    """Whether the connection breaks after the call was carried out."""
    return pool.faults.take("answer-lost", method=method) is not None


def stall_call(pool: PoolCore, method: str) -> None:
    """Return when the call may go on."""
    fault = pool.faults.take("call-stalls", method=method)
    if fault is not None:
        pool.clock.sleep(fault.seconds())


def meet_call_faults(context: Context, method: str, values: list[object]) -> None:
    """Return when the call is to be carried out; raise the refusal that a fault says. Rivals come first."""
    faults = context.pool.faults
    target = values[0] if values and isinstance(values[0], str) else NULL_REF
    _meet_rivals(context, method, target, values)
    fault = faults.take("call-fails", method=method)
    if fault is not None:
        parameters = fault.text("parameters")
        raise ApiFailure(fault.text("code"), *(parameters.split("|") if parameters else ()))
    fault = faults.take("operation-in-progress", method=method)
    if fault is not None:
        cls = method.partition(".")[0]
        rival = f"OpaqueRef:{context.pool.new_uuid()}"
        raise ApiFailure("OTHER_OPERATION_IN_PROGRESS", cls, target, fault.text("operation"), rival)
    if faults.take("too-many-tasks", method=method):
        raise ApiFailure("TOO_MANY_PENDING_TASKS")
    if faults.take("host-unreachable", method=method):
        raise ApiFailure("CANNOT_CONTACT_HOST", context.pool.master_ref)


def _meet_rivals(context: Context, method: str, target: str, values: list[object]) -> None:
    """Let somebody else be faster: the call then meets what they did, and answers as it answers to that."""
    cls, _, verb = method.partition(".")
    if cls not in context.db.datamodel.classes or not context.db.exists(cls, target):
        return
    if context.pool.faults.take("object-vanishes", method=method):
        _delete(context.pool, cls, target)
        return
    field = verb.removeprefix("add_to_")
    is_map = field != verb and field in context.db.table(cls).fields and len(values) > 1
    if is_map and str(values[1]) not in context.db.mapping(cls, target, field):
        fault = context.pool.faults.take("map-key-taken", method=method)
        if fault is not None:
            context.db.put_key(cls, target, field, key=str(values[1]), value=fault.text("value"))


def _delete(pool: PoolCore, cls: str, ref: str) -> None:
    db = pool.db
    if cls == "VDI":
        destroy_vdi(pool, ref)
        return
    with db.transaction():
        if cls == "VM":
            for field, part in _VM_PARTS.items():
                for each in db.texts("VM", ref, field):
                    db.destroy(part, each)
        db.destroy(cls, ref)
