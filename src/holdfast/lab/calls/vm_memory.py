"""Calls of a VM's memory: its four limits, and what the hypervisor needs beside them.

Invariant: static minimum <= dynamic minimum <= dynamic maximum <= static maximum after every call here.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core import MIB
from holdfast.lab.calls.common import vm_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure, internal_failure

__all__ = ["calls", "memory_overhead_bytes", "update_overhead"]

calls = CallSet()

_PAGES_PER_MIB = 256
_PAGES_PER_VCPU = 256
_EXTRA_PAGES_PER_VCPU = 38
_APPROXIMATE_VCPUS = 64
_NAMES = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")


def memory_overhead_bytes(*, static_max_bytes: int, vcpus: int, multiplier: float, domain_type: str) -> int:
    """Return what the hypervisor takes for such a VM beside the memory that its guest sees.

    Page tables grow with memory and processors; an emulated machine has one MiB more inside, and a paravirtual one in
    a container also its shim.
    """
    static_max_mib = -(-static_max_bytes // MIB)
    shadow_mib = _mib(_PAGES_PER_VCPU * vcpus + 2 * static_max_mib)
    total_mib = max(1, int(shadow_mib * multiplier)) + _mib(_EXTRA_PAGES_PER_VCPU * vcpus) + 1
    if domain_type != "pv":
        total_mib += 1
    if domain_type == "pv_in_pvh":
        total_mib += 23 + static_max_mib // 90
    return total_mib * MIB


def _mib(pages: int) -> int:
    return -(-pages // _PAGES_PER_MIB)


def _overhead_of(fields: Fields, *, static_max_bytes: int, vcpus: int) -> int:
    multiplier = fields["HVM_shadow_multiplier"]
    assert isinstance(multiplier, float | int)
    return memory_overhead_bytes(
        static_max_bytes=static_max_bytes,
        vcpus=vcpus,
        multiplier=float(multiplier),
        domain_type=str(fields["domain_type"]),
    )


def _current_overhead(context: Context, vm: str) -> int:
    db = context.db
    maximum, vcpus = db.number("VM", vm, "memory_static_max"), db.number("VM", vm, "VCPUs_max")
    return _overhead_of(db.row("VM", vm).fields, static_max_bytes=maximum, vcpus=vcpus)


def update_overhead(context: Context, vm: str) -> None:
    """Compute the VM's overhead anew."""
    context.db.set("VM", vm, "memory_overhead", _current_overhead(context, vm))


@calls.on("VM.compute_memory_overhead")
def compute_memory_overhead(context: Context, vm: str) -> int:
    """Return what the hypervisor takes beside the guest's memory."""
    return _current_overhead(context, vm)


@calls.on("VM.maximise_memory")
def maximise_memory(context: Context, vm: str, total: int, approximate: bool) -> int:
    """Return the largest memory, in whole MiB, with which the VM fits into ``total`` bytes."""
    fields = context.db.row("VM", vm).fields
    vcpus = _APPROXIMATE_VCPUS if approximate else context.db.number("VM", vm, "VCPUs_max")
    low_mib, high_mib = 0, max(0, total) // MIB + 1
    while high_mib - low_mib > 1:
        middle_mib = (low_mib + high_mib) // 2
        needed = middle_mib * MIB + _overhead_of(fields, static_max_bytes=middle_mib * MIB, vcpus=vcpus)
        low_mib, high_mib = (middle_mib, high_mib) if needed <= total else (low_mib, middle_mib)
    return low_mib * MIB


def _set_memory(context: Context, vm: str, changes: dict[str, int], *, operation: str) -> str:
    db = context.db
    with vm_operation(context, vm, operation), db.transaction():
        values = {name: db.number("VM", vm, name) for name in _NAMES} | changes
        _check(context, vm, values)
        fields: Fields = dict(values)
        if "memory_dynamic_min" in changes:
            fields["memory_target"] = changes["memory_dynamic_min"]
        db.update("VM", vm, fields)
        update_overhead(context, vm)
        if db.flag("VM", vm, "is_control_domain") and operation != "changing_dynamic_range":
            db.set("VM", vm, "requires_reboot", True)
    return ""


def _check(context: Context, vm: str, values: dict[str, int]) -> None:
    static_min, dynamic_min, dynamic_max, static_max = (values[name] for name in _NAMES)
    reason = _pinned_because(context, vm)
    if reason is not None:
        if not static_min <= dynamic_min == dynamic_max == static_max:
            raise ApiFailure("MEMORY_CONSTRAINT_VIOLATION_MAXPIN", reason)
    elif not static_min <= dynamic_min <= dynamic_max <= static_max:
        raise ApiFailure("MEMORY_CONSTRAINT_VIOLATION_ORDER")


def _pinned_because(context: Context, vm: str) -> str | None:
    """Return why the VM must have all of its memory at all times, when it must."""
    db = context.db
    if context.pool.is_restricted("dmc"):
        return "DMC disabled"
    if db.flag("VM", vm, "is_control_domain"):
        return "control domain"
    metrics = db.find("VM_metrics", db.text("VM", vm, "metrics"))
    if metrics is not None:
        return "nested virt" if metrics.fields["nested_virt"] else None
    return "nested virt" if db.mapping("VM", vm, "platform").get("nested-virt") in ("1", "true") else None


@calls.on("VM.set_memory_limits")
def set_memory_limits(
    context: Context, vm: str, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> str:
    """Set all four limits at once."""
    changes = dict(zip(_NAMES, (static_min, dynamic_min, dynamic_max, static_max), strict=True))
    return _set_memory(context, vm, changes, operation="changing_memory_limits")


@calls.on("VM.set_memory")
def set_memory(context: Context, vm: str, value: int) -> str:
    """Set all limits but the lowest to one value."""
    changes = dict.fromkeys(_NAMES[1:], value)
    return _set_memory(context, vm, changes, operation="changing_memory_limits")


@calls.on("VM.set_memory_dynamic_range")
def set_memory_dynamic_range(context: Context, vm: str, low: int, high: int) -> str:
    """Set the range that ballooning may use."""
    changes = {"memory_dynamic_min": low, "memory_dynamic_max": high}
    return _set_memory(context, vm, changes, operation="changing_dynamic_range")


@calls.on("VM.set_memory_static_range")
def set_memory_static_range(context: Context, vm: str, low: int, high: int) -> str:
    """Set the outer range."""
    changes = {"memory_static_min": low, "memory_static_max": high}
    return _set_memory(context, vm, changes, operation="changing_static_range")


def _make_single(name: str, partner: str, operation: str) -> Callable[[Context, str, int], str]:
    def set_limit(context: Context, vm: str, value: int) -> str:
        changes = {name: value, partner: context.db.number("VM", vm, partner)}
        return _set_memory(context, vm, changes, operation=operation)

    return set_limit


for _kind in ("static", "dynamic"):
    for _end, _other in (("min", "max"), ("max", "min")):
        _setter = _make_single(f"memory_{_kind}_{_end}", f"memory_{_kind}_{_other}", f"changing_{_kind}_range")
        calls.on(f"VM.set_memory_{_kind}_{_end}")(_setter)


@calls.on("VM.set_memory_target_live")
def set_memory_target_live(context: Context, vm: str, target: int) -> str:
    """Accepted and without effect; the dynamic range took its place."""
    with vm_operation(context, vm, "changing_memory_live"):
        return ""


@calls.on("VM.wait_memory_target_live")
def wait_memory_target_live(context: Context, vm: str) -> str:
    """Return when the guest has the memory it was told to have; in the lab it has it at once."""
    with vm_operation(context, vm, "awaiting_memory_live"):
        metrics = context.db.text("VM", vm, "metrics")
        if context.db.exists("VM_metrics", metrics):
            context.db.set("VM_metrics", metrics, "memory_actual", context.db.number("VM", vm, "memory_dynamic_max"))
        return ""


@calls.on("VM.get_cooperative")
def get_cooperative(context: Context, vm: str) -> bool:
    """Every guest is said to give memory back when asked, even one that nobody knows."""
    return True


def _check_multiplier(value: float) -> None:
    if value < 1.0:
        raise ApiFailure("INVALID_VALUE", "multiplier", f"{value:.12g}" + ("." if value == int(value) else ""))


@calls.on("VM.set_HVM_shadow_multiplier")
def set_shadow_multiplier(context: Context, vm: str, value: float) -> str:
    """Set how much memory shadows the guest's own tables."""
    db = context.db
    with vm_operation(context, vm, "changing_shadow_memory"):
        if db.text("VM", vm, "power_state") != "Halted":
            raise internal_failure("assertion_failed: the VM must be halted")
        _check_multiplier(value)
        db.set("VM", vm, "HVM_shadow_multiplier", value)
        update_overhead(context, vm)
    return ""


@calls.on("VM.set_shadow_multiplier_live")
def set_shadow_multiplier_live(context: Context, vm: str, value: float) -> str:
    """Set it while the VM runs."""
    with vm_operation(context, vm, "changing_shadow_memory_live"):
        _check_multiplier(value)
        context.db.set("VM", vm, "HVM_shadow_multiplier", value)
        update_overhead(context, vm)
    return ""
