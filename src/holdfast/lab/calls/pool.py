"""Calls of the pool: who is master, high availability, and the settings that have rules."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast
from urllib.parse import urlsplit

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.host import evacuation_errors
from holdfast.lab.calls.vm_state import take_down
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import DateTime
from holdfast.lab.errors import ApiFailure
from holdfast.lab.hosts import check_alive, make_master
from holdfast.lab.rules import check_pool_operation

__all__ = ["calls", "pool_operation"]

calls = CallSet()

Map = dict[str, str]


@contextmanager
def pool_operation(context: Context, operation: str) -> Iterator[None]:
    """Have the operation running on the pool while the block runs; waits for one that does not exclude it."""
    pool = context.pool.pool_ref
    check = lambda: check_pool_operation(context.db, pool, operation)  # noqa: E731
    with context.pool.operations.running("pool", pool, operation, task=context.task, check=check):
        yield


# -- hosts of the pool


@calls.on("pool.designate_new_master")
def designate_new_master(context: Context, host: str) -> str:
    """Let another host be master; sessions end with the change."""
    context.db.row("host", host)
    with pool_operation(context, "designate_new_master"):
        if host != context.pool.master_ref:
            if context.db.flag("pool", context.pool.pool_ref, "ha_enabled"):
                raise ApiFailure("HA_IS_ENABLED")
            make_master(context.pool, host)
    return ""


@calls.on("pool.is_slave")
def is_slave(context: Context, host: str) -> bool:
    """Whether the host is a member and not the master."""
    context.db.row("host", host)
    return host != context.pool.master_ref


@calls.on("pool.hello")
def hello(context: Context, uuid: str, address: str) -> str:
    """Greet a host that has started: it is alive, and disabled until it is ready."""
    db = context.db
    if not db.has_uuid("host", uuid):
        return "unknown_host"
    host = db.by_uuid("host", uuid)
    with db.transaction():
        db.update("host", host, {"address": address, "enabled": False})
        db.set("host_metrics", db.text("host", host, "metrics"), "live", True)
    return "ok"


@calls.on("pool.recover_slaves")
def recover_slaves(context: Context) -> list[str]:
    """Tell the members again who is master, and return those that heard it."""
    return [row.ref for row in context.db.rows("host") if row.ref != context.pool.master_ref]


@calls.on("pool.emergency_transition_to_master", "pool.sync_database")
def accept(context: Context) -> str:
    """Nothing to do: the caller is the master already, and the database is always stored."""
    return ""


@calls.on("pool.join", "pool.join_force")
def join(context: Context, address: str, user: str, password: str) -> str:
    """A pool of several hosts cannot join another; a lab of one knows no other pool."""
    if context.pool.is_restricted("pooling"):
        raise ApiFailure("LICENCE_RESTRICTION")
    if context.db.count("host") > 1:
        raise ApiFailure("JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS")
    raise ApiFailure("JOINING_HOST_CONNECTION_FAILED")


@calls.on("pool.eject")
def eject(context: Context, host: str) -> str:
    """Take a member out of the pool, with its local storage; not the master, and not with VMs on it."""
    db = context.db
    check_alive(context.pool, host)
    with pool_operation(context, "eject"), db.transaction():
        if db.flag("pool", context.pool.pool_ref, "ha_enabled"):
            raise ApiFailure("HA_IS_ENABLED")
        if host == context.pool.master_ref:
            raise ApiFailure("INTERNAL_ERROR", "Xapi_pool.Cannot_eject_master")
        residents = db.texts("host", host, "resident_VMs")
        if not all(db.flag("VM", vm, "is_control_domain") for vm in residents):
            raise ApiFailure("HOST_HAS_RESIDENT_VMS", host)
        for vm in residents:
            take_down(context, vm)
            db.destroy("VM", vm)
        _drop_belongings(context, host)
        db.destroy("host", host)
    return ""


def _drop_belongings(context: Context, host: str) -> None:
    db = context.db
    for pbd in db.texts("host", host, "PBDs"):
        sr = db.text("PBD", pbd, "SR")
        db.destroy("PBD", pbd)
        if db.exists("SR", sr) and not db.flag("SR", sr, "shared") and not db.texts("SR", sr, "PBDs"):
            for vdi in db.texts("SR", sr, "VDIs"):
                db.destroy("VDI", vdi)
            db.destroy("SR", sr)
    for cls, name in (("PIF", "PIFs"), ("host_cpu", "host_CPUs"), ("PCI", "PCIs"), ("PGPU", "PGPUs")):
        for ref in db.texts("host", host, name):
            db.destroy(cls, ref)
    for cls, name in (("host_metrics", "metrics"),):
        if db.exists(cls, ref := db.text("host", host, name)):
            db.destroy(cls, ref)


@calls.on("pool.check_update_readiness")
def check_update_readiness(context: Context, pool: str, needs_reboot: bool) -> list[list[str]]:
    """Return what stands in the way of updates, host by host."""
    db = context.db
    check_licence(context, "updates", "Updates")
    found: list[list[str]] = [["HA_IS_ENABLED"]] if db.flag("pool", context.pool.pool_ref, "ha_enabled") else []
    for row in db.rows("host"):
        metrics = db.find("host_metrics", str(row.fields["metrics"]))
        if metrics is None or not metrics.fields["live"]:
            found.append(["HOST_OFFLINE", row.ref])
        elif needs_reboot:
            found += evacuation_errors(context, row.ref).values()
    return found


# -- settings


@calls.on("pool.has_extension")
def pool_has_extension(context: Context, pool: str, name: str) -> bool:
    """No host of the lab has extensions."""
    return False


@calls.on("pool.get_license_state")
def get_license_state(context: Context, pool: str) -> Map:
    """Return the lowest edition of the hosts, and until when it is licensed."""
    db = context.db
    hosts = [row.fields for row in db.rows("host")]
    edition = min(str(fields["edition"]) for fields in hosts)
    params = [cast("Map", fields["license_params"]) for fields in hosts if fields["edition"] == edition]
    ends = sorted(text for each in params if (text := each.get("expiry", "")))
    return {"edition": edition, "expiry": ends[0] if ends and not ends[0].startswith("2100") else "never"}


@calls.on("pool.set_igmp_snooping_enabled")
def set_igmp_snooping_enabled(context: Context, pool: str, value: bool) -> str:
    """Let bridges learn who listens to what; only with Open vSwitch and the licence."""
    if value:
        check_licence(context, "igmp_snooping", "IGMP_snooping")
    _check_vswitch(context)
    context.db.set("pool", pool, "igmp_snooping_enabled", value)
    return ""


def _check_vswitch(context: Context) -> None:
    version = context.db.mapping("host", context.pool.master_ref, "software_version")
    if version.get("network_backend") != "openvswitch":
        raise ApiFailure("OPENVSWITCH_NOT_ACTIVE")


@calls.on("pool.set_vswitch_controller")
def set_vswitch_controller(context: Context, address: str) -> str:
    """Name the controller of Open vSwitch; an empty address names none."""
    try:
        _check_vswitch(context)
    except ApiFailure as cause:
        raise ApiFailure("OPERATION_NOT_ALLOWED", "host not configured for vswitch operation") from cause
    db = context.db
    if db.text("pool", context.pool.pool_ref, "vswitch_controller") == address:
        return ""
    if address:
        _check_ipv4(address, "address")
    with db.transaction():
        db.set("pool", context.pool.pool_ref, "vswitch_controller", address)
        for row in db.rows("SDN_controller"):
            db.destroy("SDN_controller", row.ref)
        if address:
            db.create("SDN_controller", {"protocol": "ssl", "address": address, "port": 6632})
    return ""


def _check_ipv4(text: str, name: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError as cause:
        raise ApiFailure("INVALID_IP_ADDRESS_SPECIFIED", name) from cause


_GUEST_AGENT = ("auto_update_enabled", "auto_update_url")


@calls.on("pool.add_to_guest_agent_config")
def add_to_guest_agent_config(context: Context, pool: str, key: str, value: str) -> str:
    """Tell the agents in guests how to update themselves."""
    is_flag = key == _GUEST_AGENT[0] and value in ("true", "false")
    is_url = key == _GUEST_AGENT[1] and urlsplit(value).scheme in ("http", "https")
    if not (is_flag or is_url):
        raise ApiFailure("INVALID_VALUE", "guest_agent_config", f"{key} = {value}")
    with context.db.transaction():
        if key in context.db.mapping("pool", pool, "guest_agent_config"):
            raise ApiFailure("MAP_DUPLICATE_KEY", "pool", "guest_agent_config", pool, key)
        context.db.put_key("pool", pool, "guest_agent_config", key=key, value=value)
    return ""


@calls.on("pool.set_uefi_certificates")
def set_uefi_certificates(context: Context, pool: str, value: str) -> str:
    """Refused: there is another call for it now."""
    text = "Setting UEFI certificates is deprecated, please use `set_custom_uefi_certificates`"
    raise ApiFailure("OPERATION_NOT_ALLOWED", text)


@calls.on("pool.get_guest_secureboot_readiness")
def get_guest_secureboot_readiness(context: Context, pool: str) -> str:
    """Whether guests can be started with Secure Boot: they can where the pool has certificates for it."""
    fields = context.db.row("pool", context.pool.pool_ref).fields
    return "ready" if fields["custom_uefi_certificates"] or fields["uefi_certificates"] else "not_ready"


@calls.on("pool.set_ext_auth_cache_size")
def set_ext_auth_cache_size(context: Context, pool: str, value: int) -> str:
    """Set how many logins of the directory's users are remembered."""
    if value < 0:
        raise ApiFailure("INVALID_VALUE", "size", str(value))
    context.db.set("pool", pool, "ext_auth_cache_size", value)
    return ""


@calls.on("pool.set_ext_auth_cache_expiry")
def set_ext_auth_cache_expiry(context: Context, pool: str, value: int) -> str:
    """Set for how long they are remembered."""
    if value <= 0:
        raise ApiFailure("INVALID_VALUE", "expiry", str(value))
    context.db.set("pool", pool, "ext_auth_cache_expiry", value)
    return ""


@calls.on("pool.set_local_auth_max_threads")
def set_local_auth_max_threads(context: Context, pool: str, value: int) -> str:
    """Accepted: how many logins are checked at once changes nothing that a client could see, the field least of all."""
    return _check_threads("Internal", value)


@calls.on("pool.set_ext_auth_max_threads")
def set_ext_auth_max_threads(context: Context, pool: str, value: int) -> str:
    """Accepted as that of the pool's own users."""
    return _check_threads("External", value)


def _check_threads(kind: str, count: int) -> str:
    if count < 1:
        text = f"The semaphore '{kind} auth' must have at least 1 resource available, requested: {count}"
        raise ApiFailure("INTERNAL_ERROR", f"Invalid argument: {text}")
    return ""


_TELEMETRY_DAYS = {"daily": 2, "weekly": 14, "monthly": 62}


@calls.on("pool.set_telemetry_next_collection")
def set_telemetry_next_collection(context: Context, pool: str, value: str) -> str:
    """Set when figures are collected next; not later than two rounds away."""
    days = _TELEMETRY_DAYS[context.db.text("pool", pool, "telemetry_frequency")]
    if value > DateTime.of(context.pool.clock.now() + timedelta(days=days)):
        raise ApiFailure("TELEMETRY_NEXT_COLLECTION_TOO_LATE", value)
    context.db.set("pool", pool, "telemetry_next_collection", value)
    return ""


@calls.on("pool.reset_telemetry_uuid")
def reset_telemetry_uuid(context: Context, pool: str) -> str:
    """Let figures be collected under another identity."""
    db = context.db
    with db.transaction():
        old = db.text("pool", pool, "telemetry_uuid")
        db.set("pool", pool, "telemetry_uuid", db.create("secret", {"value": context.pool.new_uuid()}))
        if db.exists("secret", old):
            db.destroy("secret", old)
    return ""


@calls.on("pool.enable_client_certificate_auth")
def enable_client_certificate_auth(context: Context, pool: str, name: str) -> str:
    """Take certificates of this name as a login; the lab only notes it."""
    values: Fields = {"client_certificate_auth_enabled": True, "client_certificate_auth_name": name}
    context.db.update("pool", pool, values)
    return ""


@calls.on("pool.disable_client_certificate_auth")
def disable_client_certificate_auth(context: Context, pool: str) -> str:
    """Take no certificates as a login."""
    values: Fields = {"client_certificate_auth_enabled": False, "client_certificate_auth_name": ""}
    context.db.update("pool", pool, values)
    return ""


@calls.on("pool.disable_ssl_legacy")
def disable_ssl_legacy(context: Context, pool: str) -> str:
    """Old TLS versions are gone."""
    return ""


@calls.on("pool.disable_redo_log")
def disable_redo_log(context: Context) -> str:
    """Keep no log of the database on shared storage."""
    context.db.set("pool", context.pool.pool_ref, "redo_log_enabled", False)
    return ""


@calls.on("secret.introduce")
def introduce_secret(context: Context, uuid: str, value: str, other_config: Map | None = None) -> str:
    """Keep a secret under an identity that the caller chose."""
    if context.db.has_uuid("secret", uuid):
        raise ApiFailure("INTERNAL_ERROR", f'Db_exn.Uniqueness_constraint_violation("secret", "uuid", "{uuid}")')
    return context.db.create("secret", {"uuid": uuid, "value": value, "other_config": other_config or {}})
