"""Calls of the pool and its hosts."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()


@calls.on("pool.sync_database")
def sync_database(context: Context) -> str:
    """Store the database everywhere; the lab always has."""
    return ""


@calls.on("pool.has_extension")
def pool_has_extension(context: Context, pool: str, name: str) -> bool:
    """No host of the lab has extensions."""
    context.db.row("pool", pool)
    return False


@calls.on("host.has_extension")
def host_has_extension(context: Context, host: str, name: str) -> bool:
    """No host of the lab has extensions."""
    context.db.row("host", host)
    return False


@calls.on("host.get_servertime", "host.get_server_localtime")
def get_servertime(context: Context, host: str) -> str:
    """Return the host's clock, which is the pool's."""
    context.db.row("host", host)
    return context.pool.now()


@calls.on("host.get_server_certificate")
def get_server_certificate(context: Context, host: str) -> str:
    """Return the certificate that the host shows on its TLS port, as PEM."""
    context.db.row("host", host)
    return context.pool.certificate_pem


@calls.on("host.list_methods")
def list_methods(context: Context) -> list[str]:
    """A pool knows this name and nothing behind it; the list is ``system.listMethods``."""
    raise ApiFailure("NOT_IMPLEMENTED", "list_method")


@calls.on("host.call_plugin")
def call_plugin(context: Context, host: str, plugin: str, function: str, arguments: Fields) -> str:
    """No host of the lab has plugins."""
    context.db.row("host", host)
    raise ApiFailure("XENAPI_MISSING_PLUGIN", plugin)


@calls.on("host.enable", "host.disable")
def accept_host(context: Context, host: str) -> str:
    """Nothing to do, but the host must exist."""
    context.db.row("host", host)
    return ""


@calls.on("host.compute_free_memory")
def compute_free_memory(context: Context, host: str) -> int:
    """Return what is left of the host's memory."""
    db = context.db
    total = db.number("host_metrics", db.text("host", host, "metrics"), "memory_total")
    used = sum(db.number("VM", vm, "memory_dynamic_max") for vm in db.texts("host", host, "resident_VMs"))
    return max(0, total - used)


@calls.on("host.get_management_interface")
def get_management_interface(context: Context, host: str) -> str:
    """Return the interface that clients talk to."""
    db = context.db
    for pif in db.texts("host", host, "PIFs"):
        if db.flag("PIF", pif, "management"):
            return pif
    raise ApiFailure("HOST_HAS_NO_MANAGEMENT_IP")
