"""What hosts tell and do on demand: clocks, logs, plugins, figures, certificates.

No host of the lab has plugins, extensions or a hypervisor's console; what such calls answer then is what a host without
them answers.
"""

from __future__ import annotations

import base64
from typing import cast

from holdfast.lab.calls.common import check_licence
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.errors import ApiFailure
from holdfast.lab.hosts import check_alive
from holdfast.lab.rpc import MalformedCall, json_rpc

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]


def _check_host(context: Context, host: str) -> None:
    context.db.row("host", host)


# -- clocks, logs, state


@calls.on("host.get_servertime")
def get_servertime(context: Context, host: str) -> str:
    """Return the host's clock, which is the pool's."""
    _check_host(context, host)
    return context.pool.now()


@calls.on("host.get_server_localtime")
def get_server_localtime(context: Context, host: str) -> str:
    """Return the host's clock without a zone; hosts of the lab live by universal time."""
    return DateTime(get_servertime(context, host).removesuffix("Z"))


@calls.on("host.dmesg")
def dmesg(context: Context, host: str) -> str:
    """Return what the hypervisor said; the lab has none that could say anything."""
    _check_host(context, host)
    return ""


@calls.on("host.dmesg_clear")
def dmesg_clear(context: Context, host: str) -> str:
    """A pool knows this name and nothing behind it."""
    _check_host(context, host)
    raise ApiFailure("NOT_IMPLEMENTED", "dmesg_clear")


@calls.on("host.get_log")
def get_log(context: Context, host: str) -> str:
    """A pool knows this name and nothing behind it."""
    _check_host(context, host)
    raise ApiFailure("NOT_IMPLEMENTED", "get_log")


@calls.on("host.list_methods")
def list_methods(context: Context) -> list[str]:
    """A pool knows this name and nothing behind it; the list is ``system.listMethods``."""
    raise ApiFailure("NOT_IMPLEMENTED", "list_method")


@calls.on("host.is_in_emergency_mode")
def is_in_emergency_mode(context: Context) -> bool:
    """Whether the host has lost its master; a lab host never does."""
    return False


@calls.on("host.ha_xapi_healthcheck")
def ha_xapi_healthcheck(context: Context) -> bool:
    """Whether the management daemon works, which who gets an answer knows."""
    return True


@calls.on("host.local_management_reconfigure")
def local_management_reconfigure(context: Context, interface: str) -> str:
    """Only for a host that has lost its master."""
    raise ApiFailure("POOL_NOT_IN_EMERGENCY_MODE")


@calls.on("host.emergency_ha_disable")
def emergency_ha_disable(context: Context, soft: bool = False) -> str:
    """Take one host out of high availability; only where it is on."""
    if not context.db.flag("pool", context.pool.pool_ref, "ha_enabled"):
        raise ApiFailure("HA_NOT_ENABLED")
    raise ApiFailure("HA_CANNOT_DISABLE", "a host of the lab is never cut off from its pool")


@calls.on("host.emergency_clear_mandatory_guidance")
def emergency_clear_mandatory_guidance(context: Context) -> str:
    """Forget what updates demand of the host that received the call."""
    context.db.set("host", context.host, "pending_guidances", [])
    return ""


@calls.on(
    "host.syslog_reconfigure",
    "host.refresh_pack_info",
    "host.sync_data",
    "host.rescan_drivers",
    "host.apply_guest_agent_config",
    "host.reset_server_certificate",
)
def accept_host(context: Context, host: str) -> str:
    """Nothing to do, but the host must exist."""
    _check_host(context, host)
    return ""


@calls.on("host.refresh_server_certificate")
def refresh_server_certificate(context: Context, host: str) -> str:
    """Nothing to do; of the other hosts, too, but all must be alive."""
    check_alive(context.pool, host)
    return ""


@calls.on("host.backup_rrds")
def backup_rrds(context: Context, host: str, delay_s: float) -> str:
    """Store the figures; the lab has none."""
    return accept_host(context, host)


@calls.on("host.send_debug_keys")
def send_debug_keys(context: Context, host: str, keys: str) -> str:
    """Press keys on the hypervisor's console, which nobody reads."""
    return accept_host(context, host)


@calls.on("host.allocate_resources_for_vm")
def allocate_resources_for_vm(context: Context, host: str, vm: str, live: bool) -> str:
    """Nothing to do, but host and VM must exist."""
    context.db.row("VM", vm)
    return accept_host(context, host)


@calls.on("host.get_sm_diagnostics", "host.get_thread_diagnostics")
def get_diagnostics(context: Context, host: str) -> str:
    """Return nothing: what people would look for does not exist here."""
    _check_host(context, host)
    return ""


@calls.on("host.get_diagnostic_timing_stats")
def get_diagnostic_timing_stats(context: Context, host: str, counts: bool = False) -> Map:
    """Return how long calls took; the lab does not measure it."""
    _check_host(context, host)
    return {}


@calls.on("host.get_tracked_user_agents")
def get_tracked_user_agents(context: Context, host: str) -> Map:
    """Return which programs called; the lab does not count them."""
    _check_host(context, host)
    return {}


@calls.on("host.get_system_status_capabilities")
def get_system_status_capabilities(context: Context, host: str) -> str:
    """Return what a status report could hold."""
    _check_host(context, host)
    return '<?xml version="1.0" ?><system-status-capabilities></system-status-capabilities>'


# -- memory and interfaces


@calls.on("host.compute_free_memory")
def compute_free_memory(context: Context, host: str) -> int:
    """Return what is left of the host's memory."""
    db = context.db
    total = db.number("host_metrics", db.text("host", host, "metrics"), "memory_total")
    used = sum(db.number("VM", vm, "memory_dynamic_max") for vm in db.texts("host", host, "resident_VMs"))
    return max(0, total - used)


@calls.on("host.compute_memory_overhead")
def compute_memory_overhead(context: Context, host: str) -> int:
    """Return what the host needs of its memory for itself."""
    return context.db.number("host", host, "memory_overhead")


@calls.on("host.get_management_interface")
def get_management_interface(context: Context, host: str) -> str:
    """Return the interface that clients talk to."""
    for row in context.db.rows("PIF"):
        if row.fields["host"] == host and row.fields["management"]:
            return row.ref
    raise ApiFailure("INTERNAL_ERROR", "Not_found")


@calls.on("host.management_reconfigure")
def management_reconfigure(context: Context, pif: str) -> str:
    """Move the address that clients talk to onto another interface; the lab goes on listening where it did."""
    db = context.db
    if db.flag("pool", context.pool.pool_ref, "ha_enabled"):
        raise ApiFailure("HA_IS_ENABLED")
    fields = db.row("PIF", pif).fields
    if fields["managed"]:
        if fields["bond_slave_of"] != NULL_REF:
            raise ApiFailure("CANNOT_PLUG_BOND_SLAVE", pif)
        if fields["primary_address_type"] == "IPv4" and fields["ip_configuration_mode"] == "None":
            raise ApiFailure("PIF_HAS_NO_NETWORK_CONFIGURATION", pif)
        if fields["primary_address_type"] == "IPv6" and fields["ipv6_configuration_mode"] == "None":
            raise ApiFailure("PIF_HAS_NO_V6_NETWORK_CONFIGURATION", pif)
    with db.transaction():
        for each in db.texts("host", str(fields["host"]), "PIFs"):
            db.set("PIF", each, "management", each == pif)
        db.set("PIF", pif, "currently_attached", True)
    return ""


# -- figures


@calls.on("host.get_data_sources")
def get_data_sources(context: Context, host: str) -> list[Fields]:
    """Return what could be measured about the host; the lab measures nothing."""
    _check_host(context, host)
    return []


@calls.on("host.record_data_source", "host.forget_data_source_archives")
def record_data_source(context: Context, host: str, source: str) -> str:
    """Accepted; nothing is recorded."""
    return accept_host(context, host)


@calls.on("host.query_data_source")
def query_data_source(context: Context, host: str, source: str) -> float:
    """Return a figure of the host; it is always nothing."""
    _check_host(context, host)
    return 0.0


# -- what others brought onto the host


@calls.on("host.has_extension")
def host_has_extension(context: Context, host: str, name: str) -> bool:
    """No host of the lab has extensions."""
    _check_host(context, host)
    return False


@calls.on("host.call_plugin")
def call_plugin(context: Context, host: str, plugin: str, function: str, arguments: Fields) -> str:
    """No host of the lab has plugins."""
    _check_host(context, host)
    raise ApiFailure("XENAPI_MISSING_PLUGIN", plugin)


@calls.on("host.call_extension")
def call_extension(context: Context, host: str, call: str) -> str:
    """No host of the lab has extensions; the call must be one all the same."""
    _check_host(context, host)
    try:
        given = json_rpc.parse_call(call.encode())
    except MalformedCall as cause:
        raise ApiFailure("INTERNAL_ERROR", str(cause)) from cause
    raise ApiFailure("MESSAGE_METHOD_UNKNOWN", given.method)


@calls.on("host.bugreport_upload")
def bugreport_upload(context: Context, host: str, url: str, options: Map) -> str:
    """Nobody takes reports of the lab."""
    _check_host(context, host)
    raise ApiFailure("SYSTEM_STATUS_RETRIEVAL_FAILED", "no status reports in a lab")


# -- licences and certificates


@calls.on("host.apply_edition")
def apply_edition(context: Context, host: str, edition: str, force: bool = False) -> str:
    """Accepted whatever it is: there is one edition, and it stays."""
    return accept_host(context, host)


@calls.on("pool.apply_edition")
def apply_pool_edition(context: Context, pool: str, edition: str) -> str:
    """Accepted as for a single host."""
    return ""


@calls.on("host.license_add")
def license_add(context: Context, host: str, contents: str) -> str:
    """Accepted if it could be one; there is nothing that it would change."""
    try:
        base64.b64decode(contents, validate=True)
    except ValueError as cause:
        raise ApiFailure("LICENSE_PROCESSING_ERROR") from cause
    return accept_host(context, host)


@calls.on("host.license_remove")
def license_remove(context: Context, host: str) -> str:
    """There is no licence to remove."""
    return accept_host(context, host)


@calls.on("host.get_server_certificate")
def get_server_certificate(context: Context, host: str) -> str:
    """Return the certificate that the host shows on its TLS port, as PEM."""
    _check_host(context, host)
    return context.pool.certificate_pem


@calls.on("host.enable_external_auth")
def enable_external_auth(context: Context, host: str, config: Map, service: str, kind: str) -> str:
    """Connect the host to a directory of users; only one at a time, and none that the lab could reach."""
    if kind == "AD":
        check_licence(context, "ad", "AD")
    check_alive(context.pool, host)
    fields = context.db.row("host", host).fields
    if fields["external_auth_type"]:
        current = (str(fields["external_auth_type"]), str(fields["external_auth_service_name"]))
        raise ApiFailure("AUTH_ALREADY_ENABLED", *current)
    if kind == "AD" and not config.get("user"):
        raise ApiFailure("AUTH_ENABLE_FAILED", "enable requires user")
    raise ApiFailure("AUTH_UNKNOWN_TYPE", kind)


@calls.on("host.disable_external_auth")
def disable_external_auth(context: Context, host: str, config: Map | None = None, force: bool = False) -> str:
    """Disconnect the host from its directory of users."""
    nothing = cast("dict[str, object]", {"external_auth_type": "", "external_auth_service_name": ""})
    context.db.update("host", host, {**nothing, "external_auth_configuration": {}})
    return ""
