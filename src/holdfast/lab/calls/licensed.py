"""Calls of what no host of the lab has: clusters, provisioning services, recovery after a disaster, thin volumes.

Each checks what a pool checks first, in its order, and refuses in its words; nothing is ever set up.
"""

from __future__ import annotations

from holdfast.lab.calls.common import check_licence
from holdfast.lab.context import CallSet, Context
from holdfast.lab.drivers import DRIVERS
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_CLUSTER_TIMEOUT_S_MIN = {"token_timeout": 1.0, "token_timeout_coefficient": 0.65}


# -- clusters


@calls.on("Cluster.create")
def create_cluster(context: Context, pif: str, stack: str, joins: bool, timeout: float, coefficient: float) -> str:
    """Refused: only one kind of cluster is known, and it needs a daemon that no host runs."""
    if stack != "corosync":
        raise ApiFailure("INVALID_CLUSTER_STACK", stack)
    check_licence(context, "corosync", "Corosync")
    _check_timeouts(token_timeout=timeout, token_timeout_coefficient=coefficient)
    context.db.row("PIF", pif)
    raise ApiFailure("NOT_IMPLEMENTED", "Cluster.create")


@calls.on("Cluster.pool_create")
def create_pool_cluster(context: Context, network: str, stack: str, timeout: float, coefficient: float) -> str:
    """Refused as ``Cluster.create``, after a look for the master's interface on the network."""
    _check_timeouts(token_timeout=timeout, token_timeout_coefficient=coefficient)
    master = context.pool.master_ref
    rows = [row for row in context.db.rows("PIF") if (row.fields["host"], row.fields["network"]) == (master, network)]
    if len(rows) != 1:
        raise ApiFailure("INTERNAL_ERROR", f"No PIF found for host:{master} and network:{network}")
    return create_cluster(context, rows[0].ref, stack, True, timeout, coefficient)


def _check_timeouts(**given: float) -> None:
    for name, value in given.items():
        if value < _CLUSTER_TIMEOUT_S_MIN[name]:
            text = f"{value:.12g}"
            raise ApiFailure("INVALID_VALUE", name, text if "." in text else f"{text}.")


@calls.on("Cluster.pool_resync")
def resync_cluster(context: Context, cluster: str) -> str:
    """Nothing to do: no host is in a cluster."""
    return ""


# -- provisioning services


@calls.on("PVS_site.introduce")
def introduce_site(context: Context, label: str, description: str, uuid: str) -> str:
    """Refused: it needs a licence and Open vSwitch."""
    _check_provisioning(context)
    return context.db.create("PVS_site", {"name_label": label, "name_description": description, "PVS_uuid": uuid})


@calls.on("PVS_server.introduce")
def introduce_server(context: Context, addresses: list[str], first: int, last: int, site: str) -> str:
    """Refused: it needs a licence and Open vSwitch."""
    _check_provisioning(context)
    _check_known(context, PVS_site=site)
    values = {"addresses": addresses, "first_port": first, "last_port": last, "site": site}
    return context.db.create("PVS_server", values)


@calls.on("PVS_proxy.create")
def create_proxy(context: Context, site: str, vif: str) -> str:
    """Refused: it needs a licence and Open vSwitch."""
    context.db.row("VIF", vif)
    _check_provisioning(context)
    _check_known(context, PVS_site=site)
    return context.db.create("PVS_proxy", {"site": site, "VIF": vif})


@calls.on("PVS_cache_storage.create")
def create_cache(context: Context, record: dict[str, object]) -> str:
    """Say where a host keeps its cache; each host has one per site."""
    db = context.db
    _check_known(context, host=str(record["host"]), SR=str(record["SR"]), PVS_site=str(record["site"]))
    for cache in db.texts("PVS_site", str(record["site"]), "cache_storage"):
        if db.text("PVS_cache_storage", cache, "host") == record["host"]:
            raise ApiFailure("PVS_CACHE_STORAGE_ALREADY_PRESENT", str(record["site"]), str(record["host"]))
    return db.create("PVS_cache_storage", record)


def _check_provisioning(context: Context) -> None:
    check_licence(context, "pvs_proxy", "PVS_proxy")
    version = context.db.mapping("host", context.pool.master_ref, "software_version")
    if version.get("network_backend") != "openvswitch":
        raise ApiFailure("OPENVSWITCH_NOT_ACTIVE")


def _check_known(context: Context, **refs: str) -> None:
    for cls, ref in refs.items():
        if not context.db.exists(cls, ref):
            raise ApiFailure("INVALID_VALUE", cls.removeprefix("PVS_"), ref)


# -- recovery, thin volumes, virtual functions


@calls.on("LVHD.enable_thin_provisioning")
def enable_thin_provisioning(context: Context, host: str, *given: object) -> str:
    """A pool hands this on to its storage manager, which does not know it."""
    raise ApiFailure("MESSAGE_METHOD_UNKNOWN", "LVHD.enable_thin_provisioning")


@calls.on("network_sriov.create")
def create_virtual_functions(context: Context, pif: str, network: str) -> str:
    """Refused: it needs a licence and a card with virtual functions."""
    context.db.row("PIF", pif)
    check_licence(context, "network_sriov", "Network_sriov")
    context.db.row("network", network)
    raise ApiFailure("NETWORK_SRIOV_ENABLE_FAILED", pif, "no card of the lab has virtual functions")


@calls.on("DR_task.create")
def create_recovery(context: Context, kind: str, config: Map, whitelist: list[str]) -> str:
    """Refused: no driver of the lab keeps a pool's metadata on its storage."""
    check_licence(context, "dr", "DR")
    if kind not in DRIVERS:
        raise ApiFailure("INTERNAL_ERROR", f'Sm.Unknown_driver("{kind}")')
    raise ApiFailure("OPERATION_NOT_ALLOWED", f"Disaster recovery not supported on SRs of type {kind}")


@calls.on("VM_appliance.recover")
def recover_appliance(context: Context, appliance: str, session: str, force: bool) -> str:
    """Refused: another pool's session is none here."""
    context.db.row("session", session)
    context.db.row("VM_appliance", appliance)
    raise ApiFailure("NOT_IMPLEMENTED", "VM_appliance.recover")


@calls.on("session.create_from_db_file")
def create_session_from_file(context: Context, path: str) -> str:
    """Refused: no file of a host is there to be read."""
    raise ApiFailure("INTERNAL_ERROR", f'Sys_error("{path}: No such file or directory")')
