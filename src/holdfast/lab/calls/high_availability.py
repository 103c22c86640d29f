"""Calls of high availability: on and off, and for how many failures of hosts there would be room.

Nothing fails by itself in the lab. What shows is what other programs must respect: disks that belong to the heartbeat,
and storage and interfaces that may not be unplugged. Invariant: with high availability on, the disks it needs exist.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.pool import pool_operation
from holdfast.lab.calls.storage import assert_can_host_ha_statefile
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure
from holdfast.lab.volumes import create_vdi

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_MIB = 1024 * 1024

_DISKS = {
    "ha_statefile": ("Statefile for HA", "Used for storage heartbeating", 4 * _MIB),
    "redo_log": ("Metadata for HA", "Used for master failover", 256 * _MIB),
}
"""What each kind of disk is called, for what it is, and its size."""

_PRIORITIES = ("restart", "best-effort", "")


@calls.on("pool.enable_ha")
def enable_ha(context: Context, srs: list[str], configuration: Map) -> str:
    """Switch high availability on, with its heartbeat in the first of the repositories that can hold it."""
    db, pool = context.db, context.pool.pool_ref
    with pool_operation(context, "ha_enable"):
        check_licence(context, "xha", "HA")
        unplugged = [row.ref for row in db.rows("PIF") if row.fields["disallow_unplug"] and not _is_up(row.fields)]
        if unplugged:
            raise ApiFailure("REQUIRED_PIF_IS_UNPLUGGED", *unplugged)
        for row in db.rows("host"):
            metrics = db.find("host_metrics", str(row.fields["metrics"]))
            if metrics is None or not metrics.fields["live"]:
                raise ApiFailure("HOST_OFFLINE", row.ref)
        sr = srs[0] if srs else _suitable_sr(context)
        assert_can_host_ha_statefile(context, sr)
        disks = [_find_or_create(context, sr, kind) for kind in _DISKS]
        room = compute_max_host_failures(context)
        wanted = db.number("pool", pool, "ha_host_failures_to_tolerate")
        values: Fields = {"ha_statefiles": disks[:1], "ha_configuration": configuration, "ha_enabled": True}
        values |= {"ha_cluster_stack": "xhad", "ha_plan_exists_for": min(wanted, room)}
        db.update("pool", pool, {**values, "ha_overcommitted": wanted > room})
    return ""


def _is_up(fields: Fields) -> bool:
    return bool(fields["currently_attached"])


def _suitable_sr(context: Context) -> str:
    for row in context.db.rows("SR"):
        try:
            assert_can_host_ha_statefile(context, row.ref)
        except ApiFailure:
            continue
        return row.ref
    raise ApiFailure("CANNOT_CREATE_STATE_FILE")


def _find_or_create(context: Context, sr: str, kind: str) -> str:
    db = context.db
    label, description, size_bytes = _DISKS[kind]
    for vdi in db.texts("SR", sr, "VDIs"):
        if db.text("VDI", vdi, "type") == kind and db.number("VDI", vdi, "virtual_size") >= size_bytes:
            return vdi
    record: Fields = {"SR": sr, "name_label": label, "name_description": description, "virtual_size": size_bytes}
    record |= {"type": kind, "sharable": True, "read_only": False, "other_config": {}, "xenstore_data": {}}
    return create_vdi(context.pool, {**record, "sm_config": {"type": "raw"}, "tags": []})


@calls.on("pool.disable_ha")
def disable_ha(context: Context) -> str:
    """Switch high availability off; its disks stay, for the next time."""
    with pool_operation(context, "ha_disable"):
        values: Fields = {"ha_enabled": False, "ha_statefiles": [], "ha_configuration": {}}
        values |= {"ha_overcommitted": False, "ha_plan_exists_for": 0}
        context.db.update("pool", context.pool.pool_ref, values)
    return ""


# -- room for failures


def _failures_to_tolerate(context: Context, protected: list[str]) -> int:
    """Return how many hosts, the biggest first, could fail and leave room for these VMs."""
    db = context.db
    needed = sum(db.number("VM", vm, "memory_static_max") for vm in protected)
    sizes = sorted(
        db.number("host_metrics", str(row.fields["metrics"]), "memory_total")
        for row in db.rows("host")
        if db.exists("host_metrics", str(row.fields["metrics"]))
    )
    room = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    left = next((count for count, size in enumerate(room) if size >= needed), len(sizes))
    return len(sizes) - left


@calls.on("pool.ha_compute_max_host_failures_to_tolerate")
def compute_max_host_failures(context: Context) -> int:
    """Return for how many failures there is room now."""
    rows = context.db.rows("VM")
    return _failures_to_tolerate(context, [row.ref for row in rows if row.fields["ha_always_run"]])


@calls.on("pool.ha_compute_hypothetical_max_host_failures_to_tolerate")
def compute_hypothetical_failures(context: Context, configuration: Map) -> int:
    """Return for how many failures there would be room if these VMs had these priorities."""
    for priority in configuration.values():
        if priority not in _PRIORITIES:
            raise ApiFailure("INVALID_VALUE", "ha_restart_priority", priority)
    return _failures_to_tolerate(context, [vm for vm, priority in configuration.items() if priority == "restart"])


@calls.on("pool.ha_failover_plan_exists")
def failover_plan_exists(context: Context, count: int) -> bool:
    """Whether there is room for so many failures."""
    return count <= compute_max_host_failures(context)


@calls.on("pool.ha_compute_vm_failover_plan")
def compute_vm_failover_plan(context: Context, hosts: list[str], vms: list[str]) -> dict[str, Map]:
    """Return where each VM would go if these hosts failed."""
    db = context.db
    left: dict[str, int] = {}
    for row in db.rows("host"):
        metrics = db.find("host_metrics", str(row.fields["metrics"]))
        if row.ref not in hosts and metrics is not None and metrics.fields["live"]:
            left[row.ref] = cast(int, metrics.fields["memory_free"])
    plan: dict[str, Map] = {}
    for vm in vms:
        needed = db.number("VM", vm, "memory_static_max")
        host = max(left, key=lambda each: left[each], default=None)
        if host is None or left[host] < needed:
            plan[vm] = {"error_code": "HOST_NOT_ENOUGH_FREE_MEMORY"}
        else:
            left[host] -= needed
            plan[vm] = {"host": host}
    return plan


@calls.on("pool.set_ha_host_failures_to_tolerate")
def set_failures_to_tolerate(context: Context, pool: str, count: int) -> str:
    """Say how many failures there must be room for."""
    if count < 0:
        raise ApiFailure("INVALID_VALUE", "ha_host_failures_to_tolerate", str(count))
    room = compute_max_host_failures(context)
    fields = context.db.row("pool", pool).fields
    if cast(int, fields["ha_plan_exists_for"]) > 0 and count > room:
        raise ApiFailure("HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN")
    values: Fields = {"ha_host_failures_to_tolerate": count}
    if fields["ha_enabled"]:
        values |= {"ha_plan_exists_for": min(count, room), "ha_overcommitted": count > room}
    context.db.update("pool", pool, values)
    return ""


@calls.on("pool.ha_prevent_restarts_for")
def prevent_restarts(context: Context, duration_s: int) -> str:
    """Accepted: the lab restarts no VM by itself."""
    return ""
