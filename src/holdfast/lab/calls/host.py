"""The life of hosts: enabled and disabled, emptied of their VMs, shut down, started again, and forgotten.

Invariant: a host that goes down takes its VMs' processes with it, so a VM is never shown as running on a host that is
down.
"""

from __future__ import annotations

import math

from holdfast.lab.calls.vm_migrate import pool_migrate
from holdfast.lab.calls.vm_placement import check_can_boot
from holdfast.lab.calls.vm_state import take_down
from holdfast.lab.context import CallSet, Context, PoolCore
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.hosts import restart_toolstack
from holdfast.lab.rules import check_host_operation, check_vm_operation

__all__ = ["calls", "evacuation_errors"]

calls = CallSet()

BOOT_S = 180.0
"""How long a host takes to come back."""

RESTART_S = 1.0
"""How long a management daemon waits with its restart, so that the call's answer still gets out."""


# -- enabled and disabled


@calls.on("host.disable")
def disable(context: Context, host: str, auto_enable: bool = True) -> str:
    """Let no VM start on the host."""
    context.db.set("host", host, "enabled", False)
    return ""


@calls.on("host.enable")
def enable(context: Context, host: str) -> str:
    """Let VMs start on the host again."""
    db = context.db
    check_host_operation(db, host, "enable")
    if not db.flag("host", host, "enabled"):
        if db.row("host", host).fields["pending_guidances"]:
            raise ApiFailure("HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY", host)
        db.set("host", host, "enabled", True)
    return ""


# -- emptied


def _guests(context: Context, host: str) -> list[str]:
    db = context.db
    return [vm for vm in db.texts("host", host, "resident_VMs") if not db.flag("VM", vm, "is_control_domain")]


def _plan(context: Context, host: str) -> dict[str, str | ApiFailure]:
    """Return for each VM on the host where it could go, or why nowhere."""
    db = context.db
    targets = [row.ref for row in db.rows("host") if row.ref != host and row.fields["enabled"]]
    return {vm: _destination(context, vm, targets) for vm in _guests(context, host)}


def _destination(context: Context, vm: str, targets: list[str]) -> str | ApiFailure:
    found: ApiFailure | None = None
    try:
        check_vm_operation(context.db, vm, "pool_migrate")
        for target in targets:
            check_can_boot(context, vm, target, checks_memory=False)
    except ApiFailure as refusal:
        return refusal if targets else ApiFailure("NO_HOSTS_AVAILABLE", vm)
    for target in targets:
        try:
            check_can_boot(context, vm, target)
        except ApiFailure as refusal:
            found = refusal
        else:
            return target
    return ApiFailure("HOST_NOT_ENOUGH_FREE_MEMORY", vm) if found else ApiFailure("NO_HOSTS_AVAILABLE", vm)


def evacuation_errors(context: Context, host: str) -> dict[str, list[str]]:
    """Return the VMs that cannot leave the host, each with the reason."""
    found = _plan(context, host).items()
    return {vm: target.description for vm, target in found if isinstance(target, ApiFailure)}


@calls.on("host.assert_can_evacuate")
def assert_can_evacuate(context: Context, host: str) -> str:
    """Return when every VM could go elsewhere; all reasons at once otherwise."""
    if errors := evacuation_errors(context, host):
        raise ApiFailure("CANNOT_EVACUATE_HOST", "|".join(",".join(each) for each in errors.values()))
    return ""


@calls.on("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(context: Context, host: str) -> dict[str, list[str]]:
    """Return the VMs that cannot leave, with the reasons."""
    context.db.row("host", host)
    return evacuation_errors(context, host)


@calls.on("host.retrieve_wlb_evacuate_recommendations")
def retrieve_wlb_evacuate_recommendations(context: Context, host: str) -> dict[str, list[str]]:
    """There is no balancing service that could recommend anything."""
    context.db.row("host", host)
    raise ApiFailure("WLB_NOT_INITIALIZED")


@calls.on("host.get_uncooperative_resident_VMs")
def get_uncooperative_resident_vms(context: Context, host: str) -> list[str]:
    """No VM is called uncooperative any more."""
    return []


@calls.on("host.evacuate")
def evacuate(context: Context, host: str, network: str = NULL_REF, batch_size: int = 0) -> str:
    """Move every VM away from the host."""
    db = context.db
    check = lambda: check_host_operation(db, host, "evacuate")  # noqa: E731
    with context.pool.operations.running("host", host, "evacuate", task=context.task, check=check):
        plan = _plan(context, host)
        for target in plan.values():
            if isinstance(target, ApiFailure):
                raise target
        for vm, target in plan.items():
            assert isinstance(target, str)
            pool_migrate(context, vm, target, {"live": "true"})
    return ""


# -- down and up


@calls.on("host.shutdown")
def shutdown(context: Context, host: str) -> str:
    """Switch a disabled host off."""
    _go_down(context, host, "shutdown", duration_s=math.inf)
    return ""


@calls.on("host.reboot")
def reboot(context: Context, host: str) -> str:
    """Let a disabled host start anew; it is enabled when it is back."""
    _go_down(context, host, "reboot", duration_s=BOOT_S)
    pool = context.pool
    pool.chores.after(f"boot {host}", BOOT_S, lambda: _come_back(pool, host))
    return ""


@calls.on("host.power_on")
def power_on(context: Context, host: str) -> str:
    """Switch a host on that is down."""
    check_host_operation(context.db, host, "power_on")
    context.pool.silent_until_s.pop(host, None)
    _come_back(context.pool, host)
    return ""


def _go_down(context: Context, host: str, operation: str, *, duration_s: float) -> None:
    pool, db = context.pool, context.db
    with db.transaction():
        check_host_operation(db, host, operation)
        for vm in _guests(context, host):
            take_down(context, vm)
        db.set("host_metrics", db.text("host", host, "metrics"), "live", False)

    def fall_silent() -> None:
        if host == pool.master_ref:
            restart_toolstack(pool)
        pool.silent_until_s[host] = pool.clock.monotonic_s() + duration_s

    pool.chores.after(f"down {host}", RESTART_S, fall_silent)


def _come_back(pool: PoolCore, host: str) -> None:
    with pool.db.transaction():
        if pool.db.exists("host", host):
            metrics = pool.db.text("host", host, "metrics")
            pool.db.update("host_metrics", metrics, {"live": True, "last_updated": pool.now()})
            pool.db.update("host", host, {"enabled": True})


@calls.on("host.prepare_for_poweroff")
def prepare_for_poweroff(context: Context, host: str) -> str:
    """Take the VMs of the host down, as it does itself on its way down."""
    with context.db.transaction():
        context.db.row("host", host)
        for vm in _guests(context, host):
            take_down(context, vm)
    return ""


@calls.on("host.restart_agent")
def restart_agent(context: Context, host: str) -> str:
    """Restart the host's management daemon in a moment: the master's sessions and tasks end with it."""
    pool = context.pool
    pool.db.row("host", host)

    def restart() -> None:
        if host == pool.master_ref:
            restart_toolstack(pool)

    pool.chores.after(f"restart {host}", RESTART_S, restart)
    return ""


@calls.on("host.shutdown_agent")
def shutdown_agent(context: Context) -> str:
    """Stop the master's management daemon in a moment; in the lab somebody always starts it again."""
    return restart_agent(context, context.pool.master_ref)


# -- forgotten


def _check_down(context: Context, host: str) -> None:
    metrics = context.db.find("host_metrics", context.db.text("host", host, "metrics"))
    is_live = metrics is not None and bool(metrics.fields["live"])
    if is_live or host == context.pool.master_ref:
        raise ApiFailure("HOST_IS_LIVE", host)


@calls.on("host.declare_dead")
def declare_dead(context: Context, host: str) -> str:
    """Let the VMs of a host that is down be halted."""
    _check_down(context, host)
    with context.db.transaction():
        for vm in _guests(context, host):
            take_down(context, vm)
    return ""


@calls.on("host.destroy")
def destroy(context: Context, host: str) -> str:
    """Forget a host that is down and has no VMs."""
    db = context.db
    _check_down(context, host)
    if db.flag("pool", context.pool.pool_ref, "ha_enabled"):
        raise ApiFailure("HA_IS_ENABLED")
    if _guests(context, host):
        raise ApiFailure("HOST_HAS_RESIDENT_VMS", host)
    with db.transaction():
        domains = db.texts("host", host, "resident_VMs")
        db.destroy("host", host)
        for vm in domains:
            db.destroy("VM", vm)
    return ""
